"""Opens published files of CLIP: TorchScript, state dicts and safetensors, also in a folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from effcap.config import read_json
from effcap.weights.clip_names import NAMES, ClipNames
from effcap.weights.gpt2.hugging_face import open_safetensors, open_shards, open_torch
from effcap.weights.gpt2.stored_tensor import StoredTensor

# Files of a folder in the order in which it is searched, and the file of their settings.
OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
HUGGING_FACE = ("model.safetensors", "pytorch_model.bin")
PREPROCESSOR = "preprocessor_config.json"  # of Hugging Face


@dataclass(frozen=True)
class ClipFile:
    """The weights of a CLIP model.

    Attributes:
        path: file or folder.
        names: how the tensors are named.
        prefix: prefix of all names, such as "state_dict.module." in a training checkpoint.
        tensors: all tensors, by name without the prefix.
        outside: names of tensors without the prefix, such as those of an optimizer.
        settings: path of the settings beside the file, if any.
    """

    path: Path
    names: ClipNames
    prefix: str
    tensors: dict[str, StoredTensor]
    outside: list[str]
    settings: Path | None


def open_clip_file(path: str | PathLike) -> ClipFile:
    """Opens a file or a folder with the weights of CLIP; nothing in it is run.

    Args:
        path: OpenAI's TorchScript file (.pt), a state dict or training checkpoint saved by
            PyTorch (.pt, .pth, .bin), a safetensors file, or a folder of Hugging Face's hub.

    Raises:
        FileNotFoundError: there is nothing at `path`, or no weights in the folder.
        ValueError: a file is damaged, or does not hold a known image tower of CLIP.
    """
    path = Path(path)
    tensors: dict[str, StoredTensor] = {}
    file, opened = open_path(path)
    for tensor in opened:
        if tensor.name in tensors:
            raise ValueError(f"Two tensors of {path} have the name {tensor.name}")
        tensors[tensor.name] = tensor
    for names in NAMES:
        for name in tensors:
            if name == names.key or name.endswith(f".{names.key}"):
                prefix = name.removesuffix(names.key)
                inside = {
                    name.removeprefix(prefix): tensor
                    for name, tensor in tensors.items()
                    if name.startswith(prefix)
                }
                outside = [name for name in tensors if not name.startswith(prefix)]
                return ClipFile(path, names, prefix, inside, outside, settings_of(file, names))
    keys = " or ".join(names.key for names in NAMES)
    raise ValueError(
        f"Expected weights of CLIP's image tower, with a tensor {keys}. "
        f"Received: {path}, whose {len(tensors)} tensors start {', '.join(list(tensors)[:3])}"
    )


def open_path(path: Path) -> tuple[Path, Iterable[StoredTensor]]:
    """Returns the file of weights at a path, or in a folder, and its tensors."""
    if path.is_dir():
        for name in (*OPEN_CLIP, *HUGGING_FACE):
            if (path / name).is_file() or (path / f"{name}.index.json").is_file():
                return path / name, open_shards(path, name, opener(path / name))
        files = ", ".join((*OPEN_CLIP, *HUGGING_FACE))
        raise FileNotFoundError(f"No weights of CLIP in {path}: it has none of {files}")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file or folder {path}")
    return path, opener(path)(path)


def opener(path: Path) -> Any:
    """Returns the function that opens a file."""
    return open_safetensors if path.suffix == ".safetensors" else open_torch


def settings_of(file: Path, names: ClipNames) -> Path | None:
    """Returns the path of the settings beside a file, if it is named as on the hub."""
    path = file.parent / names.config
    return path if file.name in (*OPEN_CLIP, *HUGGING_FACE) and path.is_file() else None


def read_settings(path: Path) -> dict[str, Any]:
    """Reads what Hugging Face or open_clip recorded of an image tower and no tensor determines.

    Returns:
        "activation", "head_dim" or "num_heads", "epsilon", "mean" and "std", as far as recorded;
        what Hugging Face's class or open_clip takes where nothing is recorded.

    Raises:
        ValueError: the file is not JSON.
    """
    contents = read_json(path)
    if path.name == "config.json":
        vision = contents.get("vision_config") or contents
        path = path.with_name(PREPROCESSOR)
        preprocessing = read_json(path) if path.is_file() else {}
        recorded = {"mean": preprocessing.get("image_mean"), "std": preprocessing.get("image_std")}
        return {
            "activation": vision.get("hidden_act", "quick_gelu"),
            "num_heads": vision.get("num_attention_heads", 12),
            "epsilon": vision.get("layer_norm_eps", 1e-5),
            **{name: value for name, value in recorded.items() if value is not None},
        }
    model, preprocessing = contents.get("model_cfg", {}), contents.get("preprocess_cfg", {})
    settings = {
        "activation": "quick_gelu" if model.get("quick_gelu") else "gelu",
        "head_dim": model.get("vision_cfg", {}).get("head_width", 64),
    }
    return settings | {key: preprocessing[key] for key in ("mean", "std") if key in preprocessing}
