"""Training: the optimizer, exact lengths, exact validation loss, the same numbers twice."""

from __future__ import annotations

import json
import math

import keras
import numpy as np
import pytest
from data_maker import make_captioner, make_data
from keras.ops import convert_to_numpy as numpy

from effcap.metrics import TokenCrossEntropy
from effcap.trainers import PhotoFiles, TrainingOptions, csv_dataset, train
from effcap.trainers.training import make_optimizer


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


def run(data, out, validation=True, prepare=lambda captioner: None, **options):
    captioner = make_captioner()
    prepare(captioner)
    how = TrainingOptions(**{"batch_size": 4, "epochs": 2, "learning_rate": 3e-3, **options})
    training = batches_of(data, captioner, seed=how.seed)
    held_out = batches_of(data, captioner, "dev") if validation else None
    return captioner, train(captioner, training, held_out, out, how)


def cross_entropy(captioner, batches) -> float:
    """Per real token, over all batches."""
    metric = TokenCrossEntropy()
    for index in range(len(batches)):
        inputs, targets, weights = batches[index]
        metric.update_state(targets, captioner(inputs, training=False), weights)
    return float(metric.result())


def rate(optimizer, step: int) -> float:
    return float(optimizer._learning_rate(step))


@pytest.mark.parametrize("steps", (1, 2, 20, 333))
def test_the_learning_rate_rises_then_falls_as_a_cosine_and_ends_at_zero(steps):
    optimizer = make_optimizer(TrainingOptions(learning_rate=0.4, warmup=0.1), steps)
    rates = np.array([rate(optimizer, step) for step in range(steps + 1)])
    warmup = int(0.1 * steps)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert (rates[:-1] > 0).all()  # no step is for nothing
    assert rates.max() == rates[warmup] == pytest.approx(0.4)
    assert (np.diff(rates[: warmup + 1]) > 0).all() and (np.diff(rates[warmup:]) < 0).all()
    middle = (steps + warmup) / 2
    if middle == int(middle):
        assert rates[int(middle)] == pytest.approx(0.2)


def test_the_moving_average_never_spans_more_than_a_fifth_of_the_run():
    momenta = [make_optimizer(TrainingOptions(ema=0.998), n).ema_momentum for n in (50, 250, 9999)]
    assert momenta == pytest.approx([0.9, 0.98, 0.998])
    assert not make_optimizer(TrainingOptions(ema=0.998), 5).use_ema
    assert not make_optimizer(TrainingOptions(), 5000).use_ema


def test_weight_decay_spares_biases_norms_and_embeddings(data):
    captioner = make_captioner(special_tokens=0)
    optimizer = make_optimizer(TrainingOptions(), 10)
    optimizer.build(captioner.trainable_variables)
    decayed = {v.path for v in captioner.trainable_variables if optimizer._use_weight_decay(v)}
    assert decayed
    for variable in captioner.trainable_variables:
        is_matrix = variable.path.endswith("/kernel")
        assert (variable.path in decayed) == is_matrix, variable.path
        assert not is_matrix or len(variable.shape) >= 2
    others = {v.path.rsplit("/", 1)[1] for v in captioner.trainable_variables} - {"kernel"}
    assert others == {"bias", "gamma", "beta", "wte", "wpe", "position_embedding"}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(("steps", "epochs"), ((1, 1), (3, 1), (7, 3)))
def test_a_run_of_n_steps_takes_n_steps(data, tmp_path, steps, epochs):
    captioner, history = run(data, tmp_path, validation=False, steps=steps, epochs=1)
    assert int(captioner.optimizer.iterations) == steps
    assert len(history.history["loss"]) == epochs
    assert rate(captioner.optimizer, steps) == pytest.approx(0, abs=1e-9)


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
    assert history.history["val_cross_entropy"][0] == pytest.approx(total / count, rel=2e-6)


@pytest.mark.usefixtures("eager")
def test_the_averaged_weights_are_validated_and_saved(data, tmp_path):
    from effcap.captioner import Captioner

    captioner, history = run(data, tmp_path, epochs=3, ema=0.9)
    assert captioner.optimizer.use_ema
    saved = Captioner.from_preset(tmp_path / "last")
    for ours, kept in zip(captioner.trainable_weights, saved.trainable_weights, strict=True):
        assert np.array_equal(numpy(ours), numpy(kept))
    assert history.history["val_cross_entropy"][-1] == pytest.approx(
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
    from effcap.photos import UnreadablePhoto

    load = PhotoFiles.load

    def vanish(self, photos, mirror):
        if 3 in photos:
            raise UnreadablePhoto("photo '3.jpg'", "there is no such file")
        return load(self, photos, mirror)

    monkeypatch.setattr(PhotoFiles, "load", vanish)
    with pytest.raises(UnreadablePhoto, match="Cannot read photo '3.jpg'"):
        run(data, tmp_path, validation=False)


@pytest.mark.usefixtures("eager")
def test_an_interrupted_run_leaves_whole_presets(data, tmp_path, monkeypatch):
    from effcap.captioner import Captioner
    from effcap.trainers.callbacks import StopAfter

    ended = StopAfter.on_train_batch_end

    def interrupt(self, batch, logs=None):
        ended(self, batch, logs)
        if self.left == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(StopAfter, "on_train_batch_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path)
    for name in ("last", "best"):
        assert len(Captioner.from_preset(tmp_path / name).weights) > 10
        assert json.loads((tmp_path / name / "training.json").read_text())["epoch"] == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


@pytest.mark.usefixtures("eager")
def test_losses_are_logged_and_fall(data, tmp_path):
    _, history = run(data, tmp_path, epochs=3, learning_rate=2e-2)
    losses = history.history["cross_entropy"]
    assert losses[-1] < losses[0] - 0.3
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == "epoch,cross_entropy,loss,val_cross_entropy,val_loss" and len(lines) == 4
    assert all(math.isfinite(float(x)) for line in lines[1:] for x in line.split(","))
