"""Reads Hugging Face's files of GPT-2: safetensors and PyTorch, whole or sharded, and HDF5."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np

from effcap.config import read_json
from effcap.weights.gpt2.stored_tensor import NORMS, Shape, StoredTensor, damaged
from effcap.weights.torch_file import read_torch

SAFETENSORS_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
OPTIMIZER = "optimizer_weights/"  # group beside model_weights/ in a file of a whole Keras model
HDF5_DTYPES = {
    "float16": h5py.h5t.IEEE_F16LE,
    "float32": h5py.h5t.IEEE_F32LE,
    "float64": h5py.h5t.IEEE_F64LE,
}


def open_shards(
    folder: Path,
    name: str,
    open_file: Callable[[Path], Iterable[StoredTensor]],
    name_in_shard: Callable[[str], str] = str,
) -> Iterable[StoredTensor]:
    """Yields the tensors of the file `name`, or of the shards that `name`.index.json lists.

    Args:
        folder: contains the files.
        name: name of the file.
        open_file: returns the tensors of one file.
        name_in_shard: returns a tensor's name in its shard for its name in the index.

    Raises:
        FileNotFoundError: a listed shard is missing.
        ValueError: the index is malformed, or a shard has other tensors than listed.
    """
    if (folder / name).is_file():
        yield from open_file(folder / name)
        return
    index = folder / f"{name}.index.json"
    shard_of = read_json(index, ("weight_map",))["weight_map"]
    if not isinstance(shard_of, dict) or not all(isinstance(s, str) for s in shard_of.values()):
        raise ValueError(f'"weight_map" in {index} is not a map from tensors to files')
    for shard in sorted(set(shard_of.values())):
        if Path(shard).name != shard:
            raise ValueError(f"Expected names of files beside {index}. Received: {shard!r}")
        if not (folder / shard).is_file():
            raise FileNotFoundError(f"{shard}, which {index} lists, is missing")
        tensors = list(open_file(folder / shard))
        listed = {name_in_shard(tensor) for tensor, file in shard_of.items() if file == shard}
        differing = sorted(listed ^ {tensor.name for tensor in tensors})
        if differing:
            raise ValueError(
                f"{folder / shard} does not hold the tensors that {index} lists. They differ in "
                f"{', '.join(differing[:10])}"
            )
        yield from tensors


def stored_unchanged(name: str, shape: Shape) -> tuple[str, Shape]:
    """Returns Hugging Face's name and our shape, which safetensors and PyTorch files have too."""
    return name, shape


def open_safetensors(path: Path) -> Iterable[StoredTensor]:
    """Yields the tensors of a safetensors file.

    Raises:
        ValueError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    def read(name: str) -> np.ndarray:
        # Opened for each tensor, because the pages of an open file stay in memory.
        with safe_open(path, "numpy") as file:
            return file.get_tensor(name)

    try:
        with safe_open(path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118  not a dict
                entry = file.get_slice(name)
                dtype = SAFETENSORS_DTYPES.get(entry.get_dtype(), entry.get_dtype())
                yield StoredTensor(path, name, tuple(entry.get_shape()), dtype, read)
    except SafetensorError as error:
        raise damaged(path, error) from error


def open_torch(path: Path) -> Iterable[StoredTensor]:
    """Yields the tensors of a PyTorch file, read without running its pickle.

    Raises:
        ValueError: the file is damaged, or a tensor's values overlap.
    """
    file = read_torch(path)
    for name in file:
        if not file.dense(name):
            raise ValueError(
                f"Cannot read tensor {name} of {path}: it is damaged, or its values overlap or are "
                "not contiguous"
            )
        yield StoredTensor(path, name, file.shape(name), file.dtype(name), file.__getitem__)


def stored_in_hdf5(name: str, shape: Shape) -> tuple[str, Shape]:
    """Returns a tensor's name and shape in tf_model.h5, without the prefix.

    Examples are h_._0/attn/c_attn/weight:0, h_._0/ln_1/gamma:0 and wte/embeddings:0. Biases of
    kernels are (1, n).
    """
    *path, kind = name.split(".")
    if path[0] == "h":
        path[:2] = [f"h_._{path[1]}"]
    if path[-1] in NORMS:
        kind = {"weight": "gamma", "bias": "beta"}[kind]
    elif path[-1] in ("wte", "wpe"):
        kind = "embeddings"
    elif kind == "bias":
        shape = (1, *shape)
    return "/".join([*path, f"{kind}:0"]), shape


def name_in_hdf5_shard(name: str) -> str:
    """Returns a tensor's name in a shard: without the model's, which the index has in front."""
    return name.partition("/")[2] or name


def open_hdf5(path: Path) -> Iterable[StoredTensor]:
    """Returns the tensors of an HDF5 file of Keras 2, without those of an optimizer.

    Raises:
        ValueError: the file is damaged.
    """

    def read(name: str) -> np.ndarray:
        with h5py.File(path) as file:
            return file[name][()]

    tensors: list[StoredTensor] = []
    ranges: list[tuple[int, int]] = []  # of bytes in the file

    def visit(name: str | bytes, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(name, bytes):
            raise ValueError(f"the name {name!r} is not text")
        header = h5py.h5o.get_info(item.id)
        if header.hdr.nchunks == 1:  # several chunks are not contiguous
            ranges.append((header.addr, header.addr + header.hdr.space.total))
        if isinstance(item, h5py.Dataset):
            start, size = item.id.get_offset(), item.id.get_storage_size()
            if start is None or size != item.nbytes:
                raise ValueError(f"{name} is not stored in the file in one piece")
            ranges.append((start, start + size))
            if name.startswith(OPTIMIZER):
                return
            stored_type = item.id.get_type()
            matching = (dtype for dtype, t in HDF5_DTYPES.items() if stored_type.equal(t))
            dtype = next(matching, f"HDF5 {item.dtype.str}")
            tensors.append(StoredTensor(path, name, item.shape, dtype, read))

    try:
        with h5py.File(path) as file:
            file.visititems(visit)
        # The format has no checksums: overlaps reveal most wrong offsets.
        ranges.sort()
        if any(end > start for (_, end), (start, _) in pairwise(ranges)):
            raise ValueError("parts of it overlap")
    except Exception as error:  # a damaged file can raise anything
        raise damaged(path, error) from error
    return tensors
