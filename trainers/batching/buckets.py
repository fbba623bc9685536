"""Row lengths with the least padding."""

from __future__ import annotations

import numpy as np

ROUNDING = 4  # row lengths are multiples of this


def row_lengths(lengths: np.ndarray, num_buckets: int) -> np.ndarray:
    """Computes the row lengths that pad a set of rows the least.

    Dynamic programming: the best split of the rows up to length j into b buckets is the best split
    of the rows up to some length i < j into b - 1 buckets, and one bucket for the rest.

    Args:
        lengths: tokens per row, (N,).
        num_buckets: maximum number of different row lengths.

    Returns:
        The row lengths, at most `num_buckets`, ascending.
    """
    rounded = -(-np.asarray(lengths) // ROUNDING) * ROUNDING
    ends, counts = np.unique(rounded, return_counts=True)  # (J,), (J,)
    rows = np.concatenate([[0], np.cumsum(counts)])  # (J+1,) rows up to each end
    cost = np.full(len(rows), np.inf)  # (J+1,) token positions with b buckets
    cost[0] = 0
    cuts = []  # for each b: (J+1,) start of the last bucket
    for _ in range(min(num_buckets, len(ends))):
        # [j, i]: cost with a last bucket from i to j
        last = (rows[1:, None] - rows[None, :-1]) * ends[:, None] + cost[None, :-1]  # (J,J)
        last = np.where(np.tri(len(ends), dtype=bool), last, np.inf)  # (J,J)
        cuts.append(np.concatenate([[0], last.argmin(axis=1)]))
        cost = np.concatenate([[np.inf], last.min(axis=1)])
    chosen, j = [], len(ends)
    for cut in reversed(cuts):
        chosen.append(ends[j - 1])
        j = cut[j]
    return np.array(chosen[::-1])
