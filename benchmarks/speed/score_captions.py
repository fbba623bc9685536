"""Scores captions with `effcap.metrics` and with pycocoevalcap (needs Java), side by side.

    pip install 'effcap[metrics]'
    effcap caption 'flickr8k/dev/*.jpg' --out dev.json
    python benchmarks/score_captions.py dev.json flickr8k/dev.csv

Both score the same photos. The last column is ours on the tokens of Stanford's tokenizer: where it
differs from the second, the metrics do; where the first differs from it, the tokens do.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from rich.console import Console
from rich.table import Table

from effcap.metrics import CiderD, bleu, rouge_l, tokenize
from effcap.tools.cli.results import match, read_references, read_results

NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("captions", type=Path, help="as effcap evaluate --captions takes them")
    parser.add_argument("references", type=Path, help="CSV, COCO's JSON, or JSON of photos")
    arguments = parser.parse_args()

    references = read_references([arguments.references])
    found, missing, extra = match(read_results(arguments.captions), references)
    captions = {i: [result.captions[0]] for i, result in found.items()}
    targets = {i: list(references.photos[i].captions) for i in captions}
    print(f"{len(found)} photos scored; {len(missing)} without captions, {len(extra)} others")

    seconds = {}
    words, seconds["words, ours"] = timed(lambda: {i: split(captions[i]) for i in captions})
    expected, _ = timed(lambda: {i: split(targets[i]) for i in captions})
    ptb_words, seconds["words, Stanford's"] = timed(lambda: stanford(captions))
    ptb_expected, _ = timed(lambda: stanford(targets))
    same = sum(
        ours == theirs.split()
        for mine, ptb in ((words, ptb_words), (expected, ptb_expected))
        for i in mine
        for ours, theirs in zip(mine[i], ptb[i], strict=True)
    )
    total = sum(len(texts) for texts in (*captions.values(), *targets.values()))
    print(f"same words in {same} of {total} captions and references ({same / total:.3%})")

    mine, seconds["scores, ours"] = timed(lambda: scores(words, expected))
    theirs, seconds["scores, pycocoevalcap"] = timed(lambda: pycocoevalcap(ptb_words, ptb_expected))
    on_ptb, _ = timed(lambda: scores(apart(ptb_words), apart(ptb_expected)))
    table = Table("metric", "ours", "pycocoevalcap", "ours on Stanford's tokens")
    for row in zip(NAMES, mine, theirs, on_ptb, strict=True):
        table.add_row(row[0], *(f"{score:.5f}" for score in row[1:]))
    Console().print(table)
    print("seconds: " + ", ".join(f"{name} {spent:.1f}" for name, spent in seconds.items()))


def timed(work: Callable[[], dict | list]) -> tuple:
    """(what it gives, seconds)."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def split(texts: list[str]) -> list[list[str]]:
    return [tokenize(text) for text in texts]


def stanford(texts: dict[int, list[str]]) -> dict[int, list[str]]:
    return PTBTokenizer().tokenize(
        {i: [{"caption": t} for t in group] for i, group in texts.items()}
    )


def apart(texts: dict[int, list[str]]) -> dict[int, list[list[str]]]:
    return {i: [text.split() for text in group] for i, group in texts.items()}


def scores(captions: dict[int, list[list[str]]], references: dict) -> list[float]:
    candidates = [group[0] for group in captions.values()]
    targets = [references[i] for i in captions]
    cider = CiderD(targets).score(candidates)
    return [*bleu(candidates, targets), rouge_l(candidates, targets).mean(), cider.mean()]


def pycocoevalcap(captions: dict[int, list[str]], references: dict) -> list[float]:
    bleus, _ = Bleu(4).compute_score(references, captions, verbose=0)
    rouge, _ = Rouge().compute_score(references, captions)
    cider, _ = Cider().compute_score(references, captions)
    return [*bleus, rouge, cider]


if __name__ == "__main__":
    main()
