"""Tests of `effcap shards` and `effcap index`."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from effcap.tools.cli import main
from effcap.tools.cli.shards import parse_size
from effcap.trainers.data.shards import find_shards, index_path, read_indexes
from helpers.cli_errors import fails
from helpers.tar_maker import photo, sample, write_tar

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def data(tmp_path):
    """A CSV of six photos with two captions each."""
    pytest.importorskip("webdataset")
    (tmp_path / "photos").mkdir()
    with (tmp_path / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "caption"))
        for i in range(6):
            (tmp_path / "photos" / f"{i}.jpg").write_bytes(photo(i))
            writer.writerows([(f"{i}.jpg", f"a dog with {i} balls ."), (f"{i}.jpg", "A dog.")])
    return tmp_path


def shards(data: Path, *options: str) -> list[str]:
    return ["shards", "--csv", str(data / "train.csv"), "--images", str(data / "photos"),
            "--out", str(data / "out"), "--processes", "1", *options]  # fmt: skip


def index(*words: object) -> list[str]:
    return ["index", *map(str, words), "--processes", "1"]


def test_a_folder_of_photos_with_text_files_becomes_shards(data, capsys):
    for i in range(6):
        (data / "photos" / f"{i}.txt").write_text(f"a dog with {i} balls .\nA dog.\n")
    command = ["shards", "--folder", data / "photos", "--out", data / "out", "--processes", "1"]
    assert main([*map(str, command)]) == 0
    assert "6 photos with 12 captions in 1 shards" in capsys.readouterr().err


def test_a_csv_becomes_indexed_shards(data, capsys):
    assert main(shards(data, "--max-count", "4", "--tidy")) == 0
    captured = capsys.readouterr()
    assert "6 photos with 12 captions in 2 shards" in captured.err
    assert "effcap index" in captured.err
    assert main(index(data / "out", "--max-duplicates", 4, "--min-side", 10)) == 0
    captured = capsys.readouterr()
    assert captured.out.split() == [
        "samples", "captions", "shards", "kept", "6", "10", "2", "duplicate", "caption", "2",
    ]  # fmt: skip
    first = read_indexes(find_shards([data / "out"]))[0]
    assert first.captions(0) == ("A dog with 0 balls.", "A dog.")


def test_json_becomes_shards(data):
    entries = [{"image": f"{i}.jpg", "text": f"Dog {i}."} for i in range(6)]
    (data / "photos" / "train.json").write_text(json.dumps(entries))
    words = ["shards", "--json", str(data / "photos" / "train.json"), "--out", str(data / "out")]
    assert main([*words, "--processes", "1"]) == 0
    assert main(index(data / "out")) == 0
    assert len(read_indexes(find_shards([data / "out"]))[0]) == 6


def test_unusable_photos_are_named_and_limited_by_max_bad(data, capsys):
    (data / "photos" / "3.jpg").write_bytes(b"no photo")
    assert main(shards(data)) == 2
    assert "1.00%" in capsys.readouterr().err and not list(data.glob("out/*.tar"))
    assert main(shards(data, "--max-bad", "0.2")) == 0
    error = capsys.readouterr().err
    assert "2 of 12 captions" in error and "3.jpg" in error
    assert "5 photos with 10 captions" in error
    assert "3.jpg" in (data / "out" / "left_out.txt").read_text()


def test_repeated_commands_report_what_exists(data, capsys):
    for _ in range(2):
        assert main(shards(data, "--max-count", "4")) == 0
        assert main(index(data / "out")) == 0
    error = capsys.readouterr().err
    assert "2 shards, 2 of them written earlier" in error
    assert "2 of 2 indexes were up to date" in error


def test_everything_left_out_is_counted_and_reported(tmp_path, capsys):
    write_tar(tmp_path / "0.tar", [*sample("0"), ("1.json", b"{}"), *sample("2", "<PERSON>")])
    (tmp_path / "1.tar").write_bytes(b"\x1f\x8b" * 400)
    assert main(index(tmp_path, "--persons", "drop", "--report", tmp_path / "r.csv")) == 0
    captured = capsys.readouterr()
    for row in ("caption has <PERSON> 1", "no image 1", "shard unreadable 1", "kept 1 1 1"):
        assert row in " ".join(captured.out.split())
    assert "1.tar: compressed with gzip" in captured.err
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 4


def test_shards_without_usable_samples_raise_an_error(tmp_path, capsys):
    write_tar(tmp_path / "0.tar", [("1.json", b"{}")])
    assert main(index(tmp_path)) == 2
    captured = capsys.readouterr()
    assert "no image" in captured.out and "no usable sample" in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    (
        (["no/*.tar"], "No shards found for no/*.tar"),
        (["s3://b/0.tar"], "requires a folder for its index (--index)"),
        (["FOLDER", "--match", "("], "regular expression as match"),
        (["FOLDER", "--min-words", "x"], "invalid int value"),
        (["FOLDER", "--report", "r.txt"], "FILE.csv or FILE.parquet"),
        (["FOLDER", "--max-duplicates", "0"], "at least 1"),
        (["FOLDER", "--processes", "0"], "num_processes=0"),
    ),
)
def test_invalid_index_options_give_one_line(tmp_path, words, message, capsys):
    write_tar(tmp_path / "0.tar", sample("0"))
    assert message in fails(
        ["index", *(word.replace("FOLDER", str(tmp_path)) for word in words)], capsys
    )


def test_invalid_shards_options_give_one_line(data, capsys):
    assert "required: --out" in fails(["shards", "--csv", "a.csv"], capsys)
    assert "--csv --json" in fails(["shards", "--out", "o"], capsys)
    assert "invalid size: '1 apple'" in fails(shards(data, "--max-size", "1 apple"), capsys)
    assert "max_count=0" in fails(shards(data, "--max-count", "0"), capsys).splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "expected"), (("5000", 5000), ("300MB", 3 * 10**8), ("1.5 GiB", 3 * 2**29))
)
def test_sizes_have_units(text, expected):
    assert parse_size(text) == expected


def test_an_interrupted_index_is_continued(tmp_path):
    for i in range(12):
        write_tar(tmp_path / f"{i}.tar", [m for k in range(60) for m in sample(f"{k}", seed=k)])
    words = [sys.executable, "-m", "effcap.tools", "index", str(tmp_path), "--processes", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(tmp_path.glob("[0-9]*.npz")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode in (0, 130) and "Traceback" not in error
    assert main(index(tmp_path)) == 0
    indexes = read_indexes(find_shards([tmp_path]))
    assert len({one.fingerprint for one in indexes}) == 1 and len(indexes[0]) == 60
    assert not list(tmp_path.glob(".new*"))


def test_index_and_shards_do_not_import_keras(data):
    code = (
        "import sys; from effcap.tools.cli import main\n"
        f"assert main({shards(data)!r}) == 0 and main({index(data / 'out')!r}) == 0\n"
        "assert not {'tensorflow', 'keras', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
    assert index_path(str(data / "out" / "00000.tar")).is_file()
