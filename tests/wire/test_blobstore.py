"""The folder of blobs: what survives, what is refused, what is thrown away."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.wire.blobstore import BlobRefused, BlobStore, DigestMismatch, MissingBlob
from mas_edge.wire.messages import BlobRef

DATA = bytes(range(256)) * 5
CHUNK = 500


def ref_of(data, chunk_bytes=CHUNK):
    return BlobRef(digest=hashlib.sha256(data).hexdigest(), size_bytes=len(data), chunk_bytes=chunk_bytes)


def cut(data, chunk_bytes=CHUNK):
    return [data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)] or [b""]


def test_a_blob_is_kept_under_its_digest(tmp_path):
    store = BlobStore(tmp_path / "deep" / "blobs", chunk_bytes=CHUNK)
    ref = store.add(DATA)
    assert ref == ref_of(DATA) == store.ref(ref.digest)
    assert store.path(ref.digest).read_bytes() == DATA
    assert store.digests() == {ref.digest}
    assert b"".join(store.chunk(ref.digest, index) for index in range(ref.chunks)) == DATA


def test_a_file_moves_in(tmp_path):
    (tmp_path / "weights").write_bytes(DATA)
    store = BlobStore(tmp_path / "blobs")
    ref = store.adopt(tmp_path / "weights")
    assert store.path(ref.digest).read_bytes() == DATA
    assert not (tmp_path / "weights").exists()


def test_what_is_not_there_is_named(tmp_path):
    store = BlobStore(tmp_path)
    for read in (store.path, store.ref, lambda digest: store.chunk(digest, 0)):
        with pytest.raises(MissingBlob, match=r"blob abababababab is not in") as caught:
            read("ab" * 32)
        assert isinstance(caught.value, KeyError)


@pytest.mark.parametrize("digest", ["", "../secret", "AB" * 32, "ab" * 31, "ab" * 32 + "\n"])
def test_a_name_from_the_network_never_becomes_a_path(tmp_path, digest):
    store = BlobStore(tmp_path / "blobs")
    (tmp_path / "secret").write_text("s")
    for use in (store.has, store.path, store.ref, store.remove, lambda name: store.chunk(name, 0)):
        with pytest.raises(BlobRefused, match="not a SHA-256"):
            use(digest)
    assert (tmp_path / "secret").exists()


@given(data=st.binary(max_size=200), chunk_bytes=st.integers(1, 60), rnd=st.randoms(use_true_random=False))
def test_chunks_in_any_order_with_repetitions_make_the_blob_whole_exactly_once(
    tmp_path_factory, data, chunk_bytes, rnd
):
    root = tmp_path_factory.mktemp("blobs")
    ref, chunks = ref_of(data, chunk_bytes), cut(data, chunk_bytes)
    order = list(range(ref.chunks)) * 2
    rnd.shuffle(order)
    became_whole = [BlobStore(root).put_chunk(ref, index, chunks[index]) for index in order]
    assert became_whole.count(True) == 1
    assert BlobStore(root).path(ref.digest).read_bytes() == data
    assert [path.name for path in root.iterdir()] == [ref.digest]


@given(there=st.sets(st.integers(0, 19)))
def test_what_is_missing_is_exactly_what_has_not_come(tmp_path_factory, there):
    root = tmp_path_factory.mktemp("blobs")
    data = bytes(20)
    ref = ref_of(data, 1)
    for index in there:
        BlobStore(root).put_chunk(ref, index, b"\0")
    ranges = BlobStore(root).missing(ref)
    assert {index for first, past in ranges for index in range(first, past)} == set(range(20)) - there
    assert all(past < first for (_, past), (first, _) in pairwise(ranges))


def test_chunks_of_another_cut_are_started_anew(tmp_path):
    store = BlobStore(tmp_path)
    store.put_chunk(ref_of(DATA, 500), 0, DATA[:500])
    assert store.missing(ref_of(DATA, 100)) == ((0, 13),)
    for index, chunk in enumerate(cut(DATA, 100)):
        store.put_chunk(ref_of(DATA, 100), index, chunk)
    assert store.has(ref_of(DATA).digest)


def test_a_wrong_blob_is_thrown_away_and_can_come_again(tmp_path):
    store, ref = BlobStore(tmp_path), ref_of(DATA)
    store.put_chunk(ref, 0, bytes(CHUNK))
    store.put_chunk(ref, 1, cut(DATA)[1])
    with pytest.raises(DigestMismatch, match="thrown away"):
        store.put_chunk(ref, 2, cut(DATA)[2])
    assert store.missing(ref) == ((0, 3),)
    assert list(tmp_path.iterdir()) == []
    assert [store.put_chunk(ref, index, chunk) for index, chunk in enumerate(cut(DATA))] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(("index", "size"), [(-1, CHUNK), (3, CHUNK), (0, CHUNK - 1), (2, CHUNK), (10**9, 0)])
def test_a_chunk_that_is_none_of_the_blobs_is_refused(tmp_path, index, size):
    store = BlobStore(tmp_path)
    with pytest.raises(BlobRefused, match=f"no chunk {index} of {size} bytes"):
        store.put_chunk(ref_of(DATA), index, bytes(size))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"size_bytes": 10**15}, {"size_bytes": -1}, {"chunk_bytes": 0}])
def test_a_reference_that_cannot_be_right_takes_no_disk(tmp_path, change):
    ref = msgspec.structs.replace(ref_of(DATA), **change)
    for use in (BlobStore(tmp_path).missing, lambda ref: BlobStore(tmp_path).put_chunk(ref, 0, bytes(CHUNK))):
        with pytest.raises(BlobRefused, match="bytes in chunks of"):
            use(ref)
    assert list(tmp_path.iterdir()) == []


def test_removing_forgets_the_blob_and_its_part(tmp_path):
    store = BlobStore(tmp_path)
    store.put_chunk(ref_of(DATA), 0, DATA[:CHUNK])
    whole = store.add(b"x")
    for digest in (ref_of(DATA).digest, whole.digest, "00" * 32):
        store.remove(digest)
    assert list(tmp_path.iterdir()) == []


WRITER = """
import sys
from pathlib import Path
from mas_edge.wire.blobstore import BlobStore
from mas_edge.wire.messages import BlobRef
digest, size, chunk, root = sys.argv[1:]
ref = BlobRef(digest=digest, size_bytes=int(size), chunk_bytes=int(chunk))
store = BlobStore(Path(root))
for index in range(ref.chunks):
    store.put_chunk(ref, index, bytes([index % 251]) * ref.chunk_bytes)
    print(index, flush=True)
"""


def test_what_came_before_a_kill_need_not_come_again(tmp_path):
    chunk_bytes, chunks = 4096, 2000
    data = b"".join(bytes([index % 251]) * chunk_bytes for index in range(chunks))
    ref = ref_of(data, chunk_bytes)
    argv = [sys.executable, "-c", WRITER, ref.digest, str(ref.size_bytes), str(chunk_bytes), str(tmp_path)]
    writer = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    for line in writer.stdout:
        if line == "300\n":
            os.kill(writer.pid, signal.SIGKILL)
            break
    kept = [int(line) for line in writer.stdout if line.endswith("\n")]
    writer.wait()
    writer.stdout.close()
    store = BlobStore(tmp_path)
    (first, past), *more = store.missing(ref)
    assert not more
    assert past == chunks
    assert first > max(kept, default=300)
    for index in range(first, past):
        store.put_chunk(ref, index, bytes([index % 251]) * chunk_bytes)
    assert store.path(ref.digest).read_bytes() == data
