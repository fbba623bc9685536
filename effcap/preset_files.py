"""Names of the files of presets and of their settings, and those of a repository on the hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from effcap.config import read_json
from effcap.utils.hub import HubError, HubName

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.weights.h5", "tokenizer.json"
RECORD = "training.json"
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors")  # of one adapter
OWN_FILES = (RECORD, WEIGHTS, TOKENIZER, *ADAPTERS, CONFIG)  # in the order of replacement
BASE = "base"  # in the config.json of a preset that holds an adapter alone
BACKBONE = "backbone"  # section of the config.json of a preset that holds a backbone alone
# Captioners of transformers by "model_type", and the files of their folders that are read.
VIT_GPT2, BLIP = TRANSFORMERS = ("vision-encoder-decoder", "blip")
TRANSFORMERS_FILES = re.compile(
    r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|merges\.txt|vocab\.(json|txt)"
    r"|(config|generation_config|preprocessor_config|processor_config|tokenizer|tokenizer_config"
    r"|special_tokens_map|added_tokens)\.json"
)
SHOWN_FILES = 8  # in errors


def wanted_files(name: HubName, files: Sequence[str], folder: Path | None) -> list[str]:
    """Returns the files of a repository that its preset is loaded from.

    Args:
        name: name of the repository.
        files: paths of all its files.
        folder: folder with its config.json. None if it has none.

    Raises:
        HubError: it holds no preset.
    """
    shown = ", ".join(files[:SHOWN_FILES]) + (", ..." if len(files) > SHOWN_FILES else "")
    received = f"Received: {name} with {shown or 'no files'}"
    if folder is None:
        raise HubError(f"Expected a preset, with {CONFIG} outside any folder. {received}")
    try:
        config = read_json(folder / CONFIG)
    except ValueError:
        config = {}
    if not isinstance(config, dict):
        config = {}
    if config.get("model_type") in TRANSFORMERS:
        wanted = [file for file in files if TRANSFORMERS_FILES.fullmatch(file)]
        if not any(file.endswith(".safetensors") for file in wanted):
            raise HubError(
                f"Expected weights as safetensors, because pickles are not downloaded. {received}. "
                "Choose a revision that has them, such as @refs/pr/NUMBER, or give a folder"
            )
        return wanted
    is_preset = is_preset_config(config)
    weights = ADAPTERS[1] if BASE in config else WEIGHTS
    if not is_preset or weights not in files:
        kind = config.get("model_type") or config.get("class_name") or "another program"
        reason = f"which lacks {weights}" if is_preset else f"whose {CONFIG} is of {kind}"
        raise HubError(f"Expected a preset of EffCap, ViT and GPT-2 or BLIP. {received}, {reason}")
    return [file for file in OWN_FILES if file in files]


def is_preset_config(config: object) -> bool:
    """Returns whether the contents of a config.json are those of a preset."""
    if not isinstance(config, dict) or "model_type" in config:
        return False
    return BASE in config or BACKBONE in config or {"encoder", "decoder"} <= set(config)
