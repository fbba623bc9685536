"""The optimizer: learning rates of parts, decay, averages, accumulated gradients."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers.data_maker import make_captioner
from keras.ops import convert_to_numpy as numpy

from effcap.trainers import TrainingOptions
from effcap.trainers.engine.optimizer import CaptionOptimizer, make_optimizer


def rate(optimizer, step: int) -> float:
    return float(optimizer._learning_rate(step))


def variable(values, name: str = "kernel") -> keras.Variable:
    return keras.Variable(np.array(values, "float32"), name=name)


def steps(optimizer, variables, gradients) -> list[np.ndarray]:
    optimizer.build(variables)
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32") for _ in variables])
    return [numpy(one) for one in variables]


@pytest.mark.parametrize("length", (1, 2, 20, 333))
def test_the_learning_rate_rises_then_falls_as_a_cosine_and_ends_at_zero(length):
    optimizer = make_optimizer(TrainingOptions(learning_rate=0.4, warmup=0.1), length)
    rates = np.array([rate(optimizer, step) for step in range(length + 1)])
    warmup = int(0.1 * length)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert (rates[:-1] > 0).all()  # no step is for nothing
    assert rates.max() == rates[warmup] == pytest.approx(0.4)
    assert (np.diff(rates[: warmup + 1]) > 0).all() and (np.diff(rates[warmup:]) < 0).all()
    middle = (length + warmup) / 2
    if middle == int(middle):
        assert rates[int(middle)] == pytest.approx(0.2)


def test_the_moving_average_never_spans_more_than_a_fifth_of_the_run():
    momenta = [make_optimizer(TrainingOptions(ema=0.998), n).ema_momentum for n in (50, 250, 9999)]
    assert momenta == pytest.approx([0.9, 0.98, 0.998])
    assert not make_optimizer(TrainingOptions(ema=0.998), 5).use_ema
    assert not make_optimizer(TrainingOptions(), 5000).use_ema


def test_it_is_adamw():
    start, gradients = [1.0, -2.0], [[0.3, 0.1], [-0.2, 0.4], [0.1, 0.1]]
    ours = steps(CaptionOptimizer(0.1, decay=0.2), [variable(start)], gradients)
    theirs = steps(keras.optimizers.AdamW(0.1, weight_decay=0.2), [variable(start)], gradients)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)


@pytest.mark.parametrize("name", ("bias", "gamma", "beta", "wte", "wpe", "position_embedding"))
def test_weight_decay_spares_biases_norms_and_embeddings(name):
    spared, decayed = steps(
        CaptionOptimizer(0.1, decay=0.5), [variable([1.0], name), variable([1.0])], [[0.0]]
    )
    assert spared == 1 and decayed == pytest.approx(0.95)


def test_all_that_is_decayed_is_a_matrix():
    captioner = make_captioner(special_tokens=0)
    optimizer = make_optimizer(TrainingOptions(), 10)
    optimizer.build(captioner.trainable_variables)
    for one, decay in zip(captioner.trainable_variables, optimizer._decays, strict=True):
        assert (decay > 0) == one.path.endswith("/kernel"), one.path
        assert not decay or len(one.shape) >= 2


def test_a_part_with_a_learning_rate_of_its_own_moves_and_decays_by_it():
    slow, fast = variable([1.0], "slow"), variable([1.0], "fast")
    optimizer = CaptionOptimizer(0.1, decay=0.5, factors={slow.path: 0.1})
    slow, fast = steps(optimizer, [slow, fast], [[0.0]])
    assert fast == pytest.approx(0.95) and slow == pytest.approx(0.995)
    slow, fast = variable([1.0], "slow"), variable([1.0], "fast")
    optimizer = CaptionOptimizer(0.1, factors={slow.path: 0.1})
    slow, fast = steps(optimizer, [slow, fast], [[1.0], [0.5], [-0.2]])
    assert 1 - slow == pytest.approx((1 - fast) / 10, rel=1e-4)


def test_backbone_and_decoder_have_their_learning_rates_and_the_rest_has_its_own():
    captioner = make_captioner()
    captioner.encoder.backbone.trainable_blocks = "all"
    captioner.encoder.backbone._freeze()
    options = TrainingOptions(
        learning_rate=1e-3, backbone_learning_rate=1e-5, decoder_learning_rate=1e-4
    )
    optimizer = make_optimizer(options, 10, captioner)
    optimizer.build(captioner.trainable_variables)
    factors = {
        one.path: factor
        for one, factor in zip(captioner.trainable_variables, optimizer._factors, strict=True)
    }
    assert factors["stem/kernel"] == pytest.approx(0.01)
    assert factors["gpt2/wte"] == factors["gpt2/block_0/attn/c_attn/kernel"] == pytest.approx(0.1)
    assert factors["image_encoder/project/kernel"] == 1
    assert {f for path, f in factors.items() if "/fusion/" in path} == {1.0}


def test_the_learning_rate_of_a_frozen_part_is_refused():
    with pytest.raises(ValueError, match="backbone that is frozen"):
        make_optimizer(TrainingOptions(backbone_learning_rate=1e-5), 10, make_captioner())
    with pytest.raises(ValueError, match="decoder that is frozen"):
        frozen = make_captioner(frozen="pretrained")
        make_optimizer(TrainingOptions(decoder_learning_rate=1e-5), 10, frozen)


def test_accumulated_gradients_make_one_update_of_their_mean():
    gradients = [[0.4, 0.2], [-0.2, 0.6]]
    ours = CaptionOptimizer(0.1, decay=0.1, gradient_accumulation_steps=2)
    theirs = CaptionOptimizer(0.1, decay=0.1)
    accumulated = steps(ours, [variable([1.0, 1.0])], gradients)
    at_once = steps(theirs, [variable([1.0, 1.0])], [np.mean(gradients, axis=0)])
    np.testing.assert_allclose(accumulated[0], at_once[0], rtol=1e-6)


def test_averages_stand_in_for_the_weights_and_then_give_way_to_the_bit():
    captioner = make_captioner(special_tokens=0)
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
    optimizer.finalize_variable_values(variables)  # as Keras does at the end of every `fit`
    assert all(np.array_equal(one, numpy(two)) for one, two in zip(before, variables, strict=True))


def test_a_compiled_captioner_is_saved_and_loaded_with_it(tmp_path):
    captioner = make_captioner()
    captioner.compile(make_optimizer(TrainingOptions(ema=0.5), 100), jit_compile=False)
    captioner.save(tmp_path / "captioner.keras")
    loaded = keras.saving.load_model(tmp_path / "captioner.keras")
    assert type(loaded.optimizer) is CaptionOptimizer
    assert loaded.optimizer.get_config() == captioner.optimizer.get_config()
