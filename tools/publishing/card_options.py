"""What a model card states and the record of a preset does not hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class CardOptions:
    """Statements of a model card that are not in the record of a preset.

    Attributes:
        license: license of the weights as the hub names it, such as mit or cc-by-4.0 (default: the
            card states none).
        datasets: datasets on the hub that it was trained on, such as user/photos.
        scores: file of scores written by `effcap evaluate --json` or --out.
    """

    license: str | None = None
    datasets: Sequence[str] = ()
    scores: Path | None = None
