"""Creates the captioner of ViT and GPT-2 or of BLIP in a folder or file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.tokenizers import Tokenizer
from effcap.tokenizers.kinds import read_tokenizer_folder
from effcap.weights.captioner_config import (
    SAMPLER,
    CaptionerConfig,
    is_captioner_folder,
    read_captioner_config,
)
from effcap.weights.captioner_tokenizer import captioner_tokenizer
from effcap.weights.gpt2.stored_tensor import StoredTensor
from effcap.weights.overrides import MISSING, find_setting, override_model_hparams
from effcap.weights.salesforce_blip import find_salesforce_blip, salesforce_config

if TYPE_CHECKING:
    from effcap.captioning import CaptioningModel

MAX_RATIO = 16  # of recorded to stored weights
# Fields that every sampler has.
SHARED_FIELDS = (
    "min_new_tokens",
    "max_new_tokens",
    "no_repeat_ngram_size",
    "repetition_penalty",
    "suppress_tokens",
)


@dataclass(frozen=True)
class CaptionerFile:
    """A folder or file with the weights of a captioner of ViT and GPT-2 or of BLIP.

    Attributes:
        config: its settings.
        tensors: its tensors by name.
        outside: names of tensors that are not the model's, such as those of an optimizer.
    """

    config: CaptionerConfig
    tensors: dict[str, StoredTensor]
    outside: list[str]


def open_captioner_file(path: str | PathLike) -> CaptionerFile | None:
    """Opens a folder of transformers, or a `.pth` file of the original BLIP; None for all else.

    Raises:
        FileNotFoundError: the folder has no weights.
        ValueError: a file is damaged, or its settings have no counterpart.
    """
    from effcap.weights.captioner_tensors import open_captioner, split_checkpoint

    path = Path(path)
    if is_captioner_folder(path):
        config, tensors = read_captioner_config(path), open_captioner(path)
        check_scale(config, tensors)
        return CaptionerFile(config, tensors, [])
    found = find_salesforce_blip(path) if path.is_file() else None
    if found is None:
        return None
    tensors, outside = split_checkpoint(found)
    return CaptionerFile(salesforce_config(path, tensors), tensors, outside)


def check_scale(config: CaptionerConfig, tensors: Mapping[str, StoredTensor]) -> None:
    """Checks that recorded sizes are not far beyond those of the tensors, before creating a model.

    Raises:
        ValueError: they are.
    """
    encoder, decoder = config.hparams["encoder"], config.hparams["decoder"]
    sizes = encoder["backbone"].get("sizes", {})
    stored = sum(math.prod(tensor.shape) for tensor in tensors.values())
    largest = {
        "layers": (max(sizes.get("num_layers", 0), decoder["num_layers"]), len(tensors)),
        "weights of the token embeddings": (
            decoder["vocabulary_size"] * decoder["hidden_dim"],
            MAX_RATIO * stored,
        ),
        "weights of the position embeddings": (
            decoder["max_sequence_length"] * decoder["hidden_dim"]
            + math.prod(config.grid) * sizes.get("hidden_dim", 1),
            MAX_RATIO * stored,
        ),
        "weights of a layer": (
            max(
                decoder["hidden_dim"] * (decoder["intermediate_dim"] or decoder["hidden_dim"]),
                sizes.get("hidden_dim", 1) * (sizes.get("intermediate_dim") or 1),
            ),
            MAX_RATIO * stored,
        ),
    }
    for name, (recorded, limit) in largest.items():
        if recorded > limit:
            raise ValueError(
                f"The config.json of {config.path} records {recorded} {name}, but its files hold "
                f"{len(tensors)} tensors with {stored} weights in all. Its sizes are wrong, or its "
                "files are those of another model"
            )


def find_tokenizer(config: CaptionerConfig, tokenizer: Tokenizer | None = None) -> Tokenizer | None:
    """Returns a captioner's tokenizer, by default the one in its folder; None if it has none.

    Raises:
        ValueError: the tokenizer is damaged, or does not fit the captioner.
    """
    if tokenizer is None:
        folder = config.path if config.path.is_dir() else config.path.parent
        try:
            tokenizer = read_tokenizer_folder(folder)
        except FileNotFoundError:
            return None
    return captioner_tokenizer(config, tokenizer)


def changed_hparams(config: CaptionerConfig, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the hyperparameters of a captioner with changes.

    Args:
        config: settings of the captioner.
        overrides: changed values of the sections encoder, decoder and sampler.

    Raises:
        ValueError: an override is of another section.
    """
    overrides = dict(overrides or {})
    changes, sampler = overrides.pop(SAMPLER, None) or {}, config.hparams[SAMPLER]
    if changes.get("kind", sampler["kind"]) != sampler["kind"]:
        sampler = {name: sampler[name] for name in SHARED_FIELDS}
    sections = {name: config.hparams[name] for name in ("encoder", "decoder")}
    return {**override_model_hparams(sections, overrides), SAMPLER: {**sampler, **changes}}


def describe_settings(
    config: CaptionerConfig,
    captioner: CaptioningModel,
    overrides: Mapping[str, Any] | None = None,
    sections: Sequence[str] = ("encoder", "decoder", SAMPLER),
) -> list[str]:
    """Returns lines about the preprocessing, the default sampler, and what is assumed.

    Args:
        config: settings of the captioner.
        captioner: the captioner.
        overrides: changed values.
        sections: sections whose values --set changes.
    """
    backbone = captioner.encoder.backbone
    height, width = backbone.image_size
    by = f"by Pillow's {backbone.resample} filter" if backbone.resample else "by EffCap's default"
    lines = [
        f"photos: resized to {height}x{width} pixels {by}",
        f"default sampler: {captioner.sampler}",
        *config.notes,
    ]
    source = "folder" if config.path.is_dir() else "file"
    for name, value in config.assumed.items():
        if find_setting(overrides or {}, name) is MISSING:
            line = f"assumed {name}={json.dumps(value)}, which the {source} does not record"
            is_setting = name.partition(".")[0] in sections
            lines.append(f"{line} (change it with --set {name}=...)" if is_setting else line)
    if captioner.tokenizer is None:
        lines.append(
            "no tokenizer: the preset generates no text; pass the folder of one with --tokenizer"
        )
    return lines
