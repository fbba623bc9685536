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
    console.print(comparison_table(comparison))
    for note in comparison.notes:
        print_line(note)
    if arguments.out is not None:
        print_line(f"page: {arguments.out}")


def comparison_table(comparison: RunComparison) -> Table:
    """Returns scores, the best in bold, times and settings that differ, with a column per run."""
    from rich.table import Table
    from rich.text import Text

    from effcap.trainers.reports.words import format_setting

    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in comparison.names:
        table.add_column(Text(name, style="bold cyan"), overflow="fold")
    best = [comparison.best(score) for score in comparison.scores]
    for number, (heading, texts) in enumerate(comparison.columns().items()):
        is_best = best[number] if number < len(best) else set()
        cells = [Text(x, style="bold green" if i in is_best else "") for i, x in enumerate(texts)]
        table.add_row(Text(heading), *cells)
    if comparison.differences:
        table.add_row()
        table.add_row(Text("settings that differ", style="bold"))
    for name, values in comparison.differences.items():
        cells = [Text("–" if value is None else format_setting(value)) for value in values]
        table.add_row(Text(name), *cells)
    return table
