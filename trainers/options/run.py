"""What a run is to do, checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from effcap.config import list_variants, load_hparams, read_json, set_hparams
from effcap.presets import CONFIG, list_presets, preset_folder
from effcap.trainers.distributed.devices import Devices
from effcap.trainers.engine.run_folder import BEST, CHECKPOINT, LAST
from effcap.trainers.options.scst import ScstOptions
from effcap.trainers.options.training import TrainingOptions
from effcap.weights.backbone_weights import check_backbone_weights

# What self-critical training does where it is not told: it changes a captioner that is trained.
SCST_TRAINING = {"learning_rate": 5e-5, "epochs": 5}
EARLIER = (CHECKPOINT, LAST, BEST)  # what a run folder holds once its run has begun


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run needs besides its data.

    Attributes:
        model: a variant to train from scratch, or a preset to go on from.
        out: run folder; one that holds an earlier run is refused, unless with `resume`.
        resume: go on with the run in `out`, where there is one.
        settings: changes of hyperparameters, such as "decoder.dropout=0.1".
        tokenizer: folder of a tokenizer for a variant; None trains one on the captions.
        vocabulary_size: of the tokenizer trained on the captions; None for 4096.
        backbone_weights: "imagenet", "none", or the path of weights; None for "imagenet" where the
            variant's network is known by name.
        weights: folder of GPT-2's weights for a variant, see `effcap.tools.load_gpt2`; its
            tokenizer is used, too, unless another is given.
        cache: folder for the features of a frozen backbone; None computes them at every step.
        train_percentage: share of the training photos to use, such as 0.001 for 0.1 %, chosen by
            the seed; all of them by default.
        max_bad: share of the captions that may be unusable.
        checkpoint_minutes: between two checkpoints; there is one after each epoch besides.
        checkpoint_steps: between two checkpoints, in place of the minutes.
        devices: what to compute on; by default one device.
        scst: how to train on sampled captions and their rewards; None for cross-entropy.
        command: the command line, for the record.
        flags: the command line's long options and their values, for the record.

    Raises:
        FileNotFoundError: for a model, tokenizer or weights that are not there.
        ValueError: for options or settings that do not fit.
    """

    model: str | PathLike
    out: str | PathLike
    resume: bool = False
    settings: Sequence[str] = ()
    tokenizer: Path | None = None
    vocabulary_size: int | None = None
    backbone_weights: str | None = None
    weights: Path | None = None
    cache: Path | None = None
    train_percentage: float = 1.0
    max_bad: float = 0.01
    checkpoint_minutes: float = 10.0
    checkpoint_steps: int | None = None
    devices: Devices = Devices()
    scst: ScstOptions | None = None
    command: Sequence[str] = ()
    flags: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self._check_numbers()
        self._check_folder()
        if self.preset is not None:
            self._refuse_options_of_variants()
        if self.tokenizer is not None and self.vocabulary_size is not None:
            raise ValueError(
                "Expected a tokenizer, or the size of the vocabulary to train one of. "
                f"Received: both: {self.tokenizer} and {self.vocabulary_size}"
            )
        if self.tokenizer is not None and not Path(self.tokenizer).is_dir():
            raise FileNotFoundError(f"Expected a tokenizer's folder. Received: {self.tokenizer}")
        if self.weights is not None and not Path(self.weights).is_dir():
            raise FileNotFoundError(
                f"Expected a folder with GPT-2's weights. Received: {self.weights}"
            )
        if self.scst is not None and (self.devices.hosts, self.devices.count) != (1, 1):
            raise ValueError(
                "Expected one device for self-critical training. "
                f"Received: devices={self.devices.count}, hosts={self.devices.hosts}"
            )
        if self.cache is not None and self.devices.hosts > 1:
            raise ValueError(
                "Expected no cache of features with several hosts: each would write it. "
                f"Received: cache={str(self.cache)!r}, hosts={self.devices.hosts}"
            )
        check_backbone_weights(self.backbone_weights)
        self.training  # noqa: B018  its own checks

    def _check_numbers(self) -> None:
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"Expected max_bad from 0 to 1. Received: max_bad={self.max_bad}")
        if not 0 < self.train_percentage <= 1:
            raise ValueError(
                "Expected train_percentage, a share of the photos, above 0 and up to 1. "
                f"Received: train_percentage={self.train_percentage}"
            )
        if not self.checkpoint_minutes > 0:
            raise ValueError(
                "Expected checkpoint_minutes above 0. "
                f"Received: checkpoint_minutes={self.checkpoint_minutes}"
            )
        if self.checkpoint_steps is not None and self.checkpoint_steps < 1:
            raise ValueError(
                "Expected checkpoint_steps of at least 1. "
                f"Received: checkpoint_steps={self.checkpoint_steps}"
            )

    def _check_folder(self) -> None:
        out = self.folder
        if out.exists() and not out.is_dir():
            raise FileExistsError(f"Expected a run folder. Received: {out}, which is a file")
        if not self.resume and any((out / name).exists() for name in EARLIER):
            raise FileExistsError(
                f"Expected a new run folder. Received: {out}, which holds an earlier run; go on "
                "with it (--resume), choose another folder, or remove it"
            )

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.out)

    @property
    def tokenizer_folder(self) -> Path | None:
        """Folder of the tokenizer: the one given, or that of GPT-2's weights; None for none."""
        return self.tokenizer or self.weights

    def _refuse_options_of_variants(self) -> None:
        for name in ("tokenizer", "vocabulary_size", "backbone_weights", "weights"):
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
            raise FileNotFoundError(
                f"Expected a variant ({', '.join(list_variants())}), a preset "
                f"({presets + ', or ' if presets else ''}the folder of one), or a JSON file of "
                f"hyperparameters. Received: {str(self.model)!r}"
            ) from None

    @cached_property
    def training(self) -> TrainingOptions:
        """How to train: the variant's "training" section, with the settings made."""
        given = self.hparams.get("training", {})
        return TrainingOptions.of({**(SCST_TRAINING if self.scst else {}), **given})

    def batch_options(self, name: str) -> dict[str, Any]:
        """Options of the batches of "training" or "validation" data that all data have.

        Returns:
            max_bad and log, as in `check_share`; batch_size, captions_per_photo, shuffle and seed,
            as in `PackedBatches`; passes over the photos in an epoch.
        """
        return {
            "max_bad": self.max_bad,
            "log": self.folder / f"left_out_{name}.txt",
            "batch_size": self.training.batch_size,
            "captions_per_photo": self.training.captions_per_photo,
            "passes": self.training.passes if name == "training" else 1,
            "shuffle": name == "training",
            "seed": self.training.seed,
        }
