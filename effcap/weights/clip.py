"""Loads published weights of CLIP's image towers into a backbone."""

from __future__ import annotations

import json
import math
from os import PathLike

import keras
import numpy as np

from effcap.backbones.backbone import Backbone
from effcap.backbones.registry import CLIP_MEAN, CLIP_STDDEV
from effcap.weights.clip_files import ClipFile, open_clip_file, read_settings
from effcap.weights.clip_names import POSITIONS, block_names, has_layer
from effcap.weights.gpt2.stored_tensor import Shape, StoredTensor, check_tensors
from effcap.weights.name_pairs import NamePair, find_variable, raise_mismatches
from effcap.weights.positions import resize_positions, source_grid


def load_clip(backbone: Backbone, path: str | PathLike) -> str:
    """Fills a backbone with the weights of a CLIP model: all of them, or none on an error.

    Every tensor of the file's image tower must fill one variable of the same shape, and every
    variable must be filled. Tensors of the text tower are skipped, and so are those that the
    backbone's output does not use. Position embeddings are interpolated for another image size.

    The tensors are read twice, one by one: all are checked before the first is assigned, and
    memory holds no more than one of them besides the model.

    Args:
        backbone: its network must be a CLIP model known by name.
        path: file or folder, as for `open_clip_file`.

    Returns:
        A message: the number of parameters, the skipped tensors, and what was assumed or changed.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: the file is damaged, its settings are not the backbone's, or tensors do not
            fit; the message lists names and shapes on both sides. The backbone is unchanged.
    """
    return load_clip_file(backbone, open_clip_file(path))


def load_clip_file(backbone: Backbone, file: ClipFile) -> str:
    """Fills a backbone with the weights of an opened file; see `load_clip`."""
    path, network = file.path, backbone.net
    title = backbone.network if isinstance(backbone.network, str) else network.name
    if not has_layer(network, file.names.layer):
        raise ValueError(
            f"{path} holds a {file.names.title}, which {title} is not. Choose another "
            "encoder.backbone.network, or other weights"
        )
    notes = check_settings(file, network, title)
    pairs = [(pair, find_layer_variable(network, pair)) for pair in file.names.pairs(network)]
    skipped = match_tensors(file, pairs, grid_of(network))
    check_finite(file, pairs)
    for pair, variable in pairs:
        values = pair.read({name: read_tensor(file.tensors[name]) for name in pair.theirs})
        if is_resized(pair, values.shape, grid_of(network)):
            old, grid = source_grid(len(values)), grid_of(network)
            notes.append(f"positions interpolated from {old} to {grid}")
            values = resize_positions(values, grid)
        variable.assign(values)
    count = sum(math.prod(variable.shape) for _, variable in pairs)
    message = f"{count / 1e6:.1f} M parameters of {title} from {path}"
    if skipped:
        groups = (f"{title} ({len(names)} tensors)" for title, names in skipped.items())
        notes.append(f"skipped: {', '.join(groups)}")
    return "; ".join([message, *notes])


def find_layer_variable(network: keras.Model, pair: NamePair) -> keras.Variable:
    """Returns the variable of a pair, whose name starts with a layer."""
    layer, _, path = pair.ours.partition(".")
    return find_variable(network.get_layer(layer), path)


def grid_of(network: keras.Model) -> tuple[int, int]:
    """Returns height and width of the grid of a network's positions."""
    if has_layer(network, "ln_pre"):
        return tuple(network.get_layer("conv1").output.shape[1:3])
    return tuple(network.layers[-1].input.shape[1:3])


def is_resized(pair: NamePair, shape: Shape, grid: tuple[int, int]) -> bool:
    """Returns whether a tensor is a table of positions of a square grid unlike `grid`."""
    if not pair.ours.endswith(POSITIONS) or len(shape) != 2:
        return False
    return source_grid(shape[0]) not in (None, grid)


def match_tensors(
    file: ClipFile, pairs: list[tuple[NamePair, keras.Variable]], grid: tuple[int, int]
) -> dict[str, list[str]]:
    """Checks that all tensors fit; returns the names of the skipped ones by what they are.

    Raises:
        ValueError: a name, a shape or a dtype does not fit; the message lists all of them.
    """
    expected: dict[str, Shape] = {}
    for pair, variable in pairs:
        for name in pair.theirs:
            shape = pair.shape(variable)
            if name in file.tensors and is_resized(pair, file.tensors[name].shape, grid):
                shape = (file.tensors[name].shape[0], *shape[1:])
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


def check_finite(file: ClipFile, pairs: list[tuple[NamePair, keras.Variable]]) -> None:
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


def check_settings(file: ClipFile, network: keras.Model, title: str) -> list[str]:
    """Checks the settings beside a file against those of the network.

    Returns:
        Notes about settings that are not recorded.

    Raises:
        ValueError: a setting differs.
    """
    if not has_layer(network, "ln_pre"):
        return []  # the shapes of a residual network determine it
    block = network.get_layer(block_names(network)[0])
    if file.settings is None:
        return [f"assumed the activation {block.activation}, which no tensor determines"]
    expected = {
        "activation": block.activation,
        "num_heads": block.num_heads,
        "head_dim": block.hidden_dim // block.num_heads,
        "epsilon": 1e-5,
        "mean": list(CLIP_MEAN),
        "std": list(CLIP_STDDEV),
    }
    for name, value in read_settings(file.settings).items():
        same = value == expected[name]
        if not same and name not in ("activation", "num_heads", "head_dim"):
            try:
                same = np.allclose(value, expected[name], rtol=1e-4, atol=0)
            except (TypeError, ValueError):
                same = False
        if not same:
            hint = ". Networks whose names end in _gelu have gelu" if name == "activation" else ""
            raise ValueError(
                f"{file.settings} records {name} {json.dumps(value)}, but {title} has "
                f"{json.dumps(expected[name])}{hint}"
            )
    return []
