"""The run folder: presets, scores, log and checkpoints."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.trainers.engine.checkpoint import Checkpoint, TrainState, check_finite
from effcap.trainers.engine.run_folder import RunFolder
from helpers.data_maker import make_captioner

SCORE = "val_cross_entropy"


def get_weights(captioner) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(weight) for weight in captioner.trainable_weights]


def save_epochs(path, epochs) -> Captioner:
    """Saves a captioner after each epoch with the given scores; it changes before each."""
    captioner = make_captioner()
    folder, state = RunFolder(path), TrainState()
    folder.begin({"command": "effcap train"}, state)
    for scores in epochs:
        position_embedding = captioner.decoder.weights[1]
        position_embedding.assign(position_embedding + 1)
        folder.save(captioner, state, state.end_epoch({"loss": 9.0, **scores}))
    return captioner


def test_the_best_preset_has_the_lowest_validation_loss(tmp_path):
    captioner = save_epochs(tmp_path, [{SCORE: 3.0}, {SCORE: 2.0}, {SCORE: 2.5}])
    best = json.loads((tmp_path / "best" / "training.json").read_text())
    last = json.loads((tmp_path / "last" / "training.json").read_text())
    assert (best["epoch"], best["scores"][SCORE]) == (2, 2.0)
    assert last["epoch"] == 3 and last["command"] == "effcap train"
    saved = Captioner.from_preset(tmp_path / "last")
    for one, other in zip(get_weights(saved), get_weights(captioner), strict=True):
        assert np.array_equal(one, other)
    earlier = Captioner.from_preset(tmp_path / "best").decoder.weights[1]
    np.testing.assert_allclose(captioner.decoder.weights[1] - earlier, 1, atol=1e-5)
    assert (tmp_path / "log.csv").read_text() == (
        "epoch,loss,val_cross_entropy\n1,9.0,3.0\n2,9.0,2.0\n3,9.0,2.5\n"
    )


def test_without_validation_the_last_epoch_is_the_best(tmp_path):
    save_epochs(tmp_path, [{}, {}])
    assert json.loads((tmp_path / "best" / "training.json").read_text())["epoch"] == 2


def test_epochs_without_improvement_are_counted():
    state = TrainState()
    is_best = [state.end_epoch({SCORE: score}) for score in (3.0, 3.0, 2.0, 2.5, 2.1)]
    assert is_best == [True, False, True, False, False]
    assert (state.epoch, state.best, state.stale) == (5, -2.0, 2)


def test_cider_takes_precedence_over_cross_entropy():
    state = TrainState()
    scores = ((0.5, 1.0), (0.4, 0.5), (0.6, 2.0))
    is_best = [state.end_epoch({"val_cider": cider, SCORE: loss}) for cider, loss in scores]
    assert is_best == [True, False, True]


@pytest.mark.parametrize("value", (float("nan"), float("inf")))
def test_a_loss_that_is_not_finite_is_an_error(value):
    with pytest.raises(ValueError, match=f"diverged in epoch 2: val_loss is {value}"):
        check_finite({"loss": 1.0, "val_loss": value}, 1)


def test_the_log_names_command_and_versions(tmp_path, capsys):
    record = {"command": "effcap train csv", "versions": {"keras": "3.15"}}
    folder, state = RunFolder(tmp_path / "run"), TrainState(step=7)
    folder.begin(record, state)
    state.end_epoch({"loss": 1.0})
    assert not folder.is_finished()
    folder.finish(state)
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert [line[21:] for line in lines] == [
        "resuming after step 7, in epoch 1",
        "command: effcap train csv",
        "keras 3.15",
        "finished after 1 epochs, 7 steps",
    ]
    assert capsys.readouterr().err == "resuming after step 7, in epoch 1\n"
    assert folder.is_finished()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["command"] == "effcap train csv"


def test_a_process_that_does_not_write_leaves_no_files(tmp_path, capsys):
    folder, state = RunFolder(tmp_path / "run", is_writer=False), TrainState(step=7)
    folder.begin({}, state)
    state.end_epoch({"loss": 1.0})
    folder.log("epoch 1")
    folder.save(None, state, True)
    folder.finish(state)
    Checkpoint(folder.checkpoint, is_writer=False).write(None, state)
    assert not (tmp_path / "run").exists() and capsys.readouterr().err == ""


@pytest.fixture
def compiled() -> Captioner:
    return make_compiled()


def make_compiled(**decoder) -> Captioner:
    captioner = make_captioner(**decoder)
    captioner.compile("adam", jit_compile=False)
    captioner.optimizer.build(captioner.trainable_variables)
    return captioner


def test_a_failed_checkpoint_leaves_the_previous_one(tmp_path, compiled, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "checkpoint.h5")
    checkpoint.write(compiled, TrainState(step=1))

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("effcap.trainers.engine.checkpoint.replace_file", fail)
    with pytest.raises(OSError, match="previous one is intact: No space left"):
        checkpoint.write(compiled, TrainState(step=2))
    assert checkpoint.read_state().step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.h5"]


@pytest.mark.parametrize("size", (0, 100, 5000))
def test_a_truncated_checkpoint_is_named_in_the_error(tmp_path, compiled, size):
    checkpoint = Checkpoint(tmp_path / "checkpoint.h5")
    checkpoint.write(compiled, TrainState(step=1))
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:size])
    with pytest.raises(ValueError, match="Expected a checkpoint. Received: .*checkpoint.h5"):
        checkpoint.read_state()


def test_a_checkpoint_of_another_captioner_is_rejected(tmp_path, compiled):
    checkpoint = Checkpoint(tmp_path / "checkpoint.h5")
    checkpoint.write(compiled, TrainState(step=1))
    with pytest.raises(ValueError, match="does not fit the captioner: .* arrays for"):
        checkpoint.restore(make_compiled(num_layers=2))
    with pytest.raises(ValueError, match=r"c_fc/kernel of shape \(16, 64\), not \(16, 32\)"):
        checkpoint.restore(make_compiled(intermediate_dim=32))
