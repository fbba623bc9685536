"""Which photos of which shards an epoch holds, and in which order, by arithmetic alone.

Nothing is listed photo by photo: ten million cost no more than the counts of their shards, and any
place in an epoch is found at once, so that a stopped run goes on without reading what it has seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ORDER, SUBSET, PASS, SHUFFLE = 10, 11, 12, 13  # what a random generator is for


class Collection:
    """Shards with the number of photos in each, and how often an epoch passes over them.

    A photo's number is the number of photos in the shards before its own plus its place there.

    Args:
        counts: (X,) photos in each of X shards.
        passes: (X,) how often an epoch sees the photos of each shard: 2 for twice, 0.5 for half of
            them, others each epoch.
        share: of the photos to use at all, above 0 and up to 1, the same in all epochs.
        seed: of every choice.

    Raises:
        ValueError: when there is nothing in it.
    """

    def __init__(
        self, counts: Sequence[int], passes: Sequence[float], share: float = 1.0, seed: int = 0
    ):
        self.seed = seed
        self.counts = np.asarray(counts, np.int64)  # (X,)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])  # (X+1,)
        self.used = _shares(self.counts, share)  # (X,)
        if share < 1 and self.counts.sum() and not self.used.sum():
            self.used[np.argmax(self.counts)] = 1
        visits = []  # (shard, number of photos)
        for value in dict.fromkeys(passes):
            of_value = np.asarray(passes) == value
            whole, rest = int(value), value - int(value)
            visits += [(x, self.used[x]) for x in np.flatnonzero(of_value)] * whole
            some = _shares(np.where(of_value, self.used, 0), rest)
            visits += [(x, some[x]) for x in np.flatnonzero(some)]
        self.visits = np.array([v for v in visits if v[1]], np.int64).reshape(-1, 2)  # (Y,2)
        if not len(self.visits):
            raise ValueError("Expected shards with photos to train on. Received: none")

    def __len__(self) -> int:
        return int(self.visits[:, 1].sum())

    def shard_of(self, numbers: np.ndarray) -> np.ndarray:
        """The shards (N,) that photos (N,) are in."""
        return np.searchsorted(self.starts, numbers, side="right") - 1

    def members(self, shard: int) -> np.ndarray:
        """Numbers of the photos of a shard that are used, ascending."""
        count, used = self.counts[shard], self.used[shard]
        rng = np.random.default_rng([self.seed, SUBSET, shard])
        return self.starts[shard] + _some(count, used, rng)

    def seen(self, shard: int, count: int, epoch: int) -> np.ndarray:
        """Numbers of the `count` photos of a shard that one visit sees, ascending."""
        members = self.members(shard)
        rng = np.random.default_rng([self.seed, PASS, epoch, shard])
        return members[_some(len(members), count, rng)]


class EpochOrder:
    """The photos of an epoch, one after the other, dealt to the parts that share each batch.

    Visits of shards come in random order; each part gets a stretch of them, of the same length but
    for one photo, and within each block of photos of a part the order is random.

    Args:
        collection: the shards.
        epoch: its number; orders of different epochs differ.
        parts: processes that share the batches.
        block: photos of one part that are shuffled together.
        shuffle: whether anything is random; otherwise shards and photos come as they stand.
    """

    def __init__(
        self, collection: Collection, epoch: int, parts: int, block: int, shuffle: bool = True
    ):
        self.collection, self.epoch = collection, epoch
        self.parts, self.block, self.shuffle = parts, block, shuffle
        order = np.arange(len(collection.visits))
        if shuffle:
            order = np.random.default_rng([collection.seed, ORDER, epoch]).permutation(order)
        self.visits = collection.visits[order]  # (Y,2)
        self.ends = np.concatenate([[0], np.cumsum(self.visits[:, 1])])  # (Y+1,)

    def stretch(self, part: int) -> tuple[int, int]:
        """Where a part's photos begin and end in the epoch."""
        total = len(self.collection)
        return part * total // self.parts, (part + 1) * total // self.parts

    def in_order(self, part: int, number: int) -> np.ndarray:
        """Photos of a part's block, shard after shard; may be empty at the epoch's end."""
        start, end = self.stretch(part)
        begin = min(end, start + number * self.block)
        end = min(end, begin + self.block)
        first = np.searchsorted(self.ends, begin, side="right") - 1
        found = [np.empty(0, np.int64)]
        for visit in range(first, len(self.visits)):
            if self.ends[visit] >= end:
                break
            shard, count = self.visits[visit]
            photos = self.collection.seen(shard, count, self.epoch)
            low, high = (max(0, place - self.ends[visit]) for place in (begin, end))
            found.append(photos[low:high])
        return np.concatenate(found)

    def random(self, part: int, number: int) -> np.random.Generator:
        """For whatever is random about a block."""
        return np.random.default_rng([self.collection.seed, SHUFFLE, self.epoch, part, number])


def _shares(counts: np.ndarray, share: float) -> np.ndarray:
    """How many of each count (X,) make up a share of them all, spread evenly."""
    ends = np.floor(share * np.cumsum(counts) + 1e-9).astype(np.int64)  # (X,)
    return np.minimum(np.diff(ends, prepend=0), counts)


def _some(count: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """`wanted` of the numbers below `count`, ascending."""
    if wanted >= count:
        return np.arange(count)
    return np.sort(rng.choice(count, wanted, replace=False))
