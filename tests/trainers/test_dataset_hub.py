"""Tests of `read_dataset` with data sets of the Hugging Face hub, served locally."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence

import pytest

from helpers.data_maker import make_photos
from helpers.hub_dataset_server import COMMIT, HubDatasets
from helpers.parquet_maker import image_rows, parquet_bytes

pytest.importorskip("datasets")

READ = """
import json, sys
from effcap.trainers import read_dataset
for source, split in json.loads(sys.argv[1]):
    try:
        dataset = read_dataset(source, split)
        result = [[x.name, list(x.captions), len(x.photo.read())] for x in dataset.examples]
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    print("result", json.dumps(result))
"""
CARD = """---
configs:
- config_name: en
  data_files:
  - split: train
    path: en/part-*.parquet
  - split: test
    path: held/out.parquet
- config_name: de
  data_files: de/*.parquet
---
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[dict]:
    """Rows of photos with captions."""
    folder = tmp_path_factory.mktemp("photos")
    return image_rows(folder, make_photos(folder, 9))


@pytest.fixture(scope="module")
def hub(rows) -> HubDatasets:
    """The data sets that are served."""
    plain = {
        "README.md": b"---\nlicense: mit\n---\n",
        "data/train-00000-of-00002.parquet": parquet_bytes(rows[:3]),
        "data/train-00001-of-00002.parquet": parquet_bytes(rows[3:6]),
        "data/test-00000-of-00001.parquet": parquet_bytes(rows[6:]),
    }
    card = {
        "README.md": CARD.encode(),
        "en/part-a.parquet": parquet_bytes(rows[:2]),
        "held/out.parquet": parquet_bytes(rows[2:3]),
        "de/a.parquet": parquet_bytes(rows[3:4]),
    }
    script = b"open('ran', 'w').close()"
    data = {
        "me/plain": plain,
        "me/card": card,
        "me/script": {"script.py": script},
        "me/both": {**plain, "both.py": script},
        "me/photos": {"a.jpg": b"x", "b.jpg": b"x"},
        "me/pickle": {"train.pkl": b"x"},
        "me/gated": plain,
    }
    return HubDatasets(data, gated=("me/gated",))


def read(
    reads: Sequence[tuple[str, str | None]], url: str, folder, **environment: str
) -> tuple[list, str]:
    """Reads data sets in a process; returns a result for each, and what was printed to stderr."""
    path = os.pathsep.join(filter(None, sys.path))
    settings = {"HF_ENDPOINT": url, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(reads)],
        env={**os.environ, "PYTHONPATH": path, **settings, **environment},
        cwd=folder, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("result ")]
    return [json.loads(line.removeprefix("result ")) for line in lines], done.stderr


def as_read(rows) -> list:
    """Returns what `read` returns of rows."""
    return [[x["image"]["path"], x["captions"], len(x["image"]["bytes"])] for x in rows]


def test_splits_revisions_and_configurations_of_the_hub_are_read(hub, rows, tmp_path):
    reads = {
        ("hf://me/plain", "train"): rows[:6],
        ("hf://me/plain@v1", "test"): rows[6:],
        ("hf://datasets/me/plain@refs/convert/parquet", "test[1:]"): rows[7:],
        (f"hf://me/plain@{COMMIT}", "train"): rows[:6],
        ("hf://me/card", "en/train"): rows[:2],
        ("hf://me/card", "en/test"): rows[2:3],
        ("hf://me/card", "de/train"): rows[3:4],
    }
    with hub.serve() as url:
        results, _ = read(list(reads), url, tmp_path)
    assert results == [as_read(part) for part in reads.values()]
    gets = [request for request in hub.requests if request.startswith("GET /datasets/me/plain")]
    test = [request for request in gets if "test-00000" in request]
    assert len(test) == 1  # from the cache after the first time


def test_without_the_hub_earlier_downloads_are_used(hub, rows, tmp_path):
    with hub.serve() as url:
        results, _ = read([("hf://me/plain@v1", "train")], url, tmp_path)
    assert results == [as_read(rows[:6])]
    reads = [
        ("hf://me/plain@v1", "train"),
        ("hf://me/plain@v1", "test"),
        ("hf://me/plain", "train"),
    ]
    results, printed = read(reads, "http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE="1")
    assert results[0] == as_read(rows[:6])
    assert "hf://me/plain@v1: the hub cannot be reached, so earlier downloads are used" in printed
    assert results[1].startswith(
        "ConnectionError: Cannot download data/test-00000-of-00001.parquet"
    )
    assert results[2].startswith("ConnectionError: Cannot read hf://me/plain: the hub cannot be")


def test_mistaken_data_sets_of_the_hub_are_one_line(hub, tmp_path):
    (tmp_path / "local" / "folder").mkdir(parents=True)
    reads = {
        ("hf://me/none", "train"): "FileNotFoundError: Cannot read hf://me/none: .*doesn't exist",
        ("hf://me/gated", "train"): "FileNotFoundError: .*gated dataset.*HF_TOKEN",
        ("hf://me/plain@v9", "train"): "FileNotFoundError: .*Revision 'v9' doesn't exist",
        ("hf://me/plain", None): "ValueError: Give a split: hf://me/plain has the splits train, te",
        ("hf://me/plain", "dev"): "ValueError: There is no split 'dev': .*train, test",
        ("hf://me/plain", "fr/train"): "ValueError: .*'fr' not found. Available: .'default'",
        ("hf://me/card", "train"): "ValueError: Cannot read hf://me/card: Config name.*en",
        ("hf://me/script", "train"): "ValueError: .*is a Python script, which EffCap does not",
        ("hf://me/both", "train"): "ValueError: .*is a Python script, which EffCap does not",
        ("hf://me/photos", "train"): "ValueError: Expected Parquet files.*@refs/convert/parquet",
        ("hf://me/pickle", "train"): "ValueError: There are no Parquet files in hf://me/pickle",
        ("hf://local/folder", "train"): "ValueError: hf://local/folder is ambiguous",
    }  # fmt: skip
    with hub.serve() as url:
        results, _ = read(list(reads), url, tmp_path)
    for result, expected in zip(results, reads.values(), strict=True):
        assert isinstance(result, str) and "\n" not in result
        assert re.match(expected, result), result
    assert not (tmp_path / "ran").exists()
