"""Trains and scores captioners with `effcap` commands, skipping completed steps.

Shared by the experiments, which may be stopped at any time and started again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import checkout

SCORES = "scores.json"


def effcap(*words: object) -> None:
    """Runs an `effcap` command; exits if it fails."""
    command = [str(word) for word in words]
    print("$ effcap", *command, flush=True)
    environment = {**os.environ, "PYTHONPATH": str(checkout.ROOT)}
    code = subprocess.run(
        [sys.executable, "-m", "effcap.tools", *command], env=environment
    ).returncode
    if code:
        sys.exit(code)


def set_options(settings: Iterable[str]) -> list[str]:
    """Returns settings such as "decoder.dropout=0.1" as words of a command."""
    return [word for setting in settings for word in ("--set", setting)]


def score(folder: Path, train: Sequence[object], evaluate: Sequence[object]) -> dict[str, float]:
    """Trains and evaluates a captioner, unless its scores exist.

    Args:
        folder: folder of the experiment, for the run and its scores.
        train: words of `effcap train` except --out.
        evaluate: words of `effcap evaluate` except --model and --out.

    Returns:
        Scores by name, as in the file that `effcap evaluate` writes.
    """
    run = folder / "run"
    if not (folder / SCORES).is_file():
        effcap("train", *train, "--out", run, "--resume")
    return rescore(run, folder, evaluate)


def rescore(model: Path, folder: Path, evaluate: Sequence[object]) -> dict[str, float]:
    """Evaluates an existing captioner, unless the folder already has scores."""
    if not (folder / SCORES).is_file():
        effcap("evaluate", *evaluate, "--model", model, "--out", folder)
    return json.loads((folder / SCORES).read_text(encoding="utf-8"))["scores"]
