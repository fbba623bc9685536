"""METEOR and SPICE, through pycocoevalcap and Java (the extra `metrics`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from effcap.metrics.ngrams import check_paired

CORENLP = "stanford-corenlp-3.6.0"
CORENLP_ZIP = "http://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"


class MetricUnavailable(OSError):
    """A metric cannot be computed on this machine; the message names what is missing."""


def meteor(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> tuple[float, np.ndarray]:
    """Computes English METEOR 1.5 (Denkowski and Lavie, 2014) with its authors' program.

    Args:
        candidates: N captions in tokens.
        references: references of each caption, in tokens.

    Returns:
        The score of the corpus, and (N,) scores of the captions, in 0..1. The first is not the
        mean of the others: METEOR sums its counts over all captions.

    Raises:
        ImportError: pycocoevalcap is not installed.
        MetricUnavailable: Java is missing, or METEOR fails.
        ValueError: there are no captions, or a caption has no references.
    """
    check_available("METEOR")
    from pycocoevalcap.meteor.meteor import Meteor

    targets, captions = _pycocoevalcap_inputs(candidates, references)
    try:
        score, scores = Meteor().compute_score(targets, captions)
    except (OSError, ValueError) as error:
        raise MetricUnavailable(f"METEOR failed: {error}") from error
    return float(score), np.array(scores)


def spice(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> tuple[float, np.ndarray]:
    """Computes SPICE 1.0 (Anderson et al., 2016) with its authors' program.

    Needs the jars of Stanford CoreNLP 3.6.0, which pycocoevalcap downloads at first use (400 MB,
    into its own folder), and 8 GB of memory.

    Args:
        candidates: N captions in tokens.
        references: references of each caption, in tokens.

    Returns:
        The score of the corpus, and (N,) scores of the captions, in 0..1. The first is the mean
        of the others.

    Raises:
        ImportError: pycocoevalcap is not installed.
        MetricUnavailable: Java or the jars are missing, or SPICE fails.
        ValueError: there are no captions, or a caption has no references.
    """
    check_available("SPICE")
    targets, captions = _pycocoevalcap_inputs(candidates, references)
    with redirect_stdout(sys.stderr):  # it prints the progress of its downloads
        scorer = _spice_scorer()
        try:
            score, scores = scorer.compute_score(targets, captions)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise MetricUnavailable(
                f"SPICE failed. It was written for Java 8 and may fail with later versions: {error}"
            ) from error
    return float(score), np.array([caption["All"]["f"] for caption in scores])


def _spice_scorer() -> Any:
    import pycocoevalcap.spice.spice as module

    folder = Path(module.__file__).parent / "lib"
    try:
        return module.Spice()
    except Exception as error:  # broken downloads raise any exception
        raise MetricUnavailable(
            f"SPICE requires {CORENLP}.jar and {CORENLP}-models.jar in {folder}, and downloading "
            f"them failed: {error}. Take them from {CORENLP_ZIP}"
        ) from error


def check_available(metric: str) -> None:
    """Checks that pycocoevalcap and Java are installed; `metric` is named in errors.

    Raises:
        ImportError: pycocoevalcap is not installed.
        MetricUnavailable: Java is not installed.
    """
    try:
        import pycocoevalcap  # noqa: F401
    except ImportError:
        raise ImportError(
            f"{metric} requires pycocoevalcap: pip install 'effcap[metrics]'"
        ) from None
    if shutil.which("java") is None:
        raise MetricUnavailable(
            f"{metric} requires Java: install a JRE, such as Debian's default-jre-headless. "
            f"There is no `java` in PATH={os.environ.get('PATH', '')}"
        )


def _pycocoevalcap_inputs(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Returns {image: references} and {image: [caption]} as tokens joined by spaces."""
    check_paired(candidates, references)
    targets = {i: [" ".join(words) for words in group] for i, group in enumerate(references)}
    return targets, {i: [" ".join(words)] for i, words in enumerate(candidates)}
