"""Opens published files of image towers: TorchScript, state dicts and safetensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from effcap.config import read_json
from effcap.weights.gpt2.hugging_face import open_safetensors, open_shards, open_torch
from effcap.weights.gpt2.stored_tensor import StoredTensor
from effcap.weights.tower_names import TowerNames

# Files of a folder of Hugging Face's hub, in the order in which it is searched.
HUGGING_FACE = ("model.safetensors", "pytorch_model.bin")
PREPROCESSING = "preprocessor_config.json"


@dataclass(frozen=True)
class TowerKind:
    """A kind of image tower with published weights.

    Attributes:
        name: of the model, for messages.
        title: of the tower, for messages.
        names: the kinds of its files.
        files: names of the files of a folder, in the order in which it is searched.
        read_settings: reads the settings beside a file: "activation", "num_heads" or "head_dim",
            "epsilon", "mean" and "std", as far as recorded.
        mean, stddev: mean and standard deviation of the channels of pixels 0..1.
        undetermined: settings that no tensor determines, to report if none are recorded.
        hints: what to do about another setting, by its name.
        antialias: whether the original's interpolation of positions is antialiased.
    """

    name: str
    title: str
    names: tuple[TowerNames, ...]
    files: tuple[str, ...]
    read_settings: Callable[[Path], dict[str, Any]]
    mean: Sequence[float]
    stddev: Sequence[float]
    undetermined: tuple[str, ...] = ("activation",)
    hints: Mapping[str, str] = field(default_factory=dict)
    antialias: bool = False


@dataclass(frozen=True)
class TowerFile:
    """The weights of a model with an image tower.

    Attributes:
        path: file or folder.
        names: how the tensors are named.
        prefix: prefix of all names, such as "state_dict.module." in a training checkpoint.
        tensors: all tensors, by name without the prefix.
        outside: names of tensors without the prefix, such as those of an optimizer.
        settings: path of the settings beside the file, if any.
    """

    path: Path
    names: TowerNames
    prefix: str
    tensors: dict[str, StoredTensor]
    outside: list[str]
    settings: Path | None


def open_tower_file(path: str | PathLike, kind: TowerKind) -> TowerFile:
    """Opens a file or a folder with the weights of an image tower; nothing in it is run.

    Args:
        path: a state dict or training checkpoint saved by PyTorch (.pt, .pth, .bin), a TorchScript
            file (.pt), a safetensors file, or a folder of Hugging Face's hub.
        kind: kind of tower.

    Raises:
        FileNotFoundError: there is nothing at `path`, or no weights in the folder.
        ValueError: a file is damaged, or does not hold a tower of this kind.
    """
    path = Path(path)
    file, tensors = open_path(path, kind.name, kind.files)
    for names in kind.names:
        for name in tensors:
            if name == names.key or name.endswith(f".{names.key}"):
                prefix = name.removesuffix(names.key)
                inside = {
                    name.removeprefix(prefix): tensor
                    for name, tensor in tensors.items()
                    if name.startswith(prefix)
                }
                outside = [name for name in tensors if not name.startswith(prefix)]
                settings = file.parent / names.config
                recorded = file.name in kind.files and settings.is_file()
                return TowerFile(
                    path, names, prefix, inside, outside, settings if recorded else None
                )
    keys = " or ".join(names.key for names in kind.names)
    raise ValueError(
        f"Expected weights of {kind.title}, with a tensor {keys}. "
        f"Received: {path}, whose {len(tensors)} tensors start {', '.join(list(tensors)[:3])}"
    )


def open_path(path: Path, title: str, files: Sequence[str]) -> tuple[Path, dict[str, StoredTensor]]:
    """Returns the file of weights at a path, or in a folder, and its tensors by name.

    Args:
        path: file or folder.
        title: name of the model, for messages.
        files: names of the files of a folder, in the order in which it is searched.

    Raises:
        FileNotFoundError: there is nothing at `path`, or no weights in the folder.
        ValueError: a file is damaged, or two tensors have the same name.
    """
    if path.is_dir():
        name = find_weights(path, files)
        if name is None:
            raise FileNotFoundError(
                f"No weights of {title} in {path}: it has none of {', '.join(files)}"
            )
        file, opened = path / name, open_shards(path, name, opener(path / name))
    elif path.is_file():
        file, opened = path, opener(path)(path)
    else:
        raise FileNotFoundError(f"There is no file or folder {path}")
    tensors: dict[str, StoredTensor] = {}
    for tensor in opened:
        if tensor.name in tensors:
            raise ValueError(f"Two tensors of {path} have the name {tensor.name}")
        tensors[tensor.name] = tensor
    return file, tensors


def find_weights(folder: Path, files: Sequence[str]) -> str | None:
    """Returns the first of `files` that is in a folder, in one piece or in shards."""
    for name in files:
        if (folder / name).is_file() or (folder / f"{name}.index.json").is_file():
            return name
    return None


def opener(path: Path) -> Any:
    """Returns the function that opens a file."""
    return open_safetensors if path.suffix == ".safetensors" else open_torch


def read_transformers_settings(
    path: Path, section: str, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Reads the settings of an image tower of transformers, alone or as part of another model.

    Args:
        path: config.json.
        section: section of the tower in the config of the other model.
        defaults: settings of transformers' class where none are recorded.

    Returns:
        "activation", "num_heads", "epsilon", and "mean" and "std" if the preprocessing is recorded.

    Raises:
        ValueError: a file is not JSON.
    """
    config = read_json(path)
    config = {**defaults, **(config.get(section) or config)}
    return {
        "activation": config["hidden_act"],
        "num_heads": config["num_attention_heads"],
        "epsilon": config["layer_norm_eps"],
        **read_statistics(path),
    }


def read_statistics(path: Path) -> dict[str, Any]:
    """Reads mean and standard deviation of the pixels that Hugging Face records, if it does.

    Args:
        path: config.json, beside which the preprocessing is recorded.

    Returns:
        "mean" and "std", as far as recorded.

    Raises:
        ValueError: the file is not JSON.
    """
    path = path.parent / PREPROCESSING
    if not path.is_file():
        return {}
    names = {"mean": "image_mean", "std": "image_std"}
    contents = read_json(path)
    return {ours: contents[theirs] for ours, theirs in names.items() if theirs in contents}
