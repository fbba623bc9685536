"""The file formats of GPT-2's weights, in the order in which a folder is searched for them.

| format      | files                                                 | sizes        |
|-------------|-------------------------------------------------------|--------------|
| safetensors | model.safetensors, or model.safetensors.index.json    | config.json  |
| PyTorch     | pytorch_model.bin, or pytorch_model.bin.index.json    | config.json  |
| HDF5        | tf_model.h5, or tf_model.h5.index.json                | config.json  |
| TensorFlow  | OpenAI's checkpoint: checkpoint, model.ckpt.*         | hparams.json |

A tensor's values are read on demand, and nothing of the file stays in memory afterwards.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path

from effcap.weights.gpt2.hugging_face import (
    name_in_hdf5_shard,
    open_hdf5,
    open_safetensors,
    open_shards,
    open_torch,
    stored_in_hdf5,
    stored_unchanged,
)
from effcap.weights.gpt2.openai import open_checkpoint, stored_in_checkpoint
from effcap.weights.gpt2.stored_tensor import Shape, StoredTensor


@dataclass(frozen=True)
class Format:
    """A file format of GPT-2's weights.

    Attributes:
        title: name of the format, for messages.
        files: patterns of the files that identify it.
        open: returns the tensors of a folder in this format.
        stored: returns (name, shape) in the file for Hugging Face's name of a tensor, such as
            "h.0.attn.c_attn.weight", and its shape in the decoder.
        prefix: pattern of an optional prefix of all names.
        has_buffers: whether causal masks and a copy of the token embeddings may be stored too.
        older_names: names in older files, by the name that `stored` returns.
    """

    title: str
    files: tuple[str, ...]
    open: Callable[[Path], Iterable[StoredTensor]]
    stored: Callable[[str, Shape], tuple[str, Shape]]
    prefix: str = ""
    has_buffers: bool = False
    older_names: Mapping[str, str] = field(default_factory=dict)


FORMATS = (
    Format(
        "safetensors",
        ("model.safetensors", "model.safetensors.index.json"),
        partial(open_shards, name="model.safetensors", open_file=open_safetensors),
        stored_unchanged,
        r"(transformer\.)?",
        has_buffers=True,
    ),
    Format(
        "PyTorch",
        ("pytorch_model.bin", "pytorch_model.bin.index.json"),
        partial(open_shards, name="pytorch_model.bin", open_file=open_torch),
        stored_unchanged,
        r"(transformer\.)?",
        has_buffers=True,
    ),
    Format(
        "HDF5",
        ("tf_model.h5", "tf_model.h5.index.json"),
        partial(
            open_shards,
            name="tf_model.h5",
            open_file=open_hdf5,
            name_in_shard=name_in_hdf5_shard,
        ),
        stored_in_hdf5,
        # Groups of the model and its layers, which may have any name.
        r"(.*/)?(?=(wte|wpe|h_\._\d+|ln_f)/)",
        older_names={"wte/embeddings:0": "wte/weight:0"},  # before transformers 4.30
    ),
    Format(
        "TensorFlow checkpoint",
        ("checkpoint", "*.index"),
        open_checkpoint,
        stored_in_checkpoint,
    ),
)


@dataclass(frozen=True)
class GPT2File:
    """The weights in a folder.

    Attributes:
        format: their format.
        tensors: all tensors in the file, by their name there.
        prefix: prefix of the names of weights.
    """

    format: Format
    tensors: dict[str, StoredTensor]
    prefix: str

    def stored(self, name: str, shape: Shape) -> tuple[str, Shape]:
        """Returns the name and shape that a tensor must have in this file.

        Args:
            name: Hugging Face's name.
            shape: shape in the decoder.
        """
        stored_name, stored_shape = self.format.stored(name, shape)
        full, older = self.prefix + stored_name, self.format.older_names.get(stored_name)
        if older and full not in self.tensors and self.prefix + older in self.tensors:
            full = self.prefix + older
        return full, stored_shape


def open_gpt2(folder: str | PathLike) -> GPT2File:
    """Lists the tensors of the GPT-2 in a folder, in any supported format.

    Raises:
        FileNotFoundError: there is no such folder, or it has no weights in a known format.
        ValueError: a file is damaged, or two tensors have the same name.
    """
    folder = Path(folder)
    format = find_format(folder)
    tensors: dict[str, StoredTensor] = {}
    for tensor in format.open(folder):
        if tensor.name in tensors:
            raise ValueError(f"Two tensors of {folder} have the name {tensor.name}")
        tensors[tensor.name] = tensor
    matches = (re.match(format.prefix, name) for name in tensors)
    prefixes = Counter(match.group() for match in matches if match)
    prefix = prefixes.most_common(1)[0][0] if prefixes else ""
    return GPT2File(format, tensors, prefix)


def find_format(folder: Path) -> Format:
    """Returns the first format whose files are in a folder.

    Raises:
        FileNotFoundError: there is no such folder, or no file of a known format.
    """
    if not folder.is_dir():
        reason = "it is a file" if folder.exists() else "it does not exist"
        raise FileNotFoundError(f"{folder} is not a folder with GPT-2 weights: {reason}")
    for format in FORMATS:
        if any(path.is_file() for pattern in format.files for path in folder.glob(pattern)):
            return format
    names = ", ".join(name for format in FORMATS for name in format.files)
    raise FileNotFoundError(f"No GPT-2 weights in {folder}: it has none of {names}")
