"""Plans the batches of an epoch from the seed, the epoch and the shard indexes; reads no photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from effcap.tokenizers import Tokenizer
from effcap.trainers.batching.buckets import ROUNDING, row_lengths
from effcap.trainers.batching.packed import (
    after_prefix,
    choose_captions,
    show_varying_lengths,
    token_dtype,
)
from effcap.trainers.data.augmentation import View
from effcap.trainers.data.example import can_flip
from effcap.trainers.data.shards.order import Collection, EpochOrder, PhotoId
from effcap.trainers.data.shards.shard_index import ShardIndex
from effcap.trainers.options.batches import BatchOptions

MEASURED_CAPTIONS = 20_000  # captions that the row lengths are fitted to


@dataclass(frozen=True)
class Row:
    """A photo with its captions in one batch.

    Attributes:
        photo: shard and sample of the photo.
        captions: tokens of each caption, without start token, prefix and end token.
        flip: whether to flip the photo horizontally.
        draw: random number that determines crop and colors.
        prefix: tokens that the captions continue.
    """

    photo: PhotoId
    captions: list[np.ndarray]
    flip: bool
    draw: np.uint64
    prefix: np.ndarray

    @property
    def length(self) -> int:
        """Number of tokens, with start token and prefix of each caption."""
        return sum(len(caption) + len(self.prefix) + 1 for caption in self.captions)


@dataclass(frozen=True)
class Block:
    """Consecutive batches whose photos are shuffled together.

    Attributes:
        batches: (row length T, rows of all processes) of each batch; None marks a row without a
            photo.
        photos: photos of each process in the order of the shards.
        too_long: photos that have no caption short enough for the decoder.
    """

    batches: list[tuple[int, list[Row | None]]]
    photos: list[list[PhotoId]]
    too_long: list[PhotoId]

    @property
    def padding(self) -> float:
        """Fraction of token positions that hold padding."""
        num_tokens = sum(row.length for _, rows in self.batches for row in rows if row is not None)
        return 1 - num_tokens / sum(length * len(rows) for length, rows in self.batches)


class BatchPlanner:
    """Selects the photos, captions and views of each batch.

    An epoch visits the shards in random order. Photos are shuffled in blocks that span several
    shards, and photos of a block with captions of similar length share a batch. A block depends
    only on the arguments, the epoch and its number.

    Args:
        indexes: indexes of the shards.
        collection: photo counts of the shards and passes over them.
        tokenizer: tokenizer of the captions.
        max_text_length: tokens of one caption that the decoder has positions for, including the
            start token.
        options: options of the batches.
        shuffle_block: number of photos per process that are shuffled together.

    Attributes:
        block_batches: number of batches per block.
        prefix: tokens that all captions continue, of the options' text.
        row_lengths: row lengths T, ascending.

    Raises:
        ValueError: `shuffle_block` is below 1, or the vocabulary has no tokens for the prefix.
    """

    def __init__(
        self,
        indexes: Sequence[ShardIndex],
        collection: Collection,
        tokenizer: Tokenizer,
        max_text_length: int,
        options: BatchOptions,
        shuffle_block: int = 2**15,
    ):
        if shuffle_block < 1:
            raise ValueError(
                f"Expected shuffle_block of at least 1. Received: shuffle_block={shuffle_block}"
            )
        self.indexes, self.collection = list(indexes), collection
        self.tokenizer, self.max_text_length, self.options = tokenizer, max_text_length, options
        prefix = tokenizer.encode_prefix(options.prefix)
        self.prefix: np.ndarray = np.asarray(prefix, token_dtype(tokenizer))
        self.rows_per_process = options.batch_size // options.num_processes
        self.block_batches = max(1, shuffle_block // self.rows_per_process)
        self.row_lengths = row_lengths(self._sample_lengths(), options.num_buckets)

    @property
    def num_batches(self) -> int:
        """Number of batches in an epoch."""
        most_photos = -(-len(self.collection) // self.options.num_processes)
        return -(-most_photos // self.rows_per_process)

    @property
    def num_captions(self) -> int:
        """Number of captions of the photos that are used."""
        total = 0
        for shard in self.collection.shards:
            counts = np.diff(self.indexes[shard].first)  # (N,)
            total += int(counts[self.collection.samples(shard)].sum())
        return total

    def block(self, epoch: int, number: int) -> Block:
        """Plans the block of an epoch that starts with batch `number * block_batches`."""
        options, collection, size = self.options, self.collection, self.rows_per_process
        num_processes = options.num_processes
        order = EpochOrder(
            collection, epoch, num_processes, self.block_batches * size, options.shuffle
        )
        num_batches = min(self.block_batches, self.num_batches - number * self.block_batches)
        padded: list[list[Row | None]] = []  # rows of each process
        photos: list[list[PhotoId]] = []
        too_long: list[PhotoId] = []
        for process in range(num_processes):
            rng = order.rng(process, number)
            rows = self._rows(collection.identify(order.photos(process, number)), rng)
            too_long += [row.photo for row in rows if not row.captions]
            rows = [row for row in rows if row.captions]
            photos.append([row.photo for row in rows])
            if options.shuffle:
                rows = [rows[i] for i in rng.permutation(len(rows))]
            rows.sort(key=lambda row: self._row_length(row.length))  # stable
            padded.append([*rows, *[None] * (num_batches * size - len(rows))])
        batches = []
        for start in range(0, num_batches * size, size):
            members = [row for rows in padded for row in rows[start : start + size]]
            longest = max((row.length for row in members if row is not None), default=1)
            batches.append((self._row_length(longest), members))
        if options.shuffle:
            ranks = order.rng(num_processes, number).permutation(num_batches)
            batches = [batches[i] for i in ranks]
        if number == 0:
            batches = show_varying_lengths(batches, self.row_lengths)
        return Block(batches, photos, too_long)

    def view(self, row: Row) -> View:
        """Returns the crop and colors of a row's photo."""
        return self.options.augmentation.view(row.draw) if self.options.shuffle else View()

    def first_photos(self, count: int) -> list[PhotoId]:
        """Returns the first photos of the first epoch in the order of the shards."""
        order = EpochOrder(self.collection, 0, 1, count, shuffle=False)
        return self.collection.identify(order.photos(0, 0))

    def name(self, photo: PhotoId) -> str:
        """Returns the name of a photo in lists: its shard and key."""
        index = self.indexes[photo.shard]
        return f"{index.shard}: {index.key(photo.sample)}"

    def captions(self, photo: PhotoId) -> Sequence[str]:
        """Returns all captions of a photo."""
        return self.indexes[photo.shard].captions(photo.sample)

    def state(self) -> dict[str, Any]:
        """Returns everything that the plans of all epochs depend on, as JSON values."""
        options = self.options
        return {
            "indexes": [index.fingerprint for index in self.indexes],
            "passes": [float(value) for value in self.collection.passes],
            "fraction": self.collection.fraction,
            "tokenizer": self.tokenizer.fingerprint,
            **({"prefix": options.prefix} if len(self.prefix) else {}),
            "augmentation": asdict(options.augmentation),
            "row_lengths": self.row_lengths.tolist(),
            "block_batches": self.block_batches,
            "batch_size": options.batch_size,
            "num_processes": options.num_processes,
            "captions_per_photo": options.captions_per_photo,
            "shuffle": options.shuffle,
            "seed": options.seed,
        }

    def _rows(self, photos: Sequence[PhotoId], rng: np.random.Generator) -> list[Row]:
        """Returns a row for each photo, without the captions that are too long."""
        options = self.options
        texts: list[str] = []
        counts, flippable = [], []
        for shard, sample in photos:
            captions = self.indexes[shard].captions(sample)
            chosen = [captions[i] for i in choose_captions(len(captions), options, rng)]
            texts += [after_prefix(text, options.prefix) for text in chosen]
            counts.append(len(chosen))
            flippable.append(
                options.augmentation.horizontal_flip and can_flip((options.prefix, *chosen))
            )
        flip = (rng.random(len(photos)) < 0.5) & np.array(flippable, bool) & options.shuffle  # (N,)
        draws = rng.integers(2**64, size=len(photos), dtype=np.uint64)  # (N,)
        encoded, dtype = iter(self.tokenizer.encode_captions(texts)), token_dtype(self.tokenizer)
        rows = []
        for i, photo in enumerate(photos):
            tokens: list[np.ndarray] = [np.asarray(next(encoded), dtype) for _ in range(counts[i])]
            longest = self.max_text_length - 1 - len(self.prefix)
            short = [caption for caption in tokens if len(caption) <= longest]
            rows.append(Row(photo, short, bool(flip[i]), draws[i], self.prefix))
        return rows

    def _row_length(self, length: int) -> int:
        bucket = np.searchsorted(self.row_lengths, length)
        if bucket < len(self.row_lengths):
            return int(self.row_lengths[bucket])
        return -(-length // ROUNDING) * ROUNDING  # longer than all measured rows

    def _sample_lengths(self) -> np.ndarray:
        """Returns the tokens per row (N,) of photos from some shards."""
        rng = np.random.default_rng([self.options.seed, 1])
        texts: list[str] = []
        counts: list[int] = []
        for shard in rng.permutation(self.collection.shards):
            for sample in self.collection.samples(shard)[: MEASURED_CAPTIONS - len(texts)]:
                captions = self.indexes[shard].captions(int(sample))
                chosen = choose_captions(len(captions), self.options, rng)
                texts += [after_prefix(captions[i], self.options.prefix) for i in chosen]
                counts.append(len(chosen))
            if len(texts) >= MEASURED_CAPTIONS:
                break
        encoded = self.tokenizer.encode_captions(texts)
        lengths = [len(tokens) + len(self.prefix) + 1 for tokens in encoded]
        lengths = [length if length <= self.max_text_length else 0 for length in lengths]
        starts = np.cumsum([0, *counts[:-1]])  # (N,)
        return np.maximum(np.add.reduceat(np.array(lengths), starts), 2)
