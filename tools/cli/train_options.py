"""Options of `effcap train` for all sources of data."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from effcap.config import merge_hparams
from effcap.tools.cli.options import add_options, field_help, given_options
from effcap.tools.cli.parsing import (
    add_config,
    add_settings,
    check_fields,
    parse_sections,
    recorded_options,
)
from effcap.tools.cli.train_lora import add_lora_options, lora_config
from effcap.tools.cli.train_prefix import add_prefix_options, prefix_decoder, prefix_training

if TYPE_CHECKING:
    from effcap.trainers.options import RunOptions

SECTIONS = ("encoder", "decoder", "lora", "training", "scst", "run")
MODEL = ("model", "weights", "tokenizer", "vocabulary", "backbone_weights")
TRAINING = ("epochs", "steps", "batch_size", "learning_rate", "schedule", "tokenization", "seed")
AUGMENTATION = ("horizontal_flip", "random_crop")
DEVICES = ("count", "num_processes", "process_index", "coordinator")
FLAGS = {"count": "devices", "tokenization": "tokenize"}
METAVARS = {
    "model": "VARIANT|PRESET",
    "weights": "DIR",
    "tokenizer": "DIR",
    "backbone_weights": "imagenet|none|FILE|PRESET",
    "objective": "cross-entropy|scst",
    "schedule": "cosine|linear",
    "tokenization": "ptb|unicode|char",
    "feature_cache": "DIR",
    "out": "DIR",
    "coordinator": "HOST:PORT",
}
EPILOG = (
    "--set changes any setting of the sections encoder, decoder, lora, training, scst and run. "
    "`effcap list VARIANT` lists them with their values."
)


def add_run_options(parser: argparse.ArgumentParser, photos: bool) -> None:
    """Adds the options of the model, the training and the run.

    Args:
        parser: parser of the command.
        photos: whether the data are photos, which can be augmented and cached.
    """
    from effcap.trainers.options import DeviceOptions, RunOptions, TrainingOptions

    model = parser.add_argument_group("model")
    add_options(model, RunOptions, MODEL, metavars=METAVARS, unset="{}")
    add_settings(model, "decoder.dropout=0.2", "training.ema_momentum=0.99")
    training = parser.add_argument_group(
        "training", "The variant or the objective may set other defaults."
    )
    add_options(training, RunOptions, ("objective",), metavars=METAVARS)
    add_options(training, TrainingOptions, TRAINING, flags=FLAGS, metavars=METAVARS, unset="{}")
    if photos:
        add_options(training, TrainingOptions, AUGMENTATION, unset="{}")
        add_options(training, RunOptions, ("feature_cache",), metavars=METAVARS)
    add_prefix_options(parser)
    add_lora_options(parser)
    run = parser.add_argument_group("run")
    add_options(run, RunOptions, ("out", "log"), metavars=METAVARS, unset="{}")
    run.add_argument("--resume", action="store_true", help=field_help(RunOptions, "resume"))
    add_config(run)
    run.add_argument(
        "--smoke",
        action="store_true",
        help="try the configuration: three steps of a small copy on generated data",
    )
    add_options(run, DeviceOptions, DEVICES, flags=FLAGS, metavars=METAVARS)
    parser.epilog = EPILOG


def run_options(arguments: argparse.Namespace, **changes: Any) -> RunOptions:
    """Returns the options of a run, checked.

    Args:
        arguments: parsed arguments.
        **changes: fields of `RunOptions` to replace.

    Raises:
        ValueError: an option or a setting is unknown, out of range or in conflict with another.
    """
    from effcap.trainers.options import DeviceOptions, RunOptions, ScstOptions

    sections = parse_sections(arguments.set, SECTIONS)
    check_sections(arguments, sections)
    names = [*TRAINING, *(name for name in AUGMENTATION if name in arguments)]
    fields = {
        **given_options(arguments, [*MODEL, "out", "log", "prefix", "train_fraction", "max_bad"]),
        "objective": arguments.objective,
        **lora_config(arguments, sections["lora"]),
        "encoder": sections["encoder"],
        "decoder": sections["decoder"],
        "training": {
            **sections["training"],
            **given_options(arguments, names, flags=FLAGS),
            **prefix_training(arguments),
        },
        "scst": ScstOptions(**sections["scst"]),
        "devices": DeviceOptions(**given_options(arguments, DEVICES, flags=FLAGS)),
        "resume": arguments.resume,
        "feature_cache": getattr(arguments, "feature_cache", None),
        **sections["run"],
        "command": ["effcap", *arguments.arguments],
        "config": recorded_options(arguments),
    }
    options = RunOptions(**{**fields, **changes})
    decoder = prefix_decoder(arguments, options)
    if not decoder:
        return options
    merged = merge_hparams({"decoder": options.decoder}, {"decoder": decoder})
    return dataclasses.replace(options, decoder=merged["decoder"])


def check_sections(
    arguments: argparse.Namespace, sections: Mapping[str, Mapping[str, Any]]
) -> None:
    """Checks the settings of the sections scst and run.

    Raises:
        ValueError: a setting is unknown, has another type or needs another objective.
    """
    from effcap.trainers.options import RunOptions, ScstOptions
    from effcap.trainers.options.run import CHECKPOINT_FIELDS

    check_fields(ScstOptions, "scst", sections["scst"])
    if sections["scst"] and arguments.objective != "scst":
        name = next(iter(sections["scst"]))
        raise ValueError(f"--set scst.{name} requires --objective scst")
    for name in sections["run"]:
        if name not in CHECKPOINT_FIELDS:
            raise ValueError(
                f"Unknown setting run.{name}. The settings are {', '.join(CHECKPOINT_FIELDS)}"
            )
    check_fields(RunOptions, "run", sections["run"])
