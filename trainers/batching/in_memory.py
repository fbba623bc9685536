"""Image-major batches: each row is one photo with all its captions, packed one after the other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from effcap.images import UnreadablePhoto
from effcap.tokenizers.tokenizer import Tokenizer
from effcap.trainers.batching.buckets import ROUNDING, row_lengths
from effcap.trainers.batching.packed import Batch, PackedBatches, Sample, show_that_lengths_vary
from effcap.trainers.data.example import CaptionedPhoto


class Source(Protocol):
    """Where the encoder's inputs come from, photo by photo."""

    mirrored: bool
    fingerprint: str

    def load(
        self, photos: np.ndarray, mirror: np.ndarray, draws: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Inputs (B, ...) of the photos numbered `photos` (B,), mirrored where `mirror` (B,).

        What else is random about them comes from `draws` (B,) uint64 alone; None for nothing.
        """


class CaptionBatches(PackedBatches):
    """Batches of photos whose captions are all in memory; see `PackedBatches` for their form.

    Rows of similar length share a batch. The last batch is filled up with photos of weight 0.

    Args:
        photos: the photos with their captions.
        source: where the encoder's inputs come from.
        tokenizer, positions: as in `PackedBatches`; captions too long for the decoder are left out,
            and named in `problems`.
        buckets: number of row lengths.
        passes: how often an epoch sees each photo, each time with captions and a view of its own.
        options: of `PackedBatches`: batch_size, captions_per_photo, shuffle, seed, threads, parts,
            part.

    Raises:
        ValueError: for options out of range, or when there is nothing to train on.
    """

    def __init__(
        self,
        photos: Sequence[CaptionedPhoto],
        source: Source,
        tokenizer: Tokenizer,
        positions: int,
        *,
        buckets: int = 8,
        passes: int = 1,
        **options: Any,
    ):
        super().__init__(tokenizer, positions, **options)
        for name, value in (("buckets", buckets), ("passes", passes)):
            if value < 1:
                raise ValueError(f"Expected {name} of at least 1. Received: {name}={value}")
        self.source, self.passes = source, passes
        self._encode(photos)
        if not self.rows:
            raise ValueError(
                "Expected photos with captions. Received: none that can be used"
                + "".join(f"; {problem}" for problem in self.problems[:1])
            )
        self._make_row_lengths(buckets)
        self.start_epoch(0)

    def _encode(self, photos: Sequence[CaptionedPhoto]) -> None:
        """Tokenizes all captions at once."""
        state = hashlib.sha256()
        flat = self.tokenizer.encode_batch([text for photo in photos for text in photo.captions])
        encoded = iter(flat)
        self.rows: list[int] = []  # number of the photo in the source
        self.paths: list[Path] = []
        self.names: list[str] = []
        self.captions: list[list[np.ndarray]] = []
        self.mirrors: list[bool] = []
        for number, photo in enumerate(photos):
            kept = []
            for text in photo.captions:
                tokens = np.asarray(next(encoded), self.token_type)
                if len(tokens) < self.positions:
                    kept.append(tokens)
                else:
                    self.problems.append(self.too_long(str(photo.path), text, len(tokens)))
            if kept:
                self.rows.append(number)
                self.paths.append(photo.path)
                self.names.append(photo.name)
                self.captions.append(kept)
                self.mirrors.append(photo.mirrors)
                lengths = [len(tokens) for tokens in kept]
                state.update(repr((number, photo.name, photo.mirrors, lengths)).encode())
                state.update(np.concatenate(kept).tobytes())
        self._contents = state.hexdigest()
        self.rows, self.paths = self.rows * self.passes, self.paths * self.passes
        self.captions, self.mirrors = self.captions * self.passes, self.mirrors * self.passes

    def _lengths(self, chosen: Sequence[np.ndarray]) -> np.ndarray:
        """Tokens in each row with those captions of each photo; one more per caption than it has
        tokens, for the start token."""
        return np.array(
            [
                sum(len(captions[i]) + 1 for i in choice)
                for captions, choice in zip(self.captions, chosen, strict=True)
            ]
        )

    def _make_row_lengths(self, buckets: int) -> None:
        """Fits the row lengths to the first epoch; the longest row there can be has its own."""
        self.row_lengths = row_lengths(self._lengths(self._choices(0)), buckets)
        most = self.captions_per_photo
        longest = max(
            sum(sorted((len(caption) + 1 for caption in row), reverse=True)[:most])
            for row in self.captions
        )
        if longest > self.row_lengths[-1]:
            longest = -(-longest // ROUNDING) * ROUNDING
            self.row_lengths = np.append(self.row_lengths, longest)

    def start_epoch(self, epoch: int) -> None:
        """Lays out an epoch, see `PackedBatches.start_epoch`."""
        if epoch == self.epoch:
            return
        self.epoch = epoch
        order_rng = np.random.default_rng([self.seed, epoch, 0])
        count = len(self.rows)
        order = order_rng.permutation(count) if self.shuffle else np.arange(count)
        self._chosen = self._choices(epoch)
        mirror = np.random.default_rng([self.seed, epoch, 2]).random(count) < 0.5
        self._mirror = mirror & np.array(self.mirrors) & self.source.mirrored & self.shuffle
        draws = np.random.default_rng([self.seed, epoch, 3])
        self._draws = draws.integers(2**64, size=count, dtype=np.uint64) if self.shuffle else None
        bucket = np.searchsorted(self.row_lengths, self._lengths(self._chosen)[order])
        # Only the last batch is not full; some hold rows of two buckets.
        rank = np.argsort(bucket, kind="stable")
        order, bucket = order[rank], bucket[rank]
        batches = []
        for start in range(0, count, self.batch_size):
            end = start + self.batch_size
            batches.append((int(self.row_lengths[bucket[start:end].max()]), order[start:end]))
        if self.shuffle:
            batches = [batches[i] for i in order_rng.permutation(len(batches))]
        self._batches = show_that_lengths_vary(batches, self.row_lengths)

    def _choices(self, epoch: int) -> list[np.ndarray]:
        """Numbers of the captions of each row in an epoch."""
        rng = np.random.default_rng([self.seed, epoch, 1])
        return [self.choose(len(row), rng) for row in self.captions]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:
        length, members = self._batches[index]
        filled = np.resize(members, self.batch_size)  # (B,) a photo of the batch fills a gap
        real = np.arange(self.batch_size) < len(members)  # (B,)
        filled, real = filled[self.own_rows()], real[self.own_rows()]  # (B / parts,)
        photos = np.array([self.rows[member] for member in filled])
        try:
            draws = None if self._draws is None else self._draws[filled]
            encoder_inputs = self.source.load(photos, self._mirror[filled], draws)
        except UnreadablePhoto as error:
            self.failure = error  # what Keras makes of it is hard to read
            raise
        chosen = [[self.captions[i][choice] for choice in self._chosen[i]] for i in filled]
        tokens, targets, segments = self.pack(chosen, length)
        weights = ((segments > 0) & real[:, None]).astype(np.float32)  # (B,T)
        inputs = {**encoder_inputs, "tokens": tokens, "segments": segments}
        return inputs, targets, weights

    @property
    def padding(self) -> float:
        """Share of this epoch's token places that hold padding."""
        places = sum(length * self.batch_size for length, _ in self._batches)
        return 1 - self._lengths(self._chosen).sum() / places

    @property
    def images(self) -> int:
        """Number of photos in an epoch."""
        return len(self.rows)

    @property
    def captions_left(self) -> int:
        """Number of captions that can be used."""
        return sum(map(len, self.captions)) // self.passes

    def samples(self, count: int) -> list[Sample]:
        """See `PackedBatches.samples`."""
        count = min(count, len(self.names))
        first = np.array(self.rows[:count])
        inputs = self.source.load(first, np.zeros(len(first), bool))
        return [
            Sample(
                {name: array[row] for name, array in inputs.items()},
                path if path.is_file() else None,
            )
            for row, path in enumerate(self.paths[:count])
        ]

    @property
    def fingerprint(self) -> str:
        """A hash of all that the batches of every epoch depend on: equal ones are the same."""
        parts = {
            "contents": self._contents,
            "tokenizer": self.tokenizer.fingerprint,
            "source": self.source.fingerprint,
            "passes": self.passes,
            "row_lengths": self.row_lengths.tolist(),
            "batch_size": self.batch_size,
            "captions_per_photo": self.captions_per_photo,
            "shuffle": self.shuffle,
            "seed": self.seed,
        }
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
