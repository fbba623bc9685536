"""Applies changed hyperparameters to those of published weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effcap.config import merge_hparams


def override_model_hparams(
    hparams: Mapping[str, Any], overrides: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Returns a copy of the sections encoder and decoder with overrides applied.

    Args:
        hparams: the sections encoder and decoder.
        overrides: changed values in the same nesting, such as `{"decoder": {"dropout": 0.2}}`.

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
    return merge_hparams(hparams, changes)
