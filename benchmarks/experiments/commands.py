"""Trains and scores captioners with the `effcap` commands; what is there already is not done again.

Shared by `ablation.py` and `low_data.py`. Stop one of them at any time, and start it again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SCORES = "scores.json"


def effcap(*words: object) -> None:
    """Runs an `effcap` command; exits where it fails."""
    command = [str(word) for word in words]
    print("$ effcap", *command, flush=True)
    code = subprocess.run([sys.executable, "-m", "effcap", *command]).returncode
    if code:
        sys.exit(code)


def score(folder: Path, train: Sequence[object], evaluate: Sequence[object]) -> dict[str, float]:
    """The scores of one experiment, from its folder where they are there already.

    Args:
        folder: of the experiment: the run, and what was scored of it.
        train: words of `effcap train` but --out.
        evaluate: words of `effcap evaluate` but --model and --out.

    Returns:
        scores by name, as in the file that `effcap evaluate` writes.
    """
    run = folder / "run"
    if not (folder / SCORES).is_file():
        effcap("train", *train, "--out", run, "--resume")
    return rescore(run, folder, evaluate)


def rescore(model: Path, folder: Path, evaluate: Sequence[object]) -> dict[str, float]:
    """Scores of a captioner that is there, once for each folder."""
    if not (folder / SCORES).is_file():
        effcap("evaluate", *evaluate, "--model", model, "--out", folder)
    return json.loads((folder / SCORES).read_text(encoding="utf-8"))["scores"]
