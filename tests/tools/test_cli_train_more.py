"""`effcap train dali` and `effcap train scst`: whole runs, and what is refused."""

from __future__ import annotations

import csv
import json

import pytest
from helpers.cli_errors import fails
from helpers.data_maker import make_data, make_variant

from effcap.captioner import Captioner
from effcap.tools.cli import main


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
    return main([str(word) for word in words])


def dali(folder, out, *more) -> list:
    shards = ("--shards", folder / "train", "--val-shards", folder / "dev")
    model = ("--model", folder / "tiny.json", "--vocab-size", 300)
    return ["train", "dali", *shards, *model, "--out", out, *more]


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "dali"
    assert run(*dali(folder, out, "--epochs", 2, "--mirror", "--crop", 0.7)) == 0
    return out


def scores(out) -> list[dict[str, str]]:
    with (out / "log.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_on_shards_leaves_what_a_run_on_files_does(trained):
    assert Captioner.from_preset(trained / "best").tokenizer is not None
    record = json.loads((trained / "run.json").read_text())
    assert record["data"]["training"]["photos"] == 12
    assert record["finished"]["steps"] == 6  # of 4 photos each
    assert {"loss", "val_cross_entropy", "val_cider", "val_distinct"} <= set(scores(trained)[0])


def test_a_run_on_shards_goes_on_from_its_checkpoint(folder, trained, tmp_path, monkeypatch):
    from effcap.trainers.engine.callbacks import Steps

    stopped = Steps.on_train_batch_end

    def stop(self, batch, logs=None):
        stopped(self, batch, logs)
        if self.position.steps == 2:
            raise KeyboardInterrupt

    command = dali(folder, tmp_path / "run", "--epochs", 2, "--mirror", "--crop", 0.7)
    command += ["--checkpoint-steps", 1]
    with monkeypatch.context() as patched:
        patched.setattr(Steps, "on_train_batch_end", stop)
        assert run(*command) == 130
    assert run(*command, "--resume") == 0
    assert scores(tmp_path / "run") == scores(trained)


def test_held_out_photos_may_be_in_a_csv(folder, tmp_path):
    held_out = ("--val-csv", folder / "dev.csv", "--images", folder / "photos")
    shards = ("--shards", folder / "train", "--model", folder / "tiny.json", "--vocab-size", 300)
    assert run("train", "dali", *shards, *held_out, "--steps", 2, "--out", tmp_path / "run") == 0
    assert "val_cider" in scores(tmp_path / "run")[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--val-csv", "dev.csv"], "--val-csv or --val-shards. Received: both"),
        (["--passes", "1", "2"], "as many passes as shards are named: 1"),
        (["--cache-features", "cache"], "Expected photo files to cache features of"),
        (["--index", "nowhere"], "Expected an index of every shard"),
    ],
)
def test_what_does_not_fit_shards_is_refused(folder, tmp_path, capsys, more, message):
    command = [str(word) for word in dali(folder, tmp_path / "run", *more)]
    assert message in fails(command, capsys)


def test_shards_that_are_gone_are_told_before_training(folder, tmp_path, capsys):
    shards = tmp_path / "shards"
    shards.mkdir()
    for path in (folder / "train").iterdir():
        (shards / path.name).write_bytes(path.read_bytes())
    (shards / "00001.tar").unlink()
    names = shards / "{00000..00002}.tar"
    command = ["train", "dali", "--shards", names, "--model", folder / "tiny.json"]
    line = fails([*map(str, command), "--out", str(tmp_path / "run")], capsys)
    assert "00001.tar" in line


def scst(folder, model, out, *more) -> list:
    return ["train", "scst", "--csv", folder / "train.csv", "--val-csv", folder / "dev.csv",
            "--images", folder / "photos", "--model", model, "--steps", 4, "--batch-size", 4,
            "--max-tokens", 12, "--samples", 3, "--out", out, *more]  # fmt: skip


def test_a_run_that_is_rewarded_goes_on_from_a_run_and_logs_its_rewards(folder, trained, tmp_path):
    out = tmp_path / "scst"
    assert run(*scst(folder, trained, out, "--cross-entropy", 0.1)) == 0
    (first, second) = scores(out)
    assert {"loss", "reward", "baseline", "length", "distinct", "val_cider"} <= set(first)
    assert 0 < float(first["distinct"]) <= 1
    record = json.loads((out / "run.json").read_text())
    assert record["scst"]["samples"] == 3 and record["scst"]["cross_entropy"] == 0.1
    assert record["hparams"]["training"]["learning_rate"] == 5e-5
    assert Captioner.from_preset(out / "best").tokenizer is not None


@pytest.mark.slow
def test_a_rewarded_run_that_was_stopped_ends_with_the_same_scores(
    folder, trained, tmp_path, monkeypatch
):
    from effcap.trainers.engine.callbacks import Steps

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(*scst(folder, trained, whole)) == 0
    before = Steps.on_train_batch_end

    def stop(self, batch, logs=None):
        before(self, batch, logs)
        if self.position.steps == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Steps, "on_train_batch_end", stop)
        assert run(*scst(folder, trained, broken, "--checkpoint-steps", 1)) == 130
    assert run(*scst(folder, trained, broken, "--checkpoint-steps", 1, "--resume")) == 0
    assert scores(broken) == scores(whole)


def test_shards_can_be_rewarded_too(folder, trained, tmp_path):
    data = ("--shards", folder / "train", "--val-shards", folder / "dev", "--model", trained)
    how = ("--baseline", "greedy", "--samples", 2, "--steps", 2, "--max-tokens", 8)
    assert run("train", "scst", *data, *how, "--batch-size", 4, "--out", tmp_path / "run") == 0
    assert (tmp_path / "run" / "best" / "config.json").is_file()


def test_self_critical_training_is_refused_what_it_cannot_do(folder, trained, tmp_path, capsys):
    more = (["--samples", "1"], "at least 2 samples"), (["--devices", "2"], "Expected one device")
    for words, message in more:
        command = scst(folder, trained, tmp_path / "run", *words)
        assert message in fails([str(word) for word in command], capsys)


@pytest.mark.slow
def test_a_smoke_run_tries_self_critical_training(capsys):
    assert run("train", "scst", "--model", "lite0-small", "--smoke", "--max-tokens", 8) == 0
