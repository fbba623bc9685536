"""What all batches have in common: rows that hold one photo with all its captions."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from effcap.tokenizers.tokenizer import Tokenizer
from effcap.trainers.batching.buckets import ROUNDING
from effcap.trainers.data.example import Problem

if TYPE_CHECKING:
    from effcap.images import Photo

MOST_THREADS = 8  # by default: more rarely help, and each holds batches

Batch = tuple[dict[str, Any], np.ndarray, np.ndarray]


class Sample(NamedTuple):
    """Something to caption and to show.

    Attributes:
        inputs: the encoder's, of one row: arrays without the axis B.
        photo: to show; None where there is none.
    """

    inputs: dict[str, np.ndarray]
    photo: Photo | None = None


class PackedBatches(keras.utils.PyDataset):
    """Image-major batches for `fit` on any backend.

    A batch is `(inputs, targets, weights)`: inputs `{"images" or "features": (B, ...), "tokens":
    (B, T), "segments": (B, T)}`, targets (B, T) the tokens that follow, weights (B, T) 1 for real
    tokens and 0 for padding. The captions of a photo stand in one row one after the other, told
    apart by segments 1, 2, ... (0 is padding), so the photo is encoded once for all of them.
    Which photos, captions and views a batch holds depends on the seed, the epoch and its number
    alone, so training can go on from any of them. (`fit` takes batches in an order of its own,
    unless told `shuffle=False`.)

    Where several processes train one captioner, each makes its own rows of every batch.

    Args:
        tokenizer: for the captions.
        positions: the decoder's; a caption with more tokens cannot be used.
        batch_size: photos per batch, of all processes together.
        captions_per_photo: at most that many, chosen anew each epoch; None for all.
        shuffle: whether order, choice and views change from epoch to epoch; otherwise photos are
            seen as they are.
        seed: of order, choice and views.
        threads: batches prepared at the same time; by default one per core, from 2 to 8.
        parts: processes that share each batch.
        part: which of them this is, from 0; None for all parts, one after the other.

    Attributes:
        problems: captions that were left out.
        names: of the photos, where they are few enough to be in memory.
        row_lengths: the values that T takes, ascending.
        failure: why batches could not be made in training, if that happened.

    Raises:
        ValueError: for options out of range.
    """

    row_lengths: np.ndarray
    names: Sequence[str] = ()

    def __init__(
        self,
        tokenizer: Tokenizer,
        positions: int,
        *,
        batch_size: int = 32,
        captions_per_photo: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        threads: int | None = None,
        parts: int = 1,
        part: int | None = None,
    ):
        threads = threads or min(max(2, os.cpu_count() or 2), MOST_THREADS)
        super().__init__(workers=threads, max_queue_size=2 * threads)
        for name, value in (("batch_size", batch_size), ("parts", parts)):
            if value < 1:
                raise ValueError(f"Expected {name} of at least 1. Received: {name}={value}")
        if captions_per_photo is not None and captions_per_photo < 1:
            raise ValueError(
                "Expected captions_per_photo of at least 1, or None for all. "
                f"Received: captions_per_photo={captions_per_photo}"
            )
        if batch_size % parts:
            raise ValueError(
                f"Expected a batch_size that {parts} processes can share evenly. "
                f"Received: batch_size={batch_size}"
            )
        if part is not None and not 0 <= part < parts:
            raise ValueError(f"Expected part from 0 to {parts - 1}. Received: part={part}")
        self.tokenizer, self.positions = tokenizer, positions
        self.batch_size, self.captions_per_photo = batch_size, captions_per_photo
        self.shuffle, self.seed, self.epoch = shuffle, seed, -1
        self.parts, self.part = parts, part
        self.problems: list[Problem] = []
        self.failure: Exception | None = None

    @property
    @abstractmethod
    def images(self) -> int:
        """Number of photos in an epoch."""

    @property
    @abstractmethod
    def captions_left(self) -> int:
        """Number of captions that can be used."""

    @property
    @abstractmethod
    def padding(self) -> float:
        """Share of token places that hold padding."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of all that the batches of every epoch depend on: equal ones are the same."""

    @abstractmethod
    def samples(self, count: int) -> list[Sample]:
        """The first of what is captioned, as it is, for people to look at."""

    def losses(self) -> str:
        """What could not be read so far and was passed over, in a line; empty for nothing."""
        return ""

    @abstractmethod
    def start_epoch(self, epoch: int) -> None:
        """Lays out an epoch: which rows, captions and views each batch holds.

        Keras starts the next epoch by itself; call this to go on from another one, but not while
        `fit` is reading.
        """

    def on_epoch_end(self) -> None:
        """Starts the next epoch; Keras calls it, and once more before `fit` begins."""
        if self.shuffle:
            self.start_epoch(self.epoch + 1)

    @property
    def rows_per_part(self) -> int:
        """Rows of a batch that one process makes."""
        return self.batch_size // self.parts

    def own_rows(self) -> slice:
        """The rows of a batch that this process makes."""
        if self.part is None:
            return slice(0, self.batch_size)
        return slice(self.part * self.rows_per_part, (self.part + 1) * self.rows_per_part)

    def choose(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Numbers of the captions to use of a photo that has `count` of them."""
        wanted = self.captions_per_photo
        if wanted is None or wanted >= count:
            return np.arange(count)
        if not self.shuffle:
            return np.arange(wanted)
        return np.sort(rng.choice(count, wanted, replace=False))

    def pack(
        self, rows: Sequence[Sequence[np.ndarray]], length: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(tokens, targets, segments), each (B, T), of the captions' tokens of each row."""
        shape = (len(rows), length)
        tokens = np.full(shape, self.tokenizer.pad_id, np.int32)  # (B,T)
        targets = np.full(shape, self.tokenizer.pad_id, np.int32)  # (B,T)
        segments = np.zeros(shape, np.int32)  # (B,T)
        for row, captions in enumerate(rows):
            start = 0
            for segment, caption in enumerate(captions, 1):
                end = start + len(caption) + 1
                tokens[row, start] = self.tokenizer.bos_id
                tokens[row, start + 1 : end] = targets[row, start : end - 1] = caption
                targets[row, end - 1] = self.tokenizer.eos_id
                segments[row, start:end] = segment
                start = end
        return tokens, targets, segments

    def texts(self, batch: Batch) -> list[list[str]]:
        """The captions of each row of a batch, as text; none of a row that weighs nothing."""
        inputs, targets, weights = batch
        rows = []
        for row, numbers in enumerate(np.where(weights > 0, inputs["segments"], 0)):  # (T,)
            captions = [targets[row][numbers == i][:-1] for i in range(1, numbers.max() + 1)]
            rows.append([self.tokenizer.decode(caption) for caption in captions])
        return rows

    @property
    def token_type(self) -> type:
        """Of tokens in memory: two bytes where the vocabulary allows."""
        return np.uint16 if self.tokenizer.vocabulary_size <= 2**16 else np.int32

    def too_long(self, where: str, text: str, tokens: int) -> Problem:
        """The problem of a caption that the decoder has no positions for."""
        reason = (
            f"expected a caption of at most {self.positions - 1} tokens. "
            f"Received: {tokens}: {text[:60]!r}"
        )
        return Problem(where, reason)


def photos_of(inputs: dict[str, Any]) -> dict[str, Any]:
    """What the encoder takes of a batch's inputs."""
    return {name: value for name, value in inputs.items() if name not in ("tokens", "segments")}


def show_that_lengths_vary(
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
