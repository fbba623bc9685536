"""Options of `effcap train` for adapters (LoRA)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from effcap.adapters.lora_config import LoraConfig
from effcap.tools.cli.options import add_options, field_help, given_options

NUMBERS = ("rank", "alpha", "dropout")
FLAGS = {name: f"lora_{name}" for name in (*NUMBERS, "targets")}


def add_lora_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of an adapter."""
    group = parser.add_argument_group(
        "adapter",
        "Any of these trains a low-rank adapter (LoRA) of a preset, and leaves the preset as it "
        "is. --set lora.NAME=VALUE sets the others: exclude, bias, use_rslora, rank_pattern and "
        "alpha_pattern.",
    )
    add_options(group, LoraConfig, NUMBERS, flags=FLAGS, unset="{}")
    group.add_argument(
        "--lora-targets",
        nargs="+",
        metavar="NAME",
        help=f"{field_help(LoraConfig, 'targets')} (default: attention mlp)",
    )


def lora_config(
    arguments: argparse.Namespace, settings: Mapping[str, Any]
) -> dict[str, LoraConfig]:
    """Returns the field "lora" of `RunOptions`; {} without options of an adapter.

    Args:
        arguments: parsed arguments.
        settings: settings of the section lora.

    Raises:
        ValueError: a setting is unknown or out of range.
    """
    given = given_options(arguments, [*NUMBERS, "targets"], flags=FLAGS)
    values = {**settings, **given}
    return {"lora": LoraConfig.from_dict(values)} if values else {}
