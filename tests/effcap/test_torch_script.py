"""Tests of effcap.weights.torch_script, which reads TorchScript files without their code."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from effcap.weights.torch_file import read_torch
from helpers.torch_writer import Torch, write_script

REAL = Path(__file__).resolve().parents[1] / "data" / "clip_script.pt"
TENSORS = {
    "scale": np.array(4.5, np.float16),
    "visual.conv1.weight": np.arange(24, dtype=np.float16).reshape(2, 3, 4),
    "visual.blocks.0.bias": np.arange(3, dtype=np.float32),
    "count": np.array(7, np.int64),
}


def test_a_file_of_torch_jit_save_is_read_like_a_state_dict():
    tensors = read_torch(REAL)
    assert tensors["visual.conv1.weight"].shape == (32, 3, 8, 8)
    assert tensors["visual.transformer.resblocks.1.attn.in_proj_weight"].shape == (96, 32)
    assert tensors.dtype("visual.proj") == "float16" and tensors["logit_scale"].shape == ()
    assert len(tensors) == 51
    assert {name.rpartition(".")[2] for name in tensors} == {
        *("weight", "bias", "in_proj_weight", "in_proj_bias", "class_embedding", "proj"),
        *("positional_embedding", "text_projection", "logit_scale", "attn_mask"),
    }


def test_attributes_of_modules_are_joined_by_dots():
    tensors = read_torch(write_script(TENSORS))
    assert set(tensors) == set(TENSORS)
    for name, values in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], values, strict=True)


def test_attributes_other_than_tensors_are_skipped():
    torch = Torch()
    pickle_module = "torch.jit._pickle"
    number_list = torch.name(pickle_module, "build_intlist")
    tensor_list = torch.name(pickle_module, "build_tensorlist")
    typed = torch.name(pickle_module, "restore_type_tag")
    content = torch.module(
        {
            "training": True,
            "hook": None,
            "sizes": torch.call(number_list, torch.value([1, 2])),
            "names": torch.call(typed, torch.value({"a": 1}), torch.value("Dict[str, int]")),
            "device": torch.call(torch.name("torch", "device"), torch.value("cpu")),
            "parts": torch.call(tensor_list, b"](" + torch.array(np.float32([3])) + b"e"),
            "layer": {"weight": np.float32([1, 2])},
        }
    )
    tensors = read_torch(torch.file("script", content))
    assert {name: list(tensors[name]) for name in tensors} == {
        "parts.0": [3],
        "layer.weight": [1, 2],
    }


def test_names_of_a_program_are_refused_in_a_file_without_one():
    torch = Torch()
    content = torch.module({"weight": np.float32([1])})
    with pytest.raises(ValueError, match="names __torch__.clip.model.Module, which is not part"):
        read_torch(torch.file("zip", content))


@pytest.mark.parametrize(
    "module, name",
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("torch.jit._pickle", "build_anything"),
        ("torch.jit", "load"),
        ("__torch__evil", "system"),
        ("torch", "load"),
    ],
)
def test_forbidden_names_are_an_error_and_not_called(module, name, tmp_path):
    torch, trace = Torch(), tmp_path / "was_here"
    evil = torch.call(torch.name(module, name), torch.value(f"touch {trace}"))
    content = torch.module({"weight": np.float32([1]), "evil": evil})
    with pytest.raises(ValueError, match=f"names {module}.{name}, which is not part"):
        read_torch(torch.file("script", content))
    assert not trace.exists()


def test_the_program_is_not_read(tmp_path):
    whole, changed = io.BytesIO(write_script(TENSORS)), io.BytesIO()
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            program = "/code/" in name or name.endswith("constants.pkl")
            target.writestr(name, b"cos\nsystem\n(S'exit'\ntR." if program else source.read(name))
    assert set(read_torch(changed.getvalue())) == set(TENSORS)


def test_a_module_with_a_state_that_is_no_dict_is_an_error():
    torch = Torch()
    module = torch.name("__torch__.torch.classes.quantized", "Packed")
    packed = module + b")\x81" + torch.value((1, 2)) + b"b"
    with pytest.raises(ValueError, match="state is not a dict"):
        read_torch(torch.file("script", torch.module({"packed": packed})))


def test_a_file_cannot_change_the_reader():
    torch = Torch()
    state = torch.value((None, {"find_class": 1, "__setstate__": 2, "persistent_load": 3}))
    for name in [("__torch__", "Module"), ("torch.jit._pickle", "restore_type_tag"),
                 ("torch.jit._pickle", "build_intlist"), ("torch", "device")]:  # fmt: skip
        with pytest.raises(ValueError, match="damaged"):
            read_torch(torch.file("script", torch.name(*name) + state + b"b"))
    assert set(read_torch(write_script(TENSORS))) == set(TENSORS)


def test_a_module_that_contains_itself_is_an_error():
    torch = Torch()
    name = torch.name("__torch__", "Module")
    content = name + b")\x81q\x05}(" + torch.value("me") + b"h\x05ub"
    with pytest.raises(ValueError, match="Cannot read"):
        read_torch(torch.file("script", content))


def test_truncated_and_changed_files_are_read_or_a_value_error():
    whole = write_script(TENSORS)
    for length in range(0, len(whole), 3):
        with pytest.raises(ValueError, match="truncated"):
            read_torch(whole[:length])
    rng = np.random.default_rng(0)
    for position in rng.choice(len(whole), 400, replace=False):
        changed = bytearray(whole)
        changed[position] ^= int(rng.integers(1, 256))
        try:
            tensors = read_torch(bytes(changed))
        except ValueError:
            continue
        for name in tensors:
            assert isinstance(tensors[name], np.ndarray)
