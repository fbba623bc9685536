"""Selects and orders the captions that a beam search returns."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from effcap.samplers.backend import ops
from effcap.samplers.ops import gather, top_k
from effcap.samplers.word_rules import MAX_GROUPS

# Kinds, preferred ones first: FINISHED or TRUNCATED, and UNMET more for each group of words of
# `include` that is missing.
FINISHED, TRUNCATED, UNMET = 0.0, 1.0, 2.0
REPEATED = UNMET * (MAX_GROUPS + 1)
MISSING = REPEATED + 1


class Candidates(NamedTuple):
    """N captions of each image, or of each of its groups.

    Attributes:
        tokens: (B, N, T).
        token_scores: (B, N, T), log-probabilities of the tokens.
        sums: (B, N), log-probabilities.
        scores: (B, N), by which they are ranked, -inf where there is no caption.
        unmet: (B, N) float32, number of groups of words that are missing.
    """

    tokens: Any
    token_scores: Any
    sums: Any
    scores: Any
    unmet: Any


class RankedCaptions(NamedTuple):
    """N captions of each image, or of each of its groups, with their kinds.

    Attributes:
        tokens, token_scores, sums, scores: see `Candidates`.
        kinds: (B, N), FINISHED to MISSING.
    """

    tokens: Any
    token_scores: Any
    sums: Any
    scores: Any
    kinds: Any


def best_by_kind(kinds: Any, scores: Any, number: int) -> Any:
    """Returns the indices (B, number) of the smallest kinds, of equal kinds the highest scores.

    Args:
        kinds, scores: (B, N). Of equal entries the lower index comes first.
        number: number of indices, at most N.
    """
    _, order = top_k(scores, scores.shape[1])  # (B, N)
    _, best = top_k(-gather(kinds, order), number)  # (B, number)
    return gather(order, best)


def best_captions(
    finished: Candidates,
    truncated: Candidates,
    empty: Candidates,
    *,
    num_groups: int,
    num_captions: int,
    eos: int,
) -> RankedCaptions:
    """Selects the best captions: finished ones before truncated ones, each ordered by score.

    Empty captions count as truncated. Captions that lack words come after those that lack fewer.

    With several groups, the best of each group are selected first, then the second best and so on;
    captions of an earlier group are selected last. Selected captions are returned by kind and
    score.

    Args:
        finished: captions (B, N, T) that end with `eos`, group by group.
        truncated: captions (B, M, T) without `eos` after the last step, group by group.
        empty: the empty caption (B, G, T) of each group.
        num_groups: number of groups, a divisor of N and M.
        num_captions: number K of captions to select.
        eos: id that fills the tokens of missing captions.

    Returns:
        K captions; where there is none, tokens are `eos`, their log-probabilities 0 and the sum
        -inf.
    """
    batch_size = finished.tokens.shape[0]
    rows = batch_size * num_groups
    by_kind = [
        _by_group(finished, FINISHED, rows),
        _by_group(truncated, TRUNCATED, rows),
        _by_group(empty, TRUNCATED, rows),
    ]
    captions = RankedCaptions(
        *(ops.concatenate(field, axis=1) for field in zip(*by_kind, strict=True))
    )
    kinds = ops.where(captions.scores > -float("inf"), captions.kinds, MISSING)
    missing = kinds[:, :, None] == MISSING  # (B * G, N, 1)
    tokens = ops.where(missing, eos, captions.tokens)
    token_scores = ops.where(missing, 0.0, captions.token_scores)
    captions = _rank(captions._replace(tokens=tokens, token_scores=token_scores, kinds=kinds))
    if num_groups > 1:
        most = min(num_captions, truncated.scores.shape[1] // num_groups)
        captions = RankedCaptions(*(field[:, :most] for field in captions))
        captions = _rank(_alternate_groups(captions, batch_size, num_captions))
    return RankedCaptions(*(field[:, :num_captions] for field in captions))


def _by_group(captions: Candidates, kind: float, rows: int) -> RankedCaptions:
    steps = captions.tokens.shape[-1]
    tokens = ops.reshape(captions.tokens, (rows, -1, steps))  # (B, G * N, T) -> (B * G, N, T)
    token_scores = ops.reshape(captions.token_scores, tokens.shape)  # -> (B * G, N, T)
    sums = ops.reshape(captions.sums, (rows, -1))  # (B, G * N) -> (B * G, N)
    scores = ops.reshape(captions.scores, (rows, -1))  # (B, G * N) -> (B * G, N)
    unmet = ops.reshape(captions.unmet, (rows, -1))  # (B, G * N) -> (B * G, N)
    return RankedCaptions(tokens, token_scores, sums, scores, kind + UNMET * unmet)


def _rank(captions: RankedCaptions) -> RankedCaptions:
    """Sorts by kind, then by score."""
    order = best_by_kind(captions.kinds, captions.scores, captions.scores.shape[1])
    return RankedCaptions(*(gather(field, order) for field in captions))


def _alternate_groups(captions: RankedCaptions, batch_size: int, most: int) -> RankedCaptions:
    """Selects `most` captions of (B * G, N): the best of each group, then the second best, ..."""
    rows, number, steps = captions.tokens.shape
    groups = rows // batch_size

    def by_rank(field: Any) -> Any:
        rest = tuple(field.shape[2:])
        field = ops.reshape(field, (batch_size, groups, number, *rest))  # (B * G, N) -> (B, G, N)
        field = ops.swapaxes(field, 1, 2)  # (B, G, N) -> (B, N, G)
        return ops.reshape(field, (batch_size * number, groups, *rest))  # (B, N, G) -> (B * N, G)

    tokens, token_scores, *numbers = _rank(RankedCaptions(*(by_rank(field) for field in captions)))
    captions = RankedCaptions(
        ops.reshape(tokens, (batch_size, -1, steps)),  # (B * N, G, T) -> (B, N * G, T)
        ops.reshape(token_scores, (batch_size, -1, steps)),  # (B * N, G, T) -> (B, N * G, T)
        *(ops.reshape(field, (batch_size, -1)) for field in numbers),  # (B * N, G) -> (B, N * G)
    )
    equal = captions.tokens[:, :, None] == captions.tokens[:, None]  # (B, N * G, N * G, T)
    equal = ops.all(equal, axis=-1)  # (B, N * G, N * G, T) -> (B, N * G, N * G)
    earlier = np.tri(number * groups, k=-1, dtype="bool")  # (N * G, N * G)
    repeated = ops.any(ops.logical_and(equal, ops.convert_to_tensor(earlier)), axis=-1)
    kinds = ops.where(repeated, ops.maximum(captions.kinds, REPEATED), captions.kinds)
    _, order = top_k(-kinds, most)
    return RankedCaptions(*(gather(field, order) for field in captions))
