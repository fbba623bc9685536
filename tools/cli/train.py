"""`effcap train`: photos with captions into a trained captioner."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.tools.cli.parsing import add_config, flags_of
from effcap.tools.cli.terminal import start_keras

if TYPE_CHECKING:
    from effcap.trainers import RunOptions

FLAGS_OF_TRAINING = ("epochs", "steps", "batch_size", "learning_rate", "seed", "mirror")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `train` with its sources of data."""
    train = commands.add_parser(
        "train", help="train a captioner", description="Trains a captioner."
    )
    sources = train.add_subparsers(title="data", dest="source", metavar="DATA", required=True)
    csv = sources.add_parser(
        "csv",
        help="from CSV files: a photo and a caption per line",
        description="Trains a captioner on CSV files with a photo and a caption per line.",
    )
    csv.set_defaults(run=run_csv, parser=csv)
    data = csv.add_argument_group("data")
    data.add_argument(
        "--csv", nargs="+", type=Path, required=True, metavar="FILE", help="training captions"
    )
    data.add_argument("--val-csv", nargs="+", type=Path, metavar="FILE", help="held-out captions")
    data.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the photos; by default the CSV's own"
    )
    data.add_argument("--image-column", default="image", metavar="NAME", help="column of the photo")
    data.add_argument(
        "--caption-column", default="caption", metavar="NAME", help="column of the caption"
    )
    data.add_argument(
        "--tidy",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="tidy captions: single spaces, a capital first letter, a full stop",
    )
    add_run_arguments(csv)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what every source of data shares."""
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        required=True,
        metavar="VARIANT|PRESET",
        help="variant to train from scratch, or preset to go on from (see `effcap list`)",
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
        help="change a hyperparameter, such as decoder.dropout=0.1 or training.ema=0.99",
    )
    training = parser.add_argument_group("training (what is not given is as the variant says)")
    for flag, kind, metavar, text in (
        ("epochs", int, "N", "passes over the photos"),
        ("steps", int, "N", "length of the run in steps, in place of --epochs"),
        ("batch-size", int, "N", "photos per step, each with its captions"),
        ("learning-rate", float, "X", "the highest, at the end of the warmup"),
        ("seed", int, "N", "of weights, order and dropout"),
    ):
        training.add_argument(f"--{flag}", type=kind, metavar=metavar, help=text)
    training.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="mirror photos at random, except where a caption says left or right",
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
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="run folder")
    add_config(parser)


def run_csv(arguments: argparse.Namespace) -> None:
    """Runs `effcap train csv`."""
    from effcap.trainers import read_csvs, tidy

    options = run_options(arguments)
    columns = (arguments.image_column, arguments.caption_column)
    edit = tidy if arguments.tidy else None
    training, validation = (
        read_csvs(paths, arguments.images, *columns, edit) if paths else None
        for paths in (arguments.csv, arguments.val_csv)
    )
    start_keras()
    from effcap.trainers.progress import say
    from effcap.trainers.run import run

    run(training, validation, options)
    say(f"best: {arguments.out / 'best'}, last: {arguments.out / 'last'}")


def run_options(arguments: argparse.Namespace) -> RunOptions:
    """What `add_run_arguments` took, checked."""
    from effcap.trainers import RunOptions

    given = vars(arguments)
    settings = [
        f"training.{name}={str(given[name]).lower()}"
        for name in FLAGS_OF_TRAINING
        if given[name] is not None
    ]
    return RunOptions(
        model=arguments.model,
        out=arguments.out,
        settings=[*arguments.set, *settings],
        tokenizer=arguments.tokenizer,
        vocabulary_size=arguments.vocab_size,
        backbone_weights=arguments.backbone_weights,
        cache=arguments.cache_features,
        max_bad=arguments.max_bad,
        command=["effcap", *arguments.arguments],
        flags=flags_of(arguments),
    )
