"""Finds the layers of a captioner that take adapters, with the names that PEFT has for them.

PEFT names modules as transformers does: those of `VisionEncoderDecoderModel` for GPT-2 and ViT,
those of `BlipForConditionalGeneration` for BERT and BLIP's image towers. Layers that transformers
does not have are named by their own attributes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from effcap.adapters.lora_config import ATTENTION, MLP
from effcap.backbones.vit import ViTBlock
from effcap.layers.lora import Adaptable, AdaptableDense, LowRankUpdate, TiedHead

# Names in a block, by our path. Several names are parts of a fused projection, side by side.
GPT2 = {
    "attn.c_attn": ("attn.c_attn",),
    "attn.c_proj": ("attn.c_proj",),
    "fusion.attention.query": ("crossattention.q_attn",),
    "fusion.attention.key_value": ("crossattention.c_attn",),
    "fusion.attention.c_proj": ("crossattention.c_proj",),
    "mlp.c_fc": ("mlp.c_fc",),
    "mlp.c_proj": ("mlp.c_proj",),
}
BERT = {
    "attn.c_attn": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attn.c_proj": ("attention.output.dense",),
    "fusion.attention.query": ("crossattention.self.query",),
    "fusion.attention.key_value": ("crossattention.self.key", "crossattention.self.value"),
    "fusion.attention.c_proj": ("crossattention.output.dense",),
    "mlp.c_fc": ("intermediate.dense",),
    "mlp.c_proj": ("output.dense",),
}
VIT = {
    "attn.c_attn": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attn.c_proj": ("attention.o_proj",),
    "mlp.c_fc": ("mlp.fc1",),
    "mlp.c_proj": ("mlp.fc2",),
}
BLIP = {
    "attn.c_attn": ("self_attn.qkv",),
    "attn.c_proj": ("self_attn.projection",),
    "mlp.c_fc": ("mlp.fc1",),
    "mlp.c_proj": ("mlp.fc2",),
}
GROUPS = {"attn": ATTENTION, "fusion": ATTENTION, "mlp": MLP}
# Prefixes of names in files of other models and versions, and ours.
ALIASES = (
    (re.compile(r"(?:gpt\.)?transformer\.h\."), "decoder.transformer.h."),
    (re.compile(r"(?:gpt\.)?lm_head$"), "decoder.lm_head"),
    (re.compile(r"bert\.encoder\.layer\."), "text_decoder.bert.encoder.layer."),
    (re.compile(r"cls\.predictions\."), "text_decoder.cls.predictions."),
)
# Names that transformers had for the layers of a ViT before version 5, by the present ones.
OLD_VIT = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


@dataclass(frozen=True)
class LoraModule:
    """A layer, or a part of a fused projection, that an update can be added to.

    Attributes:
        name: PEFT's name, such as "decoder.transformer.h.0.attn.c_attn".
        old_name: name in older versions of transformers, if it differs; otherwise `name`.
        layer: the layer.
        start: index of the first output.
        units: number of outputs.
        group: "attention" or "mlp" in a block of the decoder; otherwise None.
    """

    name: str
    old_name: str
    layer: Adaptable
    start: int
    units: int
    group: str | None = None

    def update(self, adapter: str) -> LowRankUpdate | None:
        """Returns the update that an adapter adds to the module; None if it adds none."""
        updates = self.layer.updates_of([adapter])
        return next((update for update in updates if update.start == self.start), None)

    @property
    def is_head(self) -> bool:
        """Returns whether this is the output projection, whose kernel embeds the tokens, too."""
        return isinstance(self.layer, TiedHead)

    @property
    def bias(self) -> keras.Variable | None:
        """Bias of the layer; None without one."""
        return getattr(self.layer, "bias", None)


def find_modules(encoder: Any, decoder: Any) -> list[LoraModule]:
    """Returns the modules of a captioner that take updates: the encoder's, then the decoder's."""
    is_bert = type(decoder).__name__ == "BERT"
    is_vit = _is_vit(getattr(encoder, "backbone", None))
    modules: list[LoraModule] = []
    for path, layer in _unique(_walk(encoder, "encoder")):
        modules += _split(layer, encoder_names(path, is_bert, is_vit), None)
    for path, layer in _unique(_walk(decoder, "decoder")):
        match = re.match(r"decoder\.blocks\.\d+\.(\w+)\.", path)
        group = GROUPS.get(match[1]) if match else None
        modules += _split(layer, decoder_names(path, is_bert), group)
    return modules


def decoder_names(path: str, is_bert: bool) -> tuple[str, ...]:
    """Returns PEFT's names of a layer of the decoder.

    Args:
        path: path of attributes, such as "decoder.blocks.0.attn.c_attn".
        is_bert: whether the decoder is BERT; otherwise it is GPT-2.
    """
    match = re.fullmatch(r"decoder\.blocks\.(\d+)\.(.+)", path)
    if match:
        names = (BERT if is_bert else GPT2).get(match[2])
        prefix = "text_decoder.bert.encoder.layer" if is_bert else "decoder.transformer.h"
        if names:
            return tuple(f"{prefix}.{match[1]}.{name}" for name in names)
    if path == "decoder.head":
        return ("text_decoder.cls.predictions.decoder" if is_bert else "decoder.lm_head",)
    if is_bert and path == "decoder.transform":
        return ("text_decoder.cls.predictions.transform.dense",)
    return (path,)


def encoder_names(path: str, is_bert: bool, is_vit: bool) -> tuple[str, ...]:
    """Returns PEFT's names of a layer of the encoder.

    Args:
        path: path of attributes, such as "encoder.backbone.net.block_0.mlp.c_fc".
        is_bert: whether the decoder is BERT, and the captioner like BLIP.
        is_vit: whether the backbone is a network of transformers.
    """
    match = re.fullmatch(r"encoder\.backbone\.net\.block_(\d+)\.(.+)", path) if is_vit else None
    if match:
        names = (BLIP if is_bert else VIT).get(match[2])
        prefix = "vision_model.encoder.layers" if is_bert else "encoder.layers"
        if names:
            return tuple(f"{prefix}.{match[1]}.{name}" for name in names)
    return ("enc_to_dec_proj",) if is_vit and path == "encoder.projection" else (path,)


def canonical_name(name: str) -> str:
    """Returns our name of a module in an adapter of another model or version of transformers."""
    for pattern, prefix in ALIASES:
        match = pattern.match(name)
        if match:
            return prefix + name[match.end() :]
    match = re.fullmatch(r"encoder\.encoder\.layer\.(\d+)\.(.+)", name)
    names = {old: new for new, old in OLD_VIT.items()}
    return f"encoder.layers.{match[1]}.{names[match[2]]}" if match and match[2] in names else name


def old_name(name: str) -> str:
    """Returns the name of a module in versions of transformers before 5."""
    match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", name)
    if match and match[2] in OLD_VIT:
        return f"encoder.encoder.layer.{match[1]}.{OLD_VIT[match[2]]}"
    return name


def _is_vit(backbone: Any) -> bool:
    """Returns whether a backbone is a vision transformer as in transformers' ViT and BLIP."""
    layers = [] if backbone is None else backbone.net.layers
    is_clip = any(layer.name == "ln_pre" for layer in layers)
    return not is_clip and any(isinstance(layer, ViTBlock) for layer in layers)


def short_name(name: str) -> str:
    """Returns a module's name without the number of its layer and what is before it."""
    return re.sub(r".*\.\d+\.", "", name)


def _split(layer: Adaptable, names: Sequence[str], group: str | None) -> list[LoraModule]:
    """Returns the modules of a layer, one for each name."""
    units = layer.units // len(names)
    return [
        LoraModule(name, old_name(name), layer, i * units, units, group)
        for i, name in enumerate(names)
    ]


def _unique(layers: Iterable[tuple[str, Adaptable]]) -> list[tuple[str, Adaptable]]:
    """Returns layers with the first of their paths."""
    return list({id(layer): (path, layer) for path, layer in reversed(list(layers))}.values())[::-1]


def _walk(layer: Any, path: str) -> Iterator[tuple[str, Adaptable]]:
    """Yields the adaptable layers inside a layer, in the order of its attributes."""
    if isinstance(layer, AdaptableDense | TiedHead):
        yield path, layer
    elif isinstance(layer, keras.Model):
        for part in layer.layers:
            yield from _walk(part, f"{path}.{part.name}")
    elif isinstance(layer, keras.layers.Layer):
        for name, value in vars(layer).items():
            if not name.startswith("_"):
                yield from _walk(value, f"{path}.{name}")
    elif isinstance(layer, list | tuple):
        for index, part in enumerate(layer):
            yield from _walk(part, f"{path}.{index}")
