"""Tests of `effcap caption --shards`: every caption once, also in interrupted or divided runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from effcap.tools.captioning.shard_output import ShardCaptions
from effcap.tools.cli import main
from effcap.tools.cli.caption_shards import print_results
from helpers.cli_errors import fails
from helpers.cli_process import effcap, environment
from helpers.data_maker import make_randomized_captioner, random_jpeg
from helpers.tar_maker import write_tar

dataset = pytest.importorskip("pyarrow.dataset")
PHOTOS = 12  # per shard


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("caption_shards")
    for number in range(4):
        seeds = range(number * PHOTOS, (number + 1) * PHOTOS)
        members = [(f"{seed:03}.jpg", random_jpeg(seed)) for seed in seeds]
        write_tar(folder / "shards" / f"{number}.tar", members)
    make_randomized_captioner().save_to_preset(folder / "run" / "best")
    return folder


def words(folder, out, *options, shards="shards") -> list[str]:
    command = ["caption", "--shards", folder / shards, "--out", out, "--batch-size", 2]
    model = ["--model", folder / "run" / "best", "--sampler", "greedy", "--max-new-tokens", 6]
    return list(map(str, (*command, *model, *options)))


def rows(out) -> list[dict]:
    return dataset.dataset(out).to_table().to_pylist()


@pytest.fixture(scope="module")
def expected(folder):
    """All captions of a run without interruption."""
    assert main(words(folder, folder / "expected")) == 0
    return rows(folder / "expected")


def test_every_photo_gets_a_caption(folder, tmp_path, capsys):
    out = tmp_path / "captions.parquet"
    assert main(words(folder, out)) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and f"48 captions of 4 shards: {out}" in captured.err
    table = rows(out)
    assert [row["key"] for row in table] == [f"{i:03}" for i in range(48)]
    assert all(row["error"] is None for row in table)
    assert len({row["caption"] for row in table}) > 3


def test_captioned_shards_are_skipped_without_loading_the_model(
    folder, expected, capsys, monkeypatch
):
    monkeypatch.setattr(
        "effcap.captioner.Captioner.from_preset", lambda preset: pytest.fail("loaded")
    )
    assert main(words(folder, folder / "expected")) == 0
    error = capsys.readouterr().err
    assert "4 of 4 shards were captioned earlier" in error and "48 captions of 4 shards" in error


@pytest.mark.slow
def test_a_killed_run_is_continued_with_the_same_captions(folder, expected, tmp_path):
    # The run is killed in the middle of a shard, of which a pipe delivers one half.
    data = (folder / "shards" / "2.tar").read_bytes()
    for number in (0, 1, 3):
        (tmp_path / f"{number}.tar").symlink_to(folder / "shards" / f"{number}.tar")
    os.mkfifo(tmp_path / "2.tar")
    out = tmp_path / "out"
    shards = [str(tmp_path / f"{number}.tar") for number in range(4)]
    command = effcap(*words(folder, out), "--shards", *shards)
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE)
    try:
        with (tmp_path / "2.tar").open("wb") as pipe:  # blocks until it is read
            pipe.write(data[: len(data) // 2])
            pipe.flush()
            deadline = time.monotonic() + 60
            while not (out / "1.parquet").is_file():
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            assert process.wait(60) == -signal.SIGKILL
    finally:
        process.kill()
        process.stderr.close()
    assert {path.name for path in out.iterdir()} == {"0.parquet", "1.parquet"}
    (tmp_path / "2.tar").unlink()
    (tmp_path / "2.tar").symlink_to(folder / "shards" / "2.tar")
    assert main([*words(folder, out), "--shards", *shards]) == 0
    columns = ("key", "caption", "score", "error")
    assert [[row[name] for name in columns] for row in rows(out)] == [
        [row[name] for name in columns] for row in expected
    ]


@pytest.mark.slow
def test_processes_together_write_all_captions_once(folder, expected, tmp_path, capsys):
    for index in (0, 2, 1):
        partition = ("--shard-index", index, "--num-shards", 3)
        assert main(words(folder, tmp_path / "out", *partition)) == 0
    error = capsys.readouterr().err
    assert "24 captions of 2 shards" in error and error.count("12 captions of 1 shard:") == 2
    assert [(row["key"], row["caption"]) for row in rows(tmp_path / "out")] == [
        (row["key"], row["caption"]) for row in expected
    ]


def test_a_process_without_shards_is_not_an_error(folder, tmp_path, capsys):
    partition = ("--shard-index", 3, "--num-shards", 9)
    assert main(words(folder, tmp_path / "out", *partition, shards="shards/1.tar")) == 0
    assert "0 captions of 0 shards" in capsys.readouterr().err


def test_unreadable_photos_are_no_failure_and_incomplete_shards_are(folder, tmp_path, capsys):
    shards = tmp_path / "shards"
    photo = random_jpeg(0)
    write_tar(shards / "a.tar", [("0.jpg", b""), ("1.jpg", b"A text."), ("2.jpg", photo)])
    write_tar(shards / "b.tar", [("0.txt", b"A dog.")])
    command = words(folder, tmp_path / "out", shards=shards)
    assert main(command) == 0
    error = capsys.readouterr().err
    assert "1 captions of 2 shards" in error and "2 photos could not be read" in error
    assert "b.tar: no photos" in error
    errors = [row["error"] for row in rows(tmp_path / "out")]
    assert "empty (0 bytes)" in errors[0] and "not an image" in errors[1] and not errors[2]
    (shards / "c.tar").write_bytes(b"")
    truncated = write_tar(shards / "d.tar", [("3.jpg", photo), ("4.jpg", photo)])
    os.truncate(truncated, os.path.getsize(truncated) // 3)
    for num_earlier in (2, 3):  # damage is reported again, unreadable shards are tried again
        assert main(command) == 2
        error = capsys.readouterr().err
        assert f"{num_earlier} of 4 shards were captioned earlier" in error
        assert "c.tar: empty (0 bytes)" in error and "d.tar: truncated after" in error
        assert "1 shards are incomplete" in error and "1 shards are unreadable" in error


def test_captions_by_another_sampler_or_preset_raise_an_error(
    folder, expected, capsys, monkeypatch
):
    monkeypatch.setattr(
        "effcap.captioner.Captioner.from_preset", lambda preset: pytest.fail("loaded")
    )
    line = fails(words(folder, folder / "expected", "--set", "sampler.min_new_tokens=2"), capsys)
    assert "min_new_tokens=2" in line and "Received: 0.parquet by run/best " in line
    line = fails(words(folder, folder / "expected", "--model", "flickr8k-lite0"), capsys)
    assert "Expected captions by flickr8k-lite0 " in line and "choose another folder" in line


@pytest.mark.parametrize(
    ("is_table", "where"), ((True, "column missing"), (False, "files .captions.json"))
)
def test_captions_that_lack_words_are_counted(is_table, where, tmp_path, capsys):
    results = [ShardCaptions("0.tar", 5, num_without_words=2), ShardCaptions("1.tar", 3)]
    results.append(ShardCaptions("2.tar", 1, num_without_words=1, from_earlier_run=True))
    print_results(results, tmp_path, is_table)
    assert f"3 captions lack words of --include; see the {where}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    (
        (["--page", "x.html"], "--page cannot be used with --shards"),
        (["--shard-index", "2", "--num-shards", "2"], "--shard-index from 0 to 1. Received: 2"),
        (["--shard-index", "2"], "--shard-index and --num-shards require each other"),
        (["--shard-index", "0", "--num-shards", "2", "--ray"], "cannot be used with --ray"),
        (["--workers", "2"], "--workers requires --ray"),
        (["--gpus-per-worker", "0.5"], "--gpus-per-worker requires --ray"),
        (["--ray", "--workers", "0"], "workers of at least 1. Received: workers=0"),
        (["--shards", "nothing.tar"], "No shards found for nothing.tar"),
        (["--shards", "x/{0..2}.tar"], "No shards found for x/0.tar, x/1.tar, x/2.tar"),
        (["--out", __file__], "--out must be a folder. Received: "),
        (["--batch-size", "0"], "--batch-size of at least 1"),
        (["--model", "nothing"], "Received: 'nothing'"),
    ),
)
def test_invalid_options_are_reported_before_keras_starts(
    folder, options, message, capsys, monkeypatch
):
    for name in ("start_engine", "quiet"):
        monkeypatch.setattr(
            f"effcap.tools.cli.caption_shards.{name}", lambda *_: pytest.fail("started")
        )
    assert message in fails(words(folder, folder / "never", *options), capsys)
    assert not (folder / "never").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (["--shards", "0.tar"], "--shards requires --out"),
        (["a.jpg", "--out", "x", "--shards", "0.tar"], "only one of PHOTO and --shards"),
        (["a.jpg", "--shard-index", "1"], "--shard-index requires --shards"),
        (["a.jpg", "--ray"], "--ray requires --shards"),
        (["--out", "x"], "required: PHOTO, --shards"),
    ),
)
def test_options_that_cannot_be_combined_raise_an_error(arguments, message, capsys):
    assert message in fails(["caption", *arguments], capsys)


def test_a_missing_ray_is_named_with_its_extra(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    line = fails(words(folder, tmp_path / "out", "--ray"), capsys)
    assert "pip install 'effcap[ray]'" in line
