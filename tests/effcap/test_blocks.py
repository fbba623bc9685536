"""Tests of effcap.backbones.blocks, which finds blocks in a network's graph."""

from __future__ import annotations

import functools

import keras
import pytest
from keras import layers

from effcap.backbones.blocks import find_blocks
from effcap.backbones.registry import BACKBONES

# Number of blocks, and the weighted layers that the first and the last block start with.
NAMED_NETWORKS = {
    "efficientnet_b0": (16, "block1a_dwconv", "block7a_expand_conv"),
    "efficientnet_b3": (26, "block1a_dwconv", "block7b_expand_conv"),
    "efficientnet_v2_b0": (20, "block2a_expand_conv", "block6h_expand_conv"),  # 1a is like a stem
    "efficientnet_v2_s": (40, "block1a_project_conv", "block6o_expand_conv"),
    "efficientnet_lite0": (16, "block1a_dwconv", "block7a_expand_conv"),
    "efficientnet_lite2": (21, "block1a_dwconv", "block7a_expand_conv"),
}
APPLICATIONS = {
    "ConvNeXtTiny": (
        18,
        "convnext_tiny_stage_0_block_0_depthwise_conv",
        "convnext_tiny_stage_3_block_2_depthwise_conv",
    ),
    "DenseNet121": (58, "conv2_block1_0_bn", "conv5_block16_0_bn"),
    "MobileNetV2": (17, "expanded_conv_depthwise", "block_16_expand"),
    "MobileNetV3Small": (11, "expanded_conv_depthwise", "expanded_conv_10_expand"),
    "ResNet50": (16, "conv2_block1_1_conv", "conv5_block3_1_conv"),
    "ResNet50V2": (16, "conv2_block1_1_conv", "conv5_block3_preact_bn"),
}
HEAVY = {"efficientnet_b3", "efficientnet_v2_s", "efficientnet_lite2", "DenseNet121", "ResNet50V2"}


def slow_if_heavy(names: dict) -> list:
    return [pytest.param(n, marks=pytest.mark.slow) if n in HEAVY else n for n in names]


@functools.cache
def application(name: str) -> keras.Model:
    """Returns a network of keras.applications without its classifier."""
    build = getattr(keras.applications, name)
    return build(include_top=False, weights=None, input_shape=(64, 64, 3))


def starts(model: keras.Model) -> list[str]:
    """Returns the name of the first weighted layer of each block."""
    return [next(x.name for x in block if x.weights) for block in find_blocks(model)]


@pytest.mark.parametrize("name", slow_if_heavy(NAMED_NETWORKS))
def test_named_networks_have_the_published_number_of_blocks(name):
    count, first, last = NAMED_NETWORKS[name]
    block_starts = starts(BACKBONES[name].build((64, 64, 3)))
    assert len(block_starts) == count
    assert (block_starts[0], block_starts[-1]) == (first, last)


@pytest.mark.parametrize("name", slow_if_heavy(APPLICATIONS))
def test_other_networks_have_the_published_number_of_blocks(name):
    count, first, last = APPLICATIONS[name]
    block_starts = starts(application(name))
    assert len(block_starts) == count
    assert (block_starts[0], block_starts[-1]) == (first, last)


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50"])
def test_every_weighted_layer_between_stem_and_head_is_in_one_block(name):
    model = application(name)
    blocks = find_blocks(model)
    in_blocks = [layer for block in blocks for layer in block if layer.weights]
    assert len(set(in_blocks)) == len(in_blocks)
    weighted = [layer for layer in model.layers if layer.weights]
    first, last = weighted.index(in_blocks[0]), max(map(weighted.index, in_blocks))
    assert set(weighted[first : last + 1]) == set(in_blocks)
    outside = {layer.name for layer in weighted} - {layer.name for layer in in_blocks}
    assert outside in ({"Conv1", "bn_Conv1", "Conv_1", "Conv_1_bn"}, {"conv1_conv", "conv1_bn"})


def conv(x: keras.KerasTensor, filters: int, name: str, activate: bool = True):
    """Applies a convolution, a batch norm and, by default, an activation."""
    x = layers.Conv2D(filters, 3, padding="same", name=name)(x)  # (B,h,w,filters)
    x = layers.BatchNormalization(name=f"{name}_norm")(x)
    return layers.ReLU()(x) if activate else x


def names(model: keras.Model) -> list[list[str]]:
    """Returns the names of the weighted layers of each block."""
    return [[x.name for x in block if x.weights] for block in find_blocks(model)]


@pytest.mark.parametrize("merge", ["layer", "operation", "concatenation"])
def test_a_residual_block_is_all_between_branch_and_merge(merge):
    images = keras.Input((32, 32, 3))
    x = shortcut = conv(images, 8, "stem")
    x = conv(conv(x, 4, "one"), 8, "two", activate=False)
    if merge == "layer":
        x = layers.Add()([x, shortcut])
    else:
        x = layers.Concatenate()([x, shortcut]) if merge == "concatenation" else x + shortcut
    model = keras.Model(images, conv(x, 8, "head"))
    assert names(model) == [["one", "one_norm", "two", "two_norm"]]


def test_a_gate_that_multiplies_ends_no_block():
    images = keras.Input((32, 32, 3))
    x = conv(images, 8, "stem")
    gate = layers.Conv2D(8, 1, activation="sigmoid")(
        layers.GlobalAveragePooling2D(keepdims=True)(x)
    )  # (B,1,1,8)
    model = keras.Model(images, conv(layers.Multiply()([x, gate]), 8, "head"))
    assert names(model) == []


def test_adding_a_constant_ends_no_block():
    images = keras.Input((32, 32, 3))
    assert names(keras.Model(images, conv(conv(images, 8, "stem") + 3.0, 8, "head"))) == []


def test_a_linear_bottleneck_starts_at_its_narrowest_convolution():
    images = keras.Input((32, 32, 3))
    x = conv(images, 16, "stem")
    x = conv(x, 4, "plain")
    x = conv(conv(x, 24, "wide"), 6, "narrow", activate=False)
    x = layers.Dropout(0.1)(layers.ZeroPadding2D(1)(x))
    model = keras.Model(images, conv(x, 8, "head"))
    assert names(model) == [["wide", "wide_norm", "narrow", "narrow_norm"]]


def test_a_convolution_between_residual_blocks_is_in_no_block():
    images = keras.Input((32, 32, 3))
    x = conv(images, 8, "stem")
    for number, filters in enumerate((8, 16)):
        x = conv(x, filters, f"down{number}")
        x = layers.Add()([x, conv(x, filters, f"block{number}")])
    expected = [["block0", "block0_norm"], ["block1", "block1_norm"]]
    assert names(keras.Model(images, x)) == expected


def test_a_normalization_between_residual_blocks_is_in_the_next():
    images = keras.Input((32, 32, 3))
    x = conv(images, 8, "stem")
    for number in range(2):
        normed = layers.ReLU()(layers.BatchNormalization(name=f"pre{number}")(x))
        x = layers.Add()([normed, layers.Conv2D(8, 1, name=f"block{number}")(normed)])
    assert names(keras.Model(images, x)) == [["block0"], ["pre1", "block1"]]


def test_layer_names_do_not_matter():
    def build(prefix: str) -> keras.Model:
        images = keras.Input((32, 32, 3))
        x = conv(images, 8, f"{prefix}stem")
        return keras.Model(images, layers.Add()([x, conv(x, 8, f"{prefix}branch")]))

    assert len(find_blocks(build("block_9_"))) == len(find_blocks(build("q"))) == 1


def test_networks_without_residuals_or_bottlenecks_have_no_blocks():
    build = keras.applications.MobileNet
    model = build(include_top=False, weights=None, input_shape=(32, 32, 3))
    assert find_blocks(model) == []
    sequential = keras.Sequential([keras.Input((32, 32, 3)), layers.Conv2D(4, 3, name="block1")])
    assert find_blocks(sequential) == []


def test_a_sequential_model_has_the_blocks_of_its_graph():
    chain = [
        layers.Conv2D(16, 3, activation="relu", name="stem"),
        layers.Conv2D(24, 1, activation="relu", name="wide"),
        layers.Conv2D(8, 1, name="narrow"),
        layers.LayerNormalization(name="norm"),
        layers.Conv2D(4, 1, name="head"),
    ]
    model = keras.Sequential([keras.Input((32, 32, 3)), *chain])
    assert names(model) == [["wide", "narrow", "norm"]]
