"""Presets that hold a backbone alone, and the backbone of a captioner's preset.

The config.json of the former has one section, `{"backbone": …}`, the arguments of a `Backbone`.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import keras

from effcap import presets
from effcap.backbones.backbone import Backbone
from effcap.captioner import Captioner
from effcap.config import read_json
from effcap.weight_files import load_weights
from effcap.weights.name_pairs import raise_mismatches
from effcap.weights.position_bias import (
    can_interpolate,
    interpolate_position_bias,
    interpolation_lines,
    window_side,
)

BIASES = "position_bias/embeddings"  # end of the path of a Swin's relative position biases


def save_backbone(
    backbone: Backbone,
    folder: str | PathLike,
    dtype: str = "float32",
    record: Mapping[str, Any] | None = None,
) -> None:
    """Writes a preset that holds a backbone alone.

    Args:
        backbone: backbone with its weights.
        folder, dtype, record: as in `Captioner.save_to_preset`.

    Raises:
        OSError: there is too little disk space.
    """
    config = {presets.BACKBONE: backbone.get_config()}
    presets.save_preset(backbone.net, folder, config, None, dtype, record)


def load_backbone(preset: str | PathLike) -> Backbone:
    """Loads the backbone of a preset, of either kind.

    Args:
        preset: a folder, the name of a shipped preset, or a run folder.

    Raises:
        FileNotFoundError: there is no such preset, or a file of it is missing.
        ValueError: a file is damaged, or the captioner has no backbone.
    """
    folder = presets.preset_folder(preset)
    config = read_json(folder / presets.CONFIG)
    if presets.BACKBONE not in config:
        backbone = getattr(Captioner.from_preset(folder).encoder, "backbone", None)
        if backbone is None:
            raise ValueError(f"The captioner of {folder} has no backbone")
        return backbone
    presets.check_weights_dtype(folder, config)
    try:
        backbone = Backbone(**config[presets.BACKBONE])
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Cannot create the backbone of {folder / presets.CONFIG}: {error}"
        ) from error
    load_weights(backbone.net, folder / presets.WEIGHTS)
    return backbone


def copy_preset_backbone(backbone: Backbone, preset: str | PathLike) -> str:
    """Copies the weights of a preset's backbone: all of them, or none on an error.

    The image size may differ; a Swin's biases for windows of another size are interpolated.

    Args:
        backbone: backbone to fill.
        preset: as in `load_backbone`.

    Returns:
        A message of one or several lines about what was loaded.

    Raises:
        FileNotFoundError: as in `load_backbone`.
        ValueError: as in `load_backbone`; or the networks, their weights or their preprocessing
            differ, with the settings that would fit in the message.
    """
    source = load_backbone(preset)
    name = source.net.name
    if isinstance(source.network, str) and source.network != backbone.network:
        height, width = source.image_size
        raise ValueError(
            f"{preset} has the weights of {name}, for --set encoder.backbone.network={name} --set "
            f"encoder.backbone.image_size=[{height},{width}]. Received: {backbone.net.name}"
        )
    if source.sizes != backbone.sizes:
        raise ValueError(
            f"Expected the sizes of {name} in {preset}, {dict(source.sizes)}. "
            f"Received: sizes={dict(backbone.sizes)}"
        )
    if source.preprocessing != backbone.preprocessing:
        raise ValueError(
            f"Expected the preprocessing of {name} in {preset}, {source.preprocessing}. "
            f"Received: {backbone.preprocessing}"
        )
    theirs, ours = source.net.weights, backbone.net.weights
    if len(theirs) != len(ours):
        raise ValueError(f"{preset} has {len(theirs)} weights of a network. Received: {len(ours)}")
    pairs = list(zip(theirs, ours, strict=True))  # in the order of the layers
    raise_mismatches(
        str(preset),
        {
            "of another shape": [
                f"{old.path} {tuple(old.shape)} for {new.path} {tuple(new.shape)}"
                for old, new in pairs
                if old.shape != new.shape
                and not (new.path.endswith(BIASES) and can_interpolate(old.shape, new.shape))
            ]
        },
    )
    windows: set[tuple[int, int]] = set()  # old and new sides
    for old, new in pairs:
        values = keras.ops.convert_to_numpy(old)
        if old.shape != new.shape:
            windows.add((window_side(old.shape[0]), window_side(new.shape[0])))
            values = interpolate_position_bias(values, window_side(new.shape[0]))
        new.assign(values)
    count = backbone.net.count_params() / 1e6
    return "\n".join(
        [f"{count:.1f} M parameters of {name} from {preset}", *interpolation_lines(windows)]
    )
