"""Writes scores, captions, and a page with the best, the worst and random photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effcap.tools.captioning.results import model_name
from effcap.tools.reports.json_files import write_json
from effcap.tools.reports.page import write_page

if TYPE_CHECKING:
    from effcap.tools.evaluation.evaluate import Evaluation

SCORES, CAPTIONS, PAGE = "scores.json", "captions.json", "index.html"
SECTION_SIZE = 8  # photos in each section of the page


def write_report(
    evaluation: Evaluation, folder: str | PathLike[str], record: Mapping[str, Any] | None = None
) -> Path:
    """Writes scores.json, captions.json and, if there are photos to show, index.html.

    Args:
        evaluation: scored captions.
        folder: folder to write into, created if missing.
        record: entries to add to scores.json, such as the model; its name is the page's title.

    Returns:
        The path of the page, or of the folder without one.
    """
    folder = Path(folder)
    write_json(folder / SCORES, score_record(evaluation, record))
    write_json(folder / CAPTIONS, caption_entries(evaluation))
    return write_evaluation_page(evaluation, folder / PAGE, title_of(record or {})) or folder


def score_record(evaluation: Evaluation, record: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the contents of scores.json."""
    return {"scores": evaluation.scores.corpus, "counts": evaluation.counts, **(record or {})}


def caption_entries(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Returns photos with captions and scores as `read_captions` takes them."""
    captions, entries = evaluation.captions, []
    for i, (photo, texts) in enumerate(zip(captions.photos, captions.captions, strict=True)):
        entry: dict[str, Any] = {"image": photo.name}
        several = len(texts) > 1
        entry["captions" if several else "caption"] = list(texts) if several else texts[0]
        if captions.log_probs:
            log_probs = captions.log_probs[i]
            entry["scores" if several else "score"] = log_probs if several else log_probs[0]
        entry |= {name: float(values[i]) for name, values in evaluation.scores.images.items()}
        entries.append(entry)
    return entries


def title_of(record: Mapping[str, Any]) -> str:
    """Returns the title of the page: the name of the model or of the file of captions."""
    if record.get("model"):
        return model_name(record["model"])
    return Path(record["captions"]).stem if record.get("captions") else "Captions"


def write_evaluation_page(evaluation: Evaluation, path: Path, title: str) -> Path | None:
    """Writes a page with the best, the worst and random photos by CIDEr.

    Returns:
        The path of the page; None if none of these photos exists.
    """
    captions, cider = evaluation.captions, evaluation.scores.images["CIDEr"].tolist()
    sections = sections_by(cider)
    chosen = [index for indices in sections.values() for index in indices]
    if not any(captions.photos[i].has_photo for i in chosen):
        return None
    headings, start = {}, 0
    for heading, indices in sections.items():
        headings[start] = heading
        start += len(indices)
    single = all(len(captions.captions[i]) == 1 for i in chosen)
    columns: dict[str, list[Any]] = {
        "caption and its CIDEr" if single else "captions and their mean CIDEr": [
            [*captions.captions[i][:-1], (captions.captions[i][-1], cider[i])] for i in chosen
        ],
        "references": [captions.photos[i].captions for i in chosen],
    }
    corpus = evaluation.scores.corpus
    scores = ", ".join(f"{name} {format_score(name, corpus[name])}" for name in ("CIDEr", "BLEU-4"))
    return write_page(
        path,
        [captions.photos[i].photo for i in chosen],
        columns,
        title,
        f"{scores} on {len(captions.photos):,} photos",
        names=[captions.photos[i].name for i in chosen],
        sections=headings,
    )


def sections_by(cider: Sequence[float]) -> dict[str, list[int]]:
    """Returns the indices of the best, the worst and random other photos by section."""
    order = [int(i) for i in np.argsort(-np.asarray(cider), kind="stable")]
    size = min(SECTION_SIZE, max(1, len(order) // 3))
    best, worst = order[:size], order[size:][-size:][::-1]
    others = order[size : len(order) - size]
    drawn = np.random.default_rng(0).permutation(others)[:size].tolist() if others else []
    sections = {"Best": best, "Worst": worst, "At random": drawn}
    return {heading: indices for heading, indices in sections.items() if indices}


def format_score(name: str, number: float) -> str:
    """Returns a score or a count as text."""
    if isinstance(number, int):
        return f"{number:,}"
    return f"{number:.2f}" if name == "mean length" else f"{number:.4f}"
