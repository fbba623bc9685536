"""What is kept of a run."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from helpers.data_maker import make_captioner

from effcap.captioner import Captioner
from effcap.trainers.engine.checkpoint import Checkpoint, Position, finite
from effcap.trainers.engine.run_folder import RunFolder, finished

MONITOR = "val_cross_entropy"


def weights(captioner) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(weight) for weight in captioner.trainable_weights]


def end_epochs(path, losses) -> Captioner:
    captioner = make_captioner()
    folder, position = RunFolder(path, {"command": "effcap train"}), Position()
    for loss in losses:
        captioner.decoder.wpe.assign(captioner.decoder.wpe + 1)
        scores = {"loss": loss} if loss > 9 else {"loss": 9.0, MONITOR: loss}
        folder.save(captioner, position, position.end_epoch(scores))
    return captioner


def test_the_best_preset_is_that_of_the_lowest_validation_loss(tmp_path):
    captioner = end_epochs(tmp_path, [3.0, 2.0, 2.5])
    best = json.loads((tmp_path / "best" / "training.json").read_text())
    last = json.loads((tmp_path / "last" / "training.json").read_text())
    assert (best["epoch"], best["scores"][MONITOR]) == (2, 2.0)
    assert last["epoch"] == 3 and last["command"] == "effcap train"
    found = Captioner.from_preset(tmp_path / "last")
    for kept, wanted in zip(weights(found), weights(captioner), strict=True):
        assert np.array_equal(kept, wanted)
    earlier = Captioner.from_preset(tmp_path / "best").decoder.wpe
    np.testing.assert_allclose(captioner.decoder.wpe - earlier, 1, atol=1e-5)
    assert (tmp_path / "log.csv").read_text() == (
        "epoch,loss,val_cross_entropy\n1,9.0,3.0\n2,9.0,2.0\n3,9.0,2.5\n"
    )


def test_without_validation_the_last_is_the_best(tmp_path):
    end_epochs(tmp_path, [11.0, 12.0])
    assert json.loads((tmp_path / "best" / "training.json").read_text())["epoch"] == 2


def test_epochs_without_a_better_score_are_counted():
    position = Position()
    best = [position.end_epoch({MONITOR: score}) for score in (3.0, 3.0, 2.0, 2.5, 2.1)]
    assert best == [True, False, True, False, False]
    assert (position.epoch, position.best, position.stale) == (5, -2.0, 2)


@pytest.mark.parametrize("value", (float("nan"), float("inf")))
def test_a_loss_that_is_no_number_is_an_error(value):
    with pytest.raises(ValueError, match=f"epoch 2: val_loss is {value}"):
        finite({"loss": 1.0, "val_loss": value}, 1)


def test_the_log_says_what_was_run_with_the_time(tmp_path, capsys):
    record = {"command": "effcap train csv", "versions": {"keras": "3.15"}}
    folder, position = RunFolder(tmp_path / "run", record), Position(steps=7)
    folder.begin(position)
    position.end_epoch({"loss": 1.0})
    assert not finished(tmp_path / "run")
    folder.finish(position)
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert [line[21:] for line in lines] == [
        "going on after step 7, in epoch 1",
        "command: effcap train csv",
        "keras 3.15",
        "finished after 1 epochs, 7 steps",
    ]
    assert capsys.readouterr().err == "going on after step 7, in epoch 1\n"
    assert finished(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["command"] == "effcap train csv"


@pytest.fixture
def compiled() -> Captioner:
    captioner = make_captioner()
    captioner.compile("adam", jit_compile=False)
    captioner.optimizer.build(captioner.trainable_variables)
    return captioner


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, compiled, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "checkpoint.h5")
    checkpoint.write(compiled, Position(steps=1))

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("effcap.trainers.engine.checkpoint.replace_file", full)
    with pytest.raises(OSError, match="still there. Received: No space left"):
        checkpoint.write(compiled, Position(steps=2))
    assert checkpoint.position().steps == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.h5"]


@pytest.mark.parametrize("keep", (0, 100, 5000))
def test_a_truncated_checkpoint_is_one_clear_error(tmp_path, compiled, keep):
    checkpoint = Checkpoint(tmp_path / "checkpoint.h5")
    checkpoint.write(compiled, Position(steps=1))
    data = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(data[:keep])
    with pytest.raises(ValueError, match="Expected a checkpoint. Received: .*checkpoint.h5"):
        checkpoint.position()


def test_a_checkpoint_of_another_captioner_is_refused(tmp_path, compiled):
    checkpoint = Checkpoint(tmp_path / "checkpoint.h5")
    checkpoint.write(compiled, Position(steps=1))
    other = make_captioner(layers=2)
    other.compile("adam", jit_compile=False)
    other.optimizer.build(other.trainable_variables)
    with pytest.raises(ValueError, match="to fit the captioner. Received: .* arrays for"):
        checkpoint.restore(other)
    wider = make_captioner(inner=32)
    wider.compile("adam", jit_compile=False)
    wider.optimizer.build(wider.trainable_variables)
    with pytest.raises(ValueError, match=r"c_fc/kernel of shape \(16, 64\), not \(16, 32\)"):
        checkpoint.restore(wider)
