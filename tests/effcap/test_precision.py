"""Tests of the precision in which a captioner is loaded."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from effcap.captioner import Captioner
from effcap.precision import PRECISIONS, dtype_policy, find_precision
from effcap.samplers import Greedy
from helpers.captioners import example_inputs, numpy, randomize


def test_unknown_precisions_are_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"float32, bfloat16\. Received: precision='half'"):
        find_precision("half")
    with pytest.raises(ValueError, match="precision='int4'"):
        Captioner.from_preset("flickr8k-lite0", precision="int4")


def test_keras_computes_as_before_also_after_an_error():
    before = keras.config.dtype_policy().name
    with pytest.raises(ZeroDivisionError), dtype_policy(PRECISIONS["bfloat16"].caption_policy):
        assert keras.config.dtype_policy().variable_dtype == "bfloat16"
        1 / 0  # noqa: B018
    assert keras.config.dtype_policy().name == before == "float32"


def test_weights_are_the_nearest_of_bfloat16_and_scores_float32(captioner, tmp_path, eager):
    captioner.save_to_preset(tmp_path)
    rounded = Captioner.from_preset(tmp_path, precision="bfloat16")
    for exact, mine in zip(captioner.weights, rounded.weights, strict=True):
        np.testing.assert_array_equal(
            numpy(ops.cast(mine, "float32")),
            numpy(ops.cast(ops.cast(exact, "bfloat16"), "float32")),
        )
    rounded.save_to_preset(tmp_path / "again")
    for mine, again in zip(
        rounded.weights, Captioner.from_preset(tmp_path / "again").weights, strict=True
    ):
        assert keras.backend.standardize_dtype(again.dtype) == "float32"
        np.testing.assert_array_equal(numpy(again), numpy(ops.cast(mine, "float32")))
    inputs = example_inputs(captioner.encoder, 2, key="images")
    (expected, _), (received, _) = (
        one.generate_batch(inputs, Greedy(max_new_tokens=3)) for one in (captioner, rounded)
    )
    scores = np.array([detail.score for detail in received[0].details], np.float32)
    assert ((scores * 2**8) % 1).any()  # more digits than bfloat16 has
    assert received[0].score == pytest.approx(expected[0].score, abs=0.3)


def test_logits_of_steps_are_not_rounded_to_bfloat16(captioner, tmp_path):
    captioner.save_to_preset(tmp_path)
    decoder = Captioner.from_preset(tmp_path, precision="bfloat16").decoder
    token, position = ops.full((2,), 5, "int32"), ops.convert_to_tensor(0)
    cache, memory_kv = decoder.empty_cache(2, 2), decoder.precompute_kv(None)
    logits, _ = decoder.step(token, position, cache, memory_kv)
    values = numpy(logits)
    assert values.dtype == np.float32
    assert (values != numpy(ops.cast(ops.cast(logits, "bfloat16"), "float32"))).mean() > 0.9


@pytest.mark.slow
def test_a_preset_of_an_adapter_alone_is_checked_against_the_exact_weights(captioner, tmp_path):
    captioner.save_to_preset(tmp_path / "base")
    captioner.add_adapter(rank=2, targets=["attention"])
    randomize(captioner, seed=5)
    for weight, own in zip(
        captioner.base_weights(), Captioner.from_preset(tmp_path / "base").weights, strict=True
    ):
        weight.assign(own)
    captioner.save_to_preset(tmp_path / "adapter", base=tmp_path / "base")
    loaded = Captioner.from_preset(tmp_path / "adapter", precision="bfloat16")
    assert loaded.active_adapters == ("default",)
    assert {keras.backend.standardize_dtype(x.dtype) for x in loaded.weights} == {"bfloat16"}
    randomize(captioner).delete_adapter("default")
    captioner.save_to_preset(tmp_path / "base")
    with pytest.raises(ValueError, match="other weights"):
        Captioner.from_preset(tmp_path / "adapter", precision="bfloat16")
