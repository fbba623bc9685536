"""The weights file of a preset: Keras's own format, also with weights in half or a quarter.

In an int8 file, the place of a large matrix is not a dataset but a group with two:

    .../vars/0/values   int8
    .../vars/0/scales   float32, for each output; see `output_axis`

Keras refuses to load such a file, rather than take the integers for weights.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import ml_dtypes
import numpy as np

from effcap.utils.files import check_disk_space
from effcap.utils.quantization import dequantize, quantize

if TYPE_CHECKING:
    import keras

BYTES_PER_VARIABLE = 4096  # maximum overhead of HDF5
MIN_SIZE = 4096  # values of an array that is worth 8 bits, or compression
VALUES, SCALES = "values", "scales"
COMPRESSED: dict[str, Any] = {"compression": "gzip", "shuffle": True}


def variables_size(variables: Sequence[keras.Variable]) -> int:
    """Returns the maximum size in bytes of an HDF5 file of the variables."""
    size = sum(math.prod(v.shape) * (8 if "64" in v.dtype else 4) for v in variables)
    return size + BYTES_PER_VARIABLE * len(variables)


def save_weights(model: keras.Model, path: Path) -> None:
    """Writes the model's weights without the optimizer's, which are twice as many."""
    check_disk_space(path, variables_size(model.variables))
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        model.save_weights(path)
        return
    model.optimizer = None
    try:
        model.save_weights(path)
    finally:
        model.optimizer = optimizer


def load_weights(model: keras.Model, path: Path) -> None:
    """Loads a weights file into the model, every weight of the file and of the model.

    Weights in int8 are written to a temporary file in float32, which Keras reads.

    Raises:
        FileNotFoundError: the file is missing.
        OSError: there is too little disk space for temporary files.
        ValueError: the file is damaged, or belongs to another model.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is missing in {path.parent}")
    with _errors_of(path), h5py.File(path) as file:
        weights = stored_weights(file)
        _check_place(weights)
        if len(weights) != len(model.weights):
            raise ValueError(f"{len(weights)} weights for a model with {len(model.weights)}")
        is_quantized = any(isinstance(item, h5py.Group) for item in weights.values())
        if is_quantized:
            _check_size(weights, model)
    if not is_quantized:
        with _errors_of(path):
            model.load_weights(path)
        return
    with tempfile.TemporaryDirectory(prefix="effcap-") as folder:
        expanded = Path(folder) / path.name
        check_disk_space(expanded, variables_size(model.weights))
        with _errors_of(path):
            dequantize_weights(path, expanded)
            model.load_weights(expanded)


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Makes errors in a `with` statement those of a weights file.

    Raises:
        ValueError: an error occurred.
    """
    try:
        yield
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:  # as h5py raises
        raise ValueError(f"{path} does not hold the weights of its config: {error}") from error


def is_int8(item: h5py.Group | h5py.Dataset) -> bool:
    """Returns whether an item of a weights file is a weight in int8."""
    return isinstance(item, h5py.Group) and item.attrs.get("dtype") == "int8"


def stored_weights(file: h5py.File) -> dict[str, h5py.Group | h5py.Dataset]:
    """Returns the weights of a file by name, those in int8 as groups; not the optimizer's."""
    weights: dict[str, h5py.Group | h5py.Dataset] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        is_weight = isinstance(item, h5py.Dataset) or is_int8(item)
        # Groups are visited before what they hold.
        if is_weight and name.rpartition("/")[0] not in weights:
            weights[name] = item

    file.visititems(visit)
    return {name: item for name, item in weights.items() if not name.startswith("optimizer/")}


def _arrays(item: h5py.Group | h5py.Dataset) -> list[Any]:
    """Returns what a weight consists of: itself, or values and scales."""
    return [item] if isinstance(item, h5py.Dataset) else [item[VALUES], item[SCALES]]


def _check_place(weights: dict[str, h5py.Group | h5py.Dataset]) -> None:
    """Checks that weights are in the file itself: it must not make a reader open others.

    Raises:
        ValueError: they are not.
    """
    for item in weights.values():
        if isinstance(item, h5py.Group):
            links = [item.get(name, getlink=True) for name in (VALUES, SCALES) if name in item]
            if len(links) < 2 or not all(isinstance(link, h5py.HardLink) for link in links):
                raise ValueError(f"{item.name} has no {VALUES} and {SCALES}, or elsewhere")
        for array in _arrays(item):
            if not isinstance(array, h5py.Dataset):
                raise ValueError(f"Expected an array. Received: {array.name}")
            if array.external or array.is_virtual:
                raise ValueError(f"{array.name} is stored in another file")


def _check_size(weights: dict[str, h5py.Group | h5py.Dataset], model: keras.Model) -> None:
    """Checks the number of values before any is read, so that a damaged file fills no memory.

    Raises:
        ValueError: it is not that of the model.
    """
    count = 0
    for name, item in weights.items():
        arrays = _arrays(item)
        if len(arrays) == 2 and arrays[1].size > arrays[0].size:
            raise ValueError(f"{arrays[1].size} scales for {arrays[0].size} values of {name}")
        count += arrays[0].size
    expected = sum(math.prod(weight.shape) for weight in model.weights)
    if count != expected:
        raise ValueError(f"{count:,} values for a model with {expected:,}")


def dequantize_weights(path: Path, target: Path) -> None:
    """Writes a copy of a weights file with float32 in the place of int8.

    Raises:
        ValueError: values or scales are damaged.
    """
    with h5py.File(path) as source, h5py.File(target, "w") as new:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if name.rpartition("/")[0] in int8 or name.partition("/")[0] == "optimizer":
                return
            if is_int8(item):
                int8.add(name)
                try:
                    new[name] = dequantize(item[VALUES][()], item[SCALES][()])
                except (OSError, ValueError) as error:
                    raise ValueError(f"{name}: {error}") from error
            elif isinstance(item, h5py.Group):
                new.require_group(name).attrs.update(item.attrs)
            else:
                source.copy(item, new, name)

        int8: set[str] = set()
        new.attrs.update(source.attrs)
        source.visititems(copy)


def fits_float16(array: np.ndarray) -> bool:
    """Returns whether all values are within the range of float16."""
    return bool(np.abs(array).max(initial=0) <= np.finfo(np.float16).max)


def is_float16(array: np.ndarray) -> bool:
    """Returns whether all values are the same in float16."""
    return fits_float16(array) and np.array_equal(array.astype(np.float16), array)


def output_axis(name: str, shape: Sequence[int]) -> int:
    """Returns the axis of a weight's outputs, each of which has a scale of its own in int8.

    These are the rows of an embedding, the columns of a dense kernel and the channels of a
    convolution, also of a depthwise one, (h, w, C, 1). Norms make an error of an output relative to
    its size, so one scale for several, even where the mean error is smaller, costs more.

    Args:
        name: name of the weight in a file.
        shape: its shape.
    """
    if len(shape) == 2 and "embedding" in name:
        return 0
    return max((axis for axis, count in enumerate(shape) if count > 1), default=0)


def convert_weights(path: Path, dtype: str) -> None:
    """Rewrites a weights file without bfloat16, compressed and in fewer bits, in place.

    Args:
        path: file in Keras's format.
        dtype: "float32"; "float16", where values that do not fit stay float32; or "int8", where
            arrays of less than 4,096 values or one axis stay float32, or float16 if that is exact.

    Raises:
        ValueError: a weight to be stored in int8 is not finite.
    """
    converted = path.with_suffix(".new")
    with h5py.File(path) as source, h5py.File(converted, "w") as target:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Group):
                target.require_group(name).attrs.update(item.attrs)
                return
            attributes, data = dict(item.attrs), item[()]
            if attributes.get("dtype") == "bfloat16":  # as Keras marks it
                data = np.asarray(data).view(ml_dtypes.bfloat16).astype(np.float32)
                del attributes["dtype"]
            if dtype != "float32" and data.dtype == np.float32 and data.shape:
                new = _write_compressed(target, name, data, dtype)
            else:
                new = target.create_dataset(name, data=data)
            new.attrs.update(attributes)

        target.attrs.update(source.attrs)
        source.visititems(copy)
    shutil.move(converted, path)


def _write_compressed(
    file: h5py.File, name: str, data: np.ndarray, dtype: str
) -> h5py.Group | h5py.Dataset:
    """Writes a float32 array in float16 or int8 where that is possible, and returns the item.

    Raises:
        ValueError: it is not finite, and to be stored in int8.
    """
    if dtype == "float16":
        if not fits_float16(data):
            return file.create_dataset(name, data=data)
        return file.create_dataset(name, data=data.astype(np.float16), **COMPRESSED)
    if data.ndim > 1 and data.size >= MIN_SIZE:
        if not np.isfinite(data).all():
            count = int((~np.isfinite(data)).sum())
            raise ValueError(
                f"Expected finite weights to store in int8. Received: {count:,} of {data.size:,} "
                f"values of {name} are infinite or not numbers; store them in float32"
            )
        quantized = quantize(data, output_axis(name, data.shape))
        if quantized is not None:
            group = file.create_group(name)
            group.attrs["dtype"] = "int8"
            for key, array in zip((VALUES, SCALES), quantized, strict=True):
                group.create_dataset(key, data=array, **_compression(array))
            return group
    data = data.astype(np.float16) if is_float16(data) else data
    return file.create_dataset(name, data=data, **_compression(data))


def _compression(array: np.ndarray) -> dict[str, Any]:
    """Returns how an array is compressed; a small one is not, as the index would take more."""
    return COMPRESSED if array.size >= MIN_SIZE else {}
