"""`effcap caption --shards`: broken off and shared out, it gives every caption once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.cli_errors import fails
from helpers.cli_process import effcap, environment
from helpers.seeing_captioner import coloured, seeing_captioner
from helpers.tar_maker import write_tar

from effcap.tools.cli import main

dataset = pytest.importorskip("pyarrow.dataset")
PHOTOS = 12  # in a shard


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("caption_shards")
    for number in range(4):
        seeds = range(number * PHOTOS, (number + 1) * PHOTOS)
        members = [(f"{seed:03}.jpg", coloured(seed)) for seed in seeds]
        write_tar(folder / "shards" / f"{number}.tar", members)
    seeing_captioner().save_to_preset(folder / "run" / "best")
    return folder


def words(folder, out, *more, shards="shards") -> list[str]:
    options = ["--model", folder / "run" / "best", "--sampler", "greedy", "--max-tokens", 6]
    given = ["caption", "--shards", folder / shards, "--out", out, "--batch-size", 2]
    return list(map(str, (*given, *options, *more)))


def rows(out) -> list[dict]:
    return dataset.dataset(out).to_table().to_pylist()


@pytest.fixture(scope="module")
def whole(folder):
    """All captions, of a run that was left alone."""
    assert main(words(folder, folder / "whole")) == 0
    return rows(folder / "whole")


def test_every_photo_has_a_caption_and_the_sum_is_told(folder, tmp_path, capsys):
    out = tmp_path / "captions.parquet"
    assert main(words(folder, out)) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and f"48 captions of 4 shards: {out}" in captured.err
    found = rows(out)
    assert [row["key"] for row in found] == [f"{i:03}" for i in range(48)]
    assert all(row["error"] is None for row in found)
    assert len({row["caption"] for row in found}) > 3


def test_what_is_done_is_passed_over_without_loading_the_model(folder, whole, capsys, monkeypatch):
    monkeypatch.setattr(
        "effcap.captioner.Captioner.from_preset", lambda preset: pytest.fail("loaded")
    )
    assert main(words(folder, folder / "whole")) == 0
    told = capsys.readouterr().err
    assert "4 of 4 shards were captioned earlier" in told and "48 captions of 4 shards" in told


def test_a_killed_run_goes_on_to_the_rows_of_one_left_alone(folder, whole, tmp_path):
    """It is killed in the middle of a shard that comes through a pipe, which has half of it."""
    data = (folder / "shards" / "2.tar").read_bytes()
    for number in (0, 1, 3):
        (tmp_path / f"{number}.tar").symlink_to(folder / "shards" / f"{number}.tar")
    os.mkfifo(tmp_path / "2.tar")
    out = tmp_path / "out"
    given = [str(tmp_path / f"{number}.tar") for number in range(4)]
    command = effcap(*words(folder, out), "--shards", *given)
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE)
    try:
        with (tmp_path / "2.tar").open("wb") as pipe:  # waits until it is read
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
    assert main([*words(folder, out), "--shards", *given]) == 0
    found = rows(out)
    for row in (*found, *whole):
        row.pop("shard")
    assert found == whole


def test_parts_together_give_all_rows_once(folder, whole, tmp_path, capsys):
    for part in ("1/3", "3/3", "2/3"):
        assert main(words(folder, tmp_path / "out", "--part", part)) == 0
    told = capsys.readouterr().err
    assert "24 captions of 2 shards" in told and told.count("12 captions of 1 shard:") == 2
    found = rows(tmp_path / "out")
    assert [(row["key"], row["caption"]) for row in found] == [
        (row["key"], row["caption"]) for row in whole
    ]


def test_a_part_without_shards_is_no_mistake(folder, tmp_path, capsys):
    assert main(words(folder, tmp_path / "out", "--part", "4/9", shards="shards/1.tar")) == 0
    assert "0 captions of 0 shards" in capsys.readouterr().err


def test_faults_are_told_and_only_lost_parts_of_shards_are_a_failure(folder, tmp_path, capsys):
    shards = tmp_path / "shards"
    good = coloured(0)
    write_tar(shards / "a.tar", [("0.jpg", b""), ("1.jpg", b"A text."), ("2.jpg", good)])
    write_tar(shards / "b.tar", [("0.txt", b"A dog.")])
    given = words(folder, tmp_path / "out", shards=shards)
    assert main(given) == 0
    told = capsys.readouterr().err
    assert "1 captions of 2 shards" in told and "2 photos could not be read" in told
    assert "b.tar: it holds no photo" in told
    errors = [row["error"] for row in rows(tmp_path / "out")]
    assert "it is empty (0 bytes)" in errors[0] and "not an image" in errors[1] and not errors[2]
    (shards / "c.tar").write_bytes(b"")
    cut = write_tar(shards / "d.tar", [("3.jpg", good), ("4.jpg", good)])
    os.truncate(cut, os.path.getsize(cut) // 3)
    for known in (2, 3):  # what was cut off is told again, and what cannot be read tried again
        assert main(given) == 2
        told = capsys.readouterr().err
        assert f"{known} of 4 shards were captioned earlier" in told
        assert "c.tar: it is empty (0 bytes)" in told and "d.tar: it is cut off" in told
        assert "Received: 1 not whole, of which the rest is captioned, and 1 unreadable" in told


def test_captions_of_another_sampler_or_preset_are_refused(folder, whole, capsys, monkeypatch):
    monkeypatch.setattr(
        "effcap.captioner.Captioner.from_preset", lambda preset: pytest.fail("loaded")
    )
    line = fails(words(folder, folder / "whole", "--min-tokens", 2), capsys)
    assert "min_tokens=2" in line and "Received: 0.parquet by run/best " in line
    line = fails(words(folder, folder / "whole", "--model", "flickr8k-lite0"), capsys)
    assert "Expected captions by flickr8k-lite0 " in line and "choose another folder" in line


@pytest.mark.parametrize(
    ("more", "message"),
    (
        (["--page", "x.html"], "no --page with --shards"),
        (["--part", "0/2"], "invalid part: '0/2'"),
        (["--part", "2"], "invalid part: '2'; write 1/8"),
        (["--part", "1/2", "--ray"], "--part or --ray, which shares the work out"),
        (["--workers", "2"], "--ray with --workers"),
        (["--gpus-per-worker", "0.5"], "--ray with --gpus-per-worker"),
        (["--ray", "--workers", "0"], "--workers of at least 1. Received: 0"),
        (["--shards", "nothing.tar"], "Received: nothing.tar, where there are none"),
        (["--shards", "x/{0..2}.tar"], "Received: x/0.tar, x/1.tar, x/2.tar, where"),
        (["--out", __file__], "a folder as --out, with --shards. Received: "),
        (["--batch-size", "0"], "--batch-size of at least 1"),
        (["--model", "nothing"], "Received: 'nothing'"),
    ),
)
def test_mistakes_are_told_before_tensorflow_starts(folder, more, message, capsys, monkeypatch):
    for name in ("start_keras", "quiet"):
        monkeypatch.setattr(
            f"effcap.tools.cli.caption_shards.{name}", lambda: pytest.fail("started")
        )
    assert message in fails(words(folder, folder / "never", *more), capsys)
    assert not (folder / "never").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    (
        (["--shards", "0.tar"], "--out FOLDER with --shards"),
        (["a.jpg", "--out", "x", "--shards", "0.tar"], "both, photos such as a.jpg"),
        (["a.jpg", "--part", "1/2"], "--shards with --part"),
        (["a.jpg", "--ray"], "--shards with --ray"),
        (["--out", "x"], "required: PHOTO, --shards"),
    ),
)
def test_options_that_do_not_go_together_are_told(given, message, capsys):
    assert message in fails(["caption", *given], capsys)


def test_ray_that_is_not_installed_is_told(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    line = fails(words(folder, tmp_path / "out", "--ray"), capsys)
    assert "pip install 'effcap[ray]'" in line
