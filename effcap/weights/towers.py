"""Loads published weights of image towers into a backbone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from os import PathLike
from typing import Any

import keras
import numpy as np

from effcap.backbones.backbone import Backbone
from effcap.weights.gpt2.stored_tensor import Shape, StoredTensor, check_tensors
from effcap.weights.name_pairs import NamePair, raise_mismatches
from effcap.weights.positions import resize_positions, source_grid
from effcap.weights.tower_file import TowerFile, TowerKind, open_tower_file
from effcap.weights.tower_names import POSITIONS, block_names, find_layer_variable, has_layer


def load_tower(backbone: Backbone, path: str | PathLike, kind: TowerKind) -> str:
    """Fills a backbone with the weights of an image tower: all of them, or none on an error.

    Every tensor of the file's image tower must fill one variable of the same shape, and every
    variable must be filled. Tensors of other parts of the model are skipped, and so are those that
    the backbone's output does not use. Position embeddings are interpolated for another image
    size.

    The tensors are read twice, one by one: all are checked before the first is assigned, and
    memory holds no more than one of them besides the model.

    Args:
        backbone: its network must be one of this kind.
        path: file or folder, as for `open_tower_file`.
        kind: kind of tower.

    Returns:
        A message: the number of parameters, the skipped tensors, and what was assumed or changed.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: the file is damaged, its settings are not the backbone's, or tensors do not
            fit; the message lists names and shapes on both sides. The backbone is unchanged.
    """
    return load_tower_file(backbone, open_tower_file(path, kind), kind)


def load_tower_file(backbone: Backbone, file: TowerFile, kind: TowerKind) -> str:
    """Fills a backbone with the weights of an opened file; see `load_tower`."""
    path, network = file.path, backbone.net
    title = backbone.network if isinstance(backbone.network, str) else network.name
    if not has_layer(network, file.names.layer):
        raise ValueError(
            f"{path} holds a {file.names.title}, which {title} is not. Choose another "
            "encoder.backbone.network, or other weights"
        )
    notes = check_settings(file, network, kind, title)
    pairs = [(pair, find_layer_variable(network, pair)) for pair in file.names.pairs(network)]
    skipped = match_tensors(file, pairs, grid_of(network))
    check_finite(file, pairs)
    for pair, variable in pairs:
        values = pair.read({name: read_tensor(file.tensors[name]) for name in pair.theirs})
        if is_resized(pair, values.shape, grid_of(network)):
            old, grid = source_grid(len(values)), grid_of(network)
            notes.append(f"positions interpolated from {old} to {grid}")
            values = resize_positions(values, grid, kind.antialias)
        variable.assign(values)
    count = sum(math.prod(variable.shape) for _, variable in pairs)
    message = f"{count / 1e6:.1f} M parameters of {title} from {path}"
    if skipped:
        groups = (f"{title} ({len(names)} tensors)" for title, names in skipped.items())
        notes.append(f"skipped: {', '.join(groups)}")
    return "; ".join([message, *notes])


def grid_of(network: keras.Model) -> tuple[int, int]:
    """Returns height and width of the grid of a network's positions."""
    if has_layer(network, "patches"):
        return tuple(network.get_layer("patches").input.shape[1:3])
    return tuple(network.layers[-1].input.shape[1:3])


def is_resized(pair: NamePair, shape: Shape, grid: tuple[int, int]) -> bool:
    """Returns whether an array is a table of positions of a square grid unlike `grid`."""
    if not pair.ours.endswith(POSITIONS) or len(shape) != 2:
        return False
    return source_grid(shape[0]) not in (None, grid)


def match_tensors(
    file: TowerFile, pairs: list[tuple[NamePair, keras.Variable]], grid: tuple[int, int]
) -> dict[str, list[str]]:
    """Checks that all tensors fit; returns the names of the skipped ones by what they are.

    Raises:
        ValueError: a name, a shape or a dtype does not fit; the message lists all of them.
    """
    expected: dict[str, Shape] = {}
    for pair, variable in pairs:
        for name in pair.theirs:
            shape = pair.shape(variable)
            stored = file.tensors[name].shape if name in file.tensors else ()
            if is_resized(pair, stored[pair.unit_axes :], grid):
                shape = (*shape[:-2], stored[-2], shape[-1])
            expected[name] = shape
    skipped = {
        title: [x for x in file.tensors if pattern.fullmatch(x) and x not in expected]
        for title, pattern in file.names.skipped.items()
    }
    names = {name for names in skipped.values() for name in names}
    check_tensors(str(file.path), file.tensors, expected, weights=expected, skipped=names)
    if file.outside:
        skipped[f"outside {file.prefix}*"] = file.outside
    return {title: names for title, names in skipped.items() if names}


def check_finite(file: TowerFile, pairs: list[tuple[NamePair, keras.Variable]]) -> None:
    """Reads all tensors and checks that their values are finite and variances not negative.

    Raises:
        ValueError: they are not, or a tensor cannot be read.
    """
    wrong = []
    for pair, _ in pairs:
        for name in pair.theirs:
            values = read_tensor(file.tensors[name])
            if not np.isfinite(values).all():
                wrong.append(f"{name} (not finite)")
            elif pair.ours.endswith("moving_variance") and (values < 0).any():
                wrong.append(f"{name} (negative variances)")
    raise_mismatches(str(file.path), {"with impossible values": wrong})


def read_tensor(tensor: StoredTensor) -> np.ndarray:
    """Reads a tensor as float32; values beyond its range become infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(tensor.read(), np.float32)


def check_settings(file: TowerFile, network: keras.Model, kind: TowerKind, title: str) -> list[str]:
    """Checks the settings beside a file against those of the network.

    Returns:
        Notes about settings that are not recorded.

    Raises:
        ValueError: a setting differs.
    """
    if not block_names(network):
        return []  # the shapes of a residual network determine it
    block = network.get_layer(block_names(network)[0])
    expected = {
        "activation": block.activation,
        "num_heads": block.num_heads,
        "head_dim": block.hidden_dim // block.num_heads,
        "epsilon": block.epsilon,
        "mean": list(kind.mean),
        "std": list(kind.stddev),
    }
    if file.settings is None:
        return unrecorded_notes(file, kind, expected)
    for name, value in kind.read_settings(file.settings).items():
        if not same_setting(name, value, expected[name]):
            raise ValueError(
                f"{file.settings} records {name} {json.dumps(value)}, but {title} has "
                f"{json.dumps(expected[name])}{kind.hints.get(name, '')}"
            )
    return []


def same_setting(name: str, value: Any, expected: Any) -> bool:
    """Returns whether a recorded setting is the network's; floats may be rounded."""
    if value == expected or name in ("activation", "num_heads", "head_dim"):
        return value == expected
    try:
        return bool(np.allclose(value, expected, rtol=1e-4, atol=0))
    except (TypeError, ValueError):
        return False


def unrecorded_notes(file: TowerFile, kind: TowerKind, network: Mapping[str, Any]) -> list[str]:
    """Returns notes about the network's settings where a file has none beside it."""
    original = file.names.original
    notes = [
        f"the original has the {name} {value}, and the network {network[name]}"
        for name, value in original.items()
        if value != network[name]
    ]
    assumed = [f"the {name} {network[name]}" for name in kind.undetermined if name not in original]
    if assumed:
        notes.append(f"assumed {' and '.join(assumed)}, which no tensor determines")
    return notes
