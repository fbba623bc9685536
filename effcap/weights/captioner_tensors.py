"""Fills a captioner with published tensors, strictly in both directions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from effcap.weights.bert_names import COPIES, bert_name_pairs
from effcap.weights.captioner_config import BLIP, VIT_GPT2, CaptionerConfig
from effcap.weights.gpt2.names import gpt2_cross_name_pairs, gpt2_name_pairs
from effcap.weights.gpt2.stored_tensor import Shape, StoredTensor, check_tensors
from effcap.weights.name_pairs import (
    MAX_LISTED,
    NamePair,
    find_variable,
    linear,
    published_in,
    raise_mismatches,
)
from effcap.weights.positions import resize_positions
from effcap.weights.salesforce_blip import SALESFORCE, tensor_prefix
from effcap.weights.tower_file import HUGGING_FACE, open_path
from effcap.weights.tower_names import POSITIONS, find_layer_variable
from effcap.weights.towers import grid_of, read_tensor
from effcap.weights.vit_names import hugging_face_blip, hugging_face_vit, salesforce_blip

if TYPE_CHECKING:
    from effcap.captioning import CaptioningModel

Pairs = list[tuple[NamePair, keras.Variable]]
TEXT_DECODER, TRANSFORMER = "text_decoder", "decoder.transformer"
QKV = {"q": "query", "k": "key", "v": "value"}
# Names of a ViT in transformers 5, for those in files.
VIT_RENAMES = (
    (r"encoder\.layers\.(\d+)\.", r"encoder.encoder.layer.\1."),
    (r"\.attention\.(q|k|v)_proj\.", lambda match: f".attention.attention.{QKV[match[1]]}."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)


@dataclass(frozen=True)
class CaptionerNames:
    """The published names of a captioner's tensors.

    Attributes:
        title: name of the system, for messages.
        vision: returns the pairs of the image tower's network.
        module: module of the image tower, which precedes its names.
        text: returns the pairs of the decoder.
        buffers: pattern of the names of tensors that are not parameters.
        copies: names of tensors that may be there and must equal another one.
        unused: patterns of the names of tensors without effect on captions, by what they are.
    """

    title: str
    vision: Callable[[keras.Model], list[NamePair]]
    module: str
    text: Callable[[keras.layers.Layer], list[NamePair]]
    buffers: re.Pattern[str]
    copies: Mapping[str, str]
    unused: Mapping[str, re.Pattern[str]] = field(default_factory=dict)


def gpt2_pairs(decoder: keras.layers.Layer) -> list[NamePair]:
    """Returns the pairs of a GPT-2 with cross-attention."""
    count = decoder.num_layers
    return published_in(TRANSFORMER, [*gpt2_name_pairs(count), *gpt2_cross_name_pairs(count)])


def bert_pairs(decoder: keras.layers.Layer) -> list[NamePair]:
    """Returns the pairs of BLIP's text decoder."""
    return published_in(TEXT_DECODER, bert_name_pairs(decoder.num_layers))


BERT_BUFFERS = re.compile(r"text_decoder\.bert\.embeddings\.position_ids")
BERT_COPIES = {f"{TEXT_DECODER}.{name}": f"{TEXT_DECODER}.{x}" for name, x in COPIES.items()}
NAMES = {
    VIT_GPT2: CaptionerNames(
        "ViT and GPT-2",
        hugging_face_vit,
        "encoder",
        gpt2_pairs,
        re.compile(r"decoder\.transformer\.h\.\d+\.(attn|crossattention)\.(bias|masked_bias)"),
        {"decoder.lm_head.weight": f"{TRANSFORMER}.wte.weight"},
        {"pooler": re.compile(r"encoder\.pooler\.dense\.(weight|bias)")},
    ),
    BLIP: CaptionerNames(
        "BLIP", hugging_face_blip, "vision_model", bert_pairs, BERT_BUFFERS, BERT_COPIES
    ),
    SALESFORCE: CaptionerNames(
        "BLIP",
        salesforce_blip,
        "",
        bert_pairs,
        BERT_BUFFERS,
        BERT_COPIES,
        {
            "momentum encoders": re.compile(
                r"(visual_encoder|text_encoder|text_decoder|vision_proj|text_proj)_m\..+"
            ),
            "text encoder": re.compile(r"text_encoder\..+"),
            "contrastive and matching heads": re.compile(
                r"(vision_proj|text_proj|itm_head)\.(weight|bias)"
            ),
            "queues and temperature": re.compile(
                r"image_queue|text_queue|idx_queue|ptr_queue|queue_ptr|temp"
            ),
        },
    ),
}


def open_captioner(path: Path) -> dict[str, StoredTensor]:
    """Returns the tensors of a captioner's folder, by their names in files of transformers.

    Raises:
        FileNotFoundError: there are no weights in the folder, or a shard is missing.
        ValueError: a file is damaged.
    """
    _, tensors = open_path(path, "a captioner", HUGGING_FACE)
    return {rename_vit(name): tensor for name, tensor in tensors.items()}


def rename_vit(name: str) -> str:
    """Returns the name in files for a name in transformers 5 of a tensor of ViT."""
    if re.match(r"encoder\.layers\.\d+\.", name):
        for pattern, replacement in VIT_RENAMES:
            name = re.sub(pattern, replacement, name)
    return name


def split_checkpoint(
    tensors: Mapping[str, StoredTensor],
) -> tuple[dict[str, StoredTensor], list[str]]:
    """Returns the tensors of the model in a checkpoint of the original BLIP, and other names."""
    prefix = tensor_prefix(tensors) or ""
    inside = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    return inside, [name for name in tensors if not name.startswith(prefix)]


def load_captioner_tensors(
    captioner: CaptioningModel, config: CaptionerConfig, tensors: Mapping[str, StoredTensor]
) -> str:
    """Fills a captioner with tensors: all of them, or none on an error.

    Every tensor must fill one variable of the same shape, and every variable must be filled. Causal
    masks, position numbers and copies of other tensors are skipped, and so are parts without
    effect on captions, which the result names. Positions are interpolated for another image size.

    The tensors are read twice, one by one: all are checked before the first is assigned, and
    memory holds no more than one of them besides the model.

    Args:
        captioner: created from the hyperparameters of `config`, with or without changes.
        config: settings of the captioner.
        tensors: the tensors, by name.

    Returns:
        A message: the number of parameters, and the parts that are skipped.

    Raises:
        ValueError: tensors do not fit; the message lists names and shapes on both sides. The
            captioner is unchanged.
    """
    names, source = NAMES[config.system], str(config.path)
    tensors = with_originals(tensors, names.copies)
    pairs = captioner_pairs(captioner, names)
    grid = grid_of(captioner.encoder.backbone.net)
    old_grid = config.grid
    copies = {name: x for name, x in names.copies.items() if name in tensors and x in tensors}
    skipped = {
        title: [name for name in tensors if pattern.fullmatch(name)]
        for title, pattern in names.unused.items()
    }
    buffers = [name for name in tensors if names.buffers.fullmatch(name)]
    expected: dict[str, Shape] = {}
    for pair, variable in pairs:
        shape = pair.shape(variable)
        if is_vision_positions(pair):
            shape = (*shape[:-2], 1 + math.prod(old_grid), shape[-1])
        expected |= dict.fromkeys(pair.theirs, shape)
    check_tensors(
        source,
        tensors,
        expected,
        weights=expected,
        skipped={*copies, *buffers, *(name for group in skipped.values() for name in group)},
    )
    check_values(source, tensors, expected, copies)
    for pair, variable in pairs:
        values = pair.read({name: read_tensor(tensors[name]) for name in pair.theirs})
        if is_vision_positions(pair) and old_grid != grid:
            values = resize_positions(values, grid, antialias=False)  # (S,D)
        variable.assign(values)
    count = sum(math.prod(variable.shape) for _, variable in pairs)
    message = f"{count / 1e6:.1f} M parameters of {names.title} from {source}"
    if old_grid != grid:
        message += f"; positions interpolated from {old_grid} to {grid}"
    groups = [f"{title} ({listed(group)})" for title, group in skipped.items() if group]
    return f"{message}; unused: {', '.join(groups)}" if groups else message


def with_originals(
    tensors: Mapping[str, StoredTensor], copies: Mapping[str, str]
) -> dict[str, StoredTensor]:
    """Returns tensors in which a copy takes the place of a missing tensor that it copies."""
    moved = {
        name: original
        for name, original in copies.items()
        if name in tensors and original not in tensors
    }
    return {moved.get(name, name): tensor for name, tensor in tensors.items()}


def captioner_pairs(captioner: CaptioningModel, names: CaptionerNames) -> Pairs:
    """Returns the pairs of all weights of a captioner, each with its variable."""
    encoder, decoder = captioner.encoder, captioner.decoder
    network = encoder.backbone.net
    vision = names.vision(network)
    vision = published_in(names.module, vision) if names.module else vision
    pairs = [(pair, find_layer_variable(network, pair)) for pair in vision]
    pairs += [(pair, find_variable(decoder, pair.ours)) for pair in names.text(decoder)]
    if encoder.projection is not None:
        projection = linear("projection", "enc_to_dec_proj")
        pairs += [(pair, find_variable(encoder, pair.ours)) for pair in projection]
    return pairs


def is_vision_positions(pair: NamePair) -> bool:
    """Returns whether a pair is the table of an image tower's positions."""
    return pair.ours == f"embeddings.{POSITIONS}"


def check_values(
    source: str,
    tensors: Mapping[str, StoredTensor],
    weights: Mapping[str, Shape],
    copies: Mapping[str, str],
) -> None:
    """Reads all tensors and checks that they are finite and copies equal what they copy.

    Raises:
        ValueError: they are not, or a tensor cannot be read.
    """
    raise_mismatches(
        source,
        {
            "with values that are not finite": [
                name for name in weights if not np.isfinite(read_tensor(tensors[name])).all()
            ],
            "that differ from the tensors that they copy": [
                f"{name} (of {original})"
                for name, original in copies.items()
                if not np.array_equal(tensors[name].read(), tensors[original].read())
            ],
        },
    )


def listed(names: list[str]) -> str:
    """Returns names for a message: all of them, or the first and how many there are."""
    if len(names) > MAX_LISTED:
        return f"{len(names)} tensors, such as {names[0]}"
    return ", ".join(names)
