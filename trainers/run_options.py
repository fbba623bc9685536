"""What a run is to do, checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from effcap.presets import CONFIG, list_presets, preset_folder
from effcap.trainers.options import TrainingOptions
from effcap.variants import list_variants, load_hparams, read_json, set_hparams


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run needs besides its data.

    Attributes:
        model: a variant to train from scratch, or a preset to go on from.
        out: run folder; one that holds the presets of an earlier run is refused.
        settings: changes of hyperparameters, such as "decoder.dropout=0.1".
        tokenizer: folder of a tokenizer for a variant; None trains one on the captions.
        vocabulary_size: of the tokenizer trained on the captions; None for 4096.
        backbone_weights: "imagenet", "none", or the path of weights; None for "imagenet" where the
            variant's network is known by name.
        cache: folder for the features of a frozen backbone; None computes them at every step.
        max_bad: share of the captions that may be unusable.
        command: the command line, for the record.
        flags: the command line's long options and their values, for the record.

    Raises:
        FileNotFoundError: for a model, tokenizer or weights that are not there.
        ValueError: for options or settings that do not fit.
    """

    model: str | PathLike
    out: Path
    settings: Sequence[str] = ()
    tokenizer: Path | None = None
    vocabulary_size: int | None = None
    backbone_weights: str | None = None
    cache: Path | None = None
    max_bad: float = 0.01
    command: Sequence[str] = ()
    flags: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"Expected max_bad from 0 to 1. Received: max_bad={self.max_bad}")
        if self.out.exists() and not self.out.is_dir():
            raise FileExistsError(f"Expected a run folder. Received: {self.out}, which is a file")
        if (self.out / "last").exists():
            raise FileExistsError(
                f"Expected a new run folder. Received: {self.out}, which holds the presets of an "
                "earlier run; choose another folder, or remove it"
            )
        if self.preset is not None:
            self._refuse_options_of_variants()
        if self.tokenizer is not None and self.vocabulary_size is not None:
            raise ValueError(
                "Expected a tokenizer, or the size of the vocabulary to train one of. "
                f"Received: both: {self.tokenizer} and {self.vocabulary_size}"
            )
        if self.tokenizer is not None and not Path(self.tokenizer).is_dir():
            raise FileNotFoundError(f"Expected a tokenizer's folder. Received: {self.tokenizer}")
        weights = self.backbone_weights
        if weights not in (None, "imagenet", "none") and not Path(weights).exists():
            raise FileNotFoundError(
                f"Expected backbone weights: imagenet, none, or a file. Received: {weights!r}"
            )
        self.training  # noqa: B018  its own checks

    def _refuse_options_of_variants(self) -> None:
        for name in ("tokenizer", "vocabulary_size", "backbone_weights"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"Expected no {name.replace('_', ' ')}: the preset {str(self.model)!r} has its "
                    f"own. Received: {name}={str(getattr(self, name))!r}"
                )

    @cached_property
    def preset(self) -> Path | None:
        """Folder of the preset to go on from; None for a variant."""
        try:
            return preset_folder(self.model)
        except FileNotFoundError:
            return None

    @cached_property
    def hparams(self) -> dict:
        """The model's hyperparameters, with the settings made."""
        if self.preset is None:
            return set_hparams(self._variant(), self.settings)
        config = read_json(self.preset / CONFIG, ("encoder", "decoder"))
        parts = {name: config[name] for name in ("encoder", "decoder")}
        return set_hparams(parts, self.settings)

    def _variant(self) -> dict:
        try:
            return load_hparams(self.model)
        except FileNotFoundError:
            presets = ", ".join(list_presets())
            best = Path(self.model) / "best"
            hint = f"; do you mean {best}?" if (best / CONFIG).is_file() else ""
            raise FileNotFoundError(
                f"Expected a variant ({', '.join(list_variants())}), a preset "
                f"({presets + ', or ' if presets else ''}the folder of one), or a JSON file of "
                f"hyperparameters. Received: {str(self.model)!r}{hint}"
            ) from None

    @cached_property
    def training(self) -> TrainingOptions:
        """How to train: the variant's "training" section, with the settings made."""
        return TrainingOptions.of(self.hparams.get("training", {}))
