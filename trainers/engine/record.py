"""Records the configuration of a run, for run.json and for the check of resumed runs."""

from __future__ import annotations

import os
import platform
import shlex
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import keras

import effcap
from effcap.trainers.batching.packed import PackedBatches
from effcap.trainers.distributed.devices import describe_devices
from effcap.trainers.engine.loop import RunBatches
from effcap.trainers.engine.model import MODEL_SECTIONS
from effcap.trainers.objectives.base import Objective
from effcap.trainers.options.run import SCST, RunOptions, flatten
from effcap.trainers.options.scst import ScstOptions
from effcap.trainers.options.training import TrainingOptions

if TYPE_CHECKING:
    from effcap.captioner import Captioner


def make_record(captioner: Captioner, batches: RunBatches, options: RunOptions) -> dict[str, Any]:
    """Returns the configuration of a run for run.json and the presets' training.json."""
    datasets = {"training": batches.training, "validation": batches.validation}
    return {
        "command": shlex.join(map(str, options.command)),
        "config": dict(options.config),
        "model": str(options.model),
        "objective": options.objective,
        **({"scst": asdict(options.scst)} if options.objective == SCST else {}),
        "hparams": {**captioner.hparams(), "training": asdict(options.training_options)},
        **({"prefix": options.text_prefix} if options.text_prefix else {}),
        **({"adapters": captioner.adapter_config()} if captioner.adapters else {}),
        "changed": changed_settings(options),
        "train_fraction": options.train_fraction,
        "tokenizer": batches.training.tokenizer.fingerprint,
        "data": {
            name: count_data(dataset) for name, dataset in datasets.items() if dataset is not None
        },
        "versions": {
            "effcap": effcap.__version__,
            "keras": keras.__version__,
            keras.backend.backend(): backend_version(),
            "python": platform.python_version(),
        },
        "machine": {
            "device": describe_devices(options.devices),
            "cores": os.cpu_count(),
            "system": platform.platform(aliased=True, terse=True),
        },
    }


def changed_settings(options: RunOptions) -> dict[str, Any]:
    """Returns the defaults of the settings that differ from them, by dotted name.

    The default is that of the variant, preset or objective; None if it has none of its own.
    """
    training = TrainingOptions.from_dict(
        {**options.training_defaults, **options.default_hparams.get("training", {})}
    )
    fields: tuple[dict[str, Any], ...] = tuple(
        {name: getattr(source, name) for name in ("objective", "train_fraction")}
        for source in (RunOptions, options)
    )
    pairs = [
        fields,
        ({name: options.default_hparams[name] for name in MODEL_SECTIONS},
         {name: options.hparams[name] for name in MODEL_SECTIONS}),
        ({"training": vars(training)}, {"training": vars(options.training_options)}),
        ({"scst": asdict(ScstOptions())}, {"scst": asdict(options.scst)}),
    ]  # fmt: skip
    changed: dict[str, Any] = {}
    for defaults, values in pairs:
        known = dict(flatten(defaults))
        changed |= {
            name: known.get(name)
            for name, value in flatten(values)
            if name not in known or known[name] != value
        }
    return changed


def count_data(batches: PackedBatches) -> dict[str, float]:
    """Returns the numbers of photos and captions used, and of captions left out."""
    return {
        "photos": batches.num_images,
        "captions": batches.num_captions,
        "left_out": sum(problem.num_captions for problem in batches.problems),
        "padding": round(float(batches.padding), 4),
    }


def backend_version() -> str:
    """Returns the version of the backend's package."""
    try:
        return version(keras.backend.backend())
    except PackageNotFoundError:  # the package has another name, such as tensorflow-cpu
        return "unknown"


def run_identity(
    captioner: Captioner, objective: Objective, batches: RunBatches, options: RunOptions
) -> dict[str, Any]:
    """Returns all options and data that a resumed run must have in common with its checkpoint."""
    training, validation = batches.training, batches.validation
    values = {
        **captioner.hparams(),
        **({"adapters": captioner.adapter_config()} if captioner.adapters else {}),
        "training": vars(options.training_options),
        "objective": objective.name,
        **objective.identity(),
        "backend": keras.backend.backend(),
        "tokenizer": training.tokenizer.fingerprint,
        **({"prefix": options.text_prefix} if options.text_prefix else {}),
        "training data": training.fingerprint,
        "validation data": None if validation is None else validation.fingerprint,
    }
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in flatten(values)
    }
