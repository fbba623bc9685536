"""Batches of photos in shards, in an exact order, whoever reads them and wherever it begins."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from effcap.tokenizers.tokenizer import Tokenizer
from effcap.trainers.batching.buckets import ROUNDING, row_lengths
from effcap.trainers.batching.packed import Batch, PackedBatches, Sample, show_that_lengths_vary
from effcap.trainers.data.augmentation import Augmentation, View
from effcap.trainers.data.example import TooManyProblems, stay_true_mirrored
from effcap.trainers.data.shards.image_decoder import Decoder
from effcap.trainers.data.shards.order import Collection, EpochOrder
from effcap.trainers.data.shards.photo_bytes import LostPhoto, ShardFiles, ShardStream, split_remote
from effcap.trainers.data.shards.shard_index import ShardIndex
from effcap.trainers.data.shards.skipped import Losses

MEASURED = 20_000  # captions that the row lengths are fitted to
PLAIN = View()


@dataclass
class Row:
    """A photo with the captions that one batch shows of it."""

    number: int
    captions: list[np.ndarray]
    mirror: bool
    draw: np.uint64
    encoded: bytes | LostPhoto | None = None  # of a remote photo, read as its shard streamed by

    @property
    def length(self) -> int:
        """Tokens, with a start token for each caption."""
        return sum(len(caption) + 1 for caption in self.captions)


class ShardBatches(PackedBatches):
    """Batches of photos in webdataset shards; see `PackedBatches` for their form.

    An epoch passes over the shards in random order. Photos are shuffled in blocks that span
    several shards, and within a block those with captions of similar length share a batch. Photos
    that cannot be read are passed over, their rows weigh nothing, and are counted in `lost`.

    Args:
        indexes: of the shards, as `read_indexes` gives them.
        passes: (X,) how often an epoch sees the photos of each shard.
        tokenizer, positions: as in `PackedBatches`.
        decoder: of the photos.
        augmentation: how photos are varied.
        block: photos shuffled together, per process; a block of remote shards is held in memory.
        share: of the photos to use.
        losses: counts photos that cannot be read.
        buckets: number of row lengths.
        options: of `PackedBatches`.

    Raises:
        ValueError: for options out of range, or when there is nothing to train on.
    """

    def __init__(
        self,
        indexes: Sequence[ShardIndex],
        passes: Sequence[float],
        tokenizer: Tokenizer,
        positions: int,
        *,
        decoder: Decoder,
        losses: Losses,
        augmentation: Augmentation | None = None,
        block: int = 2**15,
        share: float = 1.0,
        buckets: int = 8,
        **options: Any,
    ):
        super().__init__(tokenizer, positions, **options)
        for name, value in (("buckets", buckets), ("block", block)):
            if value < 1:
                raise ValueError(f"Expected {name} of at least 1. Received: {name}={value}")
        self.indexes, self.decoder, self.lost = list(indexes), decoder, losses
        self.augmentation = augmentation or Augmentation()
        self.share, self.passes = share, list(passes)
        self.collection = Collection(list(map(len, self.indexes)), passes, share, self.seed)
        self.block_batches = max(1, block // self.rows_per_part)
        self.files = ShardFiles(self.indexes)
        self.remote = split_remote(self.indexes)
        self.streams = {part: ShardStream(self.indexes) for part in range(self.parts)}
        self.row_lengths = row_lengths(self._some_lengths(), buckets)
        # One thread makes blocks, in order: remote shards stream by only once.
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="blocks")
        self._blocks: dict[tuple[int, int], Future] = {}
        self._kept_blocks = 3 + (self.workers + self.max_queue_size) // self.block_batches
        self._lock = threading.Lock()
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Lays out an epoch, see `PackedBatches.start_epoch`."""
        if epoch == self.epoch:
            return
        self.epoch = epoch
        block = self.block_batches * self.rows_per_part
        self.order = EpochOrder(self.collection, epoch, self.parts, block, self.shuffle)

    def __len__(self) -> int:
        most = -(-self.images // self.parts)
        return -(-most // self.rows_per_part)

    def __getitem__(self, index: int) -> Batch:
        number, place = divmod(index, self.block_batches)
        try:
            length, rows = self._block(number)[place]
            rows = rows[self.own_rows()]
            images, real = self._images(rows)
        except TooManyProblems as error:
            self.failure = error
            raise
        shown = [row.captions if real[i] else [] for i, row in enumerate(rows)]
        tokens, targets, segments = self.pack(shown, length)
        weights = (segments > 0).astype(np.float32)  # (B,T)
        segments[~real, 0] = 1  # what weighs nothing must still attend to something
        return {"images": images, "tokens": tokens, "segments": segments}, targets, weights

    def _images(self, rows: Sequence[Row | None]) -> tuple[Any, np.ndarray]:
        """Images (B, h, w, 3) of rows, and which of them are real (B,); another fills a gap."""
        encoded: list[bytes | None] = []
        reasons: dict[int, str] = {}
        for i, row in enumerate(rows):
            found = None if row is None else self._encoded(row)
            if isinstance(found, LostPhoto):
                reasons[i], found = str(found), None
            encoded.append(found)
        views = [
            self.augmentation.view(row.draw) if row is not None and self.shuffle else PLAIN
            for row in rows
        ]
        mirror = np.array([row is not None and row.mirror for row in rows])
        images, failures = self.decoder.decode(encoded, views, mirror)
        reasons |= failures
        for i, reason in reasons.items():
            self.lost.add(self.name(rows[i].number), reason)
        real = np.array([row is not None and i not in reasons for i, row in enumerate(rows)])
        if not real.all():
            self._fill(images, real)
        return images, real

    def _fill(self, images: np.ndarray, real: np.ndarray) -> None:
        """Puts another photo of the same process where there is none, for batch statistics."""
        for start in range(0, len(real), self.rows_per_part):
            own = slice(start, start + self.rows_per_part)
            if real[own].any():
                images[own][~real[own]] = images[start + real[own].argmax()]

    def _encoded(self, row: Row) -> bytes | LostPhoto:
        if row.encoded is not None:
            return row.encoded
        try:
            return self.files.read(*self._place(row.number))
        except LostPhoto as error:
            return error

    def _place(self, number: int) -> tuple[int, int]:
        """Shard of a photo, and its place there."""
        shard = int(self.collection.shard_of(np.array(number)))
        return shard, int(number - self.collection.starts[shard])

    def name(self, number: int) -> str:
        """What a photo is called in lists."""
        shard, sample = self._place(number)
        return f"{self.indexes[shard].shard}: {self.indexes[shard].key(sample)}"

    def _block(self, number: int) -> list[tuple[int, list[Row | None]]]:
        """The batches of a block: row length, and rows of all parts, one after the other."""
        with self._lock:
            wanted = [n for n in (number, number + 1) if n * self.block_batches < len(self)]
            for n in wanted:
                if (self.epoch, n) not in self._blocks:
                    future = self._maker.submit(self._make_block, self.order, n)
                    self._blocks[self.epoch, n] = future
            block = self._blocks[self.epoch, number]
            while len(self._blocks) > self._kept_blocks:
                del self._blocks[next(iter(self._blocks))]
        return block.result()

    def _make_block(self, order: EpochOrder, number: int) -> list[tuple[int, list[Row | None]]]:
        size = self.rows_per_part
        count = min(self.block_batches, len(self) - number * self.block_batches)
        parts = [self._rows(order, part, number) for part in range(self.parts)]
        for rows in parts:
            rows.sort(key=lambda row: self._row_length(row.length))  # keeps the order of equals
            rows += [None] * (count * size - len(rows))
        batches = []
        for start in range(0, count * size, size):
            rows = [row for part in parts for row in part[start : start + size]]
            longest = max((row.length for row in rows if row is not None), default=1)
            batches.append((self._row_length(longest), rows))
        if self.shuffle:
            places = order.random(self.parts, number).permutation(count)
            batches = [batches[place] for place in places]
        return show_that_lengths_vary(batches, self.row_lengths) if number == 0 else batches

    def _rows(self, order: EpochOrder, part: int, number: int) -> list[Row]:
        """The rows of a part's block, shuffled."""
        photos = order.in_order(part, number)
        rng = order.random(part, number)
        texts, counts, mirrored = [], [], []
        for photo in photos:
            shard, sample = self._place(photo)
            captions = self.indexes[shard].captions(sample)
            captions = [captions[i] for i in self.choose(len(captions), rng)]
            texts += captions
            counts.append(len(captions))
            mirrored.append(self.augmentation.mirror and stay_true_mirrored(captions))
        mirror = (rng.random(len(photos)) < 0.5) & np.array(mirrored, bool) & self.shuffle
        draws = rng.integers(2**64, size=len(photos), dtype=np.uint64)
        encoded = iter(self.tokenizer.encode_batch(texts))
        rows = []
        for i, photo in enumerate(photos):
            captions = [np.asarray(next(encoded), self.token_type) for _ in range(counts[i])]
            captions = [tokens for tokens in captions if len(tokens) < self.positions]
            rows.append(Row(int(photo), captions, bool(mirror[i]), draws[i]))
        if self.remote and self.part in (None, part):
            self._stream(part, rows)
        kept = []
        for row in rows:
            if row.captions:
                kept.append(row)
            else:
                self.lost.add(self.name(row.number), f"no caption below {self.positions} tokens")
        return [kept[i] for i in rng.permutation(len(kept))] if self.shuffle else kept

    def _stream(self, part: int, rows: Sequence[Row]) -> None:
        """Reads the photos of remote shards, in the order in which they stand."""
        start = 0
        while start < len(rows):
            shard, _ = self._place(rows[start].number)
            end, previous = start, -1
            samples = []
            while end < len(rows):
                other, sample = self._place(rows[end].number)
                if other != shard or sample <= previous:
                    break
                samples.append(sample)
                end, previous = end + 1, sample
            if shard in self.remote:
                found = self.streams[part].read(shard, samples)
                for row, encoded in zip(rows[start:end], found, strict=True):
                    row.encoded = encoded
            start = end

    def _row_length(self, length: int) -> int:
        place = np.searchsorted(self.row_lengths, length)
        if place < len(self.row_lengths):
            return int(self.row_lengths[place])
        return -(-length // ROUNDING) * ROUNDING  # longer than all that were measured

    def _some_lengths(self) -> np.ndarray:
        """Tokens of rows (N,), of photos of some shards."""
        rng = np.random.default_rng([self.seed, 1])
        texts, counts = [], []
        for shard in rng.permutation(np.unique(self.collection.visits[:, 0])):
            for photo in self.collection.members(shard)[: MEASURED - len(texts)]:
                captions = self.indexes[shard].captions(int(photo - self.collection.starts[shard]))
                captions = [captions[i] for i in self.choose(len(captions), rng)]
                texts += captions
                counts.append(len(captions))
            if len(texts) >= MEASURED:
                break
        tokens = [len(tokens) + 1 for tokens in self.tokenizer.encode_batch(texts)]
        tokens = [length if length <= self.positions else 0 for length in tokens]
        starts = np.cumsum([0, *counts[:-1]])
        return np.maximum(np.add.reduceat(np.array(tokens), starts), 2)

    def losses(self) -> str:
        """See `PackedBatches.losses`."""
        return str(self.lost)

    @property
    def images(self) -> int:
        """Number of photos in an epoch."""
        return len(self.collection)

    @property
    def captions_left(self) -> int:
        """Number of captions of the photos that are used."""
        total = 0
        for shard in np.unique(self.collection.visits[:, 0]):
            places = self.collection.members(shard) - self.collection.starts[shard]
            total += int(np.diff(self.indexes[shard].first)[places].sum())
        return total

    @property
    def padding(self) -> float:
        """Share of token places that hold padding, in the epoch's first block."""
        block = self._block(0)
        tokens = sum(row.length for _, rows in block for row in rows if row is not None)
        return 1 - tokens / sum(length * len(rows) for length, rows in block)

    @property
    def fingerprint(self) -> str:
        """A hash of all that the batches of every epoch depend on: equal ones are the same."""
        parts = {
            "indexes": [index.fingerprint for index in self.indexes],
            "passes": self.passes,
            "share": self.share,
            "tokenizer": self.tokenizer.fingerprint,
            "decoder": self.decoder.name,
            "augmentation": repr(self.augmentation),
            "row_lengths": self.row_lengths.tolist(),
            "block": self.block_batches,
            "batch_size": self.batch_size,
            "parts": self.parts,
            "captions_per_photo": self.captions_per_photo,
            "shuffle": self.shuffle,
            "seed": self.seed,
        }
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def samples(self, count: int) -> list[Sample]:
        """The first photos of the first epoch that can be read; see `PackedBatches.samples`."""
        order = EpochOrder(self.collection, 0, 1, 8 * count, shuffle=False)
        rows = [Row(int(photo), [], False, np.uint64(0)) for photo in order.in_order(0, 0)]
        found: list[Sample] = []
        for row in rows:
            if self._place(row.number)[0] in self.remote:
                self._stream(0, [row])
            encoded = self._encoded(row)
            if isinstance(encoded, bytes):
                images, failures = self.decoder.decode([encoded], [PLAIN], np.array([False]))
                if not failures:
                    image = keras.ops.convert_to_numpy(images)[0]  # (h,w,3)
                    found.append(Sample({"images": image}, encoded))
            if len(found) == count:
                break
        return found
