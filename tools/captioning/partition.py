"""Shards shared out among processes that know nothing of each other."""

from __future__ import annotations

import os
from collections.abc import Sequence

from effcap.trainers.data.shards.shard_index import is_remote


def take_part(shards: Sequence[str], part: int, parts: int) -> list[str]:
    """The shards of one process out of several, about as many bytes for each.

    Every shard is in one part, as long as all processes are given the same shards in the same
    order, and none changes its size.

    Args:
        shards: paths and URLs. One of unknown size counts as one of average size.
        part: number of the process, from 1.
        parts: how many processes there are.

    Returns:
        Its shards, in their order; none where there are more processes than shards.

    Raises:
        ValueError: for a number that is out of range.
    """
    if not 1 <= part <= parts:
        raise ValueError(f"Expected a part from 1 to {parts}. Received: {part}/{parts}")
    known = [None if is_remote(shard) else os.path.getsize(shard) for shard in shards]
    local = [size for size in known if size is not None]
    average = sum(local) / len(local) if local else 1
    sizes = [average if size is None else size for size in known]
    loads = [0.0] * parts
    mine = []
    for i in sorted(range(len(shards)), key=lambda i: -sizes[i]):  # the largest first
        lightest = loads.index(min(loads))
        loads[lightest] += sizes[i]
        if lightest == part - 1:
            mine.append(i)
    return [shards[i] for i in sorted(mine)]
