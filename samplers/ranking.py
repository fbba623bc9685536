"""Which hypotheses of a beam search are returned, and in which order."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from effcap.samplers.ops import gather, top_k

COMPLETE, CUT, REPEATED, EMPTY = 0.0, 1.0, 2.0, 3.0  # in the order of preference


class Captions(NamedTuple):
    """N captions of each image (or of each of its groups)."""

    tokens: Any  # (B, N, T)
    scores: Any  # (B, N), -inf where there is no caption
    kinds: Any  # (B, N), COMPLETE to EMPTY


def best_captions(
    done_tokens: Any,
    done_scores: Any,
    cut_tokens: Any,
    cut_scores: Any,
    *,
    groups: int,
    captions: int,
    eos: int,
) -> tuple[Any, Any]:
    """Chooses captions: complete ones before cut ones, and within these by score.

    With several groups the best of each group come first, then the second best and so on; what
    another group has found already comes last. They are returned by kind and score all the same.

    Args:
        done_tokens: `(B, N, T)`, finished hypotheses, group by group.
        done_scores: `(B, N)`, -inf where there is none.
        cut_tokens: `(B, K, T)`, hypotheses that ran to the last step, group by group.
        cut_scores: `(B, K)`, -inf where there is none.
        groups: number of groups, a divisor of N and K.
        captions: captions to choose.
        eos: fills the places for which there is no caption.

    Returns:
        tokens `(B, captions, T)` and scores `(B, captions)`, -inf where there is no caption.
    """
    images, _, steps = done_tokens.shape
    done = _by_group(done_tokens, done_scores, COMPLETE, images * groups)
    cut = _by_group(cut_tokens, cut_scores, CUT, images * groups)
    found = Captions(*(ops.concatenate(parts, axis=1) for parts in zip(done, cut, strict=True)))
    kinds = ops.where(found.scores > -float("inf"), found.kinds, EMPTY)
    tokens = ops.where(kinds[:, :, None] == EMPTY, eos, found.tokens)
    found = _ranked(Captions(tokens, found.scores, kinds))
    if groups > 1:
        most = min(captions, cut_scores.shape[1] // groups)
        found = Captions(*(part[:, :most] for part in found))
        found = _ranked(_one_of_each_group_first(found, images, captions))
    return found.tokens[:, :captions], found.scores[:, :captions]


def _by_group(tokens: Any, scores: Any, kind: float, rows: int) -> Captions:
    tokens = ops.reshape(tokens, (rows, -1, tokens.shape[-1]))  # (B, G * N, T) -> (B * G, N, T)
    scores = ops.reshape(scores, (rows, -1))  # (B, G * N) -> (B * G, N)
    return Captions(tokens, scores, ops.full_like(scores, kind))


def _ordered(captions: Captions, key: Any) -> Captions:
    """Sorts by key (B, N), the smallest first; equal ones keep their order."""
    _, order = top_k(-key, key.shape[1])
    return Captions(*(gather(part, order) for part in captions))


def _ranked(captions: Captions) -> Captions:
    """Sorts by kind, then by score."""
    captions = _ordered(captions, -captions.scores)
    return _ordered(captions, captions.kinds)


def _one_of_each_group_first(captions: Captions, images: int, most: int) -> Captions:
    """Keeps `most` captions of (B * G, N): the best of each group, then the second best, ..."""
    rows, number, steps = captions.tokens.shape
    groups = rows // images

    def by_place(part: Any) -> Any:
        rest = tuple(part.shape[2:])
        part = ops.reshape(part, (images, groups, number, *rest))  # (B * G, N) -> (B, G, N)
        part = ops.swapaxes(part, 1, 2)  # (B, G, N) -> (B, N, G)
        return ops.reshape(part, (images * number, groups, *rest))  # (B, N, G) -> (B * N, G)

    tokens, scores, kinds = _ranked(Captions(*(by_place(part) for part in captions)))
    captions = Captions(
        ops.reshape(tokens, (images, -1, steps)),  # (B * N, G, T) -> (B, N * G, T)
        ops.reshape(scores, (images, -1)),  # (B * N, G) -> (B, N * G)
        ops.reshape(kinds, (images, -1)),
    )
    same = captions.tokens[:, :, None] == captions.tokens[:, None]  # (B, N * G, N * G, T)
    earlier = np.tri(number * groups, k=-1, dtype="bool")  # (N * G, N * G)
    repeats = ops.logical_and(ops.all(same, axis=-1), ops.convert_to_tensor(earlier))
    repeated = ops.any(repeats, axis=-1)  # (B, N * G)
    order = ops.where(repeated, ops.maximum(captions.kinds, REPEATED), captions.kinds)
    return Captions(*(part[:, :most] for part in _ordered(captions, order)))
