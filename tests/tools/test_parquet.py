"""Captions of shards are files that are whole or not there, and know what they are."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from pathlib import Path

import pytest

from effcap.tools.captioning.parquet import CaptionFolder, Row, ShardCaptions, fingerprint, located

pyarrow = pytest.importorskip("pyarrow")
ROWS = [Row("a", "A dog.", -1.5), Row("b", error="damaged")]


@pytest.fixture
def folder(tmp_path) -> CaptionFolder:
    folder = CaptionFolder(tmp_path / "new" / "captions.parquet", "model 1", "Greedy()")
    folder.prepare()
    return folder


@pytest.fixture
def shard(tmp_path) -> str:
    path = tmp_path / "00007.tar"
    path.write_bytes(bytes(100))
    return str(path)


def table(folder: CaptionFolder) -> list[dict]:
    import pyarrow.dataset

    return pyarrow.dataset.dataset(folder.folder).to_table().to_pylist()


def test_files_read_as_one_table_whatever_is_in_them(folder):
    folder.write("/0.tar", [Row("a", "Ä\n🐶", -1.5)], 10, "")
    folder.write("/1.tar", [], 10, "")
    folder.write("/2.tar", [Row("b", error="damaged")], 10, "it is cut off")
    names = ("shard", "key", "caption", "score", "error")
    rows = [
        ("/0.tar", "a", "Ä\n🐶", -1.5, None),
        ("/2.tar", "b", None, None, "damaged"),
        ("/2.tar", None, None, None, "it is cut off"),
    ]
    assert table(folder) == [dict(zip(names, row, strict=True)) for row in rows]
    assert {path.name for path in folder.folder.iterdir()} == {f"{i}.parquet" for i in range(3)}


def test_a_file_tells_what_made_it(folder):
    from pyarrow import parquet

    import effcap

    folder.write("/0.tar", ROWS, 10, "")
    metadata = parquet.read_schema(folder.path("/0.tar")).metadata
    assert metadata[b"effcap.model"] == b"model 1" and metadata[b"effcap.sampler"] == b"Greedy()"
    assert metadata[b"effcap.version"].decode() == effcap.__version__


def test_what_was_written_is_found_again(folder, shard):
    written = folder.write(shard, ROWS, 100, "it is cut off")
    assert written == ShardCaptions(shard, 1, 1, "it is cut off")
    assert folder.find([shard, "pipe:cat 1.tar"]) == {
        shard: ShardCaptions(shard, 1, 1, "it is cut off", known=True)
    }


def test_a_shard_of_another_size_is_to_be_captioned_anew(folder, shard):
    folder.write(shard, ROWS, 60, "it is cut off after 60 bytes")
    assert folder.find([shard]) == {}


def test_a_shard_that_was_moved_is_known(folder, shard):
    folder.write("/elsewhere/00007.tar", ROWS, 100, "")
    assert folder.find([shard])[shard].known


@pytest.mark.parametrize("wanted", ("00007.tar", "https://example.com/00007.tar"))
def test_captions_of_another_shard_of_that_name_are_refused(folder, shard, wanted):
    folder.write("/elsewhere/00007.tar", ROWS, 99, "")
    asked = str(Path(shard).with_name(wanted)) if "/" not in wanted else wanted
    with pytest.raises(ValueError, match="Received: those of /elsewhere/00007.tar"):
        folder.find([asked])


def test_shards_of_one_name_are_refused(folder):
    with pytest.raises(ValueError, match="different names.* Received: /a/0.tar and /b/0.tar"):
        folder.find(["/a/0.tar", "/b/0.tar"])


@pytest.mark.parametrize("changed", ("model", "sampler"))
def test_captions_of_another_model_or_sampler_are_refused(folder, changed):
    folder.write("/1.tar", ROWS, 10, "")
    fields = {"folder": folder.folder, "model": "model 1", "sampler": "Greedy()", changed: "other"}
    with pytest.raises(ValueError, match=r"Received: 1.parquet by model 1 with Greedy\(\)"):
        CaptionFolder(**fields).find(["/0.tar"])


def test_what_is_no_file_of_captions_is_refused(folder):
    from pyarrow import parquet

    path = folder.folder / "0.parquet"
    parquet.write_table(pyarrow.table({"a": [1]}), path)
    with pytest.raises(ValueError, match="0.parquet, which is something else"):
        folder.find([])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="0.parquet; delete the file"):
        folder.find([])


@contextmanager
def no_file_over(size: int):
    """As on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_leaves_nothing_half_written(folder):
    folder.write("/0.tar", ROWS, 10, "")
    with no_file_over(500), pytest.raises(OSError, match="room and permission to write .*1.parq"):
        folder.write("/1.tar", ROWS, 10, "")
    assert [path.name for path in folder.folder.iterdir()] == ["0.parquet"]
    with no_file_over(500), pytest.raises(OSError, match="room and permission"):
        folder.write("/0.tar", ROWS[:1], 10, "")
    assert len(table(folder)) == 2  # as before


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=f"that captions can be written to. Received: {path}: "):
            CaptionFolder(path, "m", "s").prepare()


def test_a_preset_with_other_weights_has_another_fingerprint(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.weights.h5").write_bytes(b"1")
    before = fingerprint(tmp_path)
    (tmp_path / "training.json").write_text("{}")  # is no part of the model
    assert fingerprint(tmp_path) == before
    (tmp_path / "model.weights.h5").write_bytes(b"2")
    assert fingerprint(tmp_path) != before


def test_addresses_stay_as_they_are():
    assert located("pipe:cat 0.tar") == "pipe:cat 0.tar"
    assert Path(located("0.tar")) == Path.cwd() / "0.tar"
