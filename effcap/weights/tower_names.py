"""The published names of an image tower's tensors.

Our name is a layer of the network and the path of attributes in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from effcap.weights.name_pairs import NamePair, find_variable

POSITIONS = "position_embedding.embeddings"  # end of our name of a table of positions


@dataclass(frozen=True)
class TowerNames:
    """Names of an image tower's tensors in a kind of file.

    Attributes:
        title: kind of file and tower, for messages.
        layer: name of a layer that only networks of this kind have.
        key: name of a tensor that only files of this kind have.
        pairs: returns the pairs of a network.
        skipped: patterns of the names of tensors that are no weights of the network, by what they
            are. A tensor that is in a pair is never skipped.
        config: name of the file of settings that Hugging Face's hub has beside such files.
        original: settings of the implementation that such files are from, which records none.
    """

    title: str
    layer: str
    key: str
    pairs: Callable[[keras.Model], list[NamePair]]
    skipped: Mapping[str, re.Pattern[str]]
    config: str
    original: Mapping[str, Any] = field(default_factory=dict)


def has_layer(network: keras.Model, name: str) -> bool:
    """Returns whether a network has a layer."""
    return any(layer.name == name for layer in network.layers)


def block_names(network: keras.Model) -> list[str]:
    """Returns the names of the transformer blocks, first to last."""
    return [x.name for x in network.layers if re.fullmatch(r"block_\d+", x.name)]


def find_layer_variable(network: keras.Model, pair: NamePair) -> keras.Variable:
    """Returns the variable of a pair, whose name starts with a layer."""
    layer, _, path = pair.ours.partition(".")
    return find_variable(network.get_layer(layer), path)
