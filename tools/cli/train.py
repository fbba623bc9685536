"""`effcap train`: photos with captions into a trained captioner."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.tools.cli.data_arguments import (
    CSV,
    JSON,
    KINDS,
    PLAYLISTS,
    SHARDS,
    add_data_arguments,
    missing_data,
    read_data,
)
from effcap.tools.cli.run_arguments import add_run_arguments, run_options
from effcap.tools.cli.terminal import start_keras

if TYPE_CHECKING:
    from effcap.trainers.options.scst import ScstOptions

# Commands: name, kinds of data, what they are for.
COMMANDS = (
    ("csv", (CSV,), "from CSV files: a photo and a caption per line"),
    ("json", (JSON,), "from JSON files: COCO's captions, or a list of photos with captions"),
    ("dali", (SHARDS,), "from webdataset shards, decoded by NVIDIA DALI or by Pillow"),
    ("regions", (CSV, JSON), "from region features, such as VisualGPT's detections.hdf5"),
    ("playlists", (PLAYLISTS,), "from playlists: captions, and features of tracks, tags, artists"),
    ("scst", KINDS, "go on with a trained captioner, rewarding the captions it samples (SCST)"),
)
# Options of `train scst`: flag, type, metavar, help.
SCST = (
    ("samples", int, "N", "captions sampled per photo (5)"),
    ("temperature", float, "X", "of the sampling (1)"),
    ("p", float, "X", "share of probability to sample from (1)"),
    ("max-tokens", int, "N", "of a sample (30)"),
    ("baseline", str, "others|greedy", "what a reward is compared with (others)"),
    ("cross-entropy", float, "SHARE", "of the loss that is cross-entropy on references (0)"),
    ("min-distinct", float, "SHARE", "stop when captions collapse to fewer distinct ones (0.1)"),
)
REWARD = (
    ("bleu", float, "X", "weight of BLEU-4, added to CIDEr-D (0)"),
    ("length", float, "X", "taken off per word more or fewer than references have (0)"),
)


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `train` with its sources of data."""
    train = commands.add_parser(
        "train", help="train a captioner", description="Trains a captioner."
    )
    sources = train.add_subparsers(title="data", dest="source", metavar="DATA", required=True)
    for name, kinds, text in COMMANDS:
        parser = sources.add_parser(name, help=text, description=f"Trains a captioner {text}.")
        parser.set_defaults(run=run, parser=parser)
        add_data_arguments(parser, *kinds, regions=name in ("regions", "scst"))
        if name == "scst":
            group = parser.add_argument_group("self-critical training")
            for flag, kind, metavar, text in SCST + REWARD:
                group.add_argument(f"--{flag}", type=kind, metavar=metavar, help=text)
        add_run_arguments(parser)
        if name in ("regions", "playlists"):
            add_gates(parser, name)


def add_gates(parser: argparse.ArgumentParser, source: str) -> None:
    """Adds the options of a gated fusion."""
    group = parser.add_argument_group("gated fusion")
    group.add_argument(
        "--tau",
        dest="set",
        action="append",
        type=tau_setting,
        metavar="X",
        help="threshold of the gates, as --set decoder.fusion.tau=X",
    )
    if source == "playlists":
        for flag, value in (("--gate", "true"), ("--no-gate", "false")):
            setting = f"decoder.fusion.gate={value}"
            group.add_argument(
                flag, dest="set", action="append_const", const=setting, help=f"as --set {setting}"
            )


def tau_setting(text: str) -> str:
    """The value of --tau as a setting."""
    return f"decoder.fusion.tau={float(text)}"


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap train`."""
    missing = [] if arguments.smoke else [missing_data(arguments)]
    needed = ("model",) if arguments.smoke else ("model", "out")
    if arguments.source == "regions" and not arguments.smoke:
        needed = ("features", *needed)
    missing += [f"--{name}" for name in needed if not vars(arguments)[name]]
    if any(missing):
        names = ", ".join(filter(None, missing))
        arguments.parser.error(f"the following arguments are required: {names}")
    if arguments.smoke:
        run_smoke(arguments)
        return
    options = replace(run_options(arguments), scst=scst_options(arguments))
    training, validation = read_data(arguments)
    start_keras()
    from effcap.trainers import run
    from effcap.utils.progress import say

    run(training, validation, options)
    say(f"best: {arguments.out / 'best'}, last: {arguments.out / 'last'}")


def scst_options(arguments: argparse.Namespace) -> ScstOptions | None:
    """What `train scst` was told of sampling and rewards; None for the other commands."""
    if arguments.source != "scst":
        return None
    from effcap.trainers.options.scst import RewardOptions, ScstOptions

    how, reward = (
        {
            flag.replace("-", "_"): vars(arguments)[flag.replace("-", "_")]
            for flag, *_ in options
            if vars(arguments)[flag.replace("-", "_")] is not None
        }
        for options in (SCST, REWARD)
    )
    return ScstOptions(**how, reward=RewardOptions(**reward))


def run_smoke(arguments: argparse.Namespace) -> None:
    """Tries the configuration, in a folder that is gone afterwards."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="effcap-smoke-") as folder:
        arguments.out = arguments.out or Path(folder) / "run"
        options = replace(run_options(arguments), scst=scst_options(arguments))
        start_keras()
        from effcap.trainers.engine.smoke import smoke

        smoke(replace(options, out=Path(folder) / "run", resume=False), Path(folder))
