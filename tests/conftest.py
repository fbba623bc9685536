"""Fixtures that the tests of several floors share."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import keras
import pytest

from effcap.captioner import Captioner
from effcap.tokenizers import Tokenizer
from helpers.captioners import CAPTIONS, eagerly, randomize, tiny_hparams
from helpers.data_maker import make_data, make_variant


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves exhaustive tests out unless -m names them."""
    if "exhaustive" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("exhaustive")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A small tokenizer."""
    return Tokenizer.train(CAPTIONS, vocabulary_size=290)


@pytest.fixture
def captioner(tokenizer: Tokenizer) -> Captioner:
    """A tiny captioner with random weights in every part."""
    keras.utils.set_random_seed(0)
    return randomize(Captioner.from_hparams(tiny_hparams(), tokenizer))


@pytest.fixture
def eager():
    """Runs TensorFlow's functions without tracing; see `eagerly`."""
    with eagerly():
        yield


@dataclass(frozen=True)
class TrainedRun:
    """A finished run of `effcap train csv`: 2 epochs of 3 steps on 12 photos, validated on 5.

    Attributes:
        data: folder with photos/, train.csv, dev.csv and the variant tiny.json.
        folder: run folder, with best/, last/, run.json, log.txt, log.csv and tensorboard/.
        command: the words of the command, without "effcap".
        stdout, stderr: what the command printed.
    """

    data: Path
    folder: Path
    command: list[str]
    stdout: str
    stderr: str


# One run for all tests that only read a run, its presets or its data: take the fixture as it is,
# and copy what you change (`shutil.copytree(trained_run.folder, tmp_path / "run")`). With xdist,
# each worker trains its own.
@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A finished tiny training run, shared by all tests of the session."""
    from effcap.tools.cli import main

    data = make_data(tmp_path_factory.mktemp("data"))
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = {
        "--csv": data / "train.csv",
        "--val-csv": data / "dev.csv",
        "--images": data / "photos",
        "--model": make_variant(data / "tiny.json"),
        "--set": "decoder.vocabulary_size=300",
        "--out": folder,
    }
    command = ["train", "csv", *(str(word) for option in options.items() for word in option)]
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = main(command)
    assert code == 0, stderr.getvalue()
    return TrainedRun(data, folder, command, stdout.getvalue(), stderr.getvalue())
