"""Compares training runs, and writes the comparison as a page."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from effcap.tools.reports.comparison_page import write_comparison_page
from effcap.tools.reports.run_comparison import RunComparison, make_comparison


def compare_runs(
    runs: Sequence[str | PathLike[str]], out: str | PathLike[str] | None = None
) -> RunComparison:
    """Compares training runs, finished or not.

    Args:
        runs: run folders, at least two.
        out: HTML file for a page with scores, overlaid curves, captions of the photos that runs
            share, and settings that differ; None for no page.

    Returns:
        The comparison.

    Raises:
        FileNotFoundError: there is no run in a folder.
        ValueError: there are fewer than two runs, a run is given twice, or is damaged.

    Example:
        >>> comparison = effcap.tools.compare_runs(["runs/a", "runs/b"], "comparison.html")
        >>> comparison.scores["val_cider"]
        [0.512, 0.547]
    """
    comparison = make_comparison([Path(run) for run in runs])
    if out is not None:
        write_comparison_page(comparison, Path(out))
    return comparison
