from __future__ import annotations

import pytest
from onnx_files import GROUP

from mas_edge.edge_agent.in_use import Kept
from mas_edge.edge_agent.model_folder import FILE, ModelFolder, ModelsDamaged, kept
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.messages import InUse, Model


@pytest.fixture
def blobs(tmp_path):
    return BlobStore(tmp_path / "blobs")


def using(ref):
    model = Model(workload="watch", job="j", group=GROUP, round=1, tasks=("gravity",), file=ref)
    return Kept(in_use=(InUse(model=model),))


def test_a_file_is_moved_in_and_what_is_kept_comes_back(tmp_path, blobs):
    folder, ref = ModelFolder(tmp_path / "models"), blobs.add(b"model")
    assert folder.take(blobs, ref.digest)
    assert not blobs.has(ref.digest)
    assert folder.take(blobs, ref.digest)  # it is here already
    folder.keep(using(ref))
    again = ModelFolder(tmp_path / "models")
    assert again.kept() == using(ref) == kept(tmp_path / "models")
    assert again.path(ref.digest).read_bytes() == b"model"


def test_a_file_that_was_never_fetched_is_not_there(tmp_path, blobs):
    assert not ModelFolder(tmp_path / "models").take(blobs, "0" * 64)


def test_files_that_nobody_needs_go(tmp_path, blobs):
    folder, refs = ModelFolder(tmp_path / "models"), [blobs.add(name) for name in (b"one", b"two")]
    for ref in refs:
        folder.take(blobs, ref.digest)
    folder.keep(using(refs[1]))
    folder.clear({refs[1].digest})
    assert [folder.has(ref.digest) for ref in refs] == [False, True]
    assert folder.kept() == using(refs[1])


def test_a_damaged_file_is_refused_to_readers_and_set_aside_by_the_daemon(tmp_path):
    folder = ModelFolder(tmp_path / "models")
    (tmp_path / "models" / FILE).write_text('{"in_use": [')
    with pytest.raises(ModelsDamaged, match="deploy again"):
        kept(tmp_path / "models")
    assert folder.kept() == Kept()
    assert (tmp_path / "models" / f"{FILE}.broken").exists()


def test_a_model_whose_file_is_gone_is_not_in_use(tmp_path, blobs):
    folder = ModelFolder(tmp_path / "models")
    folder.keep(using(blobs.add(b"model")))
    assert folder.kept() == Kept()
