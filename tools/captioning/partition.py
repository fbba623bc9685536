"""Divides shards among processes that do not communicate."""

from __future__ import annotations

import os
from collections.abc import Sequence

from effcap.trainers.data.shards.shard_index import is_remote


def partition(shards: Sequence[str], index: int, num_partitions: int) -> list[str]:
    """Returns the shards of one process, with about the same number of bytes for each process.

    Every shard belongs to one process, if all processes get the same shards in the same order and
    no shard changes its size.

    Args:
        shards: paths and URLs. A shard of unknown size counts as one of average size.
        index: index of the process, from 0.
        num_partitions: number of processes.

    Returns:
        The shards of the process in their order; none if there are more processes than shards.

    Raises:
        ValueError: `index` is out of range.
    """
    if not 0 <= index < num_partitions:
        raise ValueError(
            f"Expected an index from 0 to {num_partitions - 1}. Received: index={index}"
        )
    sizes = [None if is_remote(shard) else os.path.getsize(shard) for shard in shards]
    known = [size for size in sizes if size is not None]
    average = sum(known) / len(known) if known else 1
    weights = [average if size is None else size for size in sizes]
    loads = [0.0] * num_partitions
    own = []
    for i in sorted(range(len(shards)), key=lambda i: -weights[i]):  # the largest first
        lightest = loads.index(min(loads))
        loads[lightest] += weights[i]
        if lightest == index:
            own.append(i)
    return [shards[i] for i in sorted(own)]
