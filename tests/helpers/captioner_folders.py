"""Folders of tiny captioners of transformers, from tests/data/captioner_reference.npz."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from effcap.tokenizers import Tokenizer
from helpers.transformers_files import (
    Reference,
    published_shapes,
    read_reference,
    salesforce_names,
    write_folder,
)

MODELS = ("vit-gpt2", "vit-gpt2-projected", "blip", "blip-large")
WORDS = 40  # of BLIP's vocabulary
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"word{i}" for i in range(WORDS - 4)))
MAX_NEW_TOKENS = 11
COPY = re.compile(r"lm_head\.weight|cls\.predictions\.decoder\.")  # of embeddings


def reference(model: str) -> Reference:
    return read_reference("captioner", model)


def config_of(model: str) -> dict[str, Any]:
    return json.loads(str(reference(model).arrays["config"]))


def preprocessor_of(model: str) -> dict[str, Any]:
    return json.loads(str(reference(model).arrays["preprocessor"]))


def write_tokenizer(folder: Path, model: str) -> None:
    """Writes the tokenizer of a model: the bytes and an end token, or a list of words."""
    if model.startswith("blip"):
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    else:
        Tokenizer.train(["a dog"], 257).save(folder / "tokenizer.json")


def write_captioner(
    folder: Path,
    model: str,
    change: Callable[[dict[str, Any]], None] = lambda config: None,
    **preprocessor: Any,
) -> Path:
    """Writes the folder of a model with changes of its settings, and returns it."""
    config = config_of(model)
    change(config)
    settings = {**preprocessor_of(model), **preprocessor}
    write_folder(folder, reference(model).weights, config, settings)
    write_tokenizer(folder, model)
    return folder


def pretraining_tensors(model: str) -> dict[str, np.ndarray]:
    """Returns the tensors of a BLIP by the names of its authors, as after pre-training."""
    weights = reference(model).weights
    prefix = "vision_model."
    vision = {name.removeprefix(prefix): x for name, x in weights.items() if prefix in name}
    text = {name: x for name, x in weights.items() if prefix not in name}
    tensors = salesforce_names(vision) | text
    modules = ("visual_encoder", "text_decoder")
    momentum = {
        name.replace(module, f"{module}_m", 1): -array
        for module in modules
        for name, array in tensors.items()
        if name.startswith(module)
    }
    small = np.zeros(2, np.float32)
    others = [
        *("text_encoder.embeddings.LayerNorm.bias", "text_encoder_m.pooler.dense.bias"),
        *("vision_proj.weight", "text_proj.bias", "vision_proj_m.weight", "text_proj_m.bias"),
        *("itm_head.weight", "itm_head.bias", "image_queue", "text_queue", "ptr_queue", "temp"),
    ]
    return {**tensors, **dict.fromkeys(others, small), **momentum}


def trimmed(ids: np.ndarray, end: int) -> list[tuple[int, ...]]:
    """Returns generated ids without the start token and from the end token on."""
    rows = [row[1:].tolist() for row in ids]
    return [tuple(row[: row.index(end)] if end in row else row) for row in rows]


def changed(**settings: Any) -> Callable[[dict[str, Any]], None]:
    """Returns a change of a config: values by path, such as `encoder__hidden_act="elu"`."""

    def change(config: dict[str, Any]) -> None:
        for path, value in settings.items():
            *sections, name = path.split("__")
            section: Any = config
            for key in sections:
                section = section[key]
            section[name] = value

    return change


def tensors_of(model: str, changes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns a model's tensors with changes; None removes one."""
    tensors = {**reference(model).weights, **changes}
    return {name: array for name, array in tensors.items() if array is not None}


def published_tensor_shapes(model: str) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all tensors of a published captioner, by name."""
    shapes, num_layers = published_shapes(model)
    expanded = {}
    for name, shape in shapes.items():
        for module, count in num_layers.items():
            if name.startswith(f"{module}.0."):
                rest = name.removeprefix(f"{module}.0.")
                expanded |= {f"{module}.{i}.{rest}": shape for i in range(count)}
                break
        else:
            expanded[name] = shape
    return {name: x for name, x in expanded.items() if not COPY.search(name)}


def published_config(model: str) -> dict[str, Any]:
    """Returns the settings in which a published captioner differs from transformers' defaults."""
    if model == "vit-gpt2":
        decoder = {"model_type": "gpt2", "add_cross_attention": True}
        encoder = {"model_type": "vit"}
        return {"model_type": "vision-encoder-decoder", "encoder": encoder, "decoder": decoder}
    large = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    vision = {**large, "num_attention_heads": 16} if model == "blip-large" else {}
    return {
        "model_type": "blip",
        "vision_config": vision,
        "text_config": {"num_attention_heads": 12},
    }
