"""A progress bar over shards of known and unknown sizes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from effcap.trainers.data.shards.shard_index import is_remote
from effcap.utils.progress import ProgressBar

MEGABYTE = 10**6


def shard_steps(shard: str) -> int:
    """Returns the number of progress steps of a shard.

    A local shard has one step per byte, a remote one, whose size is unknown, a single step.
    """
    try:
        return 1 if is_remote(shard) else os.path.getsize(shard)
    except OSError:  # reported when the shard is opened
        return 0


class ShardProgress:
    """A progress bar that counts the bytes of local shards in MB, or the remote shards.

    Args:
        title: text before the bar.
        shards: paths and URLs.
        extra_steps: steps in addition to `shard_steps` of all shards.
    """

    def __init__(self, title: str, shards: Sequence[str], extra_steps: int = 0):
        total = sum(map(shard_steps, shards)) + extra_steps
        self._unit = MEGABYTE if total >= 10 * MEGABYTE else 1
        self._done = 0
        title = f"{title}, MB" if self._unit > 1 else title
        self._bar = ProgressBar(title, -(-total // self._unit))

    def __enter__(self) -> ShardProgress:
        self._bar.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.__exit__(*exception)

    def advance(self, steps: int, status: str | None = None) -> None:
        """Adds completed steps; `status` is shown beside the bar."""
        before, self._done = self._done, self._done + steps
        units = self._done // self._unit - before // self._unit
        if units:
            self._bar.advance(status, units)
        elif status is not None:
            self._bar.set_status(status)
