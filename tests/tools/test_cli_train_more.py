"""Tests of `effcap train dali` and of the objective scst."""

from __future__ import annotations

import csv
import json

import pytest

from effcap.captioner import Captioner
from effcap.tools.cli import main
from effcap.trainers.engine.callbacks import CheckpointSteps
from helpers.cli_errors import fails
from helpers.data_maker import make_data, make_variant

VOCABULARY = ("--set", "decoder.vocabulary_size=300")
EVERY_STEP = ("--set", "run.checkpoint_steps=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos, captions, a tiny variant, and the same photos in indexed shards."""
    pytest.importorskip("webdataset")
    folder = make_data(tmp_path_factory.mktemp("data"))
    make_variant(folder / "tiny.json")
    for name in ("train", "dev"):
        data = ["--csv", folder / f"{name}.csv", "--images", folder / "photos"]
        assert run("shards", *data, "--out", folder / name, "--max-count", 4) == 0
        assert run("index", folder / name) == 0
    return folder


def run(*words) -> int:
    """Runs a command and returns its exit code."""
    return main([str(word) for word in words])


def dali(folder, out, *options) -> list:
    """Returns the arguments of a run on shards."""
    shards = ("--shards", folder / "train", "--val-shards", folder / "dev")
    model = ("--model", folder / "tiny.json", *VOCABULARY)
    return ["train", "dali", *shards, *model, "--out", out, *options]


AUGMENTED = ("--epochs", 2, "--horizontal-flip", "--random-crop", 0.7)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """The folder of a run on shards."""
    out = tmp_path_factory.mktemp("runs") / "dali"
    assert run(*dali(folder, out, *AUGMENTED)) == 0
    return out


def scores(out) -> list[dict[str, str]]:
    """Returns the scores of a run by epoch."""
    with (out / "log.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def stop_after_two_steps(monkeypatch):
    """Interrupts runs after their second step, until `undo` is called."""
    on_train_batch_end = CheckpointSteps.on_train_batch_end

    def stop(self, batch, logs=None):
        on_train_batch_end(self, batch, logs)
        if self.state.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointSteps, "on_train_batch_end", stop)
    return monkeypatch


@pytest.mark.slow
def test_a_run_on_shards_writes_what_a_run_on_files_does(trained):
    assert Captioner.from_preset(trained / "best").tokenizer is not None
    record = json.loads((trained / "run.json").read_text())
    assert record["data"]["training"]["photos"] == 12
    assert record["finished"]["steps"] == 6  # of 4 photos each
    assert {"loss", "val_cross_entropy", "val_cider", "val_distinct"} <= set(scores(trained)[0])


@pytest.mark.slow
def test_a_resumed_run_on_shards_has_the_same_scores(
    folder, trained, tmp_path, stop_after_two_steps
):
    command = dali(folder, tmp_path / "run", *AUGMENTED, *EVERY_STEP)
    assert run(*command) == 130
    stop_after_two_steps.undo()
    assert run(*command, "--resume") == 0
    assert scores(tmp_path / "run") == scores(trained)


@pytest.mark.slow
def test_validation_photos_of_shards_may_be_in_a_csv(folder, tmp_path):
    validation = ("--val-csv", folder / "dev.csv", "--images", folder / "photos")
    shards = ("--shards", folder / "train", "--model", folder / "tiny.json", *VOCABULARY)
    out = tmp_path / "run"
    assert run("train", "dali", *shards, *validation, "--steps", 2, "--out", out) == 0
    assert "val_cider" in scores(out)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--val-csv", "dev.csv"], "Give --val-csv or --val-shards, not both"),
        (["--plain"], "--plain requires --val-csv. To clean the captions of shards, index"),
        (["--passes", "1", "2"], "Expected 1 passes, one for each item of shards"),
        (["--feature-cache", "cache"], "Expected photo files to cache features of"),
        (["--index", "nowhere"], "No index for"),
    ],
)
def test_options_that_do_not_fit_shards_are_errors(folder, tmp_path, capsys, options, message):
    command = [str(word) for word in dali(folder, tmp_path / "run", *options)]
    assert message in fails(command, capsys)


def test_missing_shards_are_reported_before_training(folder, tmp_path, capsys):
    shards = tmp_path / "shards"
    shards.mkdir()
    for path in (folder / "train").iterdir():
        (shards / path.name).write_bytes(path.read_bytes())
    (shards / "00001.tar").unlink()
    names = shards / "{00000..00002}.tar"
    command = ["train", "dali", "--shards", names, "--model", folder / "tiny.json"]
    line = fails([*map(str, command), "--out", str(tmp_path / "run")], capsys)
    assert "00001.tar" in line


def scst(folder, model, out, *options) -> list:
    """Returns the arguments of a run on CSV files with the objective scst."""
    data = ["--csv", folder / "train.csv", "--val-csv", folder / "dev.csv"]
    return ["train", "csv", *data, "--images", folder / "photos", "--model", model,
            "--objective", "scst", "--set", "scst.num_samples=3", "--set", "scst.max_new_tokens=12",
            "--steps", 4, "--batch-size", 4, "--out", out, *options]  # fmt: skip


@pytest.mark.slow
def test_scst_fine_tunes_a_run_and_logs_its_rewards(folder, trained, tmp_path):
    out = tmp_path / "scst"
    assert run(*scst(folder, trained, out, "--set", "scst.cross_entropy_weight=0.1")) == 0
    (first, _) = scores(out)
    assert {"loss", "reward", "baseline", "length", "distinct", "val_cider"} <= set(first)
    assert 0 < float(first["distinct"]) <= 1
    record = json.loads((out / "run.json").read_text())
    assert record["scst"]["num_samples"] == 3 and record["scst"]["cross_entropy_weight"] == 0.1
    assert record["hparams"]["training"]["learning_rate"] == 5e-5
    assert Captioner.from_preset(out / "best").tokenizer is not None


@pytest.mark.slow
def test_a_resumed_run_with_scst_has_the_same_scores(
    folder, trained, tmp_path, stop_after_two_steps
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(*scst(folder, trained, broken, *EVERY_STEP)) == 130
    stop_after_two_steps.undo()
    assert run(*scst(folder, trained, broken, *EVERY_STEP, "--resume")) == 0
    assert run(*scst(folder, trained, whole)) == 0
    assert scores(broken) == scores(whole)


@pytest.mark.slow
def test_scst_takes_shards(folder, trained, tmp_path):
    settings = ("scst.baseline=greedy", "scst.num_samples=2", "scst.max_new_tokens=8")
    options = [word for setting in settings for word in ("--set", setting)]
    options += ["--objective", "scst", "--model", trained, "--steps", 2, "--batch-size", 4]
    assert run(*dali(folder, tmp_path / "run"), *options) == 0
    assert (tmp_path / "run" / "best" / "config.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "scst.num_samples=1"], "at least 2 samples"),
        (["--set", "scst.num_samples=x"], "scst.num_samples of type int"),
        (["--devices", "2"], "devices=2"),
    ],
)
def test_options_that_do_not_fit_scst_are_errors(
    folder, trained, tmp_path, capsys, options, message
):
    command = scst(folder, trained, tmp_path / "run", *options)
    assert message in fails([str(word) for word in command], capsys)


@pytest.mark.slow
def test_a_smoke_run_tries_scst(capsys):
    options = ("--objective", "scst", "--set", "scst.max_new_tokens=8")
    assert run("train", "csv", "--model", "lite0-small", "--smoke", *options) == 0
