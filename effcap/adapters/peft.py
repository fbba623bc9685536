"""Saves and loads adapters in PEFT's format: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from keras import ops

from effcap.adapters.lora_config import LoraConfig
from effcap.adapters.modules import LoraModule, canonical_name, short_name
from effcap.adapters.peft_config import (
    FILE,
    PeftConfig,
    read_peft_config,
    target_modules,
    write_peft_config,
)
from effcap.utils.files import replace_file
from effcap.weights.gpt2.hugging_face import open_safetensors, open_torch
from effcap.weights.gpt2.stored_tensor import StoredTensor
from effcap.weights.name_pairs import raise_mismatches

if TYPE_CHECKING:
    from effcap.decoders.base import Decoder

WEIGHTS, PICKLED = "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
A, B, B_BIAS, BIAS = "lora_A.weight", "lora_B.weight", "lora_B.bias", "base_layer.bias"
TABLE = "base_layer.weight"  # of the output projection, a copy of the token embeddings
KINDS = "|".join(map(re.escape, (A, B, B_BIAS, BIAS, TABLE)))
KEY = re.compile(rf"(?:{re.escape(PREFIX)})?(.+)\.({KINDS})")
UNUSED = "encoder.pooler.dense"  # its output does not reach the text


class FoundModule(NamedTuple):
    """The tensors of one module in a file.

    Attributes:
        name: the module's name in the file.
        tensors: tensors by the end of their names, such as "lora_A.weight".
    """

    name: str
    tensors: dict[str, StoredTensor]


def write_adapter(
    folder: str | PathLike,
    adapter: str,
    config: LoraConfig,
    modules: Sequence[LoraModule],
    base_model: str | None = None,
) -> None:
    """Writes an adapter as PEFT does.

    Args:
        folder: folder to write, created if missing.
        adapter: name of the adapter, which PEFT's files do not record.
        config: settings of the adapter.
        modules: all modules of the captioner.
        base_model: name or path of the base model to record. None for none.
    """
    from safetensors.numpy import save

    updated = [
        (module, update) for module in modules if (update := module.update(adapter)) is not None
    ]
    tensors: dict[str, np.ndarray] = {}
    for module, update in updated:
        arrays = {A: _numpy(update.lora_a).T, B: _numpy(update.lora_b).T}  # (r,inputs), (N,r)
        if update.lora_c is not None:
            arrays[BIAS] = _base_bias(module) + _numpy(update.lora_c)  # (N,)
        for key, array in arrays.items():
            tensors[f"{PREFIX}{module.name}.{key}"] = np.ascontiguousarray(array)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as temporary:
        new = Path(temporary)
        (new / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
        write_peft_config(new / FILE, config, [m for m, _ in updated], modules, base_model)
        for file in (WEIGHTS, FILE):
            replace_file(new / file, folder / file)
        (folder / PICKLED).unlink(missing_ok=True)


class StoredAdapter(NamedTuple):
    """An adapter in files, which fits a captioner.

    Attributes:
        config: settings, with the modules by name.
        arrays: float32 arrays by the module's name and the end of the tensor's, such as
            "lora_A.weight".
        message: a line with the number of parameters.
    """

    config: LoraConfig
    arrays: dict[tuple[str, str], np.ndarray]
    message: str


def read_adapter(
    folder: str | PathLike, modules: Sequence[LoraModule], decoder: Decoder
) -> StoredAdapter:
    """Reads an adapter from PEFT's files, and checks that all of it fits a captioner.

    Args:
        folder: folder with the files.
        modules: all modules of the captioner.
        decoder: its decoder.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or the adapter does not fit.
    """
    folder = Path(folder)
    peft_config = read_peft_config(folder / FILE)
    found, unused = read_modules(folder)
    check_modules(folder, found, {module.name: module for module in modules}, peft_config)
    arrays = {
        (name, key): _read(tensor)
        for name, entry in found.items()
        for key, tensor in entry.tensors.items()
    }
    check_tables(folder, arrays, decoder)
    lora = peft_config.lora
    ranks = {name: entry.tensors[A].shape[0] for name, entry in found.items()}
    alphas = {name: lora.alpha_of(entry.name) for name, entry in found.items()}
    config = replace(
        lora,
        targets=tuple(target_modules([m for m in modules if m.name in found], modules)),
        exclude=(),
        bias="lora_only" if any(key in (BIAS, B_BIAS) for _, key in arrays) else "none",
        rank_pattern=_differing(ranks, lora.rank),
        alpha_pattern=_differing(alphas, lora.alpha),
    )
    count = sum(int(array.size) for (_, key), array in arrays.items() if key != TABLE)
    message = f"{count:,} parameters in {len(found)} layers from {folder}"
    if unused:
        message = f"{message}, without the unused {', '.join(unused)}"
    return StoredAdapter(config, arrays, message)


def fill_adapter(
    adapter: str,
    modules: Sequence[LoraModule],
    arrays: Mapping[tuple[str, str], np.ndarray],
) -> None:
    """Fills the updates of an adapter with the arrays of a `StoredAdapter`."""
    for module in modules:
        update = module.update(adapter)
        if update is None:
            continue
        update.lora_a.assign(arrays[module.name, A].T)
        update.lora_b.assign(arrays[module.name, B].T)
        if update.lora_c is None:
            continue
        if (module.name, B_BIAS) in arrays:
            update.lora_c.assign(arrays[module.name, B_BIAS] * update.scale)
        elif (module.name, BIAS) in arrays:
            update.lora_c.assign(arrays[module.name, BIAS] - _base_bias(module))


def read_modules(folder: Path) -> tuple[dict[str, FoundModule], list[str]]:
    """Returns the modules in the weights file of an adapter by our names, and unused ones.

    Raises:
        FileNotFoundError: there is no weights file.
        ValueError: it is damaged, or has tensors of something else than LoRA.
    """
    if (folder / WEIGHTS).is_file():
        path, tensors = folder / WEIGHTS, list(open_safetensors(folder / WEIGHTS))
    elif (folder / PICKLED).is_file():
        path, tensors = folder / PICKLED, list(open_torch(folder / PICKLED))
    else:
        raise FileNotFoundError(f"Expected {WEIGHTS} or {PICKLED} in {folder}. Received: neither")
    found: dict[str, FoundModule] = {}
    others = []
    for tensor in tensors:
        match = KEY.fullmatch(tensor.name)
        if match is None:
            others.append(f"{tensor.name} {tensor.shape}")
            continue
        name = canonical_name(match[1])
        entry = found.setdefault(name, FoundModule(match[1], {}))
        if entry.name != match[1]:
            raise ValueError(f"{path} has two names of one layer: {entry.name} and {match[1]}")
        entry.tensors[match[2]] = tensor
    raise_mismatches(str(path), {"that are not of a LoRA on a linear layer": others})
    unused = [name for name in found if name == UNUSED]
    return {name: entry for name, entry in found.items() if name != UNUSED}, unused


def check_modules(
    folder: Path,
    found: Mapping[str, FoundModule],
    modules: Mapping[str, LoraModule],
    config: PeftConfig,
) -> None:
    """Checks that each tensor of an adapter fits a module, and that none is missing.

    Args:
        folder: folder of the adapter, for the message.
        found: modules in its file.
        modules: modules of the captioner.
        config: settings of the adapter.

    Raises:
        ValueError: a tensor does not fit; the message lists names and shapes on both sides.
    """
    missing, unexpected, differing = [], [], []
    for name, entry in found.items():
        module = modules.get(name)
        if module is None:
            unexpected += [f"{entry.name}.{key} {t.shape}" for key, t in entry.tensors.items()]
            continue
        rank = config.lora.rank_of(entry.name)
        expected: dict[str, tuple[int, ...]] = {
            A: (rank, module.layer.input_dim),
            B: (module.units, rank),
        }
        if module.is_head:
            expected[TABLE] = (module.units, module.layer.input_dim)
        missing += [
            f"{entry.name}.{key} {expected[key]}" for key in (A, B) if key not in entry.tensors
        ]
        if module.bias is not None:
            expected |= {BIAS: (module.units,), B_BIAS: (module.units,)}
        for key, tensor in entry.tensors.items():
            if key not in expected:
                unexpected.append(f"{entry.name}.{key} {tensor.shape}")
            elif tensor.shape != expected[key]:
                differing.append(f"{entry.name}.{key} {tensor.shape} for {expected[key]}")
    # An adapter of GPT-2 alone has none of the cross-attention's layers.
    kinds = {short_name(name) for name in found}
    missing += [
        name
        for name, module in modules.items()
        if short_name(name) in kinds and name not in found and config.matches(module)
    ]
    source = str(folder)
    raise_mismatches(
        source,
        {"missing": missing, "unexpected": unexpected, "of another shape": differing},
    )
    if not found:
        raise ValueError(f"Expected an adapter with tensors. Received: none in {folder}")


def check_tables(
    folder: Path, arrays: Mapping[tuple[str, str], np.ndarray], decoder: Decoder
) -> None:
    """Checks that the table that comes with an output projection is that of the captioner.

    Raises:
        ValueError: it is not, as after training all of it.
    """
    for (module, key), array in arrays.items():
        if key == TABLE:
            table = _numpy(decoder.embed_tokens(np.arange(len(array), dtype="int32")))  # (V,D)
            if not np.array_equal(table, array):
                raise ValueError(
                    f"{module}.{key} in {folder} differs from the captioner's token embeddings, "
                    "which an adapter cannot change"
                )


def _read(tensor: StoredTensor) -> np.ndarray:
    """Reads a tensor as float32.

    Raises:
        ValueError: it has values that are not finite.
    """
    array = np.asarray(tensor.read(), np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"Tensor {tensor.name} of {tensor.path} has values that are not finite")
    return array


def _base_bias(module: LoraModule) -> np.ndarray:
    """Returns the bias (N,) of a module without merged adapters."""
    bias = _numpy(module.bias)[module.start : module.start + module.units].copy()
    for update in module.layer.updates_of(module.layer.merged):
        if update.start == module.start and update.lora_c is not None:
            bias -= _numpy(update.lora_c)
    return bias


def _numpy(variable: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(variable, "float32"))


def _differing(values: Mapping[str, Any], default: Any) -> dict[str, Any]:
    """Returns patterns of names for the values that differ from the default."""
    return {re.escape(name): value for name, value in values.items() if value != default}
