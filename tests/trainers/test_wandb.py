"""Logs in Weights & Biases, with a stand-in for its package."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from effcap.trainers import RunOptions, read_csv, run
from effcap.trainers.engine.checkpoint import TrainState
from effcap.trainers.engine.logger import Logger
from effcap.trainers.engine.loop import Loop, RunBatches
from effcap.trainers.engine.run_folder import RunFolder
from effcap.trainers.engine.weights_and_biases import WandbWriter
from helpers.event_files import read_events


class Run:
    """Stands in for a wandb run and records what is logged."""

    def __init__(self, arguments: dict[str, Any], number: int) -> None:
        self.arguments, self.logged = arguments, []
        self.id = arguments["id"] or f"run{number}"
        self.metrics: list[tuple] = []
        self.exit_code: int | None = None

    def define_metric(self, name: str, step_metric: str) -> None:
        self.metrics.append((name, step_metric))

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def runs(monkeypatch) -> list[Run]:
    """The runs of a stand-in for wandb."""
    started: list[Run] = []

    def init(**arguments: Any) -> Run:
        if arguments["project"] == "refused":
            raise module.Error("api_key not configured (no-tty)")
        started.append(Run(arguments, len(started)))
        return started[-1]

    module: Any = ModuleType("wandb")
    module.__spec__ = ModuleSpec("wandb", None)
    module.init, module.Error = init, type("Error", (Exception,), {})
    module.Settings = module.Image = lambda *args, **kwargs: SimpleNamespace(args=args, **kwargs)
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    return started


def options(trained_run, out, **fields) -> RunOptions:
    return RunOptions(
        model=trained_run.data / "tiny.json", out=out, decoder={"vocabulary_size": 300}, **fields
    )


@pytest.mark.slow
def test_wandb_logs_what_tensorboard_logs_and_the_configuration(trained_run, tmp_path, runs):
    dataset = read_csv(trained_run.data / "train.csv", trained_run.data / "photos")
    training = {"steps": 2, "batch_size": 6}
    run(
        dataset,
        None,
        options(trained_run, tmp_path, log=["tensorboard", "wandb"], training=training),
    )
    (logged,) = runs
    assert logged.arguments["config"]["hparams"]["training"]["steps"] == 2
    assert logged.arguments["name"] == tmp_path.name and logged.arguments["project"] == "effcap"
    assert logged.metrics == [("*", "step")] and logged.exit_code == 0
    events = read_events(tmp_path / "tensorboard")
    points = {
        (name, values["step"]): value
        for values in logged.logged
        for name, value in values.items()
        if name != "step"
    }
    for name in ("step/loss", "step/learning_rate", "epoch/loss"):
        assert events[name] == [
            (step, pytest.approx(value)) for (tag, step), value in points.items() if tag == name
        ]
    pictures = [name for name, _ in points if name.startswith("captions/")]
    assert len(pictures) == 8 and isinstance(points["captions/0", 2].caption, str)


@pytest.mark.parametrize("log", (["tensorboard"], ["wandb"], ["wandb", "tensorboard"]))
def test_a_run_logs_with_the_tools_that_its_options_name(trained_run, tmp_path, runs, log):
    folder = RunFolder(tmp_path)
    folder.begin({"objective": "cross-entropy"}, TrainState())
    settings = options(trained_run, tmp_path, log=log)
    loop = Loop(None, None, RunBatches([None] * 3), folder, None, TrainState(), settings)
    with Logger(loop._make_writers(), TrainState(), None) as logger:
        for writer in logger.writers:
            writer.write_scalars({"step/loss": 0.5}, 1)
    assert (tmp_path / "tensorboard").is_dir() == ("tensorboard" in log)
    assert [r.logged for r in runs] == [[{"step/loss": 0.5, "step": 1}]] * ("wandb" in log)
    assert [r.arguments["config"] for r in runs] == [folder.record] * len(runs)


def test_a_resumed_run_continues_the_run_in_wandb(tmp_path, runs):
    WandbWriter(tmp_path, {}, resume=False).close(failed=True)
    WandbWriter(tmp_path, {}, resume=True).close(failed=False)
    assert [(r.id, r.exit_code) for r in runs] == [("run0", 1), ("run0", 0)]
    assert WandbWriter(tmp_path, {}, resume=False).run.id == "run2"


def test_the_environment_names_project_run_and_folder(tmp_path, runs, monkeypatch):
    for name in ("PROJECT", "NAME", "DIR"):
        monkeypatch.setenv(f"WANDB_{name}", name.lower())
    WandbWriter(tmp_path, {}, resume=False)
    arguments = runs[0].arguments
    assert [arguments[name] for name in ("project", "name", "dir")] == ["project", "name", "dir"]


def test_captions_are_logged_with_their_photos_or_alone(tmp_path, runs):
    writer, photo = WandbWriter(tmp_path, {}, resume=False), Image.new("RGB", (8, 8))
    writer.write_caption("captions/0", "犬が走る。", photo, 3)
    writer.write_caption("captions/1", "A dog.", None, 3)
    first, second = runs[0].logged
    assert first["captions/0"].args == (photo,) and first["captions/0"].caption == "犬が走る。"
    assert second == {"captions/1": "A dog.", "step": 3}


def test_a_missing_login_is_explained(tmp_path, runs, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "refused")
    with pytest.raises(ConnectionError, match="no-tty.*or set WANDB_MODE=offline"):
        WandbWriter(tmp_path, {}, resume=False)


def test_missing_wandb_and_unknown_loggers_are_errors(trained_run, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="Received: log=.'mlflow'"):
        options(trained_run, tmp_path, log=["mlflow"])
    with pytest.raises(ValueError, match="Received: log='wandb'"):
        options(trained_run, tmp_path, log="wandb")
    monkeypatch.setattr("effcap.trainers.options.run.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'effcap\[wandb\]'"):
        options(trained_run, tmp_path, log=["wandb"])
