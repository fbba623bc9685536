"""Tests of effcap.weights.torch_file."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from effcap.weights.torch_file import TorchFile, read_torch
from helpers.torch_writer import Torch

DATA = Path(__file__).resolve().parents[1] / "data"
FORMATS = ["zip", "legacy"]
ROW = np.arange(24, dtype=np.float32)


@pytest.fixture
def torch() -> Torch:
    writer = Torch()
    writer.storages["0"] = ("FloatStorage", ROW)
    return writer


@pytest.mark.parametrize("form", FORMATS)
def test_files_of_torch_are_read_to_the_bit(form):
    tensors = read_torch(DATA / f"torch_file_{form}.pth", prefix="state_dict.")
    expected = {
        "contiguous": ROW.reshape(2, 3, 4),
        "transposed": ROW.reshape(2, 3, 4).transpose(2, 0, 1),
        "every_second": ROW[1::2],
        "column": ROW.reshape(4, 6)[:, 5],
        "expanded": np.full(5, 3, np.float32),
        "scalar": np.array(7.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "parameter": ROW[4:10].reshape(2, 3),
        "channels_last": ROW.reshape(1, 2, 3, 4),
        "bfloat16": np.array([0, 1, 100], np.float32),
    }
    dtypes = "float64 float32 float16 int64 int32 int16 int8 uint8 bool complex64 complex128"
    if form == "zip":
        dtypes += " uint16 uint32 uint64"
    expected |= {dtype: np.array([0, 1, 100]).astype(dtype) for dtype in dtypes.split()}
    assert set(tensors) == set(expected)
    for name, value in expected.items():
        assert isinstance(tensors[name], np.ndarray), name
        assert tensors[name].dtype == value.dtype, name
        np.testing.assert_array_equal(tensors[name], value, strict=True, err_msg=name)


@pytest.mark.parametrize("form", FORMATS)
def test_nested_names_are_joined_by_dots_and_other_objects_are_skipped(form):
    tensors = read_torch(DATA / f"torch_file_{form}.pth")
    others = {name for name in tensors if not name.startswith(("state_dict.", "layer."))}
    assert others == {"history.0", "history.1.loss"}  # no epoch, random state, size or optimizer
    assert tensors["history.1.loss"] == 0.5
    values = [tensors[f"layer.{name}"] for name in ("0.weight", "0.bias", "1.running_var")]
    assert [value.flat[0] for value in values] == [0, 1, 5]


@pytest.mark.parametrize("form", FORMATS)
def test_bytes_are_read_like_their_file(form):
    path = DATA / f"torch_file_{form}.pth"
    from_path, from_bytes = read_torch(path), read_torch(path.read_bytes())
    assert list(from_path) == list(from_bytes) and len(from_path) == len(from_bytes) > 20
    for name in from_path:
        np.testing.assert_array_equal(from_path[name], from_bytes[name], strict=True)


@pytest.mark.parametrize("form", FORMATS)
def test_tensors_may_share_a_storage(form, torch):
    content = torch.dict(
        whole=torch.tensor("0", 0, (4, 6), (6, 1)),
        turned=torch.tensor("0", 2, (3, 2), (1, 12)),
    )
    tensors = read_torch(torch.file(form, content))
    np.testing.assert_array_equal(tensors["whole"], ROW.reshape(4, 6))
    np.testing.assert_array_equal(tensors["turned"], [[2, 14], [3, 15], [4, 16]])
    tensors["whole"][:] = -1  # a copy: neither the file nor other tensors change
    np.testing.assert_array_equal(tensors["whole"], ROW.reshape(4, 6))


@pytest.mark.parametrize("form", FORMATS)
def test_bfloat16_keeps_every_value(form, torch):
    bits = np.arange(2**16, dtype=np.uint16)
    torch.storages = {"0": ("BFloat16Storage", bits)}
    content = torch.dict(
        all=torch.tensor("0", 0, (256, 256), (1, 256)), one=torch.tensor("0", 0x3FC0, (), ())
    )
    tensors = read_torch(torch.file(form, content))
    exact = (bits.astype(np.uint32) << 16).reshape(256, 256).T
    np.testing.assert_array_equal(tensors["all"].view(np.uint32), exact)
    np.testing.assert_array_equal(tensors["one"], np.float32(1.5), strict=False)
    assert isinstance(tensors["one"], np.ndarray)


def test_big_endian_archives_are_read(torch):
    torch.storages["0"] = ("FloatStorage", ROW.astype(">f4"))
    content = torch.dict(row=torch.tensor("0", 0, (24,), (1,)))
    row = read_torch(torch.file("zip", content, order="big"))["row"]
    np.testing.assert_array_equal(row, ROW)
    assert row.dtype.isnative


def test_views_of_storages_in_legacy_files_have_an_offset(torch):
    content = torch.dict(row=torch.tensor("0", 1, (3,), (1,)))
    view = torch.value(24) + torch.value(("view", 10, 8))
    content = content.replace(torch.value(24) + b"tQ", view + b"tQ")
    np.testing.assert_array_equal(read_torch(torch.file("legacy", content))["row"], ROW[11:14])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "module, name",
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch.nn.modules.linear", "Linear"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("numpy", "load"),
        ("effcap.weights.torch_file", "os"),
    ],
)
def test_forbidden_names_are_an_error_and_not_called(form, module, name, torch, tmp_path):
    trace = tmp_path / "was_here"
    argument = torch.value(f"touch {trace}")
    content = torch.dict(
        row=torch.tensor("0", 0, (24,), (1,)), evil=torch.call(torch.name(module, name), argument)
    )
    with pytest.raises(ValueError, match=f"names {module}.{name}, which is not part"):
        read_torch(torch.file(form, content))
    assert not trace.exists()


@pytest.mark.parametrize("form", FORMATS)
def test_a_pickled_shell_command_is_an_error_and_not_run(form, torch, tmp_path):
    trace = tmp_path / "was_here"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {trace}",)

    payload = pickle.dumps(Evil(), 2)
    pickle.loads(payload)  # an ordinary unpickler runs it
    assert trace.exists()
    trace.unlink()
    with pytest.raises(ValueError, match="system"):
        read_torch(torch.file(form, payload[2:-1]))
    assert not trace.exists()


def test_a_file_cannot_change_the_reader(torch):
    # BUILD with a pair (None, {...}) sets attributes of the object below it on the stack.
    state = torch.value((None, {"__defaults__": (), "__init__": 1, "persistent_load": 2}))
    for name in [("torch._utils", "_rebuild_tensor_v2"), ("collections", "OrderedDict"),
                 ("torch", "Size"), ("numpy", "dtype"), ("torch", "FloatStorage")]:  # fmt: skip
        with pytest.raises(ValueError, match="damaged"):
            read_torch(torch.file("zip", torch.name(*name) + state + b"b"))
    content = torch.dict(row=torch.tensor("0", 0, (24,), (1,)))
    np.testing.assert_array_equal(read_torch(torch.file("zip", content))["row"], ROW)


@pytest.mark.parametrize("form, step", [("legacy", 3), ("zip", 7)])
def test_files_truncated_anywhere_are_an_error(form, step):
    whole = (DATA / f"torch_file_{form}.pth").read_bytes()
    for length in [*range(0, len(whole), step), len(whole) - 1]:
        with pytest.raises(ValueError, match="truncated"):
            read_torch(whole[:length])


@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_file_is_named(form, tmp_path):
    whole = (DATA / f"torch_file_{form}.pth").read_bytes()
    for length in (0, 1, 20, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cut.pth.*truncated"):
            read_torch(tmp_path / "cut.pth")


@pytest.mark.parametrize("form", FORMATS)
def test_one_changed_byte_is_read_or_a_value_error(form):
    whole = (DATA / f"torch_file_{form}.pth").read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.choice(len(whole), 600, replace=False):
        changed = bytearray(whole)
        changed[position] ^= int(rng.integers(1, 256))
        try:
            tensors = read_torch(bytes(changed))
        except ValueError:
            continue
        for name in tensors:
            assert isinstance(tensors[name], np.ndarray)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "offset, shape, stride",
    [
        (1, (24,), (1,)),
        (0, (25,), (1,)),
        (0, (4, 6), (7, 1)),
        (25, (), ()),
        (-1, (2,), (1,)),
        (23, (24,), (-1,)),
        (0, (-1,), (1,)),
        (0, (2.0,), (1,)),
        (0, (2, 2), (1,)),
        (0, 24, 1),
    ],
)
def test_tensors_outside_their_storage_are_an_error(form, offset, shape, stride, torch):
    content = torch.dict(row=torch.tensor("0", offset, shape, stride))
    with pytest.raises(ValueError, match="Cannot read"):
        read_torch(torch.file(form, content))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "not written it, or it is truncated"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "not written it"),
        (pickle.dumps({"weight": [1.0]}, 2), "not written it"),
        (b"PK\x03\x04" + bytes(100), "BadZipFile"),
    ],
)
def test_other_kinds_of_files_are_an_error(content, message):
    with pytest.raises(ValueError, match=f"Cannot read the given bytes.*{message}"):
        read_torch(content)


def test_other_zip_archives_are_an_error():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    with pytest.raises(ValueError, match="0 members data.pkl"):
        read_torch(file.getvalue())


def test_compressed_archives_and_missing_storages_are_an_error(torch):
    whole = torch.file("zip", torch.dict(row=torch.tensor("0", 0, (24,), (1,))))
    deflated, partial = io.BytesIO(), io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(whole)) as source,
        zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as deflated_archive,
        zipfile.ZipFile(partial, "w") as partial_archive,
    ):
        for name in source.namelist():
            deflated_archive.writestr(name, source.read(name))
            if name != "archive/data/0":
                partial_archive.writestr(name, source.read(name))
    with pytest.raises(ValueError, match="it is compressed"):
        read_torch(deflated.getvalue())
    with pytest.raises(ValueError, match="archive/data/0 is missing"):
        read_torch(partial.getvalue())


def test_tensors_that_cannot_be_represented_are_an_error(torch):
    row = torch.tensor("0", 0, (24,), (1,))
    with pytest.raises(ValueError, match="single tensor"):
        read_torch(torch.file("zip", row))
    conjugate = torch.tensor("0", 0, (24,), (1,), extra=torch.value({"conj": True}))
    with pytest.raises(ValueError, match="metadata {'conj': True}"):
        read_torch(torch.file("zip", torch.dict(row=conjugate)))
    twice = torch.dict(**{"a.b": row, "a": torch.dict(b=row)})
    with pytest.raises(ValueError, match="two tensors of the name 'a.b'"):
        read_torch(torch.file("zip", twice))


def test_an_unknown_prefix_is_an_error_with_the_names():
    with pytest.raises(ValueError, match="prefix='model.'; names start .*state_dict.contiguous"):
        read_torch(DATA / "torch_file_zip.pth", prefix="model.")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        read_torch(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("form", FORMATS)
def test_memory_holds_one_tensor_at_a_time(form, tmp_path):
    torch = Torch()
    tensors = {}
    for number in range(16):
        torch.storages[str(number)] = ("FloatStorage", np.full(2**18, number, np.float32))  # 1 MiB
        tensors[f"t{number}"] = torch.tensor(str(number), 0, (2**9, 2**9), (2**9, 1))
    path = tmp_path / "large.pth"
    path.write_bytes(torch.file(form, torch.dict(**tensors)))
    tracemalloc.start()
    file = TorchFile(path)
    total = sum(float(file[name].mean()) for name in file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == sum(range(16))
    assert peak < 2.5 * 2**20


def test_damage_outside_the_values_never_changes_them_unnoticed(torch):
    torch.storages["1"] = ("FloatStorage", np.zeros(8, np.float32))  # zeros, like padding
    row, zeros = torch.tensor("0", 0, (24,), (1,)), torch.tensor("1", 0, (8,), (1,))
    whole = torch.file("zip", torch.dict(row=row, zeros=zeros))
    values = {(whole.index(array.tobytes()), array.nbytes) for _, array in torch.storages.values()}
    inside = {position for start, size in values for position in range(start, start + size)}
    refused = 0
    for position in set(range(len(whole))) - inside:
        for bit in (1, 4, 8, 64):
            changed = bytearray(whole)
            changed[position] ^= bit
            try:
                file = read_torch(bytes(changed))
                arrays = [file["row"], file["zeros"]]
            except ValueError:
                refused += 1
                continue
            np.testing.assert_array_equal(arrays[0], ROW)
            np.testing.assert_array_equal(arrays[1], 0)
    assert refused > 500


@pytest.mark.parametrize("form", FORMATS)
def test_storages_must_have_their_declared_size(form, torch):
    torch.storages["1"] = ("FloatStorage", np.zeros(8, np.float32))
    row, other = torch.tensor("0", 0, (24,), (1,)), torch.tensor("1", 0, (8,), (1,))
    content = torch.dict(row=row, other=other)
    torch.storages["1"] = ("FloatStorage", np.zeros(9, np.float32))
    with pytest.raises(ValueError, match="storage '1' has two sizes"):
        read_torch(torch.file(form, content))


def test_an_array_of_bytes_of_any_declared_size_is_not_allocated(torch):
    content = torch.dict(row=b"\x96" + (2**36).to_bytes(8, "little") + b"few")
    tracemalloc.start()
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_torch(torch.file("legacy", content))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**21


def test_a_compressed_description_is_an_error():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    with pytest.raises(ValueError, match="it is compressed"):
        read_torch(file.getvalue())


def nest(inner: bytes, depth: int) -> bytes:
    """Returns the opcodes of a list that holds another twice, and so on, around `inner`."""
    levels = b"".join(
        b"0](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(depth)
    )
    return inner + b"q\x00" + levels


def test_lists_that_share_their_elements_are_walked_once(torch):
    row = torch.tensor("0", 0, (24,), (1,))
    assert list(read_torch(torch.file("zip", torch.dict(a=nest(b"]", 60), row=row)))) == ["row"]
    with pytest.raises(ValueError, match="more than 100000 tensors"):
        read_torch(torch.file("zip", torch.dict(a=nest(b"](" + row + b"e", 60))))
    metadata = torch.tensor("0", 0, (24,), (1,), extra=nest(b"]", 60))
    with pytest.raises(ValueError, match="metadata"):
        read_torch(torch.file("zip", torch.dict(row=metadata)))


def test_unused_storages_in_legacy_files_are_an_error(torch):
    torch.storages["1"] = ("FloatStorage", np.zeros(8, np.float32))
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_torch(torch.file("legacy", torch.dict(row=torch.tensor("0", 0, (24,), (1,)))))


@pytest.mark.parametrize("form", FORMATS)
def test_shapes_and_dtypes_match_the_arrays(form):
    file = read_torch(DATA / f"torch_file_{form}.pth", prefix="state_dict.")
    for name in file:
        assert file.shape(name) == file[name].shape and file.dtype(name) == file[name].dtype
    dense = {name for name in file if file.dense(name)}
    views = {"every_second", "column", "expanded"}
    assert not dense & views and {"transposed", "contiguous", "channels_last", "scalar"} <= dense
