"""Finds the backbone that the image tower in a file of CLIP fits."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import keras

from effcap.backbones.clip_resnet import HEAD_DIM, RESNET_VARIANTS, ClipResNet, ClipResNetVariant
from effcap.backbones.clip_resnet import STRIDE as RESNET_STRIDE
from effcap.backbones.clip_vit import CLIP_VIT_VARIANTS, ClipViT, ClipViTVariant
from effcap.backbones.registry import EMBEDDING, STANDARDIZE_CLIP
from effcap.layers.transformer import ACTIVATIONS
from effcap.weights.clip_files import read_settings
from effcap.weights.tower_file import TowerFile

DEFAULT_ACTIVATION = "quick_gelu"  # of OpenAI's models


@dataclass(frozen=True)
class SizeTensors:
    """Names of the tensors of a vision transformer whose shapes are its sizes.

    Attributes:
        patches: kernel (D, 3, patch, patch).
        positions: (S, D).
        projection: (D, E), or (E, D) if transposed.
        block: pattern of the names of tensors in a block.
        transposed: whether the projection is transposed.
    """

    patches: str
    positions: str
    projection: str
    block: re.Pattern[str]
    transposed: bool


VIT_TENSORS = {  # by TowerNames.key
    "visual.class_embedding": SizeTensors(
        "visual.conv1.weight",
        "visual.positional_embedding",
        "visual.proj",
        re.compile(r"visual\.transformer\.resblocks\.(\d+)\..+"),
        transposed=False,
    ),
    "vision_model.embeddings.class_embedding": SizeTensors(
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.embeddings.position_embedding.weight",
        "visual_projection.weight",
        re.compile(r"vision_model\.encoder\.layers\.(\d+)\..+"),
        transposed=True,
    ),
}
RESNET_PROJECTION = "visual.attnpool.c_proj.weight"
RESNET_BLOCK = re.compile(r"visual\.layer([1-4])\.(\d+)\..+")


def clip_backbone(file: TowerFile) -> dict[str, Any]:
    """Returns the arguments of a `Backbone` whose output is the file's projected image vector.

    All sizes follow from the tensors but the number of heads and the activation, which are those
    of the settings beside the file, and otherwise 64-wide heads and QuickGELU as in OpenAI's
    models.

    Raises:
        ValueError: a tensor that defines a size is missing or has another shape, or the settings
            record an unknown activation.
    """
    if file.names.key in VIT_TENSORS:
        return _vit_backbone(file, VIT_TENSORS[file.names.key])
    return _resnet_backbone(file)


def embedding_width(file: TowerFile) -> int:
    """Returns the width E of the file's projected image vector.

    Raises:
        ValueError: the file has no projection.
    """
    if file.names.key not in VIT_TENSORS:
        return _shape(file, RESNET_PROJECTION, 2)[0]
    names = VIT_TENSORS[file.names.key]
    return _shape(file, names.projection, 2)[0 if names.transposed else 1]


def _vit_backbone(file: TowerFile, names: SizeTensors) -> dict[str, Any]:
    hidden_dim, _, patch_size, _ = _shape(file, names.patches, 4)
    num_positions, _ = _shape(file, names.positions, 2)
    blocks = [int(match[1]) for match in map(names.block.fullmatch, file.tensors) if match]
    settings = {} if file.settings is None else read_settings(file.settings)
    num_heads = settings.get("num_heads", hidden_dim // settings.get("head_dim", HEAD_DIM))
    variant = ClipViTVariant(
        patch_size,
        hidden_dim,
        num_layers=1 + max(blocks, default=-1),
        num_heads=max(1, num_heads),
        embedding_dim=embedding_width(file),
        activation=settings.get("activation", DEFAULT_ACTIVATION),
    )
    if variant.activation not in ACTIVATIONS:
        raise ValueError(
            f"Expected an activation out of {', '.join(ACTIVATIONS)} in {file.settings}. "
            f"Received: {variant.activation!r}"
        )
    side = _grid_side(file, names.positions, num_positions) * patch_size
    for name, known in CLIP_VIT_VARIANTS.items():
        if known == variant:
            return _named(name, side)
    return _unnamed(ClipViT(variant, (side, side), embedding=True), side)


def _resnet_backbone(file: TowerFile) -> dict[str, Any]:
    width, *_ = _shape(file, "visual.conv3.weight", 4)
    positions = "visual.attnpool.positional_embedding"
    num_positions, _ = _shape(file, positions, 2)
    num_blocks = [0, 0, 0, 0]
    for match in map(RESNET_BLOCK.fullmatch, file.tensors):
        if match:
            stage = int(match[1]) - 1
            num_blocks[stage] = max(num_blocks[stage], int(match[2]) + 1)
    first, second, third, fourth = num_blocks
    variant = ClipResNetVariant((first, second, third, fourth), width, embedding_width(file))
    side = _grid_side(file, positions, num_positions) * RESNET_STRIDE
    for name, known in RESNET_VARIANTS.items():
        if known == variant:
            return _named(name, side)
    return _unnamed(ClipResNet(variant, (side, side), embedding=True), side)


def _named(name: str, side: int) -> dict[str, Any]:
    return {"network": f"clip_{name}", "image_size": [side, side], "output": EMBEDDING}


def _unnamed(network: keras.Model, side: int) -> dict[str, Any]:
    return {
        "network": keras.saving.serialize_keras_object(network),
        "image_size": [side, side],
        "scale": STANDARDIZE_CLIP.scale,
        "offset": STANDARDIZE_CLIP.offset,
        "fit": "crop",
    }


def _grid_side(file: TowerFile, name: str, num_positions: int) -> int:
    """Returns the side of the square grid of positions, beside one for the class or the mean."""
    side = math.isqrt(max(0, num_positions - 1))
    if side < 1 or side * side != num_positions - 1:
        raise ValueError(
            f"Expected {name} of {file.path} with one position more than a square grid. "
            f"Received: {num_positions} positions"
        )
    return side


def _shape(file: TowerFile, name: str, num_axes: int) -> tuple[int, ...]:
    """Returns the shape of a tensor.

    Raises:
        ValueError: there is no such tensor, or it has another number of axes.
    """
    if name not in file.tensors:
        raise ValueError(
            f"{file.path} has no tensor {file.prefix}{name}, which is part of CLIP's projected "
            "image vector"
        )
    shape = file.tensors[name].shape
    if len(shape) != num_axes:
        raise ValueError(
            f"Expected {num_axes} axes of {file.prefix}{name} in {file.path}. "
            f"Received: shape {shape}"
        )
    return shape
