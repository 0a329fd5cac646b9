"""Folders that are whole or not there, whatever is killed while they are made."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from mas_edge.wire import folders


def filled(place, text="all"):
    with folders.whole_folder(place) as partial:
        (partial / "file").write_text(text)


def test_a_folder_appears_when_it_is_whole(tmp_path):
    with folders.whole_folder(tmp_path / "new" / "set") as partial:
        (partial / "file").write_text("all")
        assert not (tmp_path / "new" / "set").exists()
    assert (tmp_path / "new" / "set" / "file").read_text() == "all"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["set"]


def test_what_fails_on_the_way_leaves_nothing(tmp_path):
    with suppress(KeyboardInterrupt), folders.whole_folder(tmp_path / "set") as partial:
        (partial / "file").write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_and_what_another_is_making_is_not(tmp_path):
    program = (
        "import sys; from pathlib import Path; from mas_edge.wire.folders import whole_folder\n"
        f"with whole_folder(Path({str(tmp_path / 'set')!r})): print('making', flush=True); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout.readline() == "making\n"
        with folders.whole_folder(tmp_path / "set"):
            assert len(list(tmp_path.iterdir())) == 2, "its own and the other's"
        (tmp_path / "set").rmdir()
        child.send_signal(signal.SIGKILL)
    assert len(list(tmp_path.iterdir())) == 1
    filled(tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_the_faster_one_wins(tmp_path):
    with folders.whole_folder(tmp_path / "set") as slow:
        (slow / "file").write_text("slow")
        filled(tmp_path / "set", "fast")
    assert (tmp_path / "set" / "file").read_text() == "fast"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "set").mkdir()
    filled(tmp_path / "set")
    assert (tmp_path / "set" / "file").exists()


@pytest.mark.parametrize("place", ["file/set", "file/deeper/set"])
def test_where_nothing_can_be_made_is_refused_by_its_name(tmp_path, place):
    (tmp_path / "file").touch()
    with (
        pytest.raises(folders.FolderRefused, match=rf"{tmp_path / 'file'}.*; name another folder"),
        folders.whole_folder(tmp_path / place),
    ):
        pass


@pytest.mark.parametrize(
    ("named", "under"),
    [("/somewhere", "/somewhere"), ("relative", "/home/me/.cache"), ("", "/home/me/.cache")],
)
def test_caches_are_where_the_xdg_specification_says(monkeypatch, named, under):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    assert str(folders.cache_folder()) == f"{under}/mas-edge"
