"""How to train: what the command line, a variant's "training" section and a notebook can set."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from effcap.trainers.data.augmentation import Augmentation

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # and Keras's names for them


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of a training run.

    Attributes:
        epochs: each passes over the photos once, or `passes` times.
        passes: over the photos in an epoch: more where they are few, since the captioner is
            validated, saved and logged after each epoch.
        steps: length of the run in steps, in place of `epochs`.
        batch_size: photos per step, each with its captions.
        captions_per_photo: at most that many per photo and epoch; None for all.
        gradient_accumulation: steps whose gradients are averaged for one update of the weights.
            At the end of a run, those of an unfinished update are not used.
        learning_rate: the highest, at the end of the warmup.
        backbone_learning_rate: the highest for the backbone, where it is trained; None for the
            same as the rest.
        decoder_learning_rate: the highest for what GPT-2 brings along, where it is trained; None
            for the same as the rest.
        warmup: share of all steps in which the learning rate rises from 0; it then falls as a
            cosine to 0.
        weight_decay: AdamW's, on matrices only: not on biases, norms and embeddings.
        clip_norm: gradients are scaled down to this global norm; 0 for not at all.
        label_smoothing: share of the target's probability spread over all tokens.
        ema: momentum of the moving average of weights that is validated and saved; 0 for none. It
            is lowered in short runs, where the average would still hold the weights of the start.
        patience: epochs without a better validation score after which the run ends; None for all
            epochs.
        cider_photos: held-out photos, at most, that are captioned after each epoch for CIDEr,
            which tells the best epoch; 0 for none, the best then has the least cross-entropy.
        precision: "float32", or "bfloat16" for computing in half the bits, with weights in float32.
        mirror: mirror photos at random, except where a caption says left or right.
        crop: least share of a photo's area that a random crop keeps; 1 for no crops.
        colour: strength of random changes of brightness, contrast and saturation, from 0 to 1.
        seed: of weights, order, choice and dropout.

    Raises:
        ValueError: for a value of another type or out of range.
    """

    epochs: int = 10
    passes: int = 1
    steps: int | None = None
    batch_size: int = 32
    captions_per_photo: int | None = None
    gradient_accumulation: int = 1
    learning_rate: float = 5e-4
    backbone_learning_rate: float | None = None
    decoder_learning_rate: float | None = None
    warmup: float = 0.05
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    label_smoothing: float = 0.1
    ema: float = 0.0
    patience: int | None = None
    cider_photos: int = 1000
    precision: str = "float32"
    mirror: bool = False
    crop: float = 1.0
    colour: float = 0.0
    seed: int = 0

    def __post_init__(self):
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if not _fits(value, get_args(kind) or (kind,)):
                wanted = " or ".join(k.__name__ for k in get_args(kind) or (kind,))
                raise ValueError(
                    f"Expected training.{name} to be {wanted}. Received: {name}={value!r}"
                )
        counts = ("epochs", "passes", "steps", "batch_size", "captions_per_photo", "patience")
        for name in (*counts, "gradient_accumulation"):
            self._check(name, 1)
        rates = ("learning_rate", "backbone_learning_rate", "decoder_learning_rate")
        for name in (*rates, "weight_decay", "clip_norm", "seed", "cider_photos"):
            self._check(name, 0)
        for name in ("warmup", "label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"Expected training.{name} from 0 up to but not including 1. "
                    f"Received: {name}={getattr(self, name)}"
                )

        if self.precision not in PRECISIONS:
            raise ValueError(
                f"Expected training.precision out of {', '.join(PRECISIONS)}. "
                f"Received: precision={self.precision!r}"
            )

        self.augmentation  # noqa: B018  its own checks

    @property
    def augmentation(self) -> Augmentation:
        """How photos are varied."""
        return Augmentation(mirror=self.mirror, crop=self.crop, colour=self.colour)

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
