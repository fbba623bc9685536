"""`effcap index`: checks webdataset shards and indexes the usable samples."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.tools.cli.data_options import add_cleaning, caption_edit
from effcap.tools.cli.options import add_options, given_options
from effcap.tools.cli.parsing import add_config
from effcap.trainers.data.shards import Filters

if TYPE_CHECKING:
    from effcap.tools.shards import IndexSummary

MAX_SHOWN = 10  # unreadable shards printed
FILTERS = (
    "caption", "min_side", "min_words", "max_words", "max_duplicates", "match", "reject", "persons",
)  # fmt: skip
METAVARS = {
    "caption": "auto|txt|FIELD",
    "match": "REGEX",
    "reject": "REGEX",
    "persons": "keep|drop|WORD",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `effcap index`."""
    parser.description = (
        "Decodes every photo in webdataset shards, reads its captions, and writes an index of the "
        "usable samples beside each shard: NAME.npz for `effcap train`, NAME.idx for NVIDIA DALI. "
        "Shards with an up-to-date index of the same options are not read again."
    )
    parser.add_argument(
        "shards",
        nargs="+",
        metavar="SHARD",
        help="file, folder, pattern or number range in quotes ('{00000..01242}.tar'), URL, or "
        "'pipe:COMMAND'",
    )
    parser.add_argument(
        "--index", type=Path, metavar="DIR", help="folder of the indexes; required for URLs"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="table of everything left out with the reason, .csv or .parquet",
    )
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="shards checked at the same time (default: one per core)",
    )
    group = parser.add_argument_group("filters")
    add_options(group, Filters, FILTERS, metavars=METAVARS)
    add_cleaning(group)
    add_config(parser)


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap index`."""
    from effcap.tools.shards import index_shards, write_index_report
    from effcap.tools.shards.index_report import check_report
    from effcap.trainers.data.shards import find_shards
    from effcap.utils.progress import print_line

    if arguments.report:
        check_report(arguments.report)
    filters = Filters(edit=caption_edit(arguments), **given_options(arguments, FILTERS))
    shards = find_shards(arguments.shards)
    processes = arguments.processes if arguments.processes is not None else os.cpu_count() or 1
    summary = index_shards(shards, filters, arguments.index, num_processes=processes)
    if summary.num_up_to_date:
        print_line(f"{summary.num_up_to_date} of {len(shards)} indexes were up to date")
    print_summary(summary)
    if arguments.report:
        write_index_report(arguments.report, summary)
        print_line(f"report: {arguments.report}")
    if not summary.num_samples:
        raise ValueError(f"There is no usable sample in {len(shards)} shards")


def print_summary(summary: IndexSummary) -> None:
    """Prints a table of the samples kept and left out, and the unreadable shards."""
    from rich.console import Console
    from rich.table import Table

    from effcap.tools.shards.check_result import CAPTION, SAMPLE, SHARD
    from effcap.trainers.data.example import one_line
    from effcap.utils.progress import print_line

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for heading in ("samples", "captions", "shards"):
        table.add_column(heading, justify="right")
    num_readable = sum(not shard.error for shard in summary.shards)
    kept = (summary.num_samples, summary.num_captions, num_readable)
    table.add_row("kept", *(f"{number:,}" for number in kept))
    counts = summary.counts
    for reason in sorted({reason for _, reason in counts}):
        row = [counts[kind, reason] for kind in (SAMPLE, CAPTION, SHARD)]
        table.add_row(reason, *(f"{number:,}" if number else "" for number in row))
    Console(highlight=False).print(table)
    unreadable = [shard for shard in summary.shards if shard.error]
    for shard in unreadable[:MAX_SHOWN]:
        print_line(f"  {one_line(shard.shard)}: {one_line(shard.error)}")
    if len(unreadable) > MAX_SHOWN:
        print_line(f"  and {len(unreadable) - MAX_SHOWN} more unreadable shards")
