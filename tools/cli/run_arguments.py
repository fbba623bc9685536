"""The options of `effcap train` that every source of data shares."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.tools.cli.parsing import add_config, flags_of

if TYPE_CHECKING:
    from effcap.trainers import RunOptions

# Flags that are settings of the "training" section: flag, type, metavar, help.
TRAINING = (
    ("epochs", int, "N", "passes over the photos"),
    ("steps", int, "N", "length of the run in steps, in place of --epochs"),
    ("batch-size", int, "N", "photos per step, each with its captions"),
    ("captions-per-photo", int, "N", "at most so many per photo, chosen anew each epoch"),
    ("gradient-accumulation", int, "N", "steps whose gradients make one update"),
    ("learning-rate", float, "X", "the highest, at the end of the warmup"),
    ("backbone-learning-rate", float, "X", "for the backbone, where it is trained"),
    ("decoder-learning-rate", float, "X", "for what GPT-2 brings along, where it is trained"),
    ("patience", int, "N", "end the run after so many epochs without a better validation score"),
    ("cider-photos", int, "N", "held-out photos captioned for CIDEr after each epoch (1000)"),
    ("precision", str, "float32|bfloat16", "bfloat16 computes in half the bits"),
    ("crop", float, "SHARE", "crop photos at random, to no less than this share of their area"),
    ("colour", float, "X", "change brightness, contrast and saturation at random, from 0 to 1"),
    ("seed", int, "N", "of weights, order, augmentation and dropout"),
)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds them."""
    _add_model(parser.add_argument_group("model"))
    _add_training(parser.add_argument_group("training (what is not given is as the variant says)"))
    _add_run(parser.add_argument_group("run"))
    add_config(parser)


def _add_model(model) -> None:
    model.add_argument(
        "--model",
        metavar="VARIANT|PRESET",
        help="variant to train from scratch, or preset to go on from (see `effcap list`)",
    )
    model.add_argument(
        "--weights",
        type=Path,
        metavar="DIR",
        help="GPT-2's weights and tokenizer for a variant: OpenAI's checkpoint or Hugging Face's "
        "folder",
    )
    model.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="a tokenizer's folder, such as GPT-2's"
    )
    model.add_argument(
        "--vocab-size",
        type=int,
        metavar="N",
        help="size of the vocabulary learned from the captions where there is no tokenizer "
        "(4096 if not given)",
    )
    model.add_argument(
        "--backbone-weights",
        metavar="imagenet|none|FILE",
        help="weights of the backbone of a variant (imagenet if not given)",
    )
    model.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="change a hyperparameter, such as decoder.dropout=0.1, decoder.frozen=embeddings, "
        "encoder.backbone.trainable_blocks=3 or training.ema=0.99",
    )


def _add_training(training) -> None:
    for flag, kind, metavar, text in TRAINING:
        training.add_argument(f"--{flag}", type=kind, metavar=metavar, help=text)
    training.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="mirror photos at random, except where a caption says left or right",
    )
    training.add_argument(
        "--train-percentage",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="share of the training photos to use, such as 0.001 for 0.1 %%, chosen by the seed",
    )
    training.add_argument(
        "--cache-features",
        type=Path,
        metavar="DIR",
        help="keep a frozen backbone's features there, so that later epochs skip it",
    )
    training.add_argument(
        "--max-bad",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="share of the captions that may be unusable, they or their photos",
    )


def _add_run(run) -> None:
    run.add_argument("--out", type=Path, metavar="DIR", help="run folder")
    run.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in the run folder, where there is one, as if it had never stopped",
    )
    run.add_argument(
        "--checkpoint-minutes",
        type=float,
        default=10.0,
        metavar="N",
        help="between two checkpoints; there is one after each epoch besides",
    )
    run.add_argument(
        "--checkpoint-steps",
        type=int,
        metavar="N",
        help="steps between two checkpoints, in place of minutes",
    )
    run.add_argument(
        "--devices",
        type=device_count,
        default=1,
        metavar="N|all",
        help="devices of each host that share every batch: GPUs, where there are any",
    )
    run.add_argument(
        "--hosts",
        type=int,
        default=1,
        metavar="N",
        help="train on so many hosts (with KERAS_BACKEND=jax): start this command on each, with "
        "the same files, --out and --coordinator, and its own --host",
    )
    run.add_argument(
        "--host", type=int, default=0, metavar="I", help="which of the hosts this is, from 0"
    )
    run.add_argument(
        "--coordinator", metavar="HOST:PORT", help="address of host 0, and a free port there"
    )
    run.add_argument(
        "--smoke",
        action="store_true",
        help="only try the configuration: three steps at tiny size on generated photos",
    )


def device_count(text: str) -> int | str:
    """The value of --devices."""
    if text != "all" and not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a number, or all. Received: {text}")
    return text if text == "all" else int(text)


def run_options(arguments: argparse.Namespace) -> RunOptions:
    """What `add_run_arguments` took, checked; a smoke run takes one device."""
    from effcap.trainers import RunOptions
    from effcap.trainers.distributed.devices import Devices

    given = vars(arguments)
    names = [flag.replace("-", "_") for flag, *_ in TRAINING] + ["mirror"]
    settings = [
        f"training.{name}={str(given[name]).lower()}" for name in names if given[name] is not None
    ]
    devices = Devices(
        count=arguments.devices,
        hosts=arguments.hosts,
        host=arguments.host,
        coordinator=arguments.coordinator,
    )
    return RunOptions(
        model=arguments.model,
        out=arguments.out,
        resume=arguments.resume,
        settings=[*arguments.set, *settings],
        tokenizer=arguments.tokenizer,
        vocabulary_size=arguments.vocab_size,
        backbone_weights=arguments.backbone_weights,
        weights=arguments.weights,
        cache=arguments.cache_features,
        train_percentage=arguments.train_percentage,
        max_bad=arguments.max_bad,
        checkpoint_minutes=arguments.checkpoint_minutes,
        checkpoint_steps=arguments.checkpoint_steps,
        devices=Devices() if arguments.smoke else devices,
        command=["effcap", *arguments.arguments],
        flags=flags_of(arguments),
    )
