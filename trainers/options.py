"""How to train: what the command line, a variant's "training" section and a notebook can set."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of a training run.

    Attributes:
        epochs: passes over the photos.
        steps: length of the run in steps, in place of `epochs`.
        batch_size: photos per step, each with its captions.
        captions_per_photo: at most that many per photo and epoch; None for all.
        learning_rate: the highest, at the end of the warmup.
        warmup: share of all steps in which the learning rate rises from 0; it then falls as a
            cosine to 0.
        weight_decay: AdamW's, on matrices only: not on biases, norms and embeddings.
        clip_norm: gradients are scaled down to this global norm; 0 for not at all.
        label_smoothing: share of the target's probability spread over all tokens.
        ema: momentum of the moving average of weights that is validated and saved; 0 for none. It
            is lowered in short runs, where the average would still hold the weights of the start.
        mirror: mirror photos at random, except where a caption says left or right.
        seed: of weights, order, choice and dropout.

    Raises:
        ValueError: for a value of another type or out of range.
    """

    epochs: int = 10
    steps: int | None = None
    batch_size: int = 32
    captions_per_photo: int | None = None
    learning_rate: float = 5e-4
    warmup: float = 0.05
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    label_smoothing: float = 0.1
    ema: float = 0.0
    mirror: bool = False
    seed: int = 0

    def __post_init__(self):
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if not _fits(value, get_args(kind) or (kind,)):
                wanted = " or ".join(k.__name__ for k in get_args(kind) or (kind,))
                raise ValueError(
                    f"Expected training.{name} to be {wanted}. Received: {name}={value!r}"
                )
        for name in ("epochs", "steps", "batch_size", "captions_per_photo"):
            self._check(name, 1)
        for name in ("learning_rate", "weight_decay", "clip_norm", "seed"):
            self._check(name, 0)
        for name in ("warmup", "label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"Expected training.{name} from 0 up to but not including 1. "
                    f"Received: {name}={getattr(self, name)}"
                )

    def _check(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is not None and not least <= value < math.inf:
            raise ValueError(
                f"Expected training.{name} of at least {least}. Received: {name}={value}"
            )

    @classmethod
    def of(cls, settings: dict) -> TrainingOptions:
        """Options from a dict; ValueError naming settings that there are none of."""
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ValueError(
                f"Expected training options out of {', '.join(known)}. "
                f"Received: {', '.join(unknown)}"
            )
        return cls(**settings)


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (isinstance(value, int) and float in kinds)
