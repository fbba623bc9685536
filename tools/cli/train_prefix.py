"""Options of `effcap train` for captioners with a prefix, such as OPG and ClipCap."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from effcap.tools.cli.options import add_options, given_options, option_flag

if TYPE_CHECKING:
    from effcap.trainers.options import RunOptions

PREFIX = ("sparse_mask", "threshold", "npair")
TRAINING = ("npair_weight",)  # fields of `TrainingOptions`
FLAGS = {"npair_weight": "npair"}
VARIANTS = "opg-mlp, opg-transformer, clipcap-mlp and clipcap-transformer"


def add_prefix_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the mask and the n-pair loss of prefixes."""
    from effcap.trainers.options import TrainingOptions

    group = parser.add_argument_group(
        "prefix",
        f"For captioners with a prefix, such as {VARIANTS}. "
        "The variant or the preset may set other defaults.",
    )
    group.add_argument(
        "--sparse-mask",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="mask the prefix positions with low scores, as in OPG (default: no)",
    )
    group.add_argument(
        "--threshold",
        type=float,
        metavar="X",
        help="score up to which the mask leaves a position out, from 0 to below 1 (default: 0.5)",
    )
    add_options(group, TrainingOptions, TRAINING, flags=FLAGS, unset="{}")


def prefix_training(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the fields of `TrainingOptions` that the options of the prefix set."""
    return given_options(arguments, TRAINING, flags=FLAGS)


def prefix_decoder(arguments: argparse.Namespace, options: RunOptions) -> dict[str, Any]:
    """Returns the hyperparameters of the decoder that --sparse-mask and --threshold change.

    Args:
        arguments: parsed arguments.
        options: options of the run without these two.

    Raises:
        ValueError: a value is out of range, or does not fit the model or the objective.
    """
    from effcap.trainers.options.run import CROSS_ENTROPY

    given = given_options(arguments, PREFIX)
    if not given:
        return {}
    mask_option = "--sparse-mask" if given.get("sparse_mask") else "--no-sparse-mask"
    option = mask_option if "sparse_mask" in given else option_flag(next(iter(given)))
    fusion = (options.hparams["decoder"] or {}).get("fusion")
    kind = fusion.get("kind") if isinstance(fusion, Mapping) else fusion
    if kind != "prefix" or not isinstance(fusion, Mapping):
        raise ValueError(
            f"{option} requires a captioner with a prefix, such as {VARIANTS}. {options.model} has "
            f"decoder.fusion.kind={kind!r}: leave {option} out or choose another --model"
        )
    if given.get("npair") and options.objective != CROSS_ENTROPY:
        raise ValueError(
            f"--npair requires --objective {CROSS_ENTROPY}; the loss of {options.objective} has no "
            "n-pair loss"
        )
    had_mask = fusion.get("sparse_mask") is not None
    has_mask = given.get("sparse_mask", had_mask)
    if options.preset is not None and has_mask != had_mask:
        raise ValueError(
            f"--sparse-mask and --no-sparse-mask apply to variants: the preset {options.model} was "
            f"trained {'with' if had_mask else 'without'} a mask. Leave {mask_option} out"
        )
    mask: dict[str, float] = {}
    if "threshold" in given:
        if not has_mask:
            problem = f", and {options.model} has none: add --sparse-mask"
            if "sparse_mask" in given:
                problem = ": leave --no-sparse-mask out"
            raise ValueError(f"--threshold requires a mask{problem}")
        mask["threshold"] = check_threshold(given["threshold"])
    changes_mask = mask or "sparse_mask" in given
    return {"fusion": {"sparse_mask": mask if has_mask else None}} if changes_mask else {}


def check_threshold(threshold: float) -> float:
    """Returns the threshold; raises a `ValueError` if it is out of range."""
    if not 0 <= threshold < 1:
        raise ValueError(
            "Expected --threshold from 0 up to but not including 1. "
            f"Received: threshold={threshold}"
        )
    return threshold
