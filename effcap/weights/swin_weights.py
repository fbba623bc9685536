"""Fills Swin transformers with published weights."""

from __future__ import annotations

from os import PathLike
from typing import Any

import keras
import numpy as np

from effcap.backbones.registry import STANDARDIZE, STANDARDIZE_CLIP
from effcap.backbones.swin import VARIANTS, XVLM, SwinTransformer, xvlm_arguments
from effcap.weights.name_pairs import (
    NamePair,
    conv2d,
    find_variable,
    linear,
    nested,
    norm,
    raise_mismatches,
)
from effcap.weights.position_bias import (
    can_interpolate,
    interpolate_position_bias,
    interpolation_lines,
    window_side,
)
from effcap.weights.swin_checkpoint import (
    TABLE,
    SwinCheckpoint,
    open_swin,
    swin_arguments,
)

BLOCK = [
    *norm("norm1", "norm1"),
    *linear("attention.qkv", "attn.qkv"),
    NamePair("attention.position_bias.embeddings", (TABLE,)),
    *linear("attention.projection", "attn.proj"),
    *norm("norm2", "norm2"),
    *linear("fc1", "mlp.fc1"),
    *linear("fc2", "mlp.fc2"),
]
MERGING = [
    *norm("norm", "norm"),
    NamePair("reduction.kernel", ("reduction.weight",), transposed=True),
]


def swin_backbone(checkpoint: SwinCheckpoint) -> dict[str, Any]:
    """Returns the arguments of a `Backbone` that a file's weights fit, preprocessing included.

    Raises:
        ValueError: a tensor that defines a size is missing, or has another number of axes.
    """
    arguments = swin_arguments(checkpoint)
    size = arguments["image_size"]
    variants = {name: {**sizes, "mean_token": False} for name, sizes in VARIANTS.items()}
    for name, sizes in {**variants, XVLM: xvlm_arguments(size)}.items():
        if sizes == arguments:
            return {"network": name, "image_size": list(size)}
    preprocessing = STANDARDIZE_CLIP if checkpoint.is_xvlm else STANDARDIZE
    return {
        "network": keras.saving.serialize_keras_object(SwinTransformer(**arguments)),
        "image_size": list(size),
        "scale": preprocessing.scale,
        "offset": preprocessing.offset,
    }


def swin_name_pairs(network: SwinTransformer) -> list[NamePair]:
    """Returns the pairs of a network; our names start with that of a layer."""
    pairs = [
        *conv2d("patch_embedding.projection", "patch_embed.proj", bias=True),
        *norm("patch_embedding.norm", "patch_embed.norm"),
    ]
    for stage, depth in enumerate(network.depths):
        for i in range(depth):
            pairs += nested(f"stage{stage}_block{i}", f"layers.{stage}.blocks.{i}", BLOCK)
        if stage < len(network.depths) - 1:
            pairs += nested(f"stage{stage}_merging", f"layers.{stage}.downsample", MERGING)
    return pairs + norm("norm", "norm")


def load_swin(network: SwinTransformer, source: str | PathLike | SwinCheckpoint) -> str:
    """Fills a Swin transformer with the weights of a file: all of them, or none on an error.

    Every tensor of the file must fill one variable of the same shape, and every variable must be
    filled. Relative position biases for windows of another size are interpolated as in X-VLM.
    Skipped are attention masks and position indices, which follow from the sizes, a classifier, the
    text encoder and the heads of X-VLM, and the state of an optimizer.

    Args:
        network: a Swin transformer of any size.
        source: a `.pth` file of the original or a `.th` file of X-VLM, or `open_swin` of it.

    Returns:
        A message of several lines: the number of parameters; what was skipped, with the number of
        tensors; and whether biases were interpolated.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has no Swin transformer, or tensors do not fit; the message lists names
            and shapes on both sides.
    """
    checkpoint = source if isinstance(source, SwinCheckpoint) else open_swin(source)
    tensors = checkpoint.tensors
    pairs = {pair.theirs[0]: pair for pair in swin_name_pairs(network)}
    variables = {name: _variable(network, pair.ours) for name, pair in pairs.items()}
    expected = {name: pair.shape(variables[name]) for name, pair in pairs.items()}
    found = {name: tensors.shape(name) for name in checkpoint.parameters()}
    raise_mismatches(
        tensors.name,
        {
            "missing": [f"{name} {shape}" for name, shape in expected.items() if name not in found],
            "unexpected": [
                f"{name} {shape}"
                for name, shape in {**found, **checkpoint.unknown}.items()
                if name not in expected
            ],
            "of another shape": [
                f"{name} {found[name]} for {shape}"
                for name, shape in expected.items()
                if name in found
                and found[name] != shape
                and not (name.endswith(TABLE) and can_interpolate(found[name], shape))
            ],
        },
    )
    infinite = [name for name in pairs if not np.isfinite(pairs[name].read(tensors)).all()]
    raise_mismatches(tensors.name, {"with values that are not finite": infinite})
    windows: set[tuple[int, int]] = set()  # old and new sides
    for name, variable in variables.items():
        values = pairs[name].read(tensors)
        if found[name] != expected[name]:
            old, new = (window_side(shape[0]) for shape in (found[name], expected[name]))
            values = interpolate_position_bias(values, new)
            windows.add((old, new))
        variable.assign(values)
    return "\n".join(_summary(network, checkpoint, windows))


def _variable(network: SwinTransformer, ours: str) -> keras.Variable:
    """Returns the variable of a name pair's path, which starts with a layer's name."""
    layer, _, path = ours.partition(".")
    return find_variable(network.get_layer(layer), path)


def _summary(
    network: SwinTransformer, checkpoint: SwinCheckpoint, windows: set[tuple[int, int]]
) -> list[str]:
    """Returns lines about what was loaded, skipped and interpolated."""
    lines = [f"{network.count_params() / 1e6:.1f} M parameters from {checkpoint.tensors.name}"]
    if checkpoint.skipped:
        parts = (
            f"{part} ({count} {'tensor' if count == 1 else 'tensors'})"
            for part, count in sorted(checkpoint.skipped.items())
        )
        lines.append(f"skipped: {', '.join(parts)}")
    return lines + interpolation_lines(windows)
