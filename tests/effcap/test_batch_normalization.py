"""Batch normalization by TensorFlow's kernel against Keras's."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from effcap.utils.batch_norm_kernel import fuse_batch_norms

tf = pytest.importorskip("tensorflow")
only_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="other backends have no such kernel"
)


def network(**options) -> keras.Model:
    """Returns a network of one batch normalization, with weights unlike its first ones."""
    inputs = keras.Input((3, 5, 4))
    layer = keras.layers.BatchNormalization(momentum=0.9, **options)
    model = keras.Model(inputs, layer(inputs))
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(0.5, 2, w.shape).astype("float32") for w in model.weights])
    return model


def photos(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(2, 3, (2, 3, 5, 4)).astype("float32")


def results_of(model: keras.Model) -> list[np.ndarray]:
    """Returns gradients and moving averages of three steps, and results afterwards."""
    values = []
    for step in range(3):
        x = tf.constant(photos(step))
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = ops.sum(ops.cast(model(x, training=True), "float32") ** 3)
        values += tape.gradient(loss, [x, *model.trainable_variables])
        values += model.non_trainable_variables
    values.append(model(photos(9), training=False))
    return [ops.convert_to_numpy(value) for value in values]


@only_tensorflow
@pytest.mark.parametrize("is_trainable", [True, False])
def test_results_gradients_and_moving_averages_are_those_of_keras(is_trainable):
    ours, theirs = network(), network()
    fuse_batch_norms(ours)
    for model in (ours, theirs):
        model.layers[1].trainable = is_trainable
    before = ops.convert_to_numpy(ours.layers[1].moving_mean)
    for one, other in zip(results_of(ours), results_of(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-4)
    moved = not np.array_equal(before, ops.convert_to_numpy(ours.layers[1].moving_mean))
    assert moved == is_trainable


@only_tensorflow
def test_features_in_bfloat16_are_normalized_without_a_cast_to_float32():
    with tf.Graph().as_default() as graph:
        network_in_bfloat16(fused=True)(tf.cast(photos(0), "bfloat16"), training=True)
        kernels = [op for op in graph.get_operations() if op.type == "FusedBatchNormV3"]
        assert kernels[-1].inputs[0].dtype == kernels[-1].outputs[0].dtype == tf.bfloat16
    received, expected = (
        ops.convert_to_numpy(ops.cast(model(photos(0), training=True), "float32"))
        for model in (network_in_bfloat16(fused=True), network_in_bfloat16(fused=False))
    )
    np.testing.assert_allclose(received, expected, rtol=0.02, atol=0.02)


def network_in_bfloat16(fused: bool) -> keras.Model:
    model = network(dtype="mixed_bfloat16")
    if fused:
        fuse_batch_norms(model)
    return model


@only_tensorflow
@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"axis": 1}], ids=str)
def test_other_batch_normalizations_are_left_to_keras(options):
    ours, theirs = network(**options), network(**options)
    fuse_batch_norms(ours)
    for one, other in zip(results_of(ours), results_of(theirs), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_network_is_saved_as_it_was(tmp_path):
    model = network()
    before = keras.saving.serialize_keras_object(model)
    fuse_batch_norms(model)
    assert keras.saving.serialize_keras_object(model) == before
    model.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    expected, received = (ops.convert_to_numpy(one(photos(0))) for one in (model, loaded))
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)
