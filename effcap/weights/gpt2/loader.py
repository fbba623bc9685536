"""GPT-2's weights into a captioner's decoder."""

from __future__ import annotations

import math
from os import PathLike

import keras
import numpy as np

from effcap.captioner import Captioner
from effcap.decoders.gpt2 import GPT2
from effcap.weights.gpt2.architecture import check_sizes
from effcap.weights.gpt2.formats import GPT2File, StoredTensor, open_gpt2

DTYPES = ("float16", "bfloat16", "float32", "float64")
LM_HEAD = "lm_head.weight"
SHOWN = 10  # of each kind of difference that an error lists


def load_gpt2(captioner: Captioner, folder: str | PathLike) -> str:
    """Fills the captioner's decoder with the weights of a GPT-2; all of it or nothing.

    Every tensor of the file must land in one variable of the same shape, and every variable that
    GPT-2 has must be filled; the fusion and added special tokens stay as they are. Left out are
    only what Hugging Face's files hold besides: causal masks (`attn.bias`, `attn.masked_bias`) and
    a `lm_head.weight` equal to the token embeddings.

    The tensors are read twice, one by one: all are checked before the first is assigned. So no more
    than one of them is in memory besides the model.

    Args:
        captioner: one whose decoder has the sizes of the folder's GPT-2 (see `gpt2_hparams`).
        folder: what OpenAI or Hugging Face publish: `hparams.json` with a TensorFlow checkpoint,
            or `config.json` with safetensors, pytorch_model.bin or tf_model.h5. Where several
            formats lie there, the first of safetensors, PyTorch, HDF5, checkpoint is read.

    Returns:
        A line for people: how many parameters of which format.

    Raises:
        FileNotFoundError: for a folder without weights or sizes.
        ValueError: for a damaged file, a decoder of other sizes, or tensors that do not fit: names
            and shapes on both sides. The captioner is then as it was.
    """
    check_sizes(captioner.decoder, folder)
    file = open_gpt2(folder)
    variables = pretrained_by_name(captioner.decoder)
    beside = buffers(file, variables)
    plan = pair(file, variables, beside, folder)
    check_values(file, plan, beside, folder)
    for variable, tensor in plan:
        variable.assign(values(tensor).reshape(variable.shape))
    count = sum(math.prod(variable.shape) for variable, _ in plan)
    return f"{count / 1e6:.1f} M parameters of GPT-2 from {folder} ({file.format.title})"


def pretrained_by_name(decoder: GPT2) -> dict[str, keras.Variable]:
    """The decoder's variables that GPT-2 brings along, by the names Hugging Face gives them."""
    layers = {"ln_f": decoder.ln_f}
    for i, block in enumerate(decoder.blocks):
        layers |= {
            f"h.{i}.ln_1": block.ln_1,
            f"h.{i}.attn.c_attn": block.attn.c_attn,
            f"h.{i}.attn.c_proj": block.attn.c_proj,
            f"h.{i}.ln_2": block.ln_2,
            f"h.{i}.mlp.c_fc": block.mlp.c_fc,
            f"h.{i}.mlp.c_proj": block.mlp.c_proj,
        }
    named = {"wte.weight": decoder.wte, "wpe.weight": decoder.wpe}
    for name, layer in layers.items():  # a kernel is (in, out) there as here
        first, bias = layer.weights
        named |= {f"{name}.weight": first, f"{name}.bias": bias}
    return named


def pair(
    file: GPT2File,
    variables: dict[str, keras.Variable],
    beside: dict[str, tuple[int, ...]],
    folder: str | PathLike,
) -> list[tuple[keras.Variable, StoredTensor]]:
    """Each variable with its tensor; ValueError naming all that do not fit."""
    wanted = {}
    for name, variable in variables.items():
        stored, shape = file.format.stored(name, tuple(variable.shape))
        wanted[file.prefix + stored] = (variable, shape)
    shapes = {name: shape for name, (_, shape) in wanted.items()} | beside
    found = {name: file.tensors[name] for name in shapes if name in file.tensors}
    missing = [f"{name} {shape}" for name, shape in shapes.items() if name not in found]
    over = [f"{name} {tensor.shape}" for name, tensor in file.tensors.items() if name not in shapes]
    reshaped = [
        f"{name} {tensor.shape} for {shapes[name]}"
        for name, tensor in found.items()
        if tensor.shape != shapes[name]
    ]
    kinds = [
        f"{name} {tensor.dtype}"
        for name, tensor in found.items()
        if name in wanted and tensor.dtype not in DTYPES
    ]
    refuse(
        f"of GPT-2 in {folder}",
        {
            "missing": missing,
            "not of a GPT-2 of this size": over,
            "of another shape": reshaped,
            "not floating-point": kinds,
        },
    )
    return [(variable, file.tensors[name]) for name, (variable, _) in wanted.items()]


def buffers(file: GPT2File, variables: dict[str, keras.Variable]) -> dict[str, tuple[int, ...]]:
    """What may lie beside the weights, and lies there, by name: its shape."""
    if not file.format.buffers:
        return {}
    positions = variables["wpe.weight"].shape[0]
    beside = {LM_HEAD: tuple(variables["wte.weight"].shape)}
    for name in variables:
        if name.endswith("attn.c_attn.weight"):
            attention = file.prefix + name.removesuffix("c_attn.weight")
            beside[f"{attention}bias"] = (1, 1, positions, positions)
            beside[f"{attention}masked_bias"] = ()
    return {name: shape for name, shape in beside.items() if name in file.tensors}


def check_values(
    file: GPT2File,
    plan: list[tuple[keras.Variable, StoredTensor]],
    beside: dict[str, tuple[int, ...]],
    folder: str | PathLike,
) -> None:
    """Reads everything; ValueError naming what holds values that cannot be meant."""
    infinite = [tensor.name for _, tensor in plan if not np.isfinite(values(tensor)).all()]
    wrong = []
    for name, shape in beside.items():
        array = file.tensors[name].read()
        if name == LM_HEAD:
            meant = np.array_equal(array, file.tensors[f"{file.prefix}wte.weight"].read())
        elif shape:
            meant = np.array_equal(array != 0, np.tri(shape[-1], dtype=bool)[None, None])
        else:
            meant = array <= -1e4
        if not meant:
            wrong.append(name)
    refuse(
        f"of GPT-2 in {folder}",
        {"not finite": infinite, "neither a causal mask nor the token embeddings": wrong},
    )


def values(tensor: StoredTensor) -> np.ndarray:
    """The tensor's values as float32."""
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which is looked for
        return np.asarray(tensor.read(), np.float32)


def refuse(place: str, problems: dict[str, list[str]]) -> None:
    """ValueError naming the tensors that do not fit in a place, by kind, unless all do."""
    problems = {kind: names for kind, names in problems.items() if names}
    if problems:
        found = "; ".join(
            f"{kind}: {', '.join(names[:SHOWN])}"
            + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
            for kind, names in problems.items()
        )
        raise ValueError(
            f"Expected one tensor for each variable {place}. Received: {found}. Nothing was loaded"
        )
