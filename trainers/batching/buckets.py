"""Row lengths: as few different ones as asked for, with the least padding."""

from __future__ import annotations

import numpy as np

ROUNDING = 4  # row lengths are multiples of it


def row_lengths(lengths: np.ndarray, buckets: int) -> np.ndarray:
    """The row lengths, at most `buckets`, that pad rows of `lengths` (N,) the least; ascending.

    Dynamic programming: the best way to hold the rows up to length j in b buckets is the best way
    to hold those up to some length i < j in b - 1 buckets, and all from there to j in one.
    """
    rounded = -(-np.asarray(lengths) // ROUNDING) * ROUNDING
    ends, counts = np.unique(rounded, return_counts=True)
    rows = np.concatenate([[0], np.cumsum(counts)])  # (J+1,) rows up to each end
    cost = np.full(len(rows), np.inf)  # (J+1,) token places, in b buckets
    cost[0] = 0
    cuts = []  # for each b: (J+1,) where the last bucket begins
    for _ in range(min(buckets, len(ends))):
        # [j, i]: a last bucket from i to j
        last = (rows[1:, None] - rows[None, :-1]) * ends[:, None] + cost[None, :-1]
        last = np.where(np.tri(len(ends), dtype=bool), last, np.inf)  # (J,J)
        cuts.append(np.concatenate([[0], last.argmin(axis=1)]))
        cost = np.concatenate([[np.inf], last.min(axis=1)])
    chosen, j = [], len(ends)
    for cut in reversed(cuts):
        chosen.append(ends[j - 1])
        j = cut[j]
    return np.array(chosen[::-1])
