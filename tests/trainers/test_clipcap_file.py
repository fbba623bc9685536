"""Tests of reading ClipCap's files of CLIP vectors and captions."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from effcap.trainers import read_clipcap_features
from helpers.torch_writer import Torch

FILES = Path(__file__).resolve().parents[1] / "data" / "clipcap_files"
PHOTOS = ("391895", "522418", "184613")
VECTORS = np.arange(24, dtype=np.float32).reshape(6, 4) % 12 + 1
ENTRY = {"image_id": "391895", "caption": "A dog.", "clip_embedding": 0}


def write(path: Path, content: object, protocol: int = 4) -> Path:
    """Writes a pickle."""
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def opcodes(tensor: bytes, entry: dict | bytes = ENTRY) -> bytes:
    """Returns a pickle in ClipCap's format, from the opcodes of the tensor and of one caption."""
    value = Torch().value
    entry = entry if isinstance(entry, bytes) else value(entry)
    items = value("clip_embedding") + tensor + value("captions") + b"](" + entry + b"e"
    return b"\x80\x03}(" + items + b"u."


def storage_file(form: str = "legacy", content: bytes | None = None) -> bytes:
    """Returns a file of `torch.save` that holds a storage of 24 floats."""
    torch = Torch()
    torch.storages["0"] = ("FloatStorage", VECTORS.ravel())
    pid = [torch.value("storage"), torch.name("torch", "FloatStorage"), torch.value("0")]
    pid += [torch.value("cpu"), torch.value(24)]
    return torch.file(form, b"(" + b"".join(pid) + b"tQ" if content is None else content)


def tensor(file: bytes, offset=0, shape=(6, 4), stride=(4, 1)) -> bytes:
    """Returns the opcodes of a tensor whose storage is in a file of `torch.save`."""
    torch = Torch()
    data = pickle.dumps(file, 3)[2:-1]
    storage = torch.call(torch.name("torch.storage", "_load_from_bytes"), data)
    numbers = [torch.value(number) for number in (offset, shape, stride)]
    rebuild = torch.name("torch._utils", "_rebuild_tensor_v2")
    hooks = torch.call(torch.name("collections", "OrderedDict"))
    return torch.call(rebuild, storage, *numbers, torch.value(False), hooks)


@pytest.mark.parametrize("path", sorted(FILES.iterdir()), ids=lambda path: path.stem)
def test_files_of_real_versions_are_read(path):
    features, captions = read_clipcap_features(path)
    half = path.name.startswith("torch") and "bfloat16" not in path.name
    np.testing.assert_array_equal(features, VECTORS.astype("f2" if half else "f4"), strict=True)
    assert [(c.image, c.text, c.row) for c in captions] == [
        (name, f"Photo {name}.", row) for row, name in enumerate(PHOTOS * 2)
    ]
    assert all(type(value) in (str, int) for caption in captions for value in caption)
    assert not features.flags.writeable


@pytest.mark.parametrize("form", ("legacy", "zip"))
def test_tensors_are_views_of_a_wrapped_file_in_both_formats(tmp_path, form):
    file = tmp_path / "f.pkl"
    file.write_bytes(opcodes(tensor(storage_file(form), 4, (2, 3), (1, 2))))
    features, _ = read_clipcap_features(file)
    np.testing.assert_array_equal(features, VECTORS.ravel()[[[4, 6, 8], [5, 7, 9]]])


@pytest.mark.parametrize("dtype", ("<f2", ">f4", "<f8"))
@pytest.mark.parametrize("protocol", (2, 3, 4, 5))
def test_arrays_are_read_in_their_dtype(tmp_path, dtype, protocol):
    content = {"clip_embedding": VECTORS.astype(dtype)[::2, 1:], "captions": [ENTRY]}
    features, _ = read_clipcap_features(write(tmp_path / "f.pkl", content, protocol))
    np.testing.assert_array_equal(features, VECTORS[::2, 1:])
    assert features.dtype == dtype


def test_ids_may_be_numbers_or_missing_and_captions_without_text_are_kept(tmp_path):
    entries = [
        {"caption": "A.", "clip_embedding": 2},
        {"caption": None, "clip_embedding": 1, "image_id": 7, "url": "http://x"},
        {"caption": 3.5, "clip_embedding": 0, "image_id": " a b.jpg "},
    ]
    content = {"clip_embedding": VECTORS, "captions": entries, "other": {"x": (1, 2)}}
    _, captions = read_clipcap_features(write(tmp_path / "f.pkl", content))
    assert captions == [("2", "A.", 2), ("7", None, 1), ("a b.jpg", None, 0)]


@pytest.mark.parametrize("protocol", (2, 3, 4))
@pytest.mark.parametrize(
    "module, name",
    (
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("functools", "partial"),
        ("torch", "load"),
        ("torch.serialization", "load"),
        ("numpy", "load"),
        ("numpy._core.multiarray", "fromfile"),
        ("codecs", "encode"),
        ("effcap.trainers.data.clipcap_file", "os"),
    ),
)
def test_other_names_are_an_error_and_not_called(tmp_path, module, name, protocol):
    trace = tmp_path / "was_here"
    torch = Torch()
    path = f"c{module}\n{name}\n".encode()
    if protocol == 4:
        path = torch.value(module) + torch.value(name) + b"\x93"
    call = torch.call(path, torch.value(f"touch {trace}"))
    file = tmp_path / "f.pkl"
    file.write_bytes(b"\x80" + bytes([protocol]) + opcodes(call)[2:])
    message = f"names {module}.{name}, which is not part of ClipCap's features and might run code"
    with pytest.raises(ValueError, match=message):
        read_clipcap_features(file)
    assert not trace.exists()


def test_a_pickled_shell_command_is_an_error_and_not_run(tmp_path):
    trace = tmp_path / "was_here"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {trace}",)

    for content in (Evil(), {"clip_embedding": VECTORS, "captions": [Evil()]}):
        file = write(tmp_path / "f.pkl", content)
        with pytest.raises(ValueError, match="f.pkl: it names .*system"):
            read_clipcap_features(file)
    inner = Torch().file("legacy", pickle.dumps(Evil(), 2)[2:-1])
    file.write_bytes(opcodes(tensor(inner)))
    with pytest.raises(ValueError, match="f.pkl: it names .*system"):
        read_clipcap_features(file)
    assert not trace.exists()


def test_files_are_wrapped_once_only(tmp_path):
    nested = storage_file(content=tensor(storage_file()))
    file = tmp_path / "f.pkl"
    file.write_bytes(opcodes(tensor(nested)))
    with pytest.raises(ValueError, match="names torch.storage._load_from_bytes, which is not part"):
        read_clipcap_features(file)
    data = pickle.dumps(storage_file(), 3)[2:-1]
    load = Torch().name("torch.storage", "_load_from_bytes")
    file.write_bytes(b"\x80\x03(" + Torch().call(load, data) * 17 + b"t.")
    with pytest.raises(ValueError, match="more than 16 tensors"):
        read_clipcap_features(file)


def test_a_file_cannot_change_the_reader(tmp_path):
    torch = Torch()
    state = torch.value((None, {"__defaults__": (), "__init__": 1, "_storage": 2}))
    names = [("torch.storage", "_load_from_bytes"), ("numpy", "dtype"), ("numpy", "ndarray"),
             ("numpy.core.multiarray", "_reconstruct"), ("_codecs", "encode"),
             ("numpy._core.numeric", "_frombuffer")]  # fmt: skip
    for name in names:
        (tmp_path / "f.pkl").write_bytes(opcodes(torch.name(*name) + state + b"b"))
        with pytest.raises(ValueError, match="damaged"):
            read_clipcap_features(tmp_path / "f.pkl")
    assert len(read_clipcap_features(FILES / "numpy2_protocol4.pkl").captions) == 6


@pytest.mark.parametrize(
    "content, message",
    (
        ([1, 2], "expected {\"clip_embedding\".*Received: a list of 2"),
        ({}, "Received: a dict of 0"),
        ({"captions": [ENTRY]}, "Received: a dict with the keys captions"),
        ({"parsed": {}, "info": {}}, "Received: a dict with the keys parsed, info"),
        ({"clip_embedding": [1.0], "captions": [ENTRY]}, "as 'clip_embedding'. Received: a list"),
        ({"clip_embedding": VECTORS[0], "captions": [ENTRY]}, r"Received: float32 of shape \(4,\)"),
        ({"clip_embedding": VECTORS[:0], "captions": [ENTRY]}, r"of shape \(0, 4\)"),
        ({"clip_embedding": VECTORS.astype(int), "captions": [ENTRY]}, "Received: int64 of shape"),
        ({"clip_embedding": VECTORS.astype(object), "captions": [ENTRY]}, "dtype 'O8'"),
        ({"clip_embedding": VECTORS.astype("c8"), "captions": [ENTRY]}, "dtype 'c8'"),
        ({"clip_embedding": VECTORS, "captions": []}, "Received: a list of 0"),
        ({"clip_embedding": VECTORS, "captions": {"a": 1}}, "Received: a dict of 1"),
        ({"clip_embedding": VECTORS, "captions": [ENTRY, "A."]}, r"captions\[1\]. Received: 'A.'"),
        ({"clip_embedding": VECTORS, "captions": [{"caption": "A."}]}, "the keys caption"),
        *(
            (
                {"clip_embedding": VECTORS, "captions": [{**ENTRY, "clip_embedding": row}]},
                r"a row from 0 to 5 as 'clip_embedding' of captions\[0\]. Received: ",
            )
            for row in (6, -1, True, 1.0, "1", None, 10**30)
        ),
        *(
            (
                {"clip_embedding": VECTORS, "captions": [{**ENTRY, "image_id": image}]},
                r"text or a number as 'image_id' of captions\[0\]",
            )
            for image in ("", " ", 1.5, [1])
        ),
    ),
)  # fmt: skip
def test_other_contents_are_an_error(tmp_path, content, message):
    with pytest.raises(ValueError, match=f"(?s)f.pkl: .*{message}"):
        read_clipcap_features(write(tmp_path / "f.pkl", content))


@pytest.mark.parametrize(
    "arguments, message",
    (
        ({"offset": 1}, "needs 100 bytes of a storage that has 96"),
        ({"shape": (7, 4)}, "needs 112 bytes"),
        ({"offset": -1}, "offset, shape and strides"),
        ({"shape": (24,)}, "malformed tensor"),
        ({"shape": (10**9, 512), "stride": (0, 0)}, "repeats the values of a storage of 96 bytes"),
        ({"shape": (24,), "stride": (1,)}, r"float32 of shape \(24,\)"),
        ({"shape": (2, 3, 4), "stride": (12, 4, 1)}, r"float32 of shape \(2, 3, 4\)"),
    ),
)
def test_tensors_outside_their_storage_are_an_error(tmp_path, arguments, message):
    file = tmp_path / "f.pkl"
    file.write_bytes(opcodes(tensor(storage_file(), **arguments)))
    with pytest.raises(ValueError, match=f"f.pkl: .*{message}"):
        read_clipcap_features(file)


def test_references_to_data_outside_the_pickle_are_an_error(tmp_path):
    torch = Torch()
    torch.storages["0"] = ("FloatStorage", VECTORS.ravel())
    file = tmp_path / "f.pkl"
    file.write_bytes(opcodes(torch.tensor("0", 0, (6, 4), (4, 1))))
    with pytest.raises(ValueError, match="refers to data outside the pickle"):
        read_clipcap_features(file)


def declare(opcode: bytes, size: bytes) -> Callable[[], bytes]:
    """Returns a maker of a pickle that declares more bytes than it has."""
    return lambda: opcodes(opcode + size + b"few")


@pytest.mark.parametrize(
    "make",
    (
        declare(pickle.BYTEARRAY8, struct.pack("<Q", 2**36)),
        declare(pickle.BINBYTES8, struct.pack("<Q", 2**36)),
        declare(pickle.BINBYTES, struct.pack("<I", 2**32 - 1)),
        declare(pickle.BINUNICODE8, struct.pack("<Q", 2**62)),
        declare(pickle.FRAME, struct.pack("<Q", 2**40)),
        declare(pickle.LONG4, struct.pack("<i", 2**31 - 1)),
    ),
)
def test_declared_sizes_are_not_allocated(tmp_path, make):
    file = tmp_path / "f.pkl"
    file.write_bytes(make())
    tracemalloc.start()
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_clipcap_features(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**21


def test_compressed_files_are_an_error(tmp_path):
    deflated = io.BytesIO()
    with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    file = tmp_path / "f.pkl"
    file.write_bytes(opcodes(tensor(deflated.getvalue())))
    with pytest.raises(ValueError, match="it is compressed"):
        read_clipcap_features(file)


@pytest.mark.parametrize("name", ("torch2_protocol4", "numpy2_protocol5", "torch1_saved"))
def test_files_truncated_anywhere_are_an_error(tmp_path, name):
    whole = (FILES / f"{name}.pkl").read_bytes()
    file = tmp_path / "cut.pkl"
    for length in [*range(0, len(whole), 5), len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="Cannot read .*cut.pkl: "):
            read_clipcap_features(file)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pkl"):
        read_clipcap_features(tmp_path / "nowhere.pkl")


def test_vectors_take_their_size_in_memory_once(tmp_path):
    vectors = np.ones((2**12, 2**9), np.float32)  # 8 MiB
    content = {"clip_embedding": vectors, "captions": [ENTRY]}
    file = write(tmp_path / "f.pkl", content, 5)
    tracemalloc.start()
    features, _ = read_clipcap_features(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert features.shape == vectors.shape and peak < 9 * 2**20
