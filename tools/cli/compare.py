"""`effcap compare`: compares training runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.tools.cli.outputs import check_file

if TYPE_CHECKING:
    from rich.table import Table

    from effcap.tools.reports.run_comparison import RunComparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `effcap compare`."""
    parser.description = (
        "Compares training runs: scores of their best epochs, settings that differ, and times."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="HTML page with curves, and captions of the photos that runs share",
    )


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap compare`."""
    from rich.console import Console

    from effcap.tools.reports.comparison import compare_runs
    from effcap.utils.progress import print_line

    check_file(arguments.out, "--out")
    comparison = compare_runs(arguments.runs, arguments.out)
    console = Console(highlight=False)
    console.print(score_table(comparison))
    if comparison.differences:
        console.print()
        console.print(difference_table(comparison))
    for note in comparison.notes:
        print_line(note)
    if arguments.out is not None:
        print_line(f"page: {arguments.out}")


def score_table(comparison: RunComparison) -> Table:
    """Returns the scores of each run, the best in bold."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for i, heading in enumerate(comparison.headings()):
        table.add_column(heading, justify="right" if i else "left", overflow="fold")
    for name, cells in comparison.rows():
        texts = [Text(text, style="bold green" if is_best else "") for text, is_best in cells]
        table.add_row(Text(name, style="cyan"), *texts)
    return table


def difference_table(comparison: RunComparison) -> Table:
    """Returns the settings that differ, with a column for each run."""
    from rich.table import Table
    from rich.text import Text

    from effcap.trainers.reports.words import format_setting

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("setting", style="cyan", overflow="fold")
    for name in comparison.names:
        table.add_column(Text(name), overflow="fold")
    for name, values in comparison.differences.items():
        texts = [Text("–" if value is None else format_setting(value)) for value in values]
        table.add_row(Text(name), *texts)
    return table
