"""Loads the published `.pth` file of a whole captioner, strictly in both directions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from effcap.weights.clipcap import CLIPCAP
from effcap.weights.name_pairs import Converter, find_variable, raise_mismatches
from effcap.weights.overrides import (
    MISSING,
    find_setting,
    nest_settings,
    override_model_hparams,
)
from effcap.weights.playntell import PLAYNTELL
from effcap.weights.torch_file import TorchFile, read_torch
from effcap.weights.visualgpt import VISUALGPT

if TYPE_CHECKING:
    from effcap.captioning import CaptioningModel

CONVERTERS: dict[str, Converter] = {
    "visualgpt": VISUALGPT,
    "playntell": PLAYNTELL,
    "clipcap": CLIPCAP,
}


def open_published(path: str | PathLike) -> tuple[str, TorchFile]:
    """Opens a `.pth` or `.pt` file: a state dict, or a training checkpoint that contains one.

    Returns:
        The name of the system in `CONVERTERS`, and the tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or of another system.
    """
    file = read_torch(path)
    for system, converter in CONVERTERS.items():
        for name in file:
            for key in converter.keys:
                if name == key or name.endswith(f".{key}"):
                    prefix = name.removesuffix(key)
                    return system, read_torch(path, prefix) if prefix else file
    titles = ", ".join(converter.title for converter in CONVERTERS.values())
    keys = " or ".join(key for converter in CONVERTERS.values() for key in converter.keys)
    raise ValueError(
        f"Expected weights of one of {titles}, with a tensor {keys}. "
        f"Received: {path}, whose {len(file)} tensors start {', '.join(list(file)[:3])}"
    )


def published_hparams(
    system: str, file: TorchFile, overrides: Mapping[str, Any] | None = None
) -> dict:
    """Returns the hyperparameters of the captioner that a file's weights fit.

    Sizes are those of the tensors. Values that no tensor determines are, in this order, those of
    `overrides`, those that the original recorded beside the file (see `recorded_settings`), and
    defaults (see `assumed_settings`).

    Args:
        system: from `open_published`.
        file: from `open_published`.
        overrides: changed values, such as `{"decoder": {"fusion": {"tau": 0.2}}}`. Names and
            widths of modalities replace the assumed ones as a whole.

    Raises:
        ValueError: a tensor that defines a size is missing, the original's record does not fit the
            file, or an override is of another section than encoder or decoder.
    """
    converter = CONVERTERS[system]
    hparams = converter.hparams(file)
    _, recorded = converter.recorded(file) or (None, {})
    for changes in (nest_settings(recorded), overrides):
        hparams = override_model_hparams(hparams, changes, converter.undetermined(hparams))
    return hparams


def assumed_settings(
    system: str, file: TorchFile, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns the settings of `published_hparams` that change the output and are defaults.

    No tensor determines them, the original did not record them, and they are not in `overrides`:
    wrong ones change the captions without an error.

    Args:
        system, file, overrides: as in `published_hparams`.

    Returns:
        Values by dotted name, such as `{"decoder.fusion.tau": 0.2}`.
    """
    converter, hparams = CONVERTERS[system], published_hparams(system, file, overrides)
    _, recorded = converter.recorded(file) or (None, {})
    settings = {name: find_setting(hparams, name) for name in converter.undetermined(hparams)}
    return {
        name: value
        for name, value in settings.items()
        if value is not MISSING
        and name not in recorded
        and find_setting(overrides or {}, name) is MISSING
    }


def recorded_settings(
    system: str, file: TorchFile, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns the settings of `published_hparams` that the original recorded beside the file.

    Args:
        system, file, overrides: as in `published_hparams`.

    Returns:
        Values by dotted name, without those in `overrides`.
    """
    _, recorded = CONVERTERS[system].recorded(file) or (None, {})
    return {
        name: value
        for name, value in recorded.items()
        if find_setting(overrides or {}, name) is MISSING
    }


def load_published(
    captioner: CaptioningModel, file: TorchFile, overrides: Mapping[str, Any] | None = None
) -> str:
    """Fills a captioner with the weights of a file: all of them, or none on an error.

    Every parameter of the file must fill one variable of the same shape, and every variable must
    be filled. These are skipped: parameters without effect in the original's forward pass, which
    are listed in the result, causal masks, and a copy of the token embeddings.

    Args:
        captioner: created from `published_hparams`.
        file: from `open_published`.
        overrides: as given to `published_hparams`, for the message.

    Returns:
        A message of several lines: the number of parameters and the names of the skipped ones;
        then each setting that was recorded beside the file or assumed, with its value.

    Raises:
        ValueError: there are no published weights for this kind of captioner, or tensors do not
            fit; the message lists names and shapes on both sides.
    """
    hparams = captioner.hparams()
    system = _system_of(hparams["encoder"]["kind"])
    converter = CONVERTERS[system]
    pairs = [(pair, find_variable(captioner, pair.ours)) for pair in converter.name_pairs(hparams)]
    expected = {name: pair.shape(variable) for pair, variable in pairs for name in pair.theirs}
    unused = [name for name in file if converter.unused(hparams).fullmatch(name)]
    copies = [name for name in converter.copies if name in file and converter.embeddings in file]
    skipped = {*unused, *copies, *filter(converter.buffers.fullmatch, file)}
    raise_mismatches(
        file.name,
        {
            "missing": [f"{name} {shape}" for name, shape in expected.items() if name not in file],
            "unexpected": [
                f"{name} {file.shape(name)}"
                for name in file
                if name not in expected and name not in skipped
            ],
            "of another shape": [
                f"{name} {file.shape(name)} for {shape}"
                for name, shape in expected.items()
                if name in file and file.shape(name) != shape
            ],
            "that differ from the token embeddings": [
                name
                for name in copies
                if not np.array_equal(file[name], file[converter.embeddings])
            ],
        },
    )
    infinite = [name for name in expected if not np.isfinite(np.asarray(file[name], float)).all()]
    raise_mismatches(file.name, {"with values that are not finite": infinite})
    for pair, variable in pairs:
        variable.assign(pair.read(file))
    count = sum(int(np.prod(variable.shape)) for _, variable in pairs)
    message = f"{count / 1e6:.1f} M parameters from {file.name}"
    if unused:
        message += f"; skipped, unused in the original's forward pass: {', '.join(unused)}"
    return "\n".join([message, *_setting_lines(system, file, overrides, hparams)])


def _setting_lines(
    system: str,
    file: TorchFile,
    overrides: Mapping[str, Any] | None,
    hparams: Mapping[str, Any],
) -> list[str]:
    """Returns a line for each value of a captioner's hyperparameters that no tensor determines.

    Values that differ from those of `published_hparams` were given and have no line.
    """
    converter, lines = CONVERTERS[system], []
    path, _ = converter.recorded(file) or (None, {})
    for name, value in recorded_settings(system, file, overrides).items():
        if find_setting(hparams, name) == value:
            lines.append(f"read {name}={json.dumps(value)} from {path}")
    for name, value in assumed_settings(system, file, overrides).items():
        if find_setting(hparams, name) == value:
            lines.append(
                f"assumed {name}={json.dumps(value)}, which the file does not record "
                f"(change it with --set {name}=...)"
            )
    return [*lines, *converter.notes(hparams)]


def _system_of(encoder_kind: str) -> str:
    """Returns the system whose captioners have a kind of encoder.

    Raises:
        ValueError: there is none.
    """
    systems = {converter.encoder_kind: system for system, converter in CONVERTERS.items()}
    if encoder_kind not in systems:
        raise ValueError(
            f"Expected a captioner with encoder.kind out of {', '.join(systems)}. "
            f"Received: encoder.kind={encoder_kind!r}"
        )
    return systems[encoder_kind]
