"""Loads the weights of a GPT-2 into a captioner's decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from os import PathLike

import keras
import numpy as np

from effcap.captioning import CaptioningModel
from effcap.decoders.gpt2 import GPT2
from effcap.weights.gpt2.formats import GPT2File, open_gpt2
from effcap.weights.gpt2.names import gpt2_name_pairs
from effcap.weights.gpt2.sizes import check_sizes
from effcap.weights.gpt2.stored_tensor import Shape, StoredTensor, check_tensors
from effcap.weights.name_pairs import find_variable, raise_mismatches

LM_HEAD = "lm_head.weight"


def load_gpt2(captioner: CaptioningModel, folder: str | PathLike) -> str:
    """Fills a captioner's decoder with the weights of a GPT-2: all of them, or none on an error.

    Every tensor of the file must fill one variable of the same shape, and every variable that
    GPT-2 has must be filled; fusion and added special tokens keep their values. Only extra
    tensors of Hugging Face's files are skipped: causal masks (`attn.bias`, `attn.masked_bias`) and
    a `lm_head.weight` that equals the token embeddings.

    The tensors are read twice, one by one: all are checked before the first is assigned, and
    memory holds no more than one of them besides the model.

    Args:
        captioner: its decoder must have the sizes of the folder's GPT-2 (see `gpt2_hparams`).
        folder: as published by OpenAI (`hparams.json` and a TensorFlow checkpoint) or Hugging Face
            (`config.json` and safetensors, pytorch_model.bin or tf_model.h5). Of several formats
            in a folder, the first of safetensors, PyTorch, HDF5, checkpoint is read.

    Returns:
        A message: the number of parameters and the format.

    Raises:
        FileNotFoundError: the folder has no weights or no sizes.
        ValueError: a file is damaged, the decoder has other sizes, or tensors do not fit; the
            message lists names and shapes on both sides. The captioner is unchanged.
    """
    check_sizes(captioner.decoder, folder)
    file = open_gpt2(folder)
    variables = gpt2_variables(captioner.decoder)
    buffers = buffer_shapes(file, variables)
    assignments = match_tensors(file, variables, buffers, folder)
    check_values(file, assignments, buffers, folder)
    for variable, tensor in assignments:
        variable.assign(float_values(tensor).reshape(variable.shape))
    count = sum(math.prod(variable.shape) for variable, _ in assignments)
    return f"{count / 1e6:.1f} M parameters of GPT-2 from {folder} ({file.format.title})"


def gpt2_variables(decoder: GPT2) -> dict[str, keras.Variable]:
    """Returns the variables of a decoder that are part of GPT-2, by Hugging Face's names."""
    return {
        pair.theirs[0]: find_variable(decoder, pair.ours)
        for pair in gpt2_name_pairs(decoder.num_layers)
    }


def buffer_shapes(file: GPT2File, variables: Mapping[str, keras.Variable]) -> dict[str, Shape]:
    """Returns the shapes that the extra tensors of a Hugging Face file must have, by name."""
    if not file.format.has_buffers:
        return {}
    length = variables["wpe.weight"].shape[0]
    shapes: dict[str, Shape] = {LM_HEAD: tuple(variables["wte.weight"].shape)}
    for name in variables:
        if name.endswith("attn.c_attn.weight"):
            attention = file.prefix + name.removesuffix("c_attn.weight")
            shapes[f"{attention}bias"] = (1, 1, length, length)
            shapes[f"{attention}masked_bias"] = ()
    return {name: shape for name, shape in shapes.items() if name in file.tensors}


def match_tensors(
    file: GPT2File,
    variables: Mapping[str, keras.Variable],
    buffers: Mapping[str, Shape],
    folder: str | PathLike,
) -> list[tuple[keras.Variable, StoredTensor]]:
    """Returns each variable with its tensor.

    Args:
        file: the tensors.
        variables: variables to fill, by Hugging Face's names.
        buffers: expected shapes of extra tensors, by name.
        folder: for the message.

    Raises:
        ValueError: a name, a shape or a dtype does not fit; the message lists all of them.
    """
    expected: dict[str, tuple[keras.Variable, Shape]] = {}
    for name, variable in variables.items():
        stored_name, shape = file.stored(name, tuple(variable.shape))
        expected[stored_name] = (variable, shape)
    shapes = {name: shape for name, (_, shape) in expected.items()} | dict(buffers)
    check_tensors(f"GPT-2 in {folder}", file.tensors, shapes, weights=expected)
    return [(variable, file.tensors[name]) for name, (variable, _) in expected.items()]


def check_values(
    file: GPT2File,
    assignments: list[tuple[keras.Variable, StoredTensor]],
    buffers: Mapping[str, Shape],
    folder: str | PathLike,
) -> None:
    """Reads all tensors and checks their values.

    Raises:
        ValueError: weights are not finite, or extra tensors are neither causal masks nor a copy of
            the token embeddings.
    """
    infinite = [tensor.name for _, tensor in assignments if not is_finite(tensor)]
    wrong = []
    for name, shape in buffers.items():
        array = file.tensors[name].read()
        if name == LM_HEAD:
            valid = np.array_equal(array, file.tensors[f"{file.prefix}wte.weight"].read())
        elif shape:
            valid = np.array_equal(array != 0, np.tri(shape[-1], dtype=bool)[None, None])
        else:
            valid = bool(array <= -1e4)
        if not valid:
            wrong.append(name)
    raise_mismatches(
        f"GPT-2 in {folder}",
        {
            "with values that are not finite": infinite,
            "that are neither a causal mask nor the token embeddings": wrong,
        },
    )


def is_finite(tensor: StoredTensor) -> bool:
    """Returns whether all values are finite as float32."""
    return bool(np.isfinite(float_values(tensor)).all())


def float_values(tensor: StoredTensor) -> np.ndarray:
    """Reads a tensor's values as float32; values beyond its range become infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(tensor.read(), np.float32)
