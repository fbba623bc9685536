"""Selects and orders the captions that a beam search returns."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from effcap.samplers.ops import gather, top_k

# Kinds, preferred ones first. Captions without the words of `include` are UNMET.
FINISHED, TRUNCATED, UNMET, REPEATED, MISSING = 0.0, 1.0, 2.0, 3.0, 4.0
UNMET_PENALTY = 1e6  # subtracted from the score for each group of words that is missing


class Candidates(NamedTuple):
    """N captions of each image, or of each of its groups.

    Attributes:
        tokens: (B, N, T).
        token_scores: (B, N, T), log-probabilities of the tokens.
        sums: (B, N), log-probabilities.
        scores: (B, N), by which they are ranked, -inf where there is no caption.
    """

    tokens: Any
    token_scores: Any
    sums: Any
    scores: Any


class _Ranked(NamedTuple):
    tokens: Any  # (B, N, T)
    token_scores: Any  # (B, N, T)
    sums: Any  # (B, N)
    scores: Any  # (B, N)
    kinds: Any  # (B, N), FINISHED to MISSING


def best_captions(
    finished: Candidates,
    truncated: Candidates,
    empty: Candidates,
    *,
    num_groups: int,
    num_captions: int,
    eos: int,
) -> Candidates:
    """Selects the best captions: finished ones before truncated ones, each ordered by score.

    Empty captions count as truncated. Those whose scores have an `UNMET_PENALTY` come after them.

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
    captions = _Ranked(*(ops.concatenate(field, axis=1) for field in zip(*by_kind, strict=True)))
    kinds = ops.where(captions.scores < -UNMET_PENALTY / 2, UNMET, captions.kinds)
    kinds = ops.where(captions.scores > -float("inf"), kinds, MISSING)
    missing = kinds[:, :, None] == MISSING  # (B * G, N, 1)
    tokens = ops.where(missing, eos, captions.tokens)
    token_scores = ops.where(missing, 0.0, captions.token_scores)
    captions = _rank(captions._replace(tokens=tokens, token_scores=token_scores, kinds=kinds))
    if num_groups > 1:
        most = min(num_captions, truncated.scores.shape[1] // num_groups)
        captions = _Ranked(*(field[:, :most] for field in captions))
        captions = _rank(_alternate_groups(captions, batch_size, num_captions))
    return Candidates(*(field[:, :num_captions] for field in captions[:-1]))


def _by_group(captions: Candidates, kind: float, rows: int) -> _Ranked:
    steps = captions.tokens.shape[-1]
    tokens = ops.reshape(captions.tokens, (rows, -1, steps))  # (B, G * N, T) -> (B * G, N, T)
    token_scores = ops.reshape(captions.token_scores, tokens.shape)  # -> (B * G, N, T)
    sums = ops.reshape(captions.sums, (rows, -1))  # (B, G * N) -> (B * G, N)
    scores = ops.reshape(captions.scores, (rows, -1))  # (B, G * N) -> (B * G, N)
    return _Ranked(tokens, token_scores, sums, scores, ops.full_like(scores, kind))


def _sort(captions: _Ranked, key: Any) -> _Ranked:
    """Sorts stably by key (B, N), the smallest first."""
    _, order = top_k(-key, key.shape[1])
    return _Ranked(*(gather(field, order) for field in captions))


def _rank(captions: _Ranked) -> _Ranked:
    """Sorts by kind, then by score."""
    captions = _sort(captions, -captions.scores)
    return _sort(captions, captions.kinds)


def _alternate_groups(captions: _Ranked, batch_size: int, most: int) -> _Ranked:
    """Selects `most` captions of (B * G, N): the best of each group, then the second best, ..."""
    rows, number, steps = captions.tokens.shape
    groups = rows // batch_size

    def by_rank(field: Any) -> Any:
        rest = tuple(field.shape[2:])
        field = ops.reshape(field, (batch_size, groups, number, *rest))  # (B * G, N) -> (B, G, N)
        field = ops.swapaxes(field, 1, 2)  # (B, G, N) -> (B, N, G)
        return ops.reshape(field, (batch_size * number, groups, *rest))  # (B, N, G) -> (B * N, G)

    tokens, token_scores, *numbers = _rank(_Ranked(*(by_rank(field) for field in captions)))
    captions = _Ranked(
        ops.reshape(tokens, (batch_size, -1, steps)),  # (B * N, G, T) -> (B, N * G, T)
        ops.reshape(token_scores, (batch_size, -1, steps)),  # (B * N, G, T) -> (B, N * G, T)
        *(ops.reshape(field, (batch_size, -1)) for field in numbers),  # (B * N, G) -> (B, N * G)
    )
    equal = captions.tokens[:, :, None] == captions.tokens[:, None]  # (B, N * G, N * G, T)
    equal = ops.all(equal, axis=-1)  # (B, N * G, N * G, T) -> (B, N * G, N * G)
    earlier = np.tri(number * groups, k=-1, dtype="bool")  # (N * G, N * G)
    repeated = ops.any(ops.logical_and(equal, ops.convert_to_tensor(earlier)), axis=-1)
    kinds = ops.where(repeated, ops.maximum(captions.kinds, REPEATED), captions.kinds)
    return _Ranked(*(field[:, :most] for field in _sort(captions, kinds)))
