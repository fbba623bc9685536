"""Tests of `effcap train json --dataset` and `effcap evaluate --dataset`."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path

import pytest

from effcap.tools import evaluate
from effcap.tools.cli import main
from effcap.tools.shards import write_shards
from effcap.trainers import read_dataset
from effcap.trainers.engine.callbacks import CheckpointSteps
from helpers.cli_errors import fails
from helpers.cli_process import effcap, environment
from helpers.hub_dataset_server import HubDatasets
from helpers.page_parser import read_page
from helpers.parquet_maker import image_rows, parquet_bytes, write_parquet

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    """An empty cache of `datasets`."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def rows_of(run, name: str) -> list[dict]:
    """Returns the photos of a CSV file of a run as rows of Parquet files."""
    captions: dict[str, list[str]] = {}
    with (run.data / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            captions.setdefault(row["image"], []).append(row["caption"])
    return image_rows(run.data / "photos", list(captions.items()))


@pytest.fixture
def folder(trained_run, tmp_path) -> Path:
    """The data of `trained_run` as a folder of Parquet files with two splits."""
    rows = rows_of(trained_run, "train")
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", rows[:7])
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", rows[7:])
    dev = rows_of(trained_run, "dev")
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", dev)
    return tmp_path / "data"


def train(run, out: Path, *options: object) -> list[str]:
    """Returns the command that trains the model of `trained_run` on other data."""
    model = ("--model", run.data / "tiny.json", "--set", "decoder.vocabulary_size=300")
    return list(map(str, ["train", "json", *options, *model, "--out", out]))


def scores(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as file:
        times = ("seconds", "images_per_second")
        return [{k: v for k, v in row.items() if k not in times} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_run_on_a_dataset_has_the_scores_of_one_on_files(trained_run, folder, tmp_path):
    splits = ("--split", "train", "--val-split", "validation")
    out = tmp_path / "run"
    assert main(train(trained_run, out, "--dataset", folder, *splits)) == 0
    assert scores(out) == scores(trained_run.folder)
    page = read_page(out / "report.html")
    assert len(page.images) == len(read_page(trained_run.folder / "report.html").images)


@pytest.mark.slow
def test_a_resumed_run_on_a_dataset_has_the_same_scores(trained_run, folder, tmp_path, monkeypatch):
    pattern, validation = folder / "train-*.parquet", folder / "validation-00000-of-00001.parquet"
    data = ("--dataset", pattern, "--val-dataset", validation, "--set", "run.checkpoint_steps=1")
    command = train(trained_run, tmp_path / "run", *data)
    on_train_batch_end = CheckpointSteps.on_train_batch_end

    def stop(self, batch, logs=None):
        on_train_batch_end(self, batch, logs)
        if self.state.step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointSteps, "on_train_batch_end", stop)
        assert main(command) == 130
    assert main([*command, "--resume"]) == 0
    assert scores(tmp_path / "run") == scores(trained_run.folder)


@pytest.mark.slow
def test_features_of_a_dataset_are_computed_once(trained_run, folder, tmp_path, capsys):
    cache = ("--feature-cache", tmp_path / "features", "--steps", 1)
    data = ("--dataset", folder, "--split", "train", *cache)
    printed = []
    for name in ("one", "two"):
        assert main(train(trained_run, tmp_path / name, *data)) == 0
        printed.append(capsys.readouterr().err)
    assert "computing them" in printed[0] and "computing them" not in printed[1]
    assert scores(tmp_path / "one") == scores(tmp_path / "two")


@pytest.mark.slow
def test_a_captioner_is_scored_on_a_dataset(trained_run, folder, tmp_path):
    preset = trained_run.folder / "last"
    options = ("--model", preset, "--split", "validation", "--out", tmp_path / "scores")
    assert main(["evaluate", "--dataset", *map(str, (folder, *options))]) == 0
    files = ["--csv", trained_run.data / "dev.csv", "--images", trained_run.data / "photos"]
    options = ("--model", preset, "--json", tmp_path / "csv.json")
    assert main(["evaluate", *map(str, (*files, *options))]) == 0
    received = json.loads((tmp_path / "scores" / "scores.json").read_text())
    expected = json.loads((tmp_path / "csv.json").read_text())
    assert received["scores"] == expected["scores"]
    assert received["references"] == [str(folder)]
    assert len(read_page(tmp_path / "scores" / "index.html").images) == 3
    evaluation = evaluate(str(preset), read_dataset(folder, "validation"))
    assert evaluation.counts["photos"] == 5
    assert evaluation.scores.corpus["CIDEr"] == pytest.approx(expected["scores"]["CIDEr"])


@pytest.mark.slow
def test_a_run_on_a_dataset_of_the_hub_has_the_scores_of_one_on_files(trained_run, tmp_path):
    hub = HubDatasets(
        {
            "me/squares": {
                "README.md": b"---\nlicense: mit\n---\n",
                "data/train-00000-of-00001.parquet": parquet_bytes(rows_of(trained_run, "train")),
                "data/validation-00000-of-00001.parquet": parquet_bytes(
                    rows_of(trained_run, "dev")
                ),
            }
        }
    )
    splits = ("--split", "train", "--val-split", "validation")
    command = train(trained_run, tmp_path / "run", "--dataset", "hf://me/squares@v1", *splits)
    with hub.serve() as url:
        settings = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf")}
        done = subprocess.run(
            effcap(*command),
            env={**os.environ, **environment(), **settings},
            capture_output=True,
            text=True,
            timeout=200,
        )
    assert done.returncode == 0, done.stderr
    assert scores(tmp_path / "run") == scores(trained_run.folder)


@pytest.mark.parametrize(
    ("options", "message"),
    (
        (["--dataset", "data", "--split", "test"], "has the splits train, validation"),
        (["--dataset", "data"], "Give a split: data has the splits train, validation"),
        (["--dataset", "none"], "There is no data set none"),
        (["--dataset", "data", "--split", "train", "--val-split", "train"], "other than the train"),
        (["--dataset", "data", "--split", "train", "--val-split", "train[:9%]"], "other than the"),
        (["--dataset", "data", "--val-split", "train[90%:]"], "requires --split, so that no photo"),
        (
            ["--dataset", "data/*.parquet", "--val-dataset", "data/*.parquet"],
            "other than the train",
        ),
        (["--dataset", "data", "--json", "a.json"], "Give --json or --dataset, not both"),
        (["--dataset", "data", "--val-json", "a.json"], "Give --val-split or --val-dataset with"),
        (["--json", "a.json", "--split", "train"], "--split requires --dataset"),
        (["--json", "a.json", "--image-column", "x"], "--image-column requires --dataset"),
        (
            ["--dataset", "data", "--split", "train", "--caption-column", "x"],
            "a column 'x' in data",
        ),
        ([], "arguments are required: --json or --dataset"),
    ),
)
def test_mistaken_options_are_one_line(trained_run, folder, monkeypatch, capsys, options, message):
    monkeypatch.chdir(folder.parent)
    assert message in fails(train(trained_run, Path("run"), *options), capsys)


def test_parts_of_a_split_can_be_for_training_and_validation(trained_run, folder, monkeypatch):
    received = []
    monkeypatch.setattr("effcap.trainers.engine.run.run", lambda *data: received.extend(data))
    splits = ("--split", "train[:9]+validation", "--val-split", "train[9:]")
    assert main(train(trained_run, folder / "run", "--dataset", folder, *splits)) == 0
    assert [len(dataset.examples) for dataset in received[:2]] == [9 + 5, 3]


def test_stored_photos_are_not_packed_into_shards(folder, tmp_path):
    with pytest.raises(ValueError, match="files of their own.* Received: .*, row 0"):
        write_shards(read_dataset(folder, "train"), tmp_path / "shards")


def test_splits_to_evaluate_on_need_a_dataset(capsys):
    message = fails(["evaluate", "--csv", "a.csv", "--split", "test"], capsys)
    assert "--split requires --dataset or --playlists" in message
    message = fails(["evaluate", "--csv", "a.csv", "--dataset", "data"], capsys)
    assert "Give one of --csv, --references, --dataset and --playlists" in message
