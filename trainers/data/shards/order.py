"""Order of the photos of an epoch, computed from the photo counts of the shards.

Photos are never listed one by one: ten million photos cost no more than the counts of their shards,
and any position of an epoch is found directly, so that a run resumes without reading earlier
photos.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ORDER, SUBSET, PASS, SHUFFLE = 10, 11, 12, 13  # purposes of random generators, as seeds


class PhotoId(NamedTuple):
    """A photo: the number of its shard and its number within the shard."""

    shard: int
    sample: int


class Collection:
    """Shards with the number of photos of each, and how often an epoch visits them.

    Photos are numbered across shards.

    Args:
        counts: (X,) number of photos of each of the X shards.
        passes: (X,) passes per epoch over each shard: 2 for every photo twice, 0.5 for half of the
            photos, others in each epoch.
        fraction: fraction of the photos to use, above 0 and at most 1; the same photos in all
            epochs.
        seed: seed of all random choices.

    Raises:
        ValueError: there are no photos.
    """

    def __init__(
        self, counts: Sequence[int], passes: Sequence[float], fraction: float = 1.0, seed: int = 0
    ):
        self.passes, self.fraction, self.seed = list(passes), fraction, seed
        self.counts = np.asarray(counts, np.int64)  # (X,)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])  # (X+1,)
        self.used = _spread(self.counts, fraction)  # (X,)
        if fraction < 1 and self.counts.sum() and not self.used.sum():
            self.used[np.argmax(self.counts)] = 1
        visits = []  # (shard, number of photos)
        for value in dict.fromkeys(passes):
            has_value = np.asarray(passes) == value  # (X,)
            whole, rest = int(value), value - int(value)
            visits += [(x, self.used[x]) for x in np.flatnonzero(has_value)] * whole
            some = _spread(np.where(has_value, self.used, 0), rest)  # (X,)
            visits += [(x, some[x]) for x in np.flatnonzero(some)]
        self.visits = np.array([v for v in visits if v[1]], np.int64).reshape(-1, 2)  # (Y, 2)
        if not len(self.visits):
            raise ValueError("The shards hold no photos to train on")

    def __len__(self) -> int:
        """Returns the number of photos in an epoch."""
        return int(self.visits[:, 1].sum())

    @property
    def shards(self) -> np.ndarray:
        """Numbers of the shards with photos in an epoch, ascending."""
        return np.unique(self.visits[:, 0])

    def shard_of(self, photos: np.ndarray) -> np.ndarray:
        """Returns the shards (N,) of photos (N,)."""
        return np.searchsorted(self.starts, photos, side="right") - 1

    def identify(self, photos: np.ndarray) -> list[PhotoId]:
        """Returns the shards and samples of photos (N,)."""
        shards = self.shard_of(photos)  # (N,)
        samples = photos - self.starts[shards]  # (N,)
        return list(map(PhotoId, shards.tolist(), samples.tolist()))

    def samples(self, shard: int) -> np.ndarray:
        """Returns the samples of a shard that are used, ascending."""
        count, used = self.counts[shard], self.used[shard]
        return _choose(count, used, np.random.default_rng([self.seed, SUBSET, shard]))

    def visit(self, shard: int, count: int, epoch: int) -> np.ndarray:
        """Returns the `count` photos of a shard that one visit of an epoch reads, ascending."""
        photos = self.starts[shard] + self.samples(shard)
        rng = np.random.default_rng([self.seed, PASS, epoch, shard])
        return photos[_choose(len(photos), count, rng)]


class EpochOrder:
    """The order of the photos of an epoch, split among the processes that share each batch.

    Visits of shards are in random order. Each process gets a contiguous range of photos, of equal
    length up to one photo, and shuffles them within blocks.

    Args:
        collection: the shards.
        epoch: number of the epoch; every epoch has its own order.
        num_processes: number of processes that share the batches.
        block: number of photos of one process that are shuffled together.
        shuffle: whether the order is random; otherwise it is that of the shards.
    """

    def __init__(
        self,
        collection: Collection,
        epoch: int,
        num_processes: int,
        block: int,
        shuffle: bool = True,
    ):
        self.collection, self.epoch = collection, epoch
        self.num_processes, self.block, self.shuffle = num_processes, block, shuffle
        order = np.arange(len(collection.visits))  # (Y,)
        if shuffle:
            order = np.random.default_rng([collection.seed, ORDER, epoch]).permutation(order)
        self.visits = collection.visits[order]  # (Y, 2)
        self.ends = np.concatenate([[0], np.cumsum(self.visits[:, 1])])  # (Y+1,)

    def span(self, process: int) -> tuple[int, int]:
        """Returns the first position of a process in the epoch, and the one after its last."""
        total = len(self.collection)
        return process * total // self.num_processes, (process + 1) * total // self.num_processes

    def photos(self, process: int, block: int) -> np.ndarray:
        """Returns the photos (N,) of a block of a process in the order of the shards.

        There may be none at the end of an epoch.
        """
        start, end = self.span(process)
        begin = min(end, start + block * self.block)
        end = min(end, begin + self.block)
        first = np.searchsorted(self.ends, begin, side="right") - 1
        pieces = [np.empty(0, np.int64)]
        for visit in range(first, len(self.visits)):
            if self.ends[visit] >= end:
                break
            shard, count = self.visits[visit]
            photos = self.collection.visit(shard, count, self.epoch)
            low, high = (max(0, position - self.ends[visit]) for position in (begin, end))
            pieces.append(photos[low:high])
        return np.concatenate(pieces)

    def rng(self, process: int, block: int) -> np.random.Generator:
        """Returns the random generator of a block of a process."""
        return np.random.default_rng([self.collection.seed, SHUFFLE, self.epoch, process, block])


def _spread(counts: np.ndarray, fraction: float) -> np.ndarray:
    """Returns how many of each count (X,) make up a fraction of all, spread evenly."""
    ends = np.floor(fraction * np.cumsum(counts) + 1e-9).astype(np.int64)  # (X,)
    return np.minimum(np.diff(ends, prepend=0), counts)


def _choose(count: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Returns `wanted` of the numbers below `count`, ascending."""
    if wanted >= count:
        return np.arange(count)
    return np.sort(rng.choice(count, wanted, replace=False))
