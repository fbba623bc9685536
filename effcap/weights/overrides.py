"""Applies changed hyperparameters to those of published weights, and finds them by dotted name."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from effcap.config import merge_hparams

MISSING = object()


def override_model_hparams(
    hparams: Mapping[str, Any], overrides: Mapping[str, Any] | None, replaced: Iterable[str] = ()
) -> dict[str, Any]:
    """Returns a copy of the sections encoder and decoder with overrides applied.

    Args:
        hparams: the sections encoder and decoder.
        overrides: changed values in the same nesting, such as `{"decoder": {"dropout": 0.2}}`.
        replaced: dotted names of settings that an override replaces as a whole, where others that
            are dicts are extended.

    Raises:
        ValueError: an override is of the section training, which presets do not have, or
            `effcap.config.merge_hparams` raises it.
    """
    changes = {section: values for section, values in (overrides or {}).items() if values}
    if "training" in changes:
        raise ValueError(
            "Expected settings of encoder and decoder; a preset has no others. "
            f"Received: training={changes['training']!r}"
        )
    hparams = copy.deepcopy(dict(hparams))
    for name in replaced:
        section, _, key = name.rpartition(".")
        values = find_setting(hparams, section)
        if isinstance(find_setting(changes, name), Mapping) and isinstance(values, dict):
            values.pop(key, None)
    return merge_hparams(hparams, changes)


def find_setting(hparams: Mapping[str, Any], name: str) -> Any:
    """Returns the value of a setting, or `MISSING`.

    Args:
        hparams: nested values.
        name: dotted name, such as "decoder.fusion.tau".
    """
    value: Any = hparams
    for key in name.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return MISSING
        value = value[key]
    return value


def nest_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings by dotted name as nested dicts."""
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        *sections, key = name.split(".")
        section = nested
        for part in sections:
            section = section.setdefault(part, {})
        section[key] = value
    return nested
