"""What a captioner of playlists looked at as it wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SHOWN = 10  # rows of a modality


def row_attention(
    attention: Sequence[Sequence[np.ndarray]], playlist: int, tokens: int
) -> list[np.ndarray]:
    """How much attention each row of each memory gets, token by token.

    Args:
        attention: of every layer, weights (B, H, T, S) on each memory, as `Captioner.attention`
            gives them.
        playlist: which of the B.
        tokens: number of the first tokens that count; the rest is padding.

    Returns:
        For each memory (T, S): the mean over layers and heads. It sums to 1 over the rows that are
        no padding, or to 0 where there are none.
    """
    memories = zip(*attention, strict=True)
    return [
        np.mean([layer[playlist, :, :tokens].mean(axis=0) for layer in layers], axis=0)  # (T,S)
        for layers in memories
    ]


def looked_at(
    weights: Mapping[str, np.ndarray], rows: Mapping[str, Sequence[str]], words: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """For each modality its rows, those looked at most first: `{"row", "share", "word"}`, the share
    a mean over all words, the word that for which the row was looked at most.

    Args:
        weights: (T, S) by modality, see `row_attention`.
        rows: what each row stands for; those beyond are padding.
        words: T tokens as text.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for modality, array in weights.items():
        names = rows[modality]
        array = np.asarray(array)[:, : len(names)]  # (T,n)
        share = array.mean(axis=0)  # (n,)
        found[modality] = [
            {
                "row": names[row],
                "share": round(float(share[row]), 4),
                "word": words[int(array[:, row].argmax())].strip(),
            }
            for row in np.argsort(-share, kind="stable")
        ]
    return found


def attention_lines(
    looked: Mapping[str, Sequence[Mapping[str, Any]]], shown: int = SHOWN
) -> list[str]:
    """What `looked_at` found, for people; of each modality so many rows at most."""
    lines = []
    for modality, rows in looked.items():
        lines.append(f"{modality}:" if rows else f"{modality}: nothing to look at")
        lines += [
            f"  {row['share']:6.1%}  {row['row']}, at {row['word']!r}" for row in rows[:shown]
        ]
        if len(rows) > shown:
            rest = sum(row["share"] for row in rows[shown:])
            lines.append(f"  {rest:6.1%}  {len(rows) - shown} others")
    return lines
