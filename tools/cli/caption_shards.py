"""`effcap caption --shards`: captions webdataset shards to Parquet files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.tools.captioning.ray import RayOptions
from effcap.tools.cli.options import add_options, given_options, option_flag
from effcap.tools.cli.outputs import check_folder
from effcap.tools.cli.sampling import (
    chosen_captioner,
    find_preset,
    make_sampler,
    sampler_fields,
    start_engine,
)
from effcap.utils.quiet import quiet

if TYPE_CHECKING:
    from effcap.tools.captioning.shard_output import ShardCaptions

MAX_SHOWN = 10  # shards printed
PARTITION = ("shard_index", "num_shards")
RAY = ("workers", "gpus_per_worker")


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Adds the options of shards to `effcap caption`."""
    group = parser.add_argument_group(
        "shards", "An interrupted run continues when it is repeated with the same options."
    )
    group.add_argument(
        "--shards",
        nargs="+",
        metavar="SHARD",
        help="webdataset shards in place of PHOTO: file, folder, pattern or number range in quotes "
        "('{00000..01242}.tar'), URL, or 'pipe:COMMAND'; NAME.tar becomes NAME.parquet in --out",
    )
    group.add_argument(
        "--into-shards",
        type=Path,
        metavar="FOLDER",
        help="in place of --out, folder of copies of the shards to write, with the caption of "
        "KEY.jpg as KEY.txt and all other members as they are",
    )
    group.add_argument(
        "--shard-index",
        type=int,
        metavar="K",
        help="index of this process, from 0; all processes have the same --shards and --out",
    )
    group.add_argument(
        "--num-shards", type=int, metavar="N", help="number of processes that share the shards"
    )
    group.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="caption on a Ray cluster, auto or ray://HOST:10001 (without ADDRESS: RAY_ADDRESS, or "
        "this machine)",
    )
    add_options(group, RayOptions, RAY, unset="{}")


def check_options(arguments: argparse.Namespace) -> None:
    """Raises a `ValueError` for options that cannot be combined."""
    if not arguments.shards:
        for name in ("into_shards", *PARTITION, "ray", *RAY):
            if getattr(arguments, name) is not None:
                raise ValueError(f"{option_flag(name)} requires --shards")
        return
    if arguments.photos:
        raise ValueError("Give only one of PHOTO and --shards")
    for name in ("page", "beside"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name} cannot be used with --shards")
    if arguments.out is not None and arguments.into_shards is not None:
        raise ValueError("Give only one of --out and --into-shards")
    if arguments.out is None and arguments.into_shards is None:
        raise ValueError("--shards requires --out, a folder, or --into-shards")
    check_folder(arguments.out, "--out")
    check_folder(arguments.into_shards, "--into-shards")
    for name in RAY:
        if getattr(arguments, name) is not None and arguments.ray is None:
            raise ValueError(f"{option_flag(name)} requires --ray")
    if arguments.prefix is not None and arguments.ray is not None:
        raise ValueError(
            "--prefix cannot be used with --ray, whose workers load the preset: save a preset of a "
            "captioner with that prefix"
        )
    index, num_shards = arguments.shard_index, arguments.num_shards
    if (index is None) != (num_shards is None):
        raise ValueError("--shard-index and --num-shards require each other")
    if index is not None and arguments.ray is not None:
        raise ValueError("--shard-index cannot be used with --ray, which divides the shards itself")
    if index is not None and not 0 <= index < num_shards:
        raise ValueError(f"Expected --shard-index from 0 to {num_shards - 1}. Received: {index}")


def run_shards(arguments: argparse.Namespace) -> None:
    """Runs `effcap caption --shards`."""
    from effcap.tools.captioning.partition import partition
    from effcap.tools.captioning.shard_output import preset_id
    from effcap.tools.captioning.shards import caption_into_shards, caption_shards
    from effcap.trainers.data.shards import find_shards

    sampler_fields(arguments)  # reports errors before Keras is imported
    preset = find_preset(arguments)
    shards = find_shards(arguments.shards)
    if arguments.num_shards is not None:
        shards = partition(shards, arguments.shard_index, arguments.num_shards)
    ray = None
    if arguments.ray is not None:
        ray = RayOptions(
            address=arguments.ray or None,
            **given_options(arguments, (*RAY, "precision", "engine")),
        )
        with quiet():
            import keras  # noqa: F401  only the workers start its backend
    else:
        start_engine(arguments)
    named: dict[str, Any] = {"captioner": preset}
    if arguments.precision not in (None, "float32"):  # its captions may differ
        named["model"] = f"{preset_id(preset)} {arguments.precision}"
    changes = (arguments.prefix, arguments.engine, arguments.precision)
    if ray is None and any(change is not None for change in changes):
        model = named.get("model", preset_id(preset))
        named = {"captioner": chosen_captioner(arguments, preset), "model": model}
    out = arguments.into_shards or arguments.out
    caption = caption_shards if arguments.out else caption_into_shards
    results = caption(
        shards,
        out,
        sampler=make_sampler(arguments),
        batch_size=arguments.batch_size,
        ray=ray,
        **named,
    )
    print_results(results, out, is_table=caption is caption_shards)


def print_results(results: Sequence[ShardCaptions], out: Path, is_table: bool) -> None:
    """Prints a summary of the results.

    Args:
        results: result of each shard.
        out: folder of the captions.
        is_table: whether the folder has Parquet files, not copies of the shards.

    Raises:
        ValueError: a shard could not be read completely.
    """
    from effcap.utils.progress import print_line

    num_existing = sum(result.from_earlier_run for result in results)
    if num_existing:
        print_line(f"{num_existing} of {len(results)} shards were captioned earlier")
    num_captions = sum(result.num_captions for result in results)
    num_unreadable = sum(result.num_unreadable for result in results)
    plural = "" if len(results) == 1 else "s"
    print_line(f"{num_captions:,} captions of {len(results)} shard{plural}: {out}")
    if num_unreadable:
        where = "column error" if is_table else "files .captions.json"
        print_line(f"{num_unreadable:,} photos could not be read; see the {where}")
    num_without_words = sum(result.num_without_words for result in results)
    if num_without_words:
        where = "column missing" if is_table else "files .captions.json"
        print_line(f"{num_without_words:,} captions lack words of --include; see the {where}")
    incomplete = [result for result in results if result.is_incomplete]
    lines = [f"{result.shard}: {result.error or result.damage}" for result in incomplete]
    lines += [f"{result.shard}: no photos" for result in results if result.is_empty]
    for line in lines[:MAX_SHOWN]:
        print_line(f"  {line}")
    if len(lines) > MAX_SHOWN:
        print_line(f"  and {len(lines) - MAX_SHOWN} more shards")
    if incomplete:
        num_failed = sum(bool(result.error) for result in incomplete)
        hint = ", repeat the command to retry them" if num_failed else ""
        raise ValueError(
            f"{len(incomplete) - num_failed} shards are incomplete, their readable photos are "
            f"captioned; {num_failed} shards are unreadable{hint}"
        )
