"""Tests of effcap.tools.captioning.parquet."""

from __future__ import annotations

import json
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest

from effcap.tools.captioning.parquet import CaptionFolder
from effcap.tools.captioning.shard_output import (
    Row,
    ShardCaptions,
    locate,
    preset_hash,
    preset_id,
)

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


def test_all_files_read_as_one_table(folder):
    folder.write("/0.tar", [Row("a", "Ä\n🐶", -1.5, missing=("red|blue", "cat"))], 10, "")
    folder.write("/1.tar", [], 10, "")
    folder.write("/2.tar", [Row("b", error="damaged")], 10, "it is cut off")
    names = ("shard", "key", "caption", "score", "error", "missing")
    rows = [
        ("/0.tar", "a", "Ä\n🐶", -1.5, None, ["red|blue", "cat"]),
        ("/2.tar", "b", None, None, "damaged", []),
        ("/2.tar", None, None, None, "it is cut off", []),
    ]
    assert table(folder) == [dict(zip(names, row, strict=True)) for row in rows]
    assert {path.name for path in folder.folder.iterdir()} == {f"{i}.parquet" for i in range(3)}


def test_metadata_name_model_sampler_and_version(folder):
    from pyarrow import parquet

    import effcap

    folder.write("/0.tar", ROWS, 10, "")
    metadata = parquet.read_schema(folder.path("/0.tar")).metadata
    assert metadata[b"effcap.model"] == b"model 1" and metadata[b"effcap.sampler"] == b"Greedy()"
    assert metadata[b"effcap.version"].decode() == effcap.__version__


def test_results_of_earlier_runs_are_found(folder, shard):
    written = folder.write(shard, ROWS, 100, "it is cut off")
    assert written == ShardCaptions(shard, 1, 1, "it is cut off")
    assert folder.find([shard, "pipe:cat 1.tar"]) == {
        shard: ShardCaptions(shard, 1, 1, "it is cut off", from_earlier_run=True)
    }


def test_captions_that_lack_words_are_counted(folder, shard):
    written = folder.write(shard, [*ROWS, Row("c", "A cat.", -1.0, missing=("dog",))], 100)
    assert written == ShardCaptions(shard, 2, 1, num_without_words=1)
    assert folder.find([shard])[shard].num_without_words == 1


def test_files_without_a_count_of_captions_that_lack_words_are_found(folder, shard):
    from pyarrow import parquet

    folder.write(shard, ROWS, 100)
    old = parquet.read_table(folder.path(shard)).drop_columns(["missing"])
    summary = json.loads(old.schema.metadata[b"effcap.shard"])
    del summary["without_words"]
    metadata = {**old.schema.metadata, b"effcap.shard": json.dumps(summary)}
    parquet.write_table(old.replace_schema_metadata(metadata), folder.path(shard))
    folder.write("/9.tar", [Row("c", "A cat.", -1.0, missing=("dog",))], 10)
    assert folder.find([shard])[shard] == ShardCaptions(shard, 1, 1, from_earlier_run=True)
    assert [row["caption"] for row in table(folder)] == ["A dog.", None, "A cat."]


def test_a_shard_whose_size_changed_is_not_found(folder, shard):
    folder.write(shard, ROWS, 60, "it is cut off after 60 bytes")
    assert folder.find([shard]) == {}


def test_a_moved_shard_is_found(folder, shard):
    folder.write("/elsewhere/00007.tar", ROWS, 100, "")
    assert folder.find([shard])[shard].from_earlier_run


@pytest.mark.parametrize("name", ("00007.tar", "https://example.com/00007.tar"))
def test_captions_of_another_shard_of_that_name_raise_an_error(folder, shard, name):
    folder.write("/elsewhere/00007.tar", ROWS, 99, "")
    other = str(Path(shard).with_name(name)) if "/" not in name else name
    with pytest.raises(ValueError, match="holds the captions of /elsewhere/00007.tar"):
        folder.find([other])


def test_shards_with_the_same_name_raise_an_error(folder):
    with pytest.raises(ValueError, match="different names.* Received: /a/0.tar and /b/0.tar"):
        folder.find(["/a/0.tar", "/b/0.tar"])


@pytest.mark.parametrize("changed", ("model", "sampler"))
def test_captions_by_another_model_or_sampler_raise_an_error(folder, changed):
    folder.write("/1.tar", ROWS, 10, "")
    fields = {"folder": folder.folder, "model": "model 1", "sampler": "Greedy()", changed: "other"}
    with pytest.raises(ValueError, match=r"Received: 1.parquet by model 1 with Greedy\(\)"):
        CaptionFolder(**fields).find(["/0.tar"])


def test_other_files_in_the_folder_raise_an_error(folder):
    from pyarrow import parquet

    path = folder.folder / "0.parquet"
    parquet.write_table(pyarrow.table({"a": [1]}), path)
    with pytest.raises(ValueError, match="0.parquet does not hold captions"):
        folder.find([])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="0.parquet is damaged; delete it"):
        folder.find([])


@contextmanager
def no_file_over(size: int):
    """Limits the size of files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_no_incomplete_file(folder):
    folder.write("/0.tar", ROWS, 10, "")
    with no_file_over(500), pytest.raises(OSError, match="Cannot write .*1.parquet; free space"):
        folder.write("/1.tar", ROWS, 10, "")
    assert [path.name for path in folder.folder.iterdir()] == ["0.parquet"]
    with no_file_over(500), pytest.raises(OSError, match="Cannot write"):
        folder.write("/0.tar", ROWS[:1], 10, "")
    assert len(table(folder)) == 2  # as before


def test_a_folder_without_write_access_raises_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=f"Cannot write to the folder {path}: "):
            CaptionFolder(path, "m", "s").prepare()


def test_the_hash_of_a_preset_depends_on_its_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.weights.h5").write_bytes(b"1")
    before = preset_hash(tmp_path)
    (tmp_path / "training.json").write_text("{}")  # not part of the model
    assert preset_hash(tmp_path) == before
    (tmp_path / "model.weights.h5").write_bytes(b"2")
    assert preset_hash(tmp_path) != before


def test_the_id_of_a_preset_is_its_name_and_hash(tmp_path):
    best = tmp_path / "run" / "best"
    for preset, name in ((tmp_path, tmp_path.name), (best, "run/best")):
        preset.mkdir(parents=True, exist_ok=True)
        assert preset_id(preset) == f"{name} {preset_hash(preset)}"


def test_urls_have_no_absolute_path():
    assert locate("pipe:cat 0.tar") == "pipe:cat 0.tar"
    assert Path(locate("0.tar")) == Path.cwd() / "0.tar"
