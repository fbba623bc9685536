"""Options of the optimization: the section "training" of hparams."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from effcap.metrics.tokenize import TOKENIZATIONS
from effcap.precision import PRECISIONS
from effcap.trainers.data.augmentation import Augmentation

COSINE, LINEAR = SCHEDULES = ("cosine", "linear")
COUNTS = (
    "epochs",
    "passes_per_epoch",
    "steps",
    "batch_size",
    "captions_per_photo",
    "gradient_accumulation_steps",
    "patience",
)
NOT_NEGATIVE = (
    "learning_rate",
    "backbone_learning_rate",
    "decoder_learning_rate",
    "weight_decay",
    "clip_norm",
    "npair_weight",
    "num_cider_photos",
    "seed",
)
# The first available score selects the best epoch: (name, sign).
VALIDATION_SCORES = (("val_cider", 1), ("val_cross_entropy", -1))
FRACTIONS = ("warmup_fraction", "label_smoothing", "ema_momentum")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of the optimization, for every source of data and every objective.

    Attributes:
        epochs: number of epochs. Each ends with validation, presets and logs.
        passes_per_epoch: passes over the photos in an epoch. Use several for small data sets.
        steps: number of training steps, instead of epochs.
        batch_size: photos per step, over all devices. Each photo comes with its captions.
        captions_per_photo: maximum number of captions per photo and epoch, sampled anew each epoch
            (default: all).
        gradient_accumulation_steps: steps whose gradients are averaged, by tokens, for one update
            of the weights. Those of an unfinished update at the end of a run are dropped.
        learning_rate: peak learning rate, reached at the end of the warmup.
        backbone_learning_rate: peak learning rate of a trained backbone (default: learning_rate).
        decoder_learning_rate: peak learning rate of the decoder's pretrained weights (default:
            learning_rate).
        schedule: decay of the learning rate to 0 after the warmup, "cosine" or "linear". The
            learning rates of "linear" are those of transformers' `get_linear_schedule_with_warmup`.
        warmup_fraction: fraction of all steps in which the learning rate rises from 0.
        weight_decay: decoupled weight decay, as in AdamW. Biases, normalization layers and
            embeddings are excluded.
        clip_norm: maximum global norm of the gradients, 0 for no clipping.
        label_smoothing: fraction of the target probability spread over all tokens.
        npair_weight: weight of the n-pair loss of captions and prefixes, 0 for none. It is added to
            the cross-entropy of a captioner with a prefix, as in OPG.
        ema_momentum: momentum of the moving average of the weights, 0 for none. The average is
            validated and saved. The momentum is lowered in short runs, whose average would
            otherwise be dominated by the initial weights.
        patience: epochs without a better validation score before training stops (default:
            never).
        num_cider_photos: maximum number of validation photos captioned for CIDEr after each epoch,
            0 for none. The best epoch is selected by CIDEr, or without it by cross-entropy.
        tokenization: words that CIDEr counts: "ptb" for English, "unicode" or "char" for other
            languages. "char" is for scripts without spaces. See `effcap.metrics.tokenize`.
        precision: "float32" or "bfloat16" arithmetic. Weights are float32 in both.
        horizontal_flip: random horizontal flips, except of photos whose captions mention left or
            right.
        random_crop: minimum fraction of a photo's area that a random crop keeps, 1 for no crops.
        color_jitter: strength of random changes of brightness, contrast, saturation and hue, from 0
            to 1.
        seed: seed of initial weights, shuffling, augmentation and dropout.

    Raises:
        ValueError: a value has the wrong type or is out of range.
    """

    epochs: int = 10
    passes_per_epoch: int = 1
    steps: int | None = None
    batch_size: int = 32
    captions_per_photo: int | None = None
    gradient_accumulation_steps: int = 1
    learning_rate: float = 5e-4
    backbone_learning_rate: float | None = None
    decoder_learning_rate: float | None = None
    schedule: str = COSINE
    warmup_fraction: float = 0.05
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    label_smoothing: float = 0.1
    npair_weight: float = 0.0
    ema_momentum: float = 0.0
    patience: int | None = None
    num_cider_photos: int = 1000
    tokenization: str = "ptb"
    precision: str = "float32"
    horizontal_flip: bool = False
    random_crop: float = 1.0
    color_jitter: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_types()
        for name in COUNTS:
            self._check_minimum(name, 1)
        for name in NOT_NEGATIVE:
            self._check_minimum(name, 0)
        for name in FRACTIONS:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"Expected training.{name} from 0 up to but not including 1. "
                    f"Received: {name}={getattr(self, name)}"
                )
        choices = {
            "precision": PRECISIONS,
            "schedule": SCHEDULES,
            "tokenization": TOKENIZATIONS,
        }
        for name, values in choices.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"Expected training.{name} to be one of {', '.join(values)}. "
                    f"Received: {name}={getattr(self, name)!r}"
                )
        self.make_augmentation()

    def make_augmentation(self) -> Augmentation:
        """Returns the augmentation of the training photos.

        Raises:
            ValueError: a value is out of range.
        """
        return Augmentation(
            horizontal_flip=self.horizontal_flip,
            random_crop=self.random_crop,
            color_jitter=self.color_jitter,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingOptions:
        """Returns options with the given values.

        Raises:
            ValueError: a name is unknown, or a value has the wrong type or is out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(
                f"Expected training options out of {', '.join(known)}. "
                f"Received: {', '.join(unknown)}"
            )
        return cls(**values)

    def _check_types(self) -> None:
        for name, annotation in get_type_hints(type(self)).items():
            value = getattr(self, name)
            types = get_args(annotation) or (annotation,)
            if not _is_instance(value, types):
                expected = " or ".join(kind.__name__ for kind in types)
                raise ValueError(
                    f"Expected training.{name} to be {expected}. Received: {name}={value!r}"
                )

    def _check_minimum(self, name: str, minimum: int) -> None:
        value = getattr(self, name)
        if value is not None and not minimum <= value < math.inf:
            raise ValueError(
                f"Expected training.{name} of at least {minimum}. Received: {name}={value}"
            )


def _is_instance(value: Any, types: tuple[type, ...]) -> bool:
    """Returns whether a value is of one of the types; an int also counts as a float."""
    if isinstance(value, bool):
        return bool in types
    return isinstance(value, types) or (isinstance(value, int) and float in types)
