"""A disk that is full: real small file systems, on which the kernel refuses to write."""

from __future__ import annotations

import logging
import os
import subprocess
from contextlib import suppress

import pytest

from mas_edge.edge_agent.spool import Spool
from mas_edge.wire.messages import Declined, Key, Update
from mas_edge.wire.room import PROBE_BYTES, Room


@pytest.fixture
def small(tmp_path):
    """A file system of two probes' size."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={2 * PROBE_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs root, to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    """A file that takes all the room there is."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert os.statvfs(folder).f_bavail == 0
    return ballast


def answer(round_: int) -> Declined:
    return Declined(key=Key(job="j", group="g", round=round_, attempt=0, device="d"), reason="data")


def test_a_full_disk_is_one_line_and_room_is_another(small, caplog):
    caplog.set_level(logging.INFO, "mas_edge.wire.room")
    room, ballast = Room(small, "it waits"), fill(small)
    for _ in range(5):
        with room.writing():
            (small / "file").write_bytes(bytes(8192))
        room.look()
    assert "No space left on device" in room.full
    ballast.unlink()
    for _ in range(5):
        room.look()
        with room.writing():
            (small / "file").write_bytes(bytes(8192))
    assert room.full is None
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert [path.name for path in small.iterdir()] == ["file"]


def test_an_answer_without_room_is_not_lost_and_written_as_soon_as_there_is_some(small):
    spool = Spool(small / "spool", Room(small, "it waits"))
    spool.add(answer(0))
    ballast = fill(small)
    spool.add(answer(1))
    spool.add(answer(2))
    spool.remove(answer(2).key)
    assert Spool(small / "spool", Room(small, "it waits")).answers() == (answer(0),)
    spool.write()
    ballast.unlink()
    spool.write()
    assert Spool(small / "spool", Room(small, "it waits")).answers() == (answer(0), answer(1))


def test_other_errors_are_not_passed_over(tmp_path):
    room = Room(tmp_path, "it waits")
    with pytest.raises(IsADirectoryError), room.writing():
        tmp_path.write_bytes(b"")
    assert room.full is None


def test_an_answer_is_kept_whole(tmp_path):
    spool = Spool(tmp_path / "spool", Room(tmp_path, "it waits"))
    update = Update(key=answer(0).key, examples=3)
    spool.add(update)
    assert spool.answers() == (update,)
