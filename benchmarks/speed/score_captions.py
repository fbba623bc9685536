"""Scores captions with `effcap.metrics` and with pycocoevalcap (needs Java), side by side.

    pip install 'effcap[metrics]'
    effcap caption 'flickr8k/dev/*.jpg' --out dev.json
    python benchmarks/speed/score_captions.py dev.json flickr8k/dev.csv

Both score the same photos. The last column are EffCap's metrics on the tokens of Stanford's
tokenizer: differences from the second column come from the metrics, differences between the first
and the last column from the tokens.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import checkout  # noqa: F401
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from rich.console import Console
from rich.table import Table

from effcap.metrics import CiderD, bleu, rouge_l, tokenize
from effcap.tools.evaluation.caption_files import match_captions, read_captions
from effcap.tools.evaluation.references import read_references

NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")
Result = TypeVar("Result")


def main() -> None:
    """Prints a table of scores, and seconds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("captions", type=Path, help="as effcap evaluate --captions takes them")
    parser.add_argument("references", type=Path, help="CSV, COCO's JSON, or JSON of photos")
    arguments = parser.parse_args()

    references = read_references(arguments.references)
    matched = match_captions(read_captions(arguments.captions), references)
    captions = {i: [entry.captions[0]] for i, entry in matched.captions.items()}
    targets = {i: list(references.photos[i].captions) for i in captions}
    print(
        f"{len(captions)} photos scored; {len(matched.missing)} without captions, "
        f"{len(matched.extra)} others"
    )

    seconds = {}
    words, seconds["tokens, EffCap"] = timed(lambda: tokenize_all(captions))
    target_words, _ = timed(lambda: tokenize_all(targets))
    ptb_texts, seconds["tokens, Stanford"] = timed(lambda: tokenize_with_stanford(captions))
    ptb_targets, _ = timed(lambda: tokenize_with_stanford(targets))
    same = sum(
        tokens == ptb_text.split()
        for tokens_of, ptb_of in ((words, ptb_texts), (target_words, ptb_targets))
        for i in tokens_of
        for tokens, ptb_text in zip(tokens_of[i], ptb_of[i], strict=True)
    )
    total = sum(len(texts) for texts in (*captions.values(), *targets.values()))
    print(f"same tokens in {same} of {total} captions and references ({same / total:.3%})")

    own, seconds["scores, EffCap"] = timed(lambda: score(words, target_words))
    peer, seconds["scores, pycocoevalcap"] = timed(
        lambda: score_with_pycocoevalcap(ptb_texts, ptb_targets)
    )
    own_on_ptb, _ = timed(lambda: score(split(ptb_texts), split(ptb_targets)))
    table = Table("metric", "EffCap", "pycocoevalcap", "EffCap on Stanford's tokens")
    for name, *scores in zip(NAMES, own, peer, own_on_ptb, strict=True):
        table.add_row(name, *(f"{value:.5f}" for value in scores))
    Console().print(table)
    print("seconds: " + ", ".join(f"{name} {spent:.1f}" for name, spent in seconds.items()))


def timed(job: Callable[[], Result]) -> tuple[Result, float]:
    """Returns (result, seconds) of a job."""
    start = time.perf_counter()
    return job(), time.perf_counter() - start


def tokenize_all(texts: dict[int, list[str]]) -> dict[int, list[list[str]]]:
    """Returns the tokens of all texts."""
    return {i: [tokenize(text) for text in group] for i, group in texts.items()}


def tokenize_with_stanford(texts: dict[int, list[str]]) -> dict[int, list[str]]:
    """Returns the tokens of all texts, joined by spaces."""
    return PTBTokenizer().tokenize(
        {i: [{"caption": text} for text in group] for i, group in texts.items()}
    )


def split(texts: dict[int, list[str]]) -> dict[int, list[list[str]]]:
    """Splits all texts at spaces."""
    return {i: [text.split() for text in group] for i, group in texts.items()}


def score(
    captions: dict[int, list[list[str]]], references: dict[int, list[list[str]]]
) -> list[float]:
    """Returns EffCap's scores in the order of `NAMES`."""
    candidates = [group[0] for group in captions.values()]
    targets = [references[i] for i in captions]
    cider = CiderD(targets).score(candidates)
    return [*bleu(candidates, targets), rouge_l(candidates, targets).mean(), cider.mean()]


def score_with_pycocoevalcap(
    captions: dict[int, list[str]], references: dict[int, list[str]]
) -> list[float]:
    """Returns pycocoevalcap's scores in the order of `NAMES`."""
    bleus, _ = Bleu(4).compute_score(references, captions, verbose=0)
    rouge, _ = Rouge().compute_score(references, captions)
    cider, _ = Cider().compute_score(references, captions)
    return [*bleus, rouge, cider]


if __name__ == "__main__":
    main()
