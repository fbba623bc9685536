"""Tests of effcap.tools.caption_shards: every photo once, also after interruptions."""

from __future__ import annotations

import tarfile
from types import SimpleNamespace

import numpy as np
import pytest

from effcap import tools
from effcap.caption import Caption
from effcap.samplers import Greedy
from effcap.tools.captioning.parquet import CaptionFolder
from effcap.tools.captioning.shard_captions import caption_batch, caption_each
from effcap.tools.captioning.shard_output import Row, preset_id
from effcap.tools.captioning.shard_photos import PhotoBatch
from effcap.tools.shards.shard_progress import shard_steps
from helpers.data_maker import make_randomized_captioner, random_jpeg
from helpers.tar_maker import add_special, write_tar

dataset = pytest.importorskip("pyarrow.dataset")
SAMPLER = Greedy(max_new_tokens=6)


@pytest.fixture(scope="module")
def captioner():
    return make_randomized_captioner()


@pytest.fixture
def shards(tmp_path) -> list[str]:
    """Three shards of 7, 2 and 3 photos, some of which cannot be read."""
    seeds = iter(range(20))
    return [
        write_tar(
            tmp_path / "shards" / f"{number:05}.tar",
            [
                (f"{number}{i}.jpg", random_jpeg(next(seeds)) if keep else b"A text.")
                for i, keep in enumerate(kept)
            ],
        )
        for number, kept in enumerate(((1, 1, 1, 1, 0, 1, 1), (1, 1), (0, 0, 0)))
    ]


def rows(out) -> list[dict]:
    return dataset.dataset(out).to_table().to_pylist()


def caption(captioner, shards, out):
    return tools.caption_shards(shards, out, captioner, SAMPLER, batch_size=4, model="tiny")


def test_captions_equal_those_of_generate(captioner, shards, tmp_path):
    results = caption(captioner, shards, tmp_path / "out")
    assert [(result.shard, result.num_captions, result.num_unreadable) for result in results] == [
        (shards[0], 6, 1), (shards[1], 2, 0), (shards[2], 0, 3)]  # fmt: skip
    table = rows(tmp_path / "out")
    assert [row["key"] for row in table] == [*(f"0{i}" for i in range(7)), "10", "11", "20", "21",
                                             "22"]  # fmt: skip
    good = [row for row in table if row["error"] is None]
    expected = captioner.generate([random_jpeg(seed) for seed in range(8)], SAMPLER, details=True)
    assert len({row["caption"] for row in good}) > 2
    for row, (best, *_) in zip(good, expected, strict=True):
        assert row["caption"] == best.text
        assert row["score"] == pytest.approx(best.score, abs=1e-4)
    bad = [row for row in table if row["error"] is not None]
    assert all(row["caption"] is row["score"] is None for row in bad)
    assert all("not an image" in row["error"] for row in bad)


def test_one_model_is_compiled_for_all_batches(captioner, shards, tmp_path):
    captioner._generation.clear()
    caption(captioner, shards[::-1], tmp_path / "out")
    assert len(captioner._generation) == 1


def test_captions_do_not_depend_on_interruptions(captioner, shards, tmp_path):
    caption(captioner, shards, tmp_path / "complete")
    caption(captioner, shards[1:2], tmp_path / "continued")
    captioner._generation.clear()
    first, second, _ = caption(captioner, shards, tmp_path / "continued")
    assert (first.from_earlier_run, second.from_earlier_run) == (False, True)
    for path in (tmp_path / "complete").iterdir():
        assert (tmp_path / "continued" / path.name).read_bytes() == path.read_bytes()


def test_captioned_shards_are_skipped(captioner, shards, tmp_path):
    first = caption(captioner, shards, tmp_path / "out")
    blind = SimpleNamespace(encoder=captioner.encoder, prefix="")  # cannot caption anything
    second = caption(blind, shards, tmp_path / "out")
    assert [result.num_captions for result in second] == [result.num_captions for result in first]
    assert all(result.from_earlier_run for result in second)


def test_progress_adds_up(captioner, shards, tmp_path):
    pytest.importorskip("webdataset")
    (tmp_path / "x.tar").write_bytes(b"x" * 1000)
    shards = [*shards, str(tmp_path / "x.tar"), "pipe:cat " + write_tar(tmp_path / "9.tar", [])]
    folder = CaptionFolder(tmp_path, "tiny", repr(SAMPLER))
    progress = []
    list(caption_each(shards, folder, captioner, SAMPLER, 4, lambda *done: progress.append(done)))
    assert all(steps >= 0 for steps, _ in progress)
    assert sum(steps for steps, _ in progress) == sum(map(shard_steps, shards))
    assert sum(num_photos for _, num_photos in progress) == 12


def test_the_progress_bar_counts_bytes(captioner, shards, tmp_path, progress_steps):
    caption(captioner, shards, tmp_path / "out")
    assert sum(progress_steps) == sum(map(shard_steps, shards))


def test_a_truncated_tar_is_captioned_again_once_it_is_complete(captioner, shards, tmp_path):
    path = tmp_path / "shards" / "00000.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        path.write_bytes(whole[: tar.getmembers()[3].offset_data + 9])
    (first,) = caption(captioner, shards[:1], tmp_path / "out")
    assert "truncated" in first.damage and first.is_incomplete and first.num_unreadable == 1
    table = rows(tmp_path / "out")
    assert first.num_captions == 3 and len(table) == 5 and "ends within" in table[3]["error"]
    assert table[-1] == {
        "shard": shards[0], "key": None, "caption": None, "score": None, "error": first.damage,
        "missing": [],
    }  # fmt: skip
    (second,) = caption(captioner, shards[:1], tmp_path / "out")
    assert second.from_earlier_run and second.damage == first.damage
    path.write_bytes(whole)
    (third,) = caption(captioner, shards[:1], tmp_path / "out")
    assert (third.num_captions, third.damage, third.from_earlier_run) == (6, "", False)
    assert len(rows(tmp_path / "out")) == 7


def test_words_that_captions_lack_are_in_the_rows(captioner, monkeypatch):
    captions = [[Caption("A cat.", -1.0, (), missing=("dog",))], [Caption("A dog.", -2.0, ())]]
    monkeypatch.setattr(captioner, "generate_batch", lambda *inputs, **indices: captions)
    batch = PhotoBatch(["a", "b", "c"], ["", "damaged", ""], np.zeros((2, 8, 8, 3)), 0)
    assert caption_batch(captioner, batch, SAMPLER, 2, 0) == [
        Row("a", "A cat.", -1.0, missing=("dog",)), Row("b", error="damaged"),
        Row("c", "A dog.", -2.0)
    ]  # fmt: skip


def test_an_unreadable_shard_is_tried_again(captioner, shards, tmp_path):
    path = tmp_path / "shards" / "00001.tar"
    data = path.read_bytes()
    path.write_bytes(b"")
    results = caption(captioner, shards, tmp_path / "out")
    assert [bool(result.error) for result in results] == [False, True, False]
    assert "empty" in results[1].error and not (tmp_path / "out" / "00001.parquet").exists()
    path.write_bytes(data)
    results = caption(captioner, shards, tmp_path / "out")
    assert [result.from_earlier_run for result in results] == [True, False, True]


def test_a_tar_without_photos_gives_an_empty_file(captioner, tmp_path):
    shard = write_tar(tmp_path / "0.tar", [("a.txt", b"A dog.")])
    add_special(tmp_path / "0.tar", b"5", "folder.jpg")
    (result,) = caption(captioner, [shard], tmp_path / "out")
    assert result.is_empty and not result.is_incomplete
    assert rows(tmp_path / "out") == []


def test_a_stream_gives_the_same_captions_as_a_file(captioner, shards, tmp_path):
    pytest.importorskip("webdataset")
    caption(captioner, shards[:1], tmp_path / "file")
    caption(captioner, [f"pipe:cat {shards[0]}"], tmp_path / "stream")
    from_file, streamed = (
        [(row["key"], row["caption"]) for row in rows(tmp_path / name)]
        for name in ("file", "stream")
    )
    assert from_file == streamed and len(streamed) == 7
    assert (tmp_path / "stream" / "00000.parquet").is_file()


def test_captioners_of_other_inputs_raise_an_error(tmp_path):
    blind = SimpleNamespace(encoder=SimpleNamespace(input_keys=("regions",)), prefix="")
    folder = CaptionFolder(tmp_path, "tiny", repr(SAMPLER))
    with pytest.raises(ValueError, match="a captioner of photos. Received: a captioner of regions"):
        list(caption_each([], folder, blind, SAMPLER, 4))


def test_a_batch_size_of_0_raises_an_error(captioner, tmp_path):
    folder = CaptionFolder(tmp_path, "tiny", repr(SAMPLER))
    with pytest.raises(ValueError, match="batch_size=0"):
        list(caption_each([], folder, captioner, SAMPLER, 0))


def test_a_preset_is_named_in_the_results_and_loaded_only_if_needed(
    captioner, shards, tmp_path, monkeypatch
):
    captioner.save_to_preset(tmp_path / "preset")
    arguments = (shards[1:2], tmp_path / "out", tmp_path / "preset", SAMPLER)
    (result,) = tools.caption_shards(*arguments)
    assert result.num_captions == 2 and not result.from_earlier_run
    metadata = dataset.dataset(tmp_path / "out").schema.metadata
    assert metadata[b"effcap.model"].decode() == preset_id(tmp_path / "preset")
    monkeypatch.setattr(
        "effcap.captioner.Captioner.from_preset", lambda preset: pytest.fail("loaded")
    )
    (result,) = tools.caption_shards(*arguments)
    assert result.from_earlier_run


def test_a_captioner_requires_a_model_name(captioner, tmp_path):
    with pytest.raises(ValueError, match="requires model"):
        tools.caption_shards([], tmp_path, captioner)
