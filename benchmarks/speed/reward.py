"""Measures CIDEr-D as a reward against pycocoevalcap's on the same captions, in one run.

    pip install 'effcap[metrics]'
    python benchmarks/speed/reward.py captions_test5k.json

Each candidate joins half a reference of its photo and half a reference of another one. Document
frequencies are counted once and timed separately; pycocoevalcap counts them in every call.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import checkout  # noqa: F401
import numpy as np
from pycocoevalcap.cider.cider import Cider
from rich.console import Console
from rich.table import Table

from effcap.metrics import CiderD, DocumentFrequencies, tokenize
from effcap.tools.evaluation.references import read_references

ROUNDS = 5
PHOTOS, SAMPLES = 16, 5  # photos of a training step, captions per photo


def main() -> None:
    """Prints a table of seconds, and the largest difference of the scores."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("references", type=Path, help="CSV, COCO's JSON, or JSON of photos")
    arguments = parser.parse_args()

    photos = read_references(arguments.references).photos
    targets = [[tokenize(text) for text in photo.captions] for photo in photos]
    firsts = [group[0] for group in targets]
    candidates = [
        own[: len(own) // 2] + other[len(other) // 2 :]
        for own, other in zip(firsts, firsts[1:] + firsts[:1], strict=True)
    ]
    start = time.perf_counter()
    frequencies = DocumentFrequencies.from_references(targets)
    counting = time.perf_counter() - start
    start = time.perf_counter()
    cider = CiderD(targets, frequencies)
    indexing = time.perf_counter() - start
    rng = np.random.default_rng(0)
    images = np.repeat(rng.choice(len(targets), min(PHOTOS, len(targets)), replace=False), SAMPLES)
    samples = [candidates[image] for image in images]
    corpus = fastest(lambda: cider.score(candidates))
    step = fastest(lambda: cider.score(samples, images))

    texts = {i: [" ".join(words)] for i, words in enumerate(candidates)}
    references = {i: [" ".join(words) for words in group] for i, group in enumerate(targets)}
    start = time.perf_counter()
    _, expected = Cider().compute_score(references, texts)
    peer = time.perf_counter() - start

    count = sum(map(len, targets))
    table = Table("seconds", "EffCap", "pycocoevalcap", title=f"{count} references")
    table.add_row("document frequencies", f"{counting:.3f}", "")
    table.add_row("references indexed", f"{indexing:.3f}", "")
    table.add_row(f"{len(candidates)} captions", f"{corpus:.3f}", f"{peer:.3f} with frequencies")
    table.add_row(f"{len(samples)} samples of {PHOTOS} photos", f"{step:.4f}", "")
    Console().print(table)
    print(f"largest difference: {abs(cider.score(candidates) - expected).max():.1e}")


def fastest(job: Callable[[], object]) -> float:
    """Returns the seconds of the fastest of several rounds."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
