"""The optimizer: learning rates of parts, weight decay, averages, accumulated gradients."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as numpy

from effcap.captioner import Captioner
from effcap.config import load_hparams
from effcap.fused_adam import FusedAdam, fuse
from effcap.optimizers import CaptionOptimizer, LinearDecay, accumulate_by_tokens
from effcap.trainers import TrainingOptions
from effcap.trainers.engine.optimizer import make_optimizer
from effcap.trainers.engine.smoke import shrink
from helpers.captioners import example_batch
from helpers.data_maker import make_captioner


def make_variable(values, name: str = "kernel") -> keras.Variable:
    return keras.Variable(np.array(values, "float32"), name=name)


def apply(optimizer, variables, gradients) -> list[np.ndarray]:
    """Applies each gradient to all variables and returns their values."""
    optimizer.build(variables)
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32") for _ in variables])
    return [numpy(variable) for variable in variables]


@pytest.mark.parametrize("length", (1, 2, 20, 333))
def test_the_learning_rate_rises_and_falls_as_a_cosine_to_zero(length):
    optimizer = make_optimizer(TrainingOptions(learning_rate=0.4, warmup_fraction=0.1), length)
    rates = np.array([float(optimizer._learning_rate(step)) for step in range(length + 1)])
    warmup = int(0.1 * length)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert (rates[:-1] > 0).all()
    assert rates.max() == rates[warmup] == pytest.approx(0.4)
    assert (np.diff(rates[: warmup + 1]) > 0).all() and (np.diff(rates[warmup:]) < 0).all()
    middle = (length + warmup) / 2
    if middle == int(middle):
        assert rates[int(middle)] == pytest.approx(0.2)


def linear_schedule_with_warmup(step: int, warmup: int, total: int) -> float:
    """Returns the factor of transformers 5's `get_linear_schedule_with_warmup`."""
    if step < warmup:
        return float(step) / float(max(1, warmup))
    return max(0.0, float(total - step) / float(max(1, total - warmup)))


@pytest.mark.parametrize("warmup_fraction", (0.0, 0.1))
@pytest.mark.parametrize("length", (1, 2, 20, 333))
def test_linear_learning_rates_are_those_of_transformers(length, warmup_fraction):
    options = TrainingOptions(
        learning_rate=1e-5, schedule="linear", warmup_fraction=warmup_fraction
    )
    optimizer = make_optimizer(options, length)
    rates = [float(optimizer._learning_rate(step)) for step in range(length + 2)]
    warmup = int(warmup_fraction * length)
    factors = [linear_schedule_with_warmup(step, warmup, length) for step in range(length + 2)]
    np.testing.assert_allclose(rates, 1e-5 * np.array(factors), rtol=1e-6, atol=1e-12)


def test_a_saved_optimizer_keeps_its_linear_schedule():
    schedule = LinearDecay(0.5, 10, 2)
    config = keras.saving.serialize_keras_object(CaptionOptimizer(schedule))
    loaded = keras.saving.deserialize_keras_object(config)
    assert loaded._learning_rate.get_config() == schedule.get_config()


def test_the_moving_average_spans_at_most_a_fifth_of_the_run():
    options = TrainingOptions(ema_momentum=0.998)
    momenta = [make_optimizer(options, steps).ema_momentum for steps in (50, 250, 9999)]
    assert momenta == pytest.approx([0.9, 0.98, 0.998])
    assert not make_optimizer(options, 5).use_ema
    assert not make_optimizer(TrainingOptions(), 5000).use_ema


def test_updates_equal_those_of_adamw():
    start, gradients = [1.0, -2.0], [[0.3, 0.1], [-0.2, 0.4], [0.1, 0.1]]
    ours = apply(CaptionOptimizer(0.1, decay=0.2), [make_variable(start)], gradients)
    adamw = keras.optimizers.AdamW(0.1, weight_decay=0.2)
    theirs = apply(adamw, [make_variable(start)], gradients)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    (
        {"global_clipnorm": 1.0, "use_ema": True, "ema_momentum": 0.9},
        {"clipvalue": 0.3, "gradient_accumulation_steps": 4},
    ),
)
def test_a_hundred_steps_equal_those_of_keras(settings):
    rng = np.random.default_rng(0)
    shapes = ((5, 4), (3,))
    starts = [rng.normal(size=shape) for shape in shapes]
    gradients = [[rng.normal(size=shape) * (1 + i % 7) for shape in shapes] for i in range(100)]
    fused = keras.optimizers.AdamW(1e-3, weight_decay=0.1, **settings)
    fuse(fused)
    optimizers = {
        "keras": keras.optimizers.AdamW(1e-3, weight_decay=0.1, **settings),
        "fused": fused,
        "captions": CaptionOptimizer(1e-3, decay=0.1, **settings),
    }
    states = {}
    for name, optimizer in optimizers.items():
        variables = [make_variable(start) for start in starts]
        optimizer.build(variables)
        for arrays in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(x, "float32") for x in arrays])
        states[name] = [*variables, *optimizer.variables]
    for name in ("fused", "captions"):
        for one, other in zip(states["keras"], states[name], strict=True):
            # Keras and the kernel round 1 - beta differently.
            np.testing.assert_allclose(numpy(one), numpy(other), rtol=2e-5, atol=1e-6)
        for one, other in zip(states["keras"][:2], states[name][:2], strict=True):
            np.testing.assert_allclose(numpy(one), numpy(other), rtol=0, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has slices")
def test_the_slices_of_a_repeated_row_are_summed():
    import tensorflow as tf

    rows = tf.constant([[1.0, 2.0], [3.0, -5.0], [4.0, 4.0]])
    slices = tf.IndexedSlices(rows, tf.constant([1, 1, 0]), tf.constant([3, 2]))
    by_kind = []
    for gradient in (slices, tf.convert_to_tensor(slices)):
        table = make_variable(np.ones((3, 2)))
        optimizer = CaptionOptimizer(0.1, global_clipnorm=1.0)
        optimizer.build([table])
        optimizer.apply([gradient])
        optimizer.apply([gradient])
        by_kind.append([numpy(x) for x in (table, *optimizer.variables)])
    for one, other in zip(*by_kind, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_gradient_that_is_not_finite_is_not_hidden_by_clipping():
    optimizer = CaptionOptimizer(0.1, global_clipnorm=1.0)
    (values,) = apply(optimizer, [make_variable([1.0, 1.0])], [[np.inf, 1.0]])
    assert np.isnan(values).all()


def test_a_saved_optimizer_of_keras_is_loaded_with_its_state_and_fused_again(captioner, tmp_path):
    captioner.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1), run_eagerly=True)
    assert type(captioner.optimizer).__name__ == "AdamW"
    captioner.train_on_batch(*example_batch(captioner))
    captioner.save(tmp_path / "captioner.keras")
    loaded = keras.saving.load_model(tmp_path / "captioner.keras")
    assert isinstance(loaded.optimizer, keras.optimizers.AdamW)
    assert isinstance(loaded.optimizer, FusedAdam) == isinstance(captioner.optimizer, FusedAdam)
    assert isinstance(loaded.optimizer, FusedAdam) == (keras.backend.backend() == "tensorflow")
    states = captioner.optimizer.variables, loaded.optimizer.variables
    for one, other in zip(*states, strict=True):
        np.testing.assert_array_equal(numpy(one), numpy(other))
    assert numpy(loaded.optimizer.iterations) == 1


def test_variables_without_weight_decay_keep_their_values():
    variables = [make_variable([1.0], "first"), make_variable([1.0], "second")]
    optimizer = CaptionOptimizer(0.1, decay=0.5, no_decay=[variables[0].path])
    kept, decayed = apply(optimizer, variables, [[0.0]])
    assert kept == 1 and decayed == pytest.approx(0.95)


@pytest.mark.parametrize(
    "variant", ("lite0-small", "gpt2-124m", "visualgpt", "playntell", "opg-transformer")
)
def test_weight_decay_applies_to_the_kernels_of_a_variant(variant):
    hparams = shrink(load_hparams(variant))
    hparams["decoder"]["num_special_tokens"] = 1
    if "backbone" in hparams["encoder"]:
        hparams["encoder"]["backbone"]["trainable_blocks"] = "all"
    captioner = Captioner.from_hparams(hparams, make_captioner().tokenizer)
    optimizer = make_optimizer(TrainingOptions(), 10, captioner)
    optimizer.build(captioner.trainable_variables)
    for one, decay in zip(captioner.trainable_variables, optimizer._decays, strict=True):
        assert (decay > 0) == one.path.endswith("kernel"), one.path
        assert not decay or len(one.shape) >= 2


def test_a_learning_rate_factor_scales_updates_and_decay():
    slow, fast = make_variable([1.0], "slow"), make_variable([1.0], "fast")
    optimizer = CaptionOptimizer(0.1, decay=0.5, factors={slow.path: 0.1})
    slow, fast = apply(optimizer, [slow, fast], [[0.0]])
    assert fast == pytest.approx(0.95) and slow == pytest.approx(0.995)
    slow, fast = make_variable([1.0], "slow"), make_variable([1.0], "fast")
    optimizer = CaptionOptimizer(0.1, factors={slow.path: 0.1})
    slow, fast = apply(optimizer, [slow, fast], [[1.0], [0.5], [-0.2]])
    assert 1 - slow == pytest.approx((1 - fast) / 10, rel=1e-4)


def test_backbone_and_decoder_can_have_their_own_learning_rates():
    captioner = make_captioner()
    captioner.encoder.backbone.trainable_blocks = "all"
    captioner.encoder.backbone._freeze()
    options = TrainingOptions(
        learning_rate=1e-3, backbone_learning_rate=1e-5, decoder_learning_rate=1e-4
    )
    optimizer = make_optimizer(options, 10, captioner)
    optimizer.build(captioner.trainable_variables)
    factors = {
        id(one): factor
        for one, factor in zip(captioner.trainable_variables, optimizer._factors, strict=True)
    }
    backbone = captioner.encoder.backbone.trainable_variables
    decoder = captioner.decoder.pretrained_variables
    assert [factors.pop(id(one)) for one in backbone] == pytest.approx([0.01] * len(backbone))
    assert [factors.pop(id(one)) for one in decoder] == pytest.approx([0.1] * len(decoder))
    assert set(factors.values()) == {1.0}


def test_a_learning_rate_of_a_frozen_part_is_rejected():
    with pytest.raises(ValueError, match="requires a backbone that is not frozen"):
        make_optimizer(TrainingOptions(backbone_learning_rate=1e-5), 10, make_captioner())
    with pytest.raises(ValueError, match="requires a decoder that is not frozen"):
        frozen = make_captioner(frozen="pretrained")
        make_optimizer(TrainingOptions(decoder_learning_rate=1e-5), 10, frozen)


def test_accumulated_gradients_make_one_update_with_their_mean():
    gradients = [[0.4, 0.2], [-0.2, 0.6]]
    accumulating = CaptionOptimizer(0.1, decay=0.1, gradient_accumulation_steps=2)
    accumulate_by_tokens(accumulating)  # each of one token
    accumulated = apply(accumulating, [make_variable([1.0, 1.0])], gradients)
    plain = CaptionOptimizer(0.1, decay=0.1)
    averaged = apply(plain, [make_variable([1.0, 1.0])], [np.mean(gradients, axis=0)])
    np.testing.assert_allclose(accumulated[0], averaged[0], rtol=1e-6)


def test_averages_replace_the_weights_and_then_the_weights_return_exactly():
    captioner = make_captioner(num_special_tokens=0)
    optimizer = CaptionOptimizer(0.1, use_ema=True, ema_momentum=0.5)
    variables = captioner.trainable_variables
    optimizer.build(variables)
    for _ in range(3):
        optimizer.apply([keras.ops.ones(one.shape) for one in variables])
    before = [numpy(one) for one in variables]
    with optimizer.averaged(captioner):
        within = [numpy(one) for one in variables]
    after = [numpy(one) for one in variables]
    assert all((one != two).all() for one, two in zip(before, within, strict=True))
    assert all(np.array_equal(one, two) for one, two in zip(before, after, strict=True))
    optimizer.finalize_variable_values(variables)  # as Keras calls it at the end of each `fit`
    assert all(np.array_equal(one, numpy(two)) for one, two in zip(before, variables, strict=True))


def test_a_compiled_captioner_is_saved_with_its_optimizer(tmp_path):
    captioner = make_captioner()
    options = TrainingOptions(ema_momentum=0.5, gradient_accumulation_steps=2)
    optimizer = make_optimizer(options, 100, captioner)
    captioner.compile(optimizer, jit_compile=False)
    captioner.save(tmp_path / "captioner.keras")
    loaded = keras.saving.load_model(tmp_path / "captioner.keras")
    assert type(loaded.optimizer) is CaptionOptimizer
    assert loaded.optimizer.no_decay
    assert loaded.optimizer.get_config() == captioner.optimizer.get_config()
