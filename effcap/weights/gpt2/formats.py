"""The formats GPT-2's weights come in: which one a folder holds, and its tensors one by one.

| format              | files                                                     | sizes        |
|---------------------|-----------------------------------------------------------|--------------|
| safetensors         | model.safetensors, or model.safetensors.index.json        | config.json  |
| PyTorch             | pytorch_model.bin, or pytorch_model.bin.index.json        | config.json  |
| HDF5                | tf_model.h5                                               | config.json  |
| TensorFlow          | OpenAI's checkpoint: checkpoint, model.ckpt.*             | hparams.json |

Where a folder holds several, the first of these is read. A tensor's values are read when they are
asked for, and nothing of the file stays in memory afterwards.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from os import PathLike
from pathlib import Path

import h5py
import numpy as np

from effcap.config import read_json
from effcap.weights.torch_file import read_torch

Shape = tuple[int, ...]
NORMS = ("ln_1", "ln_2", "ln_f")
HDF5_DTYPES = {
    "float16": h5py.h5t.IEEE_F16LE,
    "float32": h5py.h5t.IEEE_F32LE,
    "float64": h5py.h5t.IEEE_F64LE,
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: what it is called there, its shape and dtype, and what reads it."""

    path: Path
    name: str
    shape: Shape
    dtype: str
    load: Callable[[str], np.ndarray]

    def read(self) -> np.ndarray:
        """Its values; ValueError naming file and tensor where they cannot be read."""
        try:
            return self.load(self.name)
        except Exception as error:  # a damaged file can raise anything at all
            raise damaged(self.path, error, f" tensor {self.name} of") from error


@dataclass(frozen=True)
class Format:
    """A format of GPT-2's weights.

    Attributes:
        title: what it is called.
        files: patterns of the files that tell it.
        open: the tensors of a folder of this format.
        stored: (name, shape) in the file of one that Hugging Face calls such as
            "h.0.attn.c_attn.weight" and that has that shape in the decoder.
        prefix: pattern of what may stand before every name.
        buffers: whether constants of the computation and a copy of the token embeddings may lie
            beside the weights.
    """

    title: str
    files: tuple[str, ...]
    open: Callable[[Path], Iterable[StoredTensor]]
    stored: Callable[[str, Shape], tuple[str, Shape]]
    prefix: str = ""
    buffers: bool = False


@dataclass(frozen=True)
class GPT2File:
    """The weights in a folder.

    Attributes:
        format: the format found.
        tensors: all that is in the file, by the names there.
        prefix: what stands before every name of a weight.
    """

    format: Format
    tensors: dict[str, StoredTensor]
    prefix: str


def open_gpt2(folder: str | PathLike) -> GPT2File:
    """Finds out the format of the weights in a folder and lists their tensors.

    Raises:
        FileNotFoundError: for no such folder, or none of the formats in it.
        ValueError: for a damaged file.
    """
    folder = Path(folder)
    format = find_format(folder)
    tensors: dict[str, StoredTensor] = {}
    for tensor in format.open(folder):
        if tensor.name in tensors:
            raise ValueError(f"Expected one tensor of each name. Received: two {tensor.name}")
        tensors[tensor.name] = tensor
    found = Counter(re.match(format.prefix, name).group() for name in tensors)
    prefix = found.most_common(1)[0][0] if found else ""
    return GPT2File(format, tensors, prefix)


def find_format(folder: Path) -> Format:
    """The first format whose files are in the folder; FileNotFoundError where there is none."""
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "is not there"
        raise FileNotFoundError(
            f"Expected a folder with GPT-2's weights. Received: {str(folder)!r}, which {state}"
        )
    for format in FORMATS:
        if any(path.is_file() for pattern in format.files for path in folder.glob(pattern)):
            return format
    names = ", ".join(name for format in FORMATS for name in format.files)
    raise FileNotFoundError(
        f"Expected GPT-2's weights in {str(folder)!r}: one of {names}. Found none of them"
    )


def damaged(path: Path, error: Exception, part: str = "") -> ValueError:
    """What is raised in place of a library's own error about a file."""
    return ValueError(
        f"Cannot read{part} {path}: it is truncated or damaged ({type(error).__name__}: {error})"
    )


# Hugging Face's safetensors and PyTorch files


def hugging_face_name(name: str, shape: Shape) -> tuple[str, Shape]:
    return name, shape


def open_parts(
    folder: Path, name: str, open_one: Callable[[Path], Iterable[StoredTensor]]
) -> Iterable[StoredTensor]:
    """The tensors of one file, or of the parts that NAME.index.json lists."""
    if (folder / name).is_file():
        yield from open_one(folder / name)
        return
    index = folder / f"{name}.index.json"
    places = read_json(index, ("weight_map",))["weight_map"]
    if not isinstance(places, dict) or not all(isinstance(part, str) for part in places.values()):
        raise ValueError(f'Expected "weight_map": {{tensor: file}} in {index}. Received: another')
    for part in sorted(set(places.values())):
        if Path(part).name != part:
            raise ValueError(f"Expected names of files beside {index}. Received: {part!r}")
        if not (folder / part).is_file():
            raise FileNotFoundError(f"Expected {part}, which {index} lists. Found none")
        tensors = list(open_one(folder / part))
        listed = {tensor for tensor, place in places.items() if place == part}
        wrong = sorted(listed ^ {tensor.name for tensor in tensors})
        if wrong:
            raise ValueError(
                f"Expected {folder / part} to hold what {index} says. Received: a difference in "
                f"{', '.join(wrong[:10])}"
            )
        yield from tensors


def open_safetensors(path: Path) -> Iterable[StoredTensor]:
    from safetensors import SafetensorError, safe_open

    def read(name: str) -> np.ndarray:
        # Opened anew each time, because what was read of an open file stays mapped in memory.
        with safe_open(path, "numpy") as file:
            return file.get_tensor(name)

    dtypes = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    try:
        with safe_open(path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118  it is no dict
                part = file.get_slice(name)
                dtype = dtypes.get(part.get_dtype(), part.get_dtype())
                yield StoredTensor(path, name, tuple(part.get_shape()), dtype, read)
    except SafetensorError as error:
        raise damaged(path, error) from error


def open_torch(path: Path) -> Iterable[StoredTensor]:
    file = read_torch(path)
    for name in file:
        if not file.dense(name):
            raise ValueError(
                f"Cannot read tensor {name} of {path}: it is damaged, or its values overlap or do "
                "not lie side by side"
            )
        yield StoredTensor(path, name, file.shape(name), file.dtype(name), file.__getitem__)


# Hugging Face's HDF5 files


def hdf5_name(name: str, shape: Shape) -> tuple[str, Shape]:
    """As in h_._0/attn/c_attn/weight:0 and h_._0/ln_1/gamma:0; biases of kernels are (1, n)."""
    *path, kind = name.split(".")
    if path[0] == "h":
        path[:2] = [f"h_._{path[1]}"]
    if path[-1] in NORMS:
        kind = {"weight": "gamma", "bias": "beta"}[kind]
    elif path[-1] == "wpe":
        kind = "embeddings"
    elif kind == "bias":
        shape = (1, *shape)
    return "/".join([*path, f"{kind}:0"]), shape


def open_hdf5(folder: Path) -> Iterable[StoredTensor]:
    path = folder / "tf_model.h5"

    def read(name: str) -> np.ndarray:
        with h5py.File(path) as file:
            return file[name][()]

    found: list[StoredTensor] = []
    places: list[tuple[int, int]] = []

    def note(name: str | bytes, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(name, bytes):
            raise ValueError(f"the name {name!r} is no text")
        header = h5py.h5o.get_info(item.id)
        if header.hdr.nchunks == 1:  # of several, only the first lies there
            places.append((header.addr, header.addr + header.hdr.space.total))
        if isinstance(item, h5py.Dataset):
            place, size = item.id.get_offset(), item.id.get_storage_size()
            if place is None or size != item.nbytes:
                raise ValueError(f"{name} does not lie in the file in one piece")
            places.append((place, place + size))
            kind = next((k for k, t in HDF5_DTYPES.items() if item.id.get_type().equal(t)), None)
            dtype = kind or f"HDF5 {item.dtype.str}"
            found.append(StoredTensor(path, name, item.shape, dtype, read))

    try:
        with h5py.File(path) as file:
            file.visititems(note)
        # The format has no checksums: this tells nearly all that is read from a wrong place.
        places.sort()
        if any(end > start for (_, end), (start, _) in pairwise(places)):
            raise ValueError("parts of it overlap")
    except Exception as error:  # a damaged file can raise anything at all
        raise damaged(path, error) from error
    return found


# OpenAI's TensorFlow checkpoints


def checkpoint_name(name: str, shape: Shape) -> tuple[str, Shape]:
    """As in model/h0/attn/c_attn/w, (1, in, out), and model/h0/ln_1/g."""
    *path, kind = name.split(".")
    if path[0] == "h":
        path[:2] = [f"h{path[1]}"]
    if path[-1] in ("wte", "wpe"):
        return "/".join(["model", *path]), shape
    if path[-1] in NORMS:
        kind = {"weight": "g", "bias": "b"}[kind]
    else:
        kind = {"weight": "w", "bias": "b"}[kind]
    return "/".join(["model", *path, kind]), (1, *shape) if kind == "w" else shape


def open_checkpoint(folder: Path) -> Iterable[StoredTensor]:
    import tensorflow as tf

    prefix = checkpoint_prefix(folder)
    path = prefix.with_name(f"{prefix.name}.index")
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    except Exception as error:  # a damaged file can raise anything at all
        raise damaged(path, error) from error
    return [
        StoredTensor(path, name, tuple(shape), dtypes[name].name, reader.get_tensor)
        for name, shape in sorted(shapes.items())
    ]


def checkpoint_prefix(folder: Path) -> Path:
    """The checkpoint in the folder; of several, the one that the file `checkpoint` names."""
    found = sorted(path.with_suffix("") for path in folder.glob("*.index"))
    if len(found) > 1:
        text = (folder / "checkpoint").read_text(encoding="utf-8", errors="replace")
        latest = re.search(r'^model_checkpoint_path: "(?:.*/)?([^/"]+)"', text, re.MULTILINE)
        found = [path for path in found if latest and path.name == latest.group(1)]
    if len(found) != 1:
        raise FileNotFoundError(
            f"Expected model.ckpt.index in {folder}, or the name of one of several in the file "
            f"`checkpoint`. Received: {len(found)} that fit"
        )
    return found[0]


FORMATS = (
    Format(
        "safetensors",
        ("model.safetensors", "model.safetensors.index.json"),
        partial(open_parts, name="model.safetensors", open_one=open_safetensors),
        hugging_face_name,
        r"(transformer\.)?",
        buffers=True,
    ),
    Format(
        "PyTorch",
        ("pytorch_model.bin", "pytorch_model.bin.index.json"),
        partial(open_parts, name="pytorch_model.bin", open_one=open_torch),
        hugging_face_name,
        r"(transformer\.)?",
        buffers=True,
    ),
    Format("HDF5", ("tf_model.h5",), open_hdf5, hdf5_name, r"(transformer/[^/]+/transformer/)?"),
    Format("TensorFlow checkpoint", ("checkpoint", "*.index"), open_checkpoint, checkpoint_name),
)
