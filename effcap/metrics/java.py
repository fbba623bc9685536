"""METEOR and SPICE, through pycocoevalcap and Java (the extra `metrics`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from effcap.metrics.ngrams import check_paired

CORENLP = "stanford-corenlp-3.6.0"
CORENLP_ZIP = "http://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"


class MetricUnavailable(OSError):
    """A metric that cannot be computed here, with what it needs."""


def meteor(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> tuple[float, np.ndarray]:
    """METEOR 1.5 (Denkowski and Lavie 2014), English, by its authors' program.

    Args:
        candidates: N captions in tokens.
        references: those of each.

    Returns:
        (score of the corpus, (N,) of each caption), from 0 to 1. The first is no mean of the
        others: METEOR adds up what it counts in all captions.

    Raises:
        MetricUnavailable: without pycocoevalcap or Java, or when METEOR fails.
        ValueError: without captions, or without references for each.
    """
    check_available("METEOR")
    from pycocoevalcap.meteor.meteor import Meteor

    targets, captions = _as_pycocoevalcap(candidates, references)
    try:
        score, scores = Meteor().compute_score(targets, captions)
    except (OSError, ValueError) as error:
        raise MetricUnavailable(f"Expected METEOR to run. Received: {error}") from error
    return float(score), np.array(scores)


def spice(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> tuple[float, np.ndarray]:
    """SPICE 1.0 (Anderson et al. 2016), by its authors' program.

    It needs the jars of Stanford CoreNLP 3.6.0, which pycocoevalcap downloads at first use (400 MB,
    into its own folder), and 8 GB of memory.

    Args, Returns: as `meteor`; the score of the corpus is the mean of the captions'.

    Raises:
        MetricUnavailable: without pycocoevalcap, Java or the jars, or when SPICE fails.
        ValueError: without captions, or without references for each.
    """
    check_available("SPICE")
    targets, captions = _as_pycocoevalcap(candidates, references)
    with redirect_stdout(sys.stderr):  # it tells of its downloads
        scorer = _spice_scorer()
        try:
            score, scores = scorer.compute_score(targets, captions)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise MetricUnavailable(
                "Expected SPICE to run; it was written for Java 8 and may fail on later ones. "
                f"Received: {error}"
            ) from error
    return float(score), np.array([caption["All"]["f"] for caption in scores])


def _spice_scorer():
    import pycocoevalcap.spice.spice as module

    folder = Path(module.__file__).parent / "lib"
    try:
        return module.Spice()
    except Exception as error:  # whatever a broken download raises
        raise MetricUnavailable(
            f"Expected {CORENLP}.jar and {CORENLP}-models.jar in {folder}; fetch {CORENLP_ZIP} and "
            f"put them there. Received: downloading them failed: {error}"
        ) from error


def check_available(metric: str) -> None:
    """MetricUnavailable without pycocoevalcap or Java; tells what to install."""
    try:
        import pycocoevalcap  # noqa: F401
    except ImportError:
        raise MetricUnavailable(
            f"Expected pycocoevalcap for {metric}: pip install 'effcap[metrics]'. Received: none"
        ) from None
    java = shutil.which("java")
    if java is None:
        raise MetricUnavailable(
            f"Expected Java for {metric}: install a JRE, such as Debian's default-jre-headless, "
            f"so that `java` is found. Received: none in PATH={os.environ.get('PATH', '')}"
        )


def _as_pycocoevalcap(candidates, references) -> tuple[dict, dict]:
    """({image: [references]}, {image: [caption]}), tokens between spaces."""
    check_paired(candidates, references)
    targets = {i: [" ".join(words) for words in group] for i, group in enumerate(references)}
    return targets, {i: [" ".join(words)] for i, words in enumerate(candidates)}
