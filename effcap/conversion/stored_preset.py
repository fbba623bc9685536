"""Presets stored again, with weights of another type."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from effcap.captioner import Captioner
from effcap.config import read_json
from effcap.conversion.backbone_preset import load_backbone, save_backbone
from effcap.presets import BACKBONE, CONFIG, WEIGHTS, preset_folder, read_record


def convert_stored_preset(preset: str | PathLike, folder: str | PathLike, dtype: str) -> int:
    """Writes a preset again, with weights of another type and the same record.

    Args:
        preset: preset of a captioner or a backbone, as in `Captioner.from_preset`.
        folder, dtype: as in `Captioner.save_to_preset`.

    Returns:
        The size of the new weights file in bytes.

    Raises:
        OSError: there is no such preset, or too little disk space.
        ValueError: the preset is damaged, or its weights cannot be stored in that type.
    """
    source = preset_folder(preset)
    record = read_record(source) or None
    if BACKBONE in read_json(source / CONFIG):
        save_backbone(load_backbone(source), folder, dtype, record)
    else:
        Captioner.from_preset(source).save_to_preset(folder, dtype, record)
    return (Path(folder) / WEIGHTS).stat().st_size
