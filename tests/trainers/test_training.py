"""Training: the optimizer, exact lengths, exact validation loss, the same numbers twice."""

from __future__ import annotations

import json
import math

import keras
import numpy as np
import pytest
from helpers.data_maker import make_captioner, make_data
from keras.ops import convert_to_numpy as numpy

from effcap.metrics.token_cross_entropy import TokenCrossEntropy
from effcap.trainers import PhotoFiles, TrainingOptions, csv_dataset, train
from effcap.trainers.engine.callbacks import Steps


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def eager():
    """Steps are taken one by one: for a handful of them that is sooner done than compiling."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.run_functions_eagerly(True)
        yield
        tf.config.run_functions_eagerly(False)
    else:
        yield


def batches_of(data, captioner, name="train", **options):
    options = {"batch_size": 4, "shuffle": name == "train", **options}
    return csv_dataset(data / f"{name}.csv", data / "photos", captioner, **options)


STATEFUL = {
    "epochs": 3,
    "ema": 0.9,
    "gradient_accumulation": 2,
    "captions_per_photo": 1,
    "mirror": True,
    "seed": 3,
}


@pytest.fixture(scope="module")
def whole_run(data, tmp_path_factory):
    """(captioner, history, folder) of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    return *run(data, folder, **STATEFUL), folder


@pytest.fixture
def stop_after(monkeypatch):
    """Makes the next runs stop after a step, as if asked to or killed; None for not at all."""
    count = Steps.on_train_batch_end

    def stop(step, killed=False):
        def ended(self, batch, logs=None):
            self.interruption.asked = not killed and self.position.steps + 1 == step
            count(self, batch, logs)
            if self.position.steps == step:
                raise KeyboardInterrupt

        monkeypatch.setattr(Steps, "on_train_batch_end", count if step is None else ended)

    return stop


def run(
    data,
    out,
    validation=True,
    prepare=lambda captioner: None,
    resume=False,
    frozen=None,
    name="train",
    **options,
):
    captioner = make_captioner(frozen=frozen)
    prepare(captioner)
    how = TrainingOptions(**{"batch_size": 4, "epochs": 2, "learning_rate": 3e-3, **options})
    training = batches_of(
        data,
        captioner,
        name,
        shuffle=True,
        seed=how.seed,
        captions_per_photo=how.captions_per_photo,
    )
    held_out = batches_of(data, captioner, "dev") if validation else None
    return captioner, train(captioner, training, held_out, out, how, resume=resume)


def cross_entropy(captioner, batches) -> float:
    """Per real token, over all batches."""
    metric = TokenCrossEntropy()
    for index in range(len(batches)):
        inputs, targets, weights = batches[index]
        metric.update_state(targets, captioner(inputs, training=False), weights)
    return float(metric.result())


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(("steps", "epochs"), ((1, 1), (3, 1), (7, 3)))
def test_a_run_of_n_steps_takes_n_steps(data, tmp_path, steps, epochs):
    captioner, history = run(data, tmp_path, validation=False, steps=steps, epochs=1)
    assert int(captioner.optimizer.iterations) == steps
    assert len(history) == epochs
    assert float(captioner.optimizer.learning_rate) == pytest.approx(0, abs=1e-9)


@pytest.mark.usefixtures("eager")
def test_validation_loss_is_the_mean_over_all_real_tokens(data, tmp_path):
    captioner, history = run(data, tmp_path, epochs=1)
    held_out = batches_of(data, captioner, "dev", batch_size=1)
    total = count = 0.0
    for index in range(len(held_out)):
        inputs, targets, _ = held_out[index]
        segments = inputs["segments"][0]
        for segment in range(1, segments.max() + 1):  # each caption by itself, unpadded
            own = np.flatnonzero(segments == segment)
            alone = {"images": inputs["images"], "tokens": inputs["tokens"][:, own]}
            logits = numpy(captioner(alone, training=False))[0].astype(np.float64)  # (T,V)
            logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
            total -= logs[np.arange(len(own)), targets[0, own]].sum()
            count += len(own)
    assert history[0]["val_cross_entropy"] == pytest.approx(total / count, rel=2e-6)


@pytest.mark.usefixtures("eager")
def test_the_averaged_weights_are_validated_and_saved(data, tmp_path):
    from effcap.captioner import Captioner

    captioner, history = run(data, tmp_path, epochs=3, ema=0.9)
    assert captioner.optimizer.use_ema
    saved = Captioner.from_preset(tmp_path / "last")
    for ours, kept in zip(captioner.trainable_weights, saved.trainable_weights, strict=True):
        assert np.array_equal(numpy(ours), numpy(kept))
    assert history[-1]["val_cross_entropy"] == pytest.approx(
        cross_entropy(saved, batches_of(data, saved, "dev")), rel=1e-5
    )
    plain, _ = run(data, tmp_path / "plain", epochs=3)
    assert any(
        not np.array_equal(numpy(ours), numpy(others))
        for ours, others in zip(captioner.trainable_weights, plain.trainable_weights, strict=True)
    )


def test_the_same_seed_gives_the_same_weights_to_the_bit(data, tmp_path):
    first, _ = run(data, tmp_path / "1", seed=5)
    second, _ = run(data, tmp_path / "2", seed=5)
    for one, two in zip(first.weights, second.weights, strict=True):
        assert np.array_equal(numpy(one), numpy(two)), one.path


@pytest.mark.usefixtures("eager")
def test_a_frozen_backbone_stays_as_it_is_and_a_trained_one_moves(data, tmp_path):
    def thaw(captioner):
        captioner.encoder.backbone.trainable_blocks = "all"
        captioner.encoder.backbone._freeze()

    start = [numpy(weight) for weight in make_captioner().encoder.backbone.weights]
    frozen, _ = run(data, tmp_path / "1", validation=False, steps=3)
    trained, _ = run(data, tmp_path / "2", validation=False, steps=3, prepare=thaw)
    for before, still, moved in zip(
        start, frozen.encoder.backbone.weights, trained.encoder.backbone.weights, strict=True
    ):
        assert np.array_equal(before, numpy(still))
        assert not np.array_equal(before, numpy(moved))


@pytest.mark.usefixtures("eager")
def test_a_photo_that_vanishes_in_training_is_named(data, tmp_path, monkeypatch):
    from effcap.images import UnreadablePhoto

    load = PhotoFiles.load

    def vanish(self, photos, *rest):
        if 3 in photos:
            raise UnreadablePhoto("photo '3.jpg'", "there is no such file")
        return load(self, photos, *rest)

    monkeypatch.setattr(PhotoFiles, "load", vanish)
    with pytest.raises(UnreadablePhoto, match="Cannot read photo '3.jpg'"):
        run(data, tmp_path, validation=False)


@pytest.mark.usefixtures("eager")
def test_a_run_that_is_asked_to_stop_leaves_whole_presets_and_a_checkpoint(
    data, tmp_path, stop_after
):
    from effcap.captioner import Captioner

    stop_after(4)
    with pytest.raises(KeyboardInterrupt, match="after step 4"):
        run(data, tmp_path)
    for name in ("last", "best"):
        assert len(Captioner.from_preset(tmp_path / name).weights) > 10
        assert json.loads((tmp_path / name / "training.json").read_text())["epoch"] == 1
    assert (tmp_path / "checkpoint.h5").is_file()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


# Step 3 ends an epoch; after 7, two batches are left; killed in 5, it goes on from after 3.
@pytest.mark.parametrize(("step", "killed"), ((1, False), (3, False), (7, False), (5, True)))
def test_a_resumed_run_ends_as_if_it_had_never_stopped(
    data, tmp_path, whole_run, stop_after, step, killed
):
    stop_after(step, killed)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path, **STATEFUL)
    stop_after(None)
    captioner, history = run(data, tmp_path, resume=True, **STATEFUL)
    wanted, wanted_history, folder = whole_run
    assert history == wanted_history
    for one, two in zip(captioner.variables, wanted.variables, strict=True):
        assert np.array_equal(numpy(one), numpy(two)), one.path
    assert (tmp_path / "log.csv").read_text() == (folder / "log.csv").read_text()
    assert not (tmp_path / "checkpoint.h5").exists()  # the run has ended


@pytest.mark.usefixtures("eager")
def test_a_run_with_other_options_or_data_is_not_gone_on_with(data, tmp_path, stop_after):
    stop_after(1)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path)
    with pytest.raises(ValueError, match="training.learning_rate was 0.003 and is 0.1"):
        run(data, tmp_path, resume=True, learning_rate=0.1)
    with pytest.raises(ValueError, match="training data was .* and is "):
        run(data, tmp_path, resume=True, name="dev")


@pytest.mark.usefixtures("eager")
def test_a_run_ends_early_when_it_has_not_been_better_for_long(data, tmp_path):
    _, history = run(data, tmp_path, patience=2, epochs=9, learning_rate=0.0)
    assert len(history) == 3
    assert "no better for 2 epochs" in (tmp_path / "log.txt").read_text()
    assert json.loads((tmp_path / "best" / "training.json").read_text())["epoch"] == 1


@pytest.mark.usefixtures("eager")
def test_a_frozen_decoder_learns_to_look_and_keeps_its_language(data, tmp_path):
    before = [numpy(one) for one in make_captioner(frozen="pretrained").weights]
    captioner, _ = run(data, tmp_path, validation=False, steps=2, frozen="pretrained")
    kept = {one.path for one in captioner.decoder.pretrained_variables}
    for old, new in zip(before, captioner.weights, strict=True):
        same = np.array_equal(old, numpy(new))
        assert same or new.path not in kept, new.path
        assert not same or "/fusion/attention/c_proj" not in new.path, new.path


@pytest.mark.usefixtures("eager")
def test_losses_are_logged_and_fall(data, tmp_path):
    _, history = run(data, tmp_path, epochs=3, learning_rate=2e-2)
    losses = [scores["cross_entropy"] for scores in history]
    assert losses[-1] < losses[0] - 0.3
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert (
        lines[0] == "epoch,cross_entropy,loss,val_cross_entropy,val_loss,val_cider,val_distinct"
        and len(lines) == 4
    )
    assert all(math.isfinite(float(x)) for line in lines[1:] for x in line.split(","))
