"""Image-major batches: each row is one photo with all its captions, packed one after the other."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any, Protocol

import keras
import numpy as np

from effcap.photos import UnreadablePhoto
from effcap.tools.tokenizer import Tokenizer
from effcap.trainers.buckets import ROUNDING, row_lengths
from effcap.trainers.captions import CaptionedPhoto, Problem

MOST_THREADS = 8  # by default: more rarely help, and each holds batches


class Source(Protocol):
    """Where the encoder's inputs come from, photo by photo."""

    input_name: str
    mirrored: bool
    fingerprint: str

    def load(
        self, photos: np.ndarray, mirror: np.ndarray, draws: np.ndarray | None = None
    ) -> np.ndarray:
        """Inputs (B, ...) of the photos numbered `photos` (B,), mirrored where `mirror` (B,).

        What else is random about them comes from `draws` (B,) uint64 alone; None for nothing.
        """


class CaptionBatches(keras.utils.PyDataset):
    """Batches of photos with captions, for `fit` on any backend.

    A batch is `(inputs, targets, weights)`: inputs `{"images" or "features": (B, ...), "tokens":
    (B, T), "segments": (B, T)}`, targets (B, T) the tokens that follow, weights (B, T) 1 for real
    tokens and 0 for padding. The captions of a photo stand in one row one after the other, told
    apart by segments 1, 2, ... (0 is padding), so the photo is encoded once for all of them.
    Rows of similar length share a batch. Which photos, captions and views a batch holds depends on
    the seed, the epoch and its number alone, so training can go on from any of them. (`fit` takes
    batches in an order of its own, unless told `shuffle=False`.)

    Args:
        photos: the photos with their captions.
        source: where the encoder's inputs come from.
        tokenizer: for the captions.
        positions: the decoder's; a caption with more tokens is left out, and named in `problems`.
        batch_size: photos per batch. The last batch is filled up with photos of weight 0.
        captions_per_photo: at most that many, chosen anew each epoch; None for all.
        shuffle: whether order, choice and views change from epoch to epoch; otherwise photos are
            seen as they are.
        seed: of order, choice and views.
        buckets: number of row lengths.
        threads: batches prepared at the same time; by default one per core, from 2 to 8.

    Attributes:
        problems: captions that were left out.
        row_lengths: the values that T takes, ascending.
        failure: the photo that could not be read in training, if that happened.

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
        batch_size: int = 32,
        captions_per_photo: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        buckets: int = 8,
        threads: int | None = None,
    ):
        threads = threads or min(max(2, os.cpu_count() or 2), MOST_THREADS)
        super().__init__(workers=threads, max_queue_size=2 * threads)
        for name, value in (("batch_size", batch_size), ("buckets", buckets)):
            if value < 1:
                raise ValueError(f"Expected {name} of at least 1. Received: {name}={value}")
        if captions_per_photo is not None and captions_per_photo < 1:
            raise ValueError(
                "Expected captions_per_photo of at least 1, or None for all. "
                f"Received: captions_per_photo={captions_per_photo}"
            )
        self.source, self.tokenizer = source, tokenizer
        self.batch_size, self.captions_per_photo = batch_size, captions_per_photo
        self.shuffle, self.seed, self.epoch = shuffle, seed, -1
        self.problems: list[Problem] = []
        self.failure: UnreadablePhoto | None = None
        self._encode(photos, positions)
        if not self.rows:
            raise ValueError(
                "Expected photos with captions. Received: none that can be used"
                + "".join(f"; {problem}" for problem in self.problems[:1])
            )
        self._make_row_lengths(buckets)
        self.start_epoch(0)

    def _encode(self, photos: Sequence[CaptionedPhoto], positions: int) -> None:
        """Tokenizes all captions at once; a token costs two bytes where the vocabulary allows."""
        state = hashlib.sha256()
        dtype = np.uint16 if self.tokenizer.vocabulary_size <= 2**16 else np.int32
        flat = self.tokenizer.encode_batch([text for photo in photos for text in photo.captions])
        encoded = iter(flat)
        self.rows: list[int] = []  # number of the photo in the source
        self.captions: list[list[np.ndarray]] = []
        self.mirrors: list[bool] = []
        for number, photo in enumerate(photos):
            kept = []
            for text in photo.captions:
                tokens = np.asarray(next(encoded), dtype)
                if len(tokens) < positions:
                    kept.append(tokens)
                else:
                    reason = (
                        f"expected a caption of at most {positions - 1} tokens. "
                        f"Received: {len(tokens)}: {text[:60]!r}"
                    )
                    self.problems.append(Problem(str(photo.path), reason))
            if kept:
                self.rows.append(number)
                self.captions.append(kept)
                self.mirrors.append(photo.mirrors)
                lengths = [len(tokens) for tokens in kept]
                state.update(repr((number, photo.name, photo.mirrors, lengths)).encode())
                state.update(np.concatenate(kept).tobytes())
        self._contents = state.hexdigest()

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
        """Lays out an epoch: which rows, captions and views each batch holds.

        Keras starts the next epoch by itself; call this to go on from another one, but not while
        `fit` is reading.
        """
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
        self._batches = _show_that_lengths_vary(batches, self.row_lengths)

    def _choices(self, epoch: int) -> list[np.ndarray]:
        """Numbers of the captions of each row in an epoch."""
        rng = np.random.default_rng([self.seed, epoch, 1])
        return [self._choose(len(row), rng) for row in self.captions]

    def _choose(self, count: int, rng: np.random.Generator) -> np.ndarray:
        wanted = self.captions_per_photo
        if wanted is None or wanted >= count:
            return np.arange(count)
        if not self.shuffle:
            return np.arange(wanted)
        return np.sort(rng.choice(count, wanted, replace=False))

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        length, members = self._batches[index]
        filled = np.resize(members, self.batch_size)  # (B,) a photo of the batch fills a gap
        photos = np.array([self.rows[member] for member in filled])
        try:
            draws = None if self._draws is None else self._draws[filled]
            encoder_input = self.source.load(photos, self._mirror[filled], draws)
        except UnreadablePhoto as error:
            self.failure = error  # what Keras makes of it is hard to read
            raise
        inputs: dict[str, Any] = {self.source.input_name: encoder_input}
        shape = (self.batch_size, length)
        tokens = np.full(shape, self.tokenizer.pad_id, np.int32)  # (B,T)
        targets = np.full(shape, self.tokenizer.pad_id, np.int32)  # (B,T)
        segments = np.zeros(shape, np.int32)  # (B,T)
        for row, member in enumerate(filled):
            start = 0
            for segment, choice in enumerate(self._chosen[member], 1):
                caption = self.captions[member][choice]
                end = start + len(caption) + 1
                tokens[row, start] = self.tokenizer.bos_id
                tokens[row, start + 1 : end] = targets[row, start : end - 1] = caption
                targets[row, end - 1] = self.tokenizer.eos_id
                segments[row, start:end] = segment
                start = end
        weights = (segments > 0).astype(np.float32)  # (B,T)
        weights[len(members) :] = 0
        return {**inputs, "tokens": tokens, "segments": segments}, targets, weights

    def on_epoch_end(self) -> None:
        """Starts the next epoch; Keras calls it, and once more before `fit` begins."""
        if self.shuffle:
            self.start_epoch(self.epoch + 1)

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
    def fingerprint(self) -> str:
        """A hash of all that the batches of every epoch depend on: equal ones are the same."""
        parts = {
            "contents": self._contents,
            "tokenizer": self.tokenizer.fingerprint,
            "source": self.source.fingerprint,
            "row_lengths": self.row_lengths.tolist(),
            "batch_size": self.batch_size,
            "captions_per_photo": self.captions_per_photo,
            "shuffle": self.shuffle,
            "seed": self.seed,
        }
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _show_that_lengths_vary(
    batches: list[tuple[int, np.ndarray]], lengths: np.ndarray
) -> list[tuple[int, np.ndarray]]:
    """Gives the first two batches different lengths: Keras takes from them what varies.

    Should all in this epoch have one length, another epoch may still have others.
    """
    length, members = batches[0]
    others = [i for i, other in enumerate(batches) if other[0] != length]
    if others:
        batches[1], batches[others[0]] = batches[others[0]], batches[1]
    elif len(batches) == 1:
        batches[0] = (int(lengths[-1]), members)  # the same in all epochs
    elif len(lengths) > 1:
        batches[1] = (length + ROUNDING, batches[1][1])
    return batches
