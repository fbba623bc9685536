"""Shards are captioned into Parquet files: every photo once, whatever happens in between."""

from __future__ import annotations

import tarfile
from types import SimpleNamespace

import pytest
from helpers.seeing_captioner import coloured, seeing_captioner
from helpers.tar_maker import add_special, write_tar

from effcap import tools
from effcap.samplers import Greedy
from effcap.tools.captioning.parquet import CaptionFolder
from effcap.tools.captioning.shards import caption_into
from effcap.trainers.data.shards.check import steps

dataset = pytest.importorskip("pyarrow.dataset")
SAMPLER = Greedy(max_tokens=6)


@pytest.fixture(scope="module")
def captioner():
    return seeing_captioner()


@pytest.fixture
def shards(tmp_path) -> list[str]:
    """Three shards of 7, 2 and 3 photos, some of which cannot be read."""
    seeds = iter(range(20))
    return [
        write_tar(
            tmp_path / "shards" / f"{number:05}.tar",
            [
                (f"{number}{i}.jpg", coloured(next(seeds)) if keep else b"A text.")
                for i, keep in enumerate(kept)
            ],
        )
        for number, kept in enumerate(((1, 1, 1, 1, 0, 1, 1), (1, 1), (0, 0, 0)))
    ]


def rows(out) -> list[dict]:
    return dataset.dataset(out).to_table().to_pylist()


def caption(captioner, shards, out, **more):
    return tools.caption_shards(captioner, shards, out, "tiny", SAMPLER, 4, **more)


def test_captions_are_those_of_the_photos_one_by_one(captioner, shards, tmp_path):
    results = caption(captioner, shards, tmp_path / "out")
    assert [(done.shard, done.photos, done.unreadable) for done in results] == [
        (shards[0], 6, 1), (shards[1], 2, 0), (shards[2], 0, 3)]  # fmt: skip
    found = rows(tmp_path / "out")
    assert [row["key"] for row in found] == [*(f"0{i}" for i in range(7)), "10", "11", "20", "21",
                                             "22"]  # fmt: skip
    good = [row for row in found if row["error"] is None]
    wanted = captioner.generate([coloured(seed) for seed in range(8)], SAMPLER, details=True)
    assert len({row["caption"] for row in good}) > 2
    for row, (best, *_) in zip(good, wanted, strict=True):
        assert row["caption"] == best.text
        assert row["score"] == pytest.approx(best.score, abs=1e-4)
    bad = [row for row in found if row["error"] is not None]
    assert all(row["caption"] is row["score"] is None for row in bad)
    assert all("not an image" in row["error"] for row in bad)


def test_one_program_is_compiled_however_many_photos_a_shard_has(captioner, shards, tmp_path):
    captioner._programs.clear()
    caption(captioner, shards[::-1], tmp_path / "out")
    assert len(captioner._programs) == 1


def test_captions_do_not_depend_on_where_a_run_was_broken_off(captioner, shards, tmp_path):
    caption(captioner, shards, tmp_path / "whole")
    caption(captioner, shards[1:2], tmp_path / "broken")
    captioner._programs.clear()
    first, second, _ = caption(captioner, shards, tmp_path / "broken")
    assert (first.known, second.known) == (False, True)
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "broken" / path.name).read_bytes() == path.read_bytes()


def test_what_is_done_is_not_done_again(captioner, shards, tmp_path):
    first = caption(captioner, shards, tmp_path / "out")
    blind = SimpleNamespace(encoder=captioner.encoder)  # cannot caption anything
    again = caption(blind, shards, tmp_path / "out")
    assert [done.photos for done in again] == [done.photos for done in first]
    assert all(done.known for done in again)


def test_progress_adds_up(captioner, shards, tmp_path):
    pytest.importorskip("webdataset")
    (tmp_path / "x.tar").write_bytes(b"x" * 1000)
    given = [*shards, str(tmp_path / "x.tar"), "pipe:cat " + write_tar(tmp_path / "9.tar", [])]
    told = []
    caption(captioner, given, tmp_path / "out", advance=lambda *more: told.append(more))
    assert all(count >= 0 for count, _ in told)
    assert tuple(map(sum, zip(*told, strict=True))) == (sum(map(steps, given)), 12)


def test_a_truncated_tar_is_captioned_as_far_as_it_goes_and_anew_once_it_is_whole(
    captioner, shards, tmp_path
):
    path = tmp_path / "shards" / "00000.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        path.write_bytes(whole[: tar.getmembers()[3].offset_data + 9])
    (done,) = caption(captioner, shards[:1], tmp_path / "out")
    assert "cut off" in done.note and done.unreadable == 1
    found = rows(tmp_path / "out")
    assert done.photos == 3 and len(found) == 5 and "ends within" in found[3]["error"]
    assert found[-1] == {
        "shard": shards[0], "key": None, "caption": None, "score": None, "error": done.note
    }  # fmt: skip
    (again,) = caption(captioner, shards[:1], tmp_path / "out")
    assert again.known and again.note == done.note
    path.write_bytes(whole)
    (anew,) = caption(captioner, shards[:1], tmp_path / "out")
    assert (anew.photos, anew.note, anew.known) == (6, "", False)
    assert len(rows(tmp_path / "out")) == 7


def test_a_shard_that_cannot_be_read_is_told_and_tried_again(captioner, shards, tmp_path):
    gone = tmp_path / "shards" / "00001.tar"
    kept = gone.read_bytes()
    gone.write_bytes(b"")
    results = caption(captioner, shards, tmp_path / "out")
    assert [bool(done.problem) for done in results] == [False, True, False]
    assert "empty" in results[1].problem and not (tmp_path / "out" / "00001.parquet").exists()
    gone.write_bytes(kept)
    assert [done.known for done in caption(captioner, shards, tmp_path / "out")] == [1, 0, 1]


def test_a_tar_without_photos_gives_a_file_without_rows(captioner, tmp_path):
    shard = write_tar(tmp_path / "0.tar", [("a.txt", b"A dog.")])
    add_special(tmp_path / "0.tar", b"5", "folder.jpg")
    (done,) = caption(captioner, [shard], tmp_path / "out")
    assert (done.photos, done.unreadable, done.note) == (0, 0, "")
    assert rows(tmp_path / "out") == []


def test_a_stream_gives_the_captions_of_the_file(captioner, shards, tmp_path):
    pytest.importorskip("webdataset")
    caption(captioner, shards[:1], tmp_path / "file")
    caption(captioner, [f"pipe:cat {shards[0]}"], tmp_path / "stream")
    given, streamed = (
        [(row["key"], row["caption"]) for row in rows(tmp_path / name)]
        for name in ("file", "stream")
    )
    assert given == streamed and len(given) == 7
    assert (tmp_path / "stream" / "00000.parquet").is_file()


def test_a_captioner_of_something_else_is_refused(tmp_path):
    blind = SimpleNamespace(encoder=SimpleNamespace(input_keys=("regions",)))
    folder = CaptionFolder(tmp_path, "tiny", repr(SAMPLER))
    with pytest.raises(ValueError, match="a captioner of photos. Received: one of regions"):
        list(caption_into(folder, blind, [], SAMPLER, 4))


def test_batches_of_no_photos_are_refused(captioner, tmp_path):
    folder = CaptionFolder(tmp_path, "tiny", repr(SAMPLER))
    with pytest.raises(ValueError, match="batch_size=0"):
        list(caption_into(folder, captioner, [], SAMPLER, 0))
