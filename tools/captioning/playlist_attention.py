"""Attention of a playlist captioner to the tracks, tags and artists of a playlist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from effcap.tokenizers import Tokenizer

MAX_ROWS = 10  # rows of a modality in a printed list
END = "(end)"  # the end token in a list of words


@dataclass(frozen=True)
class RowAttention:
    """Attention to one row of features.

    Attributes:
        row: label of the row, such as a track or a tag.
        weight: attention weight, averaged over the caption's tokens.
        word: text of the token with the highest attention weight on the row, or "(end)".
    """

    row: str
    weight: float
    word: str


def mean_attention(
    attention: Sequence[Sequence[np.ndarray]], index: int, num_tokens: int
) -> list[np.ndarray]:
    """Averages attention weights over layers and heads.

    Args:
        attention: for each layer and each memory, weights (B, H, T, S), as
            `Captioner.attention_weights` returns them.
        index: index of a playlist in the batch.
        num_tokens: number of tokens before the padding.

    Returns:
        For each memory, weights (T, S). A row sums to 1 over the positions that are not padding, or
        to 0 if all are.
    """
    memories = zip(*attention, strict=True)
    return [
        np.mean(
            [layer[index, :, :num_tokens].mean(axis=0) for layer in layers], axis=0
        )  # (B, H, T, S) -> (T, S)
        for layers in memories
    ]


def token_words(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """Returns the text of each token of a caption without spaces around it, and "(end)".

    A token that has no text, such as a part of a character, has that of the next one with text.
    """
    words = [*map(str.strip, tokenizer.caption_pieces(tokens)), END]
    for index in reversed(range(len(tokens))):
        words[index] = words[index] or words[index + 1]
    return words


def rank_rows(
    weights: Mapping[str, np.ndarray], rows: Mapping[str, Sequence[str]], words: Sequence[str]
) -> dict[str, list[RowAttention]]:
    """Ranks the rows of each modality by attention, highest first.

    Args:
        weights: weights (T, S) by modality, see `mean_attention`.
        rows: labels of the rows by modality; further rows are padding.
        words: T tokens as text.
    """
    ranked: dict[str, list[RowAttention]] = {}
    for modality, array in weights.items():
        labels = rows[modality]
        array = np.asarray(array)[:, : len(labels)]  # (T, n)
        means = array.mean(axis=0)  # (n,)
        ranked[modality] = [
            RowAttention(
                labels[row],
                round(float(means[row]), 4),
                words[int(array[:, row].argmax())].strip(),
            )
            for row in np.argsort(-means, kind="stable")
        ]
    return ranked


def attention_lines(
    ranked: Mapping[str, Sequence[RowAttention]], max_rows: int = MAX_ROWS
) -> list[str]:
    """Formats the result of `rank_rows` as lines of text, with at most `max_rows` per modality."""
    lines = []
    for modality, rows in ranked.items():
        lines.append(f"{modality}:" if rows else f"{modality}: no features")
        lines += [f"  {row.weight:6.1%}  {row.row}, at {row.word!r}" for row in rows[:max_rows]]
        if len(rows) > max_rows:
            rest = sum(row.weight for row in rows[max_rows:])
            lines.append(f"  {rest:6.1%}  {len(rows) - max_rows} others")
    return lines
