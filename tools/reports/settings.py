"""Lists the settings of a variant or preset."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any, NamedTuple

from effcap.backbones.backbone import Backbone
from effcap.config import load_hparams
from effcap.decoders.fusions import FUSIONS
from effcap.decoders.mapper_registry import MAPPERS
from effcap.decoders.registry import DECODERS
from effcap.decoders.sparse_mask import SparseMask
from effcap.encoders.registry import ENCODERS
from effcap.presets import preset_folder, read_config
from effcap.tools.docstrings import field_docs, first_sentence
from effcap.trainers.options import RunOptions, ScstOptions, TrainingOptions
from effcap.trainers.options.run import CHECKPOINT_FIELDS

# Settings of a fusion that default to those of the decoder.
DECODER_DEFAULTS = ("hidden_dim", "num_heads", "dropout", "attention_dropout")


class Setting(NamedTuple):
    """A setting of a captioner or its training.

    Attributes:
        name: name as `--set` takes it, such as "decoder.dropout".
        value: its value, or its default.
        text: documentation of the setting.
    """

    name: str
    value: Any
    text: str

    @property
    def assignment(self) -> str:
        """The setting as `--set` takes it, such as "decoder.dropout=0.1"."""
        text = self.value if isinstance(self.value, str) else json.dumps(self.value)
        return f"{self.name}={text}"


def list_settings(model: str | PathLike[str]) -> list[Setting]:
    """Returns the settings of a variant or preset that `effcap train --set` can change.

    Args:
        model: name of a variant or preset, folder of a preset, or JSON file of a variant.

    Raises:
        FileNotFoundError: there is no such variant or preset.
    """
    try:
        hparams = read_config(preset_folder(model))
    except FileNotFoundError:
        hparams = load_hparams(model)
    encoder, decoder = hparams["encoder"], hparams["decoder"]
    settings = [*class_settings("encoder", ENCODERS[encoder["kind"]], encoder)]
    if "backbone" in encoder:
        settings += class_settings("encoder.backbone", Backbone, encoder["backbone"])
    settings += class_settings("decoder", DECODERS[decoder.get("kind", "gpt2")], decoder)
    if decoder.get("fusion"):
        fusion = decoder["fusion"]
        settings += class_settings("decoder.fusion", FUSIONS[fusion["kind"]], fusion)
        if fusion.get("mapper"):
            mapper = fusion["mapper"]
            settings += class_settings("decoder.fusion.mapper", MAPPERS[mapper["kind"]], mapper)
        if fusion.get("sparse_mask"):
            mask = fusion["sparse_mask"]
            settings += class_settings("decoder.fusion.sparse_mask", SparseMask, mask)
    settings += field_settings("training", TrainingOptions, hparams.get("training", {}))
    settings += field_settings("scst", ScstOptions, {})
    run = field_settings("run", RunOptions, {})
    return settings + [
        setting for setting in run if setting.name.split(".")[1] in CHECKPOINT_FIELDS
    ]


def class_settings(section: str, cls: type, values: Mapping[str, Any]) -> Iterator[Setting]:
    """Yields the constructor arguments of an encoder, decoder, fusion or backbone."""
    docs = field_docs(cls)
    if "kind" in values:
        yield Setting(f"{section}.kind", values["kind"], "kind of module")
    for parameter in inspect.signature(cls).parameters.values():
        name, value = parameter.name, values.get(parameter.name, parameter.default)
        hidden = name in ("name", "kwargs") or isinstance(value, Mapping)
        if section == "decoder.fusion" and name in DECODER_DEFAULTS:
            hidden = name not in values
        if not hidden and value is not parameter.empty:
            yield Setting(f"{section}.{name}", value, first_sentence(docs.get(name, "")))


def field_settings(section: str, cls: type, values: Mapping[str, Any]) -> list[Setting]:
    """Returns the fields of an options class."""
    docs = field_docs(cls)
    return [
        Setting(f"{section}.{field.name}", values.get(field.name, field.default), text)
        for field in dataclasses.fields(cls)
        if (text := first_sentence(docs.get(field.name, "")))
    ]
