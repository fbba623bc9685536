"""`effcap index`: shards checked, and indexes of what is good in them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.tools.cli.parsing import add_config

if TYPE_CHECKING:
    from effcap.trainers.data.shards.indexing import IndexSummary

MEGABYTE = 10**6
SHOWN = 10  # shards with problems told one by one
# Options that are fields of `Filters`: flag, type, metavar, help.
FILTERS = (
    ("min-side", int, "N", "leave out photos with a side of fewer pixels"),
    ("min-words", int, "N", "leave out captions of fewer words"),
    ("max-words", int, "N", "leave out captions of more words"),
    ("max-duplicates", int, "N", "keep a caption so often over all shards, the first in order"),
    ("match", str, "REGEX", "leave out captions without a match of this regular expression"),
    ("reject", str, "REGEX", "leave out captions with a match of this regular expression"),
    ("persons", str, "keep|drop|WORD", "cc12m's <PERSON>: keep it, leave such captions out, or "
     "put a word such as person in its place (keep if not given)"),
)  # fmt: skip


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `index`."""
    parser = commands.add_parser(
        "index",
        help="check webdataset shards and index them",
        description="Decodes every photo in webdataset shards, finds its captions, and writes the "
        "index of what is good beside each shard: NAME.npz for effcap train, NAME.idx for NVIDIA "
        "DALI. A shard with an index made by the same options is not read again.",
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument(
        "shards",
        nargs="+",
        metavar="SHARD",
        help="file, folder, pattern or number range in quotes ('{00000..01242}.tar'), URL, or "
        "'pipe:COMMAND'",
    )
    parser.add_argument(
        "--index", type=Path, metavar="DIR", help="folder for the indexes; needed for URLs"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write all that was left out, with its reason, as .csv or .parquet",
    )
    parser.add_argument(
        "--processes", type=int, metavar="N", help="shards at once (one per core if not given)"
    )
    keep = parser.add_argument_group("what to keep")
    keep.add_argument(
        "--caption",
        default="auto",
        metavar="auto|txt|FIELD",
        help="where captions are: txt, a field of json, or auto: json's list captions, else txt, "
        "else json's caption",
    )
    for flag, kind, metavar, text in FILTERS:
        keep.add_argument(f"--{flag}", type=kind, metavar=metavar, help=text)
    keep.add_argument(
        "--tidy",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="tidy captions: single spaces, a capital first letter, a full stop",
    )
    add_config(parser)


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap index`."""
    from effcap.trainers import tidy
    from effcap.trainers.data.shards import Filters, find_shards, index_shards
    from effcap.trainers.data.shards.index_report import check_report, write_report
    from effcap.trainers.data.shards.indexing import total_steps
    from effcap.utils.progress import Bar, say

    if arguments.report:
        check_report(arguments.report)
    names = [flag.replace("-", "_") for flag, *_ in FILTERS]
    given = {name: value for name in names if (value := vars(arguments)[name]) is not None}
    edit = tidy if arguments.tidy else None
    filters = Filters(caption=arguments.caption, edit=edit, **given)
    shards = find_shards(arguments.shards)
    total = total_steps(shards, filters)
    processes = arguments.processes if arguments.processes is not None else os.cpu_count() or 1
    unit = MEGABYTE if total >= 10 * MEGABYTE else 1  # only remote shards are fewer
    title = f"checking {len(shards)} shards{', MB' if unit > 1 else ''}"
    done = 0
    with Bar(title, -(-total // unit)) as bar:

        def advance(count: int) -> None:
            nonlocal done
            before, done = done, done + count
            if steps := done // unit - before // unit:
                bar.advance(steps=steps)

        summary = index_shards(shards, filters, arguments.index, processes, advance)
    if summary.known:
        say(f"{summary.known} of {len(shards)} shards were up to date, and not read again")
    show(summary)
    if arguments.report:
        write_report(arguments.report, summary)
        say(f"report: {arguments.report}")
    if not summary.samples:
        raise ValueError(
            f"Expected at least one good sample. Received: {len(shards)} shards without"
        )


def show(summary: IndexSummary) -> None:
    """Prints what was kept and why the rest was not, and what is wrong with whole shards."""
    from rich.console import Console
    from rich.table import Table

    from effcap.trainers.data.example import one_line
    from effcap.trainers.data.shards.check_result import CAPTION, SAMPLE, SHARD
    from effcap.utils.progress import say

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for heading in ("samples", "captions", "shards"):
        table.add_column(heading, justify="right")
    whole = sum(not shard.problem for shard in summary.shards)
    table.add_row("kept", *(f"{n:,}" for n in (summary.samples, summary.captions, whole)))
    counts = summary.counts
    for reason in sorted({reason for _, reason in counts}):
        row = [counts[what, reason] for what in (SAMPLE, CAPTION, SHARD)]
        table.add_row(reason, *(f"{n:,}" if n else "" for n in row))
    Console(highlight=False).print(table)
    bad = [shard for shard in summary.shards if shard.problem]
    for shard in bad[:SHOWN]:
        say(f"  {one_line(shard.shard)}: {one_line(shard.problem)}")
    if len(bad) > SHOWN:
        say(f"  and {len(bad) - SHOWN} more shards that cannot be read")
