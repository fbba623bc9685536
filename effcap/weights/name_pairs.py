"""Pairs of our name and the published name of a weight, and the strict matching of the two sides.

A converter is a list of such pairs. Our name is the path of attributes to a variable, such as
"decoder.blocks.0.ln_1.gamma"; the published name is a key of the file's state dict.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effcap.weights.torch_file import TorchFile

if TYPE_CHECKING:
    import keras

MAX_LISTED = 10  # names of each kind in an error message


@dataclass(frozen=True)
class NamePair:
    """A variable and the published tensors that it consists of.

    Attributes:
        ours: path of attributes to the variable.
        theirs: names of the tensors, which are concatenated along the variable's last axis.
        transposed: whether the tensors are kernels (out, in) of a PyTorch Linear.
        convolution: whether the tensor is a kernel (out, in, h, w) of a PyTorch Conv2d.
        unit_axes: number of axes of size 1 that the tensor has before those of the variable.
    """

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False
    convolution: bool = False
    unit_axes: int = 0

    def shape(self, variable: keras.Variable) -> tuple[int, ...]:
        """Returns the shape that each of the tensors must have."""
        if self.convolution:
            height, width, inputs, outputs = variable.shape
            return outputs, inputs, height, width
        *rest, last = variable.shape
        shape = (*rest, last // len(self.theirs))
        return (1,) * self.unit_axes + (shape[::-1] if self.transposed else shape)

    def read(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Reads the tensors and returns the variable's values as float32."""
        arrays = [np.asarray(tensors[name], np.float32) for name in self.theirs]
        arrays = [a.reshape(a.shape[self.unit_axes :]) for a in arrays]
        if self.convolution:
            return arrays[0].transpose(2, 3, 1, 0)  # (out,in,h,w) -> (h,w,in,out)
        arrays = [a.T if self.transposed else a for a in arrays]
        # A single tensor, such as the token embeddings, is not copied.
        return np.concatenate(arrays, axis=-1) if arrays[1:] else arrays[0]


@dataclass(frozen=True)
class Converter:
    """The published weights of one system.

    A tensor's shape determines most hyperparameters of the captioner. Those that change its output
    and that no tensor determines are `undetermined`: the converter takes the original's default,
    and says so unless the value is given or recorded beside the file.

    Attributes:
        title: name of the system, for messages.
        keys: names of tensors of which this system's files have one, and others have none.
        encoder_kind: kind of the encoder in hparams.
        hparams: returns the sections encoder and decoder that fit a file.
        name_pairs: returns the pairs of a captioner with these hyperparameters.
        undetermined: returns the dotted names of the undetermined settings with these
            hyperparameters, such as "decoder.fusion.tau".
        unused: returns a pattern of the names of parameters that have no effect in the original's
            forward pass with these hyperparameters.
        buffers: pattern of the names of tensors that are not parameters, such as causal masks.
        embeddings: name of the token embeddings.
        start_token: token that the original feeds before a caption. None for the tokenizer's own
            or none.
        end_token: token that ends the original's captions. None for the tokenizer's own.
        needs_clip: whether CLIP's image tower is a file of its own.
        copies: names of tensors that must equal the token embeddings where they are present.
        recorded: returns the path of the original's own record beside a file and its settings, by
            dotted name; None if there is no such record.
        notes: returns lines about what else the original does differently from the defaults of
            the commands, with these hyperparameters.
    """

    title: str
    keys: tuple[str, ...]
    encoder_kind: str
    hparams: Callable[[TorchFile], dict]
    name_pairs: Callable[[Mapping[str, Any]], list[NamePair]]
    undetermined: Callable[[Mapping[str, Any]], tuple[str, ...]]
    unused: Callable[[Mapping[str, Any]], re.Pattern[str]]
    buffers: re.Pattern[str]
    embeddings: str
    start_token: str | None = None
    end_token: str | None = None
    needs_clip: bool = False
    copies: tuple[str, ...] = ()
    recorded: Callable[[TorchFile], tuple[Path, dict[str, Any]] | None] = lambda file: None
    notes: Callable[[Mapping[str, Any]], list[str]] = lambda hparams: []


def embedding(ours: str, theirs: str) -> list[NamePair]:
    """Returns the pair of an embedding table."""
    return [NamePair(f"{ours}.embeddings", (f"{theirs}.weight",))]


def norm(ours: str, theirs: str) -> list[NamePair]:
    """Returns the pairs of a layer norm."""
    return [
        NamePair(f"{ours}.gamma", (f"{theirs}.weight",)),
        NamePair(f"{ours}.beta", (f"{theirs}.bias",)),
    ]


def conv1d(ours: str, theirs: str) -> list[NamePair]:
    """Returns the pairs of a dense layer that is a Conv1D of GPT-2: its kernel is (in, out)."""
    return [
        NamePair(f"{ours}.kernel", (f"{theirs}.weight",)),
        NamePair(f"{ours}.bias", (f"{theirs}.bias",)),
    ]


def linear(ours: str, *theirs: str) -> list[NamePair]:
    """Returns the pairs of a dense layer that consists of PyTorch Linears side by side."""
    return [
        NamePair(f"{ours}.kernel", tuple(f"{name}.weight" for name in theirs), transposed=True),
        NamePair(f"{ours}.bias", tuple(f"{name}.bias" for name in theirs)),
    ]


def conv2d(ours: str, theirs: str, bias: bool = False) -> list[NamePair]:
    """Returns the pairs of a convolution, with or without bias, that is a PyTorch Conv2d."""
    kernel = NamePair(f"{ours}.kernel", (f"{theirs}.weight",), convolution=True)
    return [kernel, NamePair(f"{ours}.bias", (f"{theirs}.bias",))] if bias else [kernel]


def batch_norm(ours: str, theirs: str) -> list[NamePair]:
    """Returns the pairs of a batch norm."""
    return [
        *norm(ours, theirs),
        NamePair(f"{ours}.moving_mean", (f"{theirs}.running_mean",)),
        NamePair(f"{ours}.moving_variance", (f"{theirs}.running_var",)),
    ]


def nested(ours: str, theirs: str, pairs: Iterable[NamePair]) -> list[NamePair]:
    """Returns pairs with a prefix on either side, such as the pairs of one block of a stack."""
    return [
        replace(
            pair,
            ours=f"{ours}.{pair.ours}",
            theirs=tuple(f"{theirs}.{name}" for name in pair.theirs),
        )
        for pair in pairs
    ]


def published_in(module: str, pairs: Iterable[NamePair]) -> list[NamePair]:
    """Returns pairs with a prefix on the published side."""
    return [
        replace(pair, theirs=tuple(f"{module}.{name}" for name in pair.theirs)) for pair in pairs
    ]


def find_variable(layer: keras.layers.Layer, path: str) -> keras.Variable:
    """Returns the variable at a path of attributes and list indices.

    Args:
        layer: a built layer or model.
        path: such as "blocks.0.ln_1.gamma".

    Raises:
        ValueError: there is none.
    """
    value: Any = layer
    try:
        for name in path.split("."):
            value = value[int(name)] if name.isdecimal() else getattr(value, name)
    except (AttributeError, IndexError, TypeError) as error:
        raise ValueError(f"The model has no variable {path} for published weights") from error
    return value


def raise_mismatches(source: str, mismatches: Mapping[str, list[str]]) -> None:
    """Raises a ValueError that lists tensors which do not fit, unless there are none.

    Args:
        source: where the tensors are from, for the message.
        mismatches: names of tensors, with shapes, by kind of mismatch.
    """
    mismatches = {kind: names for kind, names in mismatches.items() if names}
    if mismatches:
        listed = "; ".join(
            f"{kind}: {', '.join(names[:MAX_LISTED])}"
            + (f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else "")
            for kind, names in mismatches.items()
        )
        raise ValueError(
            f"The weights of {source} do not fit the model. Tensors {listed}. Nothing was loaded"
        )
