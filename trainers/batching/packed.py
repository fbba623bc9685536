"""Base class of image-major batches: each row holds one photo with all its captions."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from effcap.tokenizers import Tokenizer
from effcap.trainers.batching.buckets import ROUNDING
from effcap.trainers.data.example import Problem
from effcap.trainers.options.batches import BatchOptions

if TYPE_CHECKING:
    from effcap.images import Photo

MAX_THREADS = 8  # default limit: each thread holds batches in memory

Batch = tuple[dict[str, Any], np.ndarray, np.ndarray]


class Preview(NamedTuple):
    """An example whose generated captions are shown during training.

    Attributes:
        inputs: encoder inputs of one row, without the batch axis.
        photo: photo to show; None if there is none.
        prefix: text that the captions continue; "" for none.
        name: name of the example in the data; "" if it is unknown.
        references: captions of the example, without the prefix.
    """

    inputs: dict[str, np.ndarray]
    photo: Photo | None = None
    prefix: str = ""
    name: str = ""
    references: Sequence[str] = ()


class Source(NamedTuple):
    """Where a row of a batch comes from.

    Attributes:
        name: name of the example in the data.
        photo: function that returns the photo to show; None if there is none.
    """

    name: str
    photo: Callable[[], Photo | None]


class PackedBatches(keras.utils.PyDataset):
    """Image-major batches for `fit` on any backend.

    A batch is `(inputs, targets, weights)`: inputs are the encoder inputs, such as `{"images":
    (B, h, w, 3)}`, with "tokens" (B, T) and "segments" (B, T); targets (B, T) are the next tokens;
    weights (B, T) are 1 for tokens of captions and their ends, 0 for those of prefixes and for
    padding. All captions of a photo are packed into one row, each with its start token and prefix,
    with segment numbers 1, 2, ... (0 is padding), so that each photo is encoded once.

    A batch depends only on the seed, the epoch and its index, so training can resume at any batch.
    `fit` must be called with `shuffle=False` to keep the order. With several processes, each makes
    its own rows of every batch.

    Args:
        tokenizer: tokenizer of the captions.
        max_text_length: tokens of one caption that the decoder has positions for, including the
            start token (`captioner.decoder.max_text_length`).
        options: options of the batches.

    Attributes:
        problems: captions that were left out.
        summary: text that describes what was left out; "" if nothing was.
        names: names of the photos, if they are in memory.
        row_lengths: values that T takes, ascending.
        failure: error raised while a batch was made in training, or None.
    """

    epoch: int
    row_lengths: np.ndarray
    names: Sequence[str] = ()

    def __init__(self, tokenizer: Tokenizer, max_text_length: int, options: BatchOptions):
        num_threads = options.num_threads or min(max(2, os.cpu_count() or 2), MAX_THREADS)
        super().__init__(workers=num_threads, max_queue_size=2 * num_threads)
        self.tokenizer, self.max_text_length, self.options = tokenizer, max_text_length, options
        self.epoch = -1
        self.problems: list[Problem] = []
        self.summary = ""
        self.failure: Exception | None = None

    @property
    def batch_size(self) -> int:
        """Photos per batch, over all processes."""
        return self.options.batch_size

    @property
    @abstractmethod
    def num_images(self) -> int:
        """Number of photos in an epoch."""

    @property
    @abstractmethod
    def num_captions(self) -> int:
        """Number of usable captions."""

    @property
    @abstractmethod
    def max_prefix_length(self) -> int:
        """Number of tokens of the longest prefix."""

    @property
    @abstractmethod
    def caption_length(self) -> int:
        """Number of tokens that almost no caption exceeds."""

    @property
    @abstractmethod
    def padding(self) -> float:
        """Fraction of token positions that hold padding."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of everything that the batches of all epochs depend on."""

    @abstractmethod
    def previews(self, count: int) -> list[Preview]:
        """Returns the first `count` examples, without augmentation."""

    @abstractmethod
    def source(self, index: int, row: int) -> Source:
        """Returns where a row comes from, whose weight is not 0, of a batch of this epoch."""

    def skipped_summary(self) -> str:
        """Returns a line about photos that were skipped while reading; "" if there are none."""
        return ""

    @abstractmethod
    def start_epoch(self, epoch: int) -> None:
        """Selects the rows, captions and augmentation of each batch of an epoch.

        Keras starts the next epoch itself. Call this only to continue with another epoch, and not
        while `fit` is running.
        """

    def on_epoch_end(self) -> None:
        """Starts the next epoch; Keras calls this, also once before `fit` begins."""
        if self.options.shuffle:
            self.start_epoch(self.epoch + 1)

    @property
    def rows_per_process(self) -> int:
        """Rows of a batch that one process makes."""
        return self.options.batch_size // self.options.num_processes

    def own_rows(self) -> slice:
        """Returns the rows of a batch that this process makes."""
        index = self.options.process_index
        if index is None:
            return slice(0, self.options.batch_size)
        return slice(index * self.rows_per_process, (index + 1) * self.rows_per_process)

    def pack(
        self,
        rows: Sequence[Sequence[np.ndarray]],
        prefixes: Sequence[Sequence[int] | np.ndarray],
        length: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Packs the captions of each row.

        Args:
            rows: for each row, the tokens of its captions, without start token, prefix and end
                token.
            prefixes: for each row, the tokens that its captions continue.
            length: row length T.

        Returns:
            (tokens, targets, segments), each (B, T) int32, and weights (B, T) float32.
        """
        shape = (len(rows), length)
        tokens = np.full(shape, self.tokenizer.pad_id, np.int32)  # (B,T)
        targets = np.full(shape, self.tokenizer.pad_id, np.int32)  # (B,T)
        segments = np.zeros(shape, np.int32)  # (B,T)
        weights = np.zeros(shape, np.float32)  # (B,T)
        for row, (captions, prefix) in enumerate(zip(rows, prefixes, strict=True)):
            start = 0
            for segment, caption in enumerate(captions, 1):
                first = start + len(prefix)  # predicts the first token of the caption
                end = first + len(caption) + 1
                tokens[row, start] = self.tokenizer.bos_id
                tokens[row, start + 1 : first + 1] = targets[row, start:first] = prefix
                tokens[row, first + 1 : end] = targets[row, first : end - 1] = caption
                targets[row, end - 1] = self.tokenizer.eos_id
                segments[row, start:end] = segment
                weights[row, first:end] = 1
                start = end
        return tokens, targets, segments, weights

    def prefixes(self, batch: Batch) -> list[list[int]]:
        """Returns the tokens that the captions of each row of a batch continue.

        A row of weight 0 has those of another row.
        """
        _, targets, weights = batch
        prefixes: dict[int, list[int]] = {}
        for row in np.flatnonzero(weights.any(axis=1)).tolist():
            start = weights[row].argmax()  # of the first caption
            prefixes[row] = targets[row, :start].tolist()
        other: list[int] = next(iter(prefixes.values()), [])
        return [prefixes.get(row, other) for row in range(len(weights))]

    def texts(self, batch: Batch) -> list[list[str]]:
        """Decodes the captions of each row, without prefix; rows of weight 0 have none."""
        inputs, targets, weights = batch
        rows = []
        for row, segments in enumerate(np.where(weights > 0, inputs["segments"], 0)):  # (T,)
            captions = [targets[row][segments == i][:-1] for i in range(1, segments.max() + 1)]
            rows.append([self.tokenizer.decode_caption(caption) for caption in captions])
        return rows

    def too_long(self, where: str, text: str, num_tokens: int, prefix_length: int = 0) -> Problem:
        """Returns the problem of a caption that does not fit into the decoder after its prefix."""
        reason = (
            f"expected a caption of at most {self.max_text_length - 1 - prefix_length} tokens. "
            f"Received: {num_tokens}: {text[:60]!r}"
        )
        return Problem(where, reason)


def encoder_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the encoder's part of a batch's inputs."""
    return {name: value for name, value in inputs.items() if name not in ("tokens", "segments")}


def show_varying_lengths(
    batches: list[tuple[int, Any]], row_lengths: np.ndarray
) -> list[tuple[int, Any]]:
    """Makes the row lengths of the first two batches differ.

    Keras infers from these two which axes vary. If all batches of this epoch have one length, the
    second gets longer rows, because other epochs may have other lengths.

    Args:
        batches: (row length, members) of each batch; changed in place.
        row_lengths: all row lengths, ascending.

    Returns:
        `batches`.
    """
    length, members = batches[0]
    others = [i for i, other in enumerate(batches) if other[0] != length]
    if others:
        batches[1], batches[others[0]] = batches[others[0]], batches[1]
    elif len(batches) == 1:
        batches[0] = (int(row_lengths[-1]), members)  # the same in all epochs
    elif len(row_lengths) > 1:
        batches[1] = (length + ROUNDING, batches[1][1])
    return batches


def after_prefix(text: str, prefix: str) -> str:
    """Returns a caption as it is tokenized after a prefix: with the space between them."""
    return f" {text}" if prefix else text


def choose_captions(count: int, options: BatchOptions, rng: np.random.Generator) -> np.ndarray:
    """Chooses which of a photo's `count` captions to use.

    Returns:
        Indices of the captions, ascending; at most `captions_per_photo`.
    """
    limit = options.captions_per_photo
    if limit is None or limit >= count:
        return np.arange(count)
    if not options.shuffle:
        return np.arange(limit)
    return np.sort(rng.choice(count, limit, replace=False))


def token_dtype(tokenizer: Tokenizer) -> type:
    """Returns the type of tokens in memory: two bytes if the vocabulary allows it."""
    return np.uint16 if tokenizer.vocabulary_size <= 2**16 else np.int32
