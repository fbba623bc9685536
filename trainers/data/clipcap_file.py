"""Reads the files of CLIP vectors and captions that ClipCap trains on, without running them.

ClipCap's parse_coco.py and parse_conceptual.py pickle `{"clip_embedding": tensor (N, C),
"captions": [{"image_id", "caption", "clip_embedding": row}, ...]}`. Within a pickle, PyTorch wraps
a tensor's storage into `torch.storage._load_from_bytes(b"...")`, whose argument is a whole file of
`torch.save`. Only these names and those of NumPy's arrays are admitted, each replaced by a function
that decodes its arguments.
"""

from __future__ import annotations

import math
import mmap
import os
import reprlib
from contextlib import nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from effcap.trainers.data.numpy_pickle import (
    MULTIARRAY,
    NUMERIC,
    PickledArray,
    PickledDtype,
    decode_array,
    decode_scalar,
    encode_latin1,
)
from effcap.utils.progress import ProgressBar
from effcap.weights.torch_file import view_tensor
from effcap.weights.torch_layout import LEGACY_MAGIC, ZIP_MAGIC, Layout, read_layout
from effcap.weights.torch_pickle import (
    Blob,
    Buffer,
    StateDictUnpickler,
    Storage,
    TensorView,
    UnreadableTorchFile,
)

FEATURES, CAPTIONS, IMAGE_ID, CAPTION = "clip_embedding", "captions", "image_id", "caption"
MAX_STORAGES = 16  # in one file; ClipCap's have one
FORMAT = '{"clip_embedding": tensor (N, C), "captions": [{"image_id", "caption", ...}, ...]}'
MEGABYTE = 10**6


class ClipCapCaption(NamedTuple):
    """A caption of a file of ClipCap.

    Attributes:
        image: id or name of the photo; the row of its vector if the file has none.
        text: the caption; None if the file has no text for it.
        row: row of the photo's vector.
    """

    image: str
    text: str | None
    row: int


class ClipCapFeatures(NamedTuple):
    """Contents of a file of ClipCap.

    Attributes:
        features: vectors (N, C) in the dtype of the file, read-only.
        captions: captions in the order of the file.
    """

    features: np.ndarray
    captions: list[ClipCapCaption]


def read_clipcap_features(
    path: str | PathLike[str], *, title: str | None = None
) -> ClipCapFeatures:
    """Reads CLIP vectors and captions from a file of ClipCap, such as oscar_split_*.pkl.

    Nothing in the file is run. The vectors may be a tensor or a NumPy array; the file may also be
    written by `torch.save`.

    Args:
        path: the file.
        title: title of a progress bar; None for no bar.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated or damaged, has other contents, or names anything that is
            not part of such a file, which is in the message.

    Example:
        >>> features, captions = read_clipcap_features("oscar_split_ViT-B_32_train.pkl")
        >>> features.shape
        (566747, 512)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"File of ClipCap's features not found: {path}")
    try:
        content, buffer, layout = _read_content(path, title)
        features = _find_features(content, buffer, layout)  # (N,C)
        return ClipCapFeatures(features, _find_captions(content, len(features)))
    except UnreadableTorchFile as error:
        raise ValueError(f"Cannot read {path}: {error}.") from None
    except Exception as error:  # a damaged pickle can raise anything
        reason = f"({type(error).__name__}: {str(error)[:200]})"
        raise ValueError(f"Cannot read {path}: it is truncated or damaged {reason}.") from error


def _read_content(path: Path, title: str | None) -> tuple[dict, Buffer, Layout | None]:
    """Returns the file's dict; for a file of torch.save also its bytes and layout."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    layout = None
    if buffer[:4] == ZIP_MAGIC or buffer[2 : 2 + len(LEGACY_MAGIC)] == LEGACY_MAGIC:
        layout = read_layout(buffer, path)
        content = layout.content
    else:
        bar = ProgressBar(title, size // MEGABYTE) if title else nullcontext()
        with bar as shown:
            content = FeatureUnpickler(_CountedFile(buffer, shown)).load()
    if not isinstance(content, dict) or not {FEATURES, CAPTIONS} <= content.keys():
        names = ", ".join(map(str, content)) if isinstance(content, dict) else ""
        received = f"a dict with the keys {names[:200]}" if names else _describe(content)
        raise UnreadableTorchFile(f"expected {FORMAT}. Received: {received}")
    return content, buffer, layout


class _CountedFile:
    """Reads a file and counts the megabytes read in a progress bar."""

    def __init__(self, buffer: Buffer, bar: ProgressBar | None) -> None:
        self._buffer, self._bar = buffer, bar
        self._position = self._counted = 0

    def read(self, size: int) -> bytes:
        data = self._buffer[self._position : self._position + size]
        return self._count(data)

    def readline(self) -> bytes:
        end = self._buffer.find(b"\n", self._position)
        return self._count(self._buffer[self._position : end + 1] if end >= 0 else b"")

    def _count(self, data: bytes) -> bytes:
        self._position += len(data)
        steps = self._position // MEGABYTE - self._counted
        if steps and self._bar is not None:
            self._bar.advance(steps=steps)
        self._counted += steps
        return data


@dataclass(frozen=True)
class LoadedStorage(Storage):
    """A storage with the file of `torch.save` that holds it.

    Attributes:
        data: content of the file.
        layout: layout of the file.
    """

    data: bytes
    layout: Layout


class FeatureUnpickler(StateDictUnpickler):
    """Unpickles dicts, lists, text and numbers with tensors and NumPy's arrays among them."""

    content = "ClipCap's features"
    advice = "save the vectors with numpy.save, for effcap.tools.write_feature_arrays"
    num_storages = 0

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full == "torch.storage._load_from_bytes":
            return self._storage
        if full == "numpy.ndarray":
            return full  # only an argument
        if full == "numpy.dtype":
            return self._dtype
        if full == "_codecs.encode":
            return self._encode
        if module in MULTIARRAY and name in ("_reconstruct", "scalar"):
            return self._reconstruct if name == "_reconstruct" else self._scalar
        if module in NUMERIC and name == "_frombuffer":
            return self._from_buffer
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Storage:
        raise UnreadableTorchFile("it refers to data outside the pickle")

    # Bound methods, because BUILD could change the attributes of a class or function.
    def _storage(self, data: Any) -> LoadedStorage:
        if not isinstance(data, bytes):
            raise UnreadableTorchFile("it holds a malformed storage")
        self.num_storages += 1
        if self.num_storages > MAX_STORAGES:
            raise UnreadableTorchFile(f"it holds more than {MAX_STORAGES} tensors")
        layout = read_layout(data, data)  # admits no storages wrapped in bytes: one level only
        storage = layout.content
        if not isinstance(storage, Storage):
            raise UnreadableTorchFile("it holds a malformed storage")
        return LoadedStorage(**vars(storage), data=data, layout=layout)

    def _dtype(self, code: Any, align: Any = False, copy: Any = False) -> PickledDtype:
        return PickledDtype(code)

    def _encode(self, text: Any, encoding: Any = None) -> bytes:
        return encode_latin1(text, encoding)

    def _reconstruct(self, kind: Any, shape: Any, code: Any) -> PickledArray:
        return PickledArray()

    def _scalar(self, dtype: Any, data: Any) -> Any:
        return decode_scalar(dtype, data)

    def _from_buffer(self, *arguments: Any) -> PickledArray:
        return PickledArray(decode_array(*arguments))


def _find_features(content: dict, buffer: Buffer, layout: Layout | None) -> np.ndarray:
    """Returns the vectors (N, C) of an unpickled file.

    Raises:
        UnreadableTorchFile: there are none, or of another shape or dtype.
    """
    features = content[FEATURES]
    if isinstance(features, TensorView):
        features = _view(features, buffer, layout)
    elif isinstance(features, PickledArray):
        features = features.values
    if not isinstance(features, np.ndarray):
        raise UnreadableTorchFile(
            f"expected a tensor or array as {FEATURES!r}. Received: {_describe(features)}"
        )
    if features.ndim != 2 or 0 in features.shape or features.dtype.kind != "f":
        raise UnreadableTorchFile(
            f"expected floats of shape (N, C) as {FEATURES!r}. "
            f"Received: {features.dtype} of shape {features.shape}"
        )
    features = features.view()  # (N,C)
    features.flags.writeable = False
    return features


def _view(tensor: TensorView, buffer: Buffer, layout: Layout | None) -> np.ndarray:
    """Returns the values of a tensor.

    Raises:
        UnreadableTorchFile: they are not all in the file, once each.
    """
    storage = tensor.storage
    if isinstance(storage, LoadedStorage):
        buffer, layout = storage.data, storage.layout
    if layout is None:
        raise UnreadableTorchFile(f"the bytes of the tensor {FEATURES!r} are missing")
    tensor.check(FEATURES, layout.blobs)
    blob: Blob = layout.blobs[storage.key]
    if math.prod(tensor.shape) * np.dtype(tensor.stored_dtype).itemsize > blob.size:
        raise UnreadableTorchFile(
            f"tensor {FEATURES!r} of shape {tensor.shape} repeats the values of a storage of "
            f"{blob.size} bytes"
        )
    return view_tensor(tensor, buffer, blob.start, layout.byte_order)


def _find_captions(content: dict, num_rows: int) -> list[ClipCapCaption]:
    """Returns the captions of an unpickled file.

    Args:
        content: the unpickled dict.
        num_rows: number N of vectors.

    Raises:
        UnreadableTorchFile: there are none, or one is malformed or has no vector.
    """
    entries = content[CAPTIONS]
    if not isinstance(entries, list | tuple) or not entries:
        raise UnreadableTorchFile(
            f"expected a list of captions as {CAPTIONS!r}. Received: {_describe(entries)}"
        )
    return [_read_caption(number, entry, num_rows) for number, entry in enumerate(entries)]


def _read_caption(number: int, entry: Any, num_rows: int) -> ClipCapCaption:
    where = f"{CAPTIONS}[{number}]"
    if not isinstance(entry, dict) or not {CAPTION, FEATURES} <= entry.keys():
        names = ", ".join(map(str, entry)) if isinstance(entry, dict) else ""
        received = f"the keys {names[:200]}" if names else _describe(entry)
        raise UnreadableTorchFile(
            f"expected the keys {CAPTION} and {FEATURES} in {where}. Received: {received}"
        )
    row, text, image = entry[FEATURES], entry[CAPTION], entry.get(IMAGE_ID)
    if not isinstance(row, int) or isinstance(row, bool) or not 0 <= row < num_rows:
        raise UnreadableTorchFile(
            f"expected a row from 0 to {num_rows - 1} as {FEATURES!r} of {where}. "
            f"Received: {_describe(row)}"
        )
    image = row if image is None else image
    if not isinstance(image, str | int) or not str(image).strip():
        raise UnreadableTorchFile(
            f"expected text or a number as {IMAGE_ID!r} of {where}. Received: {_describe(image)}"
        )
    return ClipCapCaption(str(image).strip(), text if isinstance(text, str) else None, row)


def _describe(value: Any) -> str:
    """Describes an unpickled value briefly."""
    if isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)}"
    if value is None or isinstance(value, str | int | float):
        return reprlib.repr(value)
    return f"an object of type {type(value).__name__.strip('_')}"
