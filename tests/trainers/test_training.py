"""Training with cross-entropy: run length, validation, resuming, stopping, reproducibility."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from keras.ops import convert_to_numpy as numpy

from effcap.captioner import Captioner
from effcap.images import UnreadablePhoto
from effcap.metrics.token_cross_entropy import TokenCrossEntropy
from effcap.trainers import PhotoFiles, RunOptions, read_csv
from effcap.trainers.engine.callbacks import CheckpointSteps
from effcap.trainers.engine.loop import RunBatches
from effcap.trainers.engine.run import train
from effcap.trainers.engine.run_folder import RunFolder
from effcap.trainers.objectives.cross_entropy import CrossEntropy
from helpers.data_maker import make_captioner, make_data, make_variant
from helpers.event_files import read_events

# A run of 9 steps in 3 epochs whose optimizer, averages and random generators all have a state.
STATEFUL = {
    "epochs": 3,
    "schedule": "linear",
    "learning_rate": 3e-2,
    "ema_momentum": 0.9,
    "gradient_accumulation_steps": 2,
    "captions_per_photo": 1,
    "horizontal_flip": True,
    "num_cider_photos": 0,
    "seed": 3,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = make_data(tmp_path_factory.mktemp("data"))
    make_variant(folder / "tiny.json")
    return folder


@pytest.fixture(scope="module")
def whole_run(data, tmp_path_factory):
    """(captioner, history, folder) of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    return *run(data, folder, **STATEFUL), folder


@pytest.fixture
def stop_after(monkeypatch):
    """Makes the next runs stop after a step, by a request or as if killed; None to not stop."""
    count_step = CheckpointSteps.on_train_batch_end

    def stop(step, killed=False):
        def count_and_stop(self, batch, logs=None):
            self.interruption.requested = not killed and self.state.step + 1 == step
            count_step(self, batch, logs)
            if self.state.step == step:
                raise KeyboardInterrupt

        replacement = count_step if step is None else count_and_stop
        monkeypatch.setattr(CheckpointSteps, "on_train_batch_end", replacement)

    return stop


def make_batches(data, captioner, split="dev", **options):
    dataset = read_csv(data / f"{split}.csv", data / "photos")
    return dataset.batches(captioner, **{"batch_size": 4, "shuffle": False, **options})


def run(
    data, out, *, validation=True, captioner=None, resume=False, split="train", **training
) -> tuple[Captioner, list[dict[str, float]]]:
    captioner = captioner or make_captioner()
    options = RunOptions(
        model=data / "tiny.json",
        out=out,
        resume=resume,
        training={"num_cider_photos": 0, **training},
    )
    batches = make_batches(data, captioner, split, **options.batch_options("training"))
    held_out = make_batches(data, captioner) if validation else None
    settings = options.training_options
    objective = CrossEntropy(settings.label_smoothing, settings.npair_weight)
    history = train(captioner, objective, RunBatches(batches, held_out), RunFolder(out), options)
    return captioner, history


def cross_entropy(captioner, batches) -> float:
    """Returns the cross-entropy per real token over all batches."""
    metric = TokenCrossEntropy()
    for index in range(len(batches)):
        inputs, targets, weights = batches[index]
        metric.update_state(targets, captioner(inputs, training=False), weights)
    return float(metric.result())


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    ("steps", "epochs"), ((1, 1), (3, 1), pytest.param(7, 3, marks=pytest.mark.slow))
)
def test_a_run_takes_the_given_number_of_steps(data, tmp_path, steps, epochs):
    captioner, history = run(data, tmp_path, validation=False, steps=steps, epochs=1)
    assert int(captioner.optimizer.iterations) == steps
    assert len(history) == epochs
    assert float(captioner.optimizer.learning_rate) == pytest.approx(0, abs=1e-9)


def test_validation_loss_is_the_mean_over_all_real_tokens(data, whole_run):
    captioner, history, _ = whole_run
    held_out = make_batches(data, captioner, batch_size=1)
    total = count = 0.0
    for index in range(len(held_out)):
        inputs, targets, _ = held_out[index]
        segments = inputs["segments"][0]
        for segment in range(1, segments.max() + 1):  # each caption alone, without padding
            positions = np.flatnonzero(segments == segment)
            caption = {"images": inputs["images"], "tokens": inputs["tokens"][:, positions]}
            logits = numpy(captioner(caption, training=False))[0].astype(np.float64)  # (T,V)
            log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))  # (T,V)
            total -= log_probs[np.arange(len(positions)), targets[0, positions]].sum()
            count += len(positions)
    assert history[-1]["val_cross_entropy"] == pytest.approx(total / count, rel=2e-6)


def test_averaged_weights_are_validated_and_saved(data, whole_run):
    captioner, history, folder = whole_run
    optimizer = captioner.optimizer
    saved = Captioner.from_preset(folder / "last")
    for one, other in zip(captioner.weights, saved.weights, strict=True):
        assert np.array_equal(numpy(one), numpy(other))
    for one, average in zip(
        captioner.trainable_weights, optimizer._model_variables_moving_average, strict=True
    ):
        assert np.array_equal(numpy(one), numpy(average))
    loss = cross_entropy(saved, make_batches(data, saved))
    assert history[-1]["val_cross_entropy"] == pytest.approx(loss, rel=1e-5)


def test_losses_are_logged_and_fall(whole_run):
    _, history, folder = whole_run
    losses = [scores["cross_entropy"] for scores in history]
    assert losses[-1] < losses[0] - 0.3
    lines = (folder / "log.csv").read_text().splitlines()
    assert lines[0] == "epoch,cross_entropy,loss,val_cross_entropy,val_loss" and len(lines) == 4
    assert all(math.isfinite(float(x)) for line in lines[1:] for x in line.split(","))


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_validation_captions_are_scored_with_cider(data, tmp_path):
    captioner, history = run(data, tmp_path, steps=1, num_cider_photos=2)
    assert list(history[0])[-2:] == ["val_cider", "val_distinct"]
    assert 0 <= history[0]["val_cider"] <= 10 and history[0]["val_distinct"] in (0.25, 0.5, 1.0)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_a_frozen_backbone_keeps_its_weights_and_a_trained_one_does_not(data, tmp_path):
    trainable = make_captioner()
    trainable.encoder.backbone.trainable_blocks = "all"
    trainable.encoder.backbone._freeze()
    before = [numpy(weight) for weight in make_captioner().encoder.backbone.weights]
    frozen, _ = run(data, tmp_path / "1", validation=False, steps=3)
    run(data, tmp_path / "2", validation=False, steps=3, captioner=trainable)
    for old, kept, trained in zip(
        before, frozen.encoder.backbone.weights, trainable.encoder.backbone.weights, strict=True
    ):
        assert np.array_equal(old, numpy(kept))
        assert not np.array_equal(old, numpy(trained))


@pytest.mark.usefixtures("eager")
def test_a_photo_that_becomes_unreadable_is_named(data, tmp_path, monkeypatch):
    load = PhotoFiles.load

    def load_all_but_one(self, indices, *arguments):
        if 3 in indices:
            raise UnreadablePhoto("photo '3.jpg'", "there is no such file")
        return load(self, indices, *arguments)

    monkeypatch.setattr(PhotoFiles, "load", load_all_but_one)
    with pytest.raises(UnreadablePhoto, match="Cannot read photo '3.jpg'"):
        run(data, tmp_path, validation=False)


# After step 7, two batches of the epoch are left; killed in step 5, the run resumes after step 3.
@pytest.mark.slow
@pytest.mark.parametrize(("step", "killed"), ((7, False), (1, False), (5, True)))
def test_a_resumed_run_equals_an_uninterrupted_one(
    data, tmp_path, whole_run, stop_after, step, killed
):
    stop_after(step, killed)
    with pytest.raises(KeyboardInterrupt, match=None if killed else f"after step {step}"):
        run(data, tmp_path, **STATEFUL)
    if step > 3:  # the run leaves complete files
        for name in ("last", "best"):
            Captioner.from_preset(tmp_path / name)
        record = json.loads((tmp_path / "last" / "training.json").read_text())
        assert record["epoch"] == step // 3
    assert (tmp_path / "checkpoint.h5").is_file()
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    stop_after(None)
    captioner, history = run(data, tmp_path, resume=True, **STATEFUL)
    whole, whole_history, folder = whole_run
    assert history == whole_history
    for one, other in zip(captioner.variables, whole.variables, strict=True):
        assert np.array_equal(numpy(one), numpy(other)), one.path
    assert (tmp_path / "log.csv").read_text() == (folder / "log.csv").read_text()
    assert not (tmp_path / "checkpoint.h5").exists()  # removed at the end of the run


@pytest.mark.usefixtures("eager")
def test_a_run_killed_before_its_first_checkpoint_starts_again(data, tmp_path, stop_after):
    options = {"validation": False, "steps": 1, "seed": 5}
    stop_after(1, killed=True)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "1", **options)
    assert not (tmp_path / "1" / "checkpoint.h5").exists()
    stop_after(None)
    resumed, history = run(data, tmp_path / "1", resume=True, **options)
    whole, whole_history = run(data, tmp_path / "2", **options)
    assert history == whole_history
    for one, other in zip(resumed.weights, whole.weights, strict=True):  # to the bit
        assert np.array_equal(numpy(one), numpy(other)), one.path


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_the_npair_loss_is_logged_and_resumed(data, tmp_path, stop_after):
    options = {"steps": 2, "npair_weight": 0.5, "label_smoothing": 0.0}
    fusion = {"kind": "prefix"}
    _, (whole,) = run(data, tmp_path / "1", captioner=make_captioner(fusion=fusion), **options)
    stop_after(1)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "2", captioner=make_captioner(fusion=fusion), **options)
    stop_after(None)
    captioner = make_captioner(fusion=fusion)
    _, (scores,) = run(data, tmp_path / "2", captioner=captioner, resume=True, **options)
    assert scores == whole and "val_npair" not in scores
    assert scores["loss"] == pytest.approx(scores["cross_entropy"] + 0.5 * scores["npair"])
    assert ", n-pair loss " in (tmp_path / "2" / "log.txt").read_text()
    assert {"step/npair", "epoch/npair"} <= set(read_events(tmp_path / "1" / "tensorboard"))


@pytest.mark.usefixtures("eager")
def test_a_run_is_not_resumed_with_other_options_or_data(data, tmp_path, stop_after):
    stop_after(1)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path)
    with pytest.raises(ValueError, match="training.learning_rate was 0.003 and is 0.1"):
        run(data, tmp_path, resume=True, learning_rate=0.1)
    with pytest.raises(ValueError, match="training data was .* and is "):
        run(data, tmp_path, resume=True, split="dev")


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_training_stops_early_without_improvement(data, tmp_path):
    _, history = run(data, tmp_path, patience=2, epochs=9, learning_rate=0.0, num_cider_photos=0)
    assert len(history) == 3
    assert "no improvement for 2 epochs" in (tmp_path / "log.txt").read_text()
    assert json.loads((tmp_path / "best" / "training.json").read_text())["epoch"] == 1


@pytest.mark.usefixtures("eager")
def test_a_frozen_decoder_trains_its_fusion_only(data, tmp_path):
    captioner = make_captioner(frozen="pretrained")
    before = [numpy(one) for one in captioner.weights]
    run(data, tmp_path, validation=False, steps=2, captioner=captioner)
    pretrained = {id(one) for one in captioner.decoder.pretrained_variables}
    for old, weight in zip(before, captioner.weights, strict=True):
        is_equal = np.array_equal(old, numpy(weight))
        assert is_equal or id(weight) not in pretrained, weight.path
        assert not is_equal or "/fusion/attention/c_proj" not in weight.path, weight.path
