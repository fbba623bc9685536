"""Batches of examples whose captions are all in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from effcap.images import StoredPhoto, UnreadablePhoto
from effcap.tokenizers import Tokenizer
from effcap.trainers.batching.buckets import ROUNDING, row_lengths
from effcap.trainers.batching.packed import (
    Batch,
    PackedBatches,
    Preview,
    Source,
    after_prefix,
    choose_captions,
    show_varying_lengths,
    token_dtype,
)
from effcap.trainers.data.example import Example, Problem
from effcap.trainers.options.batches import BatchOptions


class InputLoader(Protocol):
    """Loads encoder inputs by index.

    Attributes:
        can_flip: whether photos may be flipped horizontally.
        fingerprint: a hash of everything that the inputs depend on.
    """

    @property
    def can_flip(self) -> bool: ...

    @property
    def fingerprint(self) -> str: ...

    def load(
        self, indices: np.ndarray, flip: np.ndarray, draws: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Loads the inputs of some examples.

        Args:
            indices: indices of the examples, (B,).
            flip: which of them to flip horizontally, (B,) bool.
            draws: random numbers (B,) uint64 that determine all other augmentation; None for no
                augmentation.

        Returns:
            The encoder inputs by name, each (B, ...).
        """
        ...


class CaptionBatches(PackedBatches):
    """Batches of examples whose captions are in memory; see `PackedBatches` for the format.

    Rows of similar length share a batch. The last batch is padded with examples of weight 0.
    Captions that are too long for the decoder are left out and listed in `problems`.

    Args:
        examples: photos with captions.
        loader: loader of the encoder inputs of these examples.
        tokenizer: tokenizer of the captions.
        max_text_length: tokens of one caption, including the start token.
        options: options of the batches.

    Raises:
        ValueError: there are no usable captions.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        loader: InputLoader,
        tokenizer: Tokenizer,
        max_text_length: int,
        options: BatchOptions,
    ):
        super().__init__(tokenizer, max_text_length, options)
        self.loader = loader
        self._encode(examples)
        if not self.indices:
            raise ValueError(
                "Expected photos with captions. Received: none that can be used"
                + "".join(f"; {problem}" for problem in self.problems[:1])
            )
        self._fit_row_lengths()
        self.start_epoch(0)

    def _encode(self, examples: Sequence[Example]) -> None:
        """Tokenizes all captions at once."""
        state, prefixes = hashlib.sha256(), self._encode_prefixes(examples)
        texts = [
            after_prefix(text, self._prefix(example))
            for example in examples
            for text in example.captions
        ]
        encoded, dtype = iter(self.tokenizer.encode_captions(texts)), token_dtype(self.tokenizer)
        self.indices: list[int] = []  # for each row, the example's index in the loader
        self.paths: list[Path] = []
        self.photos: list[Path | StoredPhoto] = []
        self.names: list[str] = []
        self.captions: list[list[np.ndarray]] = []
        self.prefix_texts: list[str] = []
        self.prefix_tokens: list[np.ndarray] = []
        self.can_flip: list[bool] = []
        for index, example in enumerate(examples):
            usable, where = [], str(example.path)
            prefix = prefixes[self._prefix(example)]
            for text in example.captions:
                tokens: np.ndarray = np.asarray(next(encoded), dtype)
                if isinstance(prefix, ValueError):
                    self.problems.append(Problem(where, str(prefix)))
                elif len(prefix) + len(tokens) < self.max_text_length:
                    usable.append(tokens)
                else:
                    problem = self.too_long(where, text, len(tokens), len(prefix))
                    self.problems.append(problem)
            if usable and not isinstance(prefix, ValueError):
                self.indices.append(index)
                self.paths.append(example.path)
                self.photos.append(example.photo)
                self.names.append(example.name)
                self.captions.append(usable)
                self.prefix_texts.append(self._prefix(example))
                self.prefix_tokens.append(prefix)
                self.can_flip.append(example.can_flip)
                lengths = [len(tokens) for tokens in usable]
                state.update(repr((index, example.name, example.can_flip, lengths)).encode())
                state.update(np.concatenate([*usable, prefix]).tobytes())
        self._contents = state.hexdigest()
        passes = self.options.passes_per_epoch
        self.indices, self.paths = self.indices * passes, self.paths * passes
        self.captions, self.can_flip = self.captions * passes, self.can_flip * passes
        self.prefix_tokens = self.prefix_tokens * passes

    def _prefix(self, example: Example) -> str:
        """Returns the text that the captions of an example continue."""
        return example.prefix or self.options.prefix

    def _encode_prefixes(self, examples: Sequence[Example]) -> dict[str, np.ndarray | ValueError]:
        """Returns the tokens of all prefixes by text, or why a text cannot be one."""
        prefixes: dict[str, np.ndarray | ValueError] = {}
        for text in dict.fromkeys(map(self._prefix, examples)):
            try:
                tokens = self.tokenizer.encode_prefix(text)
                prefixes[text] = np.asarray(tokens, token_dtype(self.tokenizer))
            except ValueError as error:
                prefixes[text] = error
        return prefixes

    def _lengths(self, chosen: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the tokens per row (N,), with start token and prefix of each chosen caption."""
        rows = zip(self.captions, self.prefix_tokens, chosen, strict=True)
        return np.array(
            [
                sum(len(captions[i]) + len(prefix) + 1 for i in choice)
                for captions, prefix, choice in rows
            ]
        )

    def _fit_row_lengths(self) -> None:
        """Fits the row lengths to the first epoch; the longest possible row can have its own."""
        self.row_lengths = row_lengths(self._lengths(self._choices(0)), self.options.num_buckets)
        limit = self.options.captions_per_photo
        longest = max(
            sum(sorted((len(caption) + len(prefix) + 1 for caption in row), reverse=True)[:limit])
            for row, prefix in zip(self.captions, self.prefix_tokens, strict=True)
        )
        if longest > self.row_lengths[-1]:
            longest = -(-longest // ROUNDING) * ROUNDING
            self.row_lengths = np.append(self.row_lengths, longest)

    def start_epoch(self, epoch: int) -> None:
        """Selects the rows, captions and augmentation of each batch of an epoch."""
        if epoch == self.epoch:
            return
        self.epoch = epoch
        seed, shuffle, batch_size = self.options.seed, self.options.shuffle, self.batch_size
        order_rng = np.random.default_rng([seed, epoch, 0])
        count = len(self.indices)
        order = order_rng.permutation(count) if shuffle else np.arange(count)  # (N,)
        self._chosen = self._choices(epoch)
        flip = np.random.default_rng([seed, epoch, 2]).random(count) < 0.5  # (N,)
        self._flip = flip & np.array(self.can_flip) & self.loader.can_flip & shuffle
        draw_rng = np.random.default_rng([seed, epoch, 3])
        self._draws = draw_rng.integers(2**64, size=count, dtype=np.uint64) if shuffle else None
        bucket = np.searchsorted(self.row_lengths, self._lengths(self._chosen)[order])  # (N,)
        # Only the last batch is not full, so some batches hold rows of two buckets.
        rank = np.argsort(bucket, kind="stable")
        order, bucket = order[rank], bucket[rank]
        batches = []
        for start in range(0, count, batch_size):
            end = start + batch_size
            batches.append((int(self.row_lengths[bucket[start:end].max()]), order[start:end]))
        if shuffle:
            batches = [batches[i] for i in order_rng.permutation(len(batches))]
        self._batches = show_varying_lengths(batches, self.row_lengths)

    def _choices(self, epoch: int) -> list[np.ndarray]:
        """Returns the indices of the captions of each row in an epoch."""
        rng = np.random.default_rng([self.options.seed, epoch, 1])
        return [choose_captions(len(row), self.options, rng) for row in self.captions]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:
        length, members = self._batches[index]
        filled = np.resize(members, self.batch_size)  # (B,) repeats members to fill the batch
        real = np.arange(self.batch_size) < len(members)  # (B,)
        filled, real = filled[self.own_rows()], real[self.own_rows()]  # (B / num_processes,)
        indices = np.array([self.indices[member] for member in filled])
        draws = None if self._draws is None else self._draws[filled]
        try:
            inputs = self.loader.load(indices, self._flip[filled], draws)
        except UnreadablePhoto as error:
            self.failure = error  # Keras hides it in a long traceback
            raise
        chosen = [[self.captions[i][choice] for choice in self._chosen[i]] for i in filled]
        prefixes = [self.prefix_tokens[i] for i in filled]
        tokens, targets, segments, weights = self.pack(chosen, prefixes, length)  # each (B,T)
        weights *= real[:, None]  # (B,T)
        return {**inputs, "tokens": tokens, "segments": segments}, targets, weights

    @property
    def padding(self) -> float:
        """Fraction of this epoch's token positions that hold padding."""
        positions = sum(length * self.batch_size for length, _ in self._batches)
        return 1 - self._lengths(self._chosen).sum() / positions

    @property
    def num_images(self) -> int:
        """Number of photos in an epoch."""
        return len(self.indices)

    @property
    def num_captions(self) -> int:
        """Number of usable captions."""
        return sum(map(len, self.captions)) // self.options.passes_per_epoch

    @property
    def max_prefix_length(self) -> int:
        """Number of tokens of the longest prefix."""
        return max(map(len, self.prefix_tokens))

    @property
    def caption_length(self) -> int:
        """Number of tokens that at least 99% of the captions do not exceed."""
        lengths = [len(caption) for captions in self.captions for caption in captions]
        return int(np.quantile(lengths, 0.99, method="higher"))

    def previews(self, count: int) -> list[Preview]:
        """Returns the first `count` examples, without augmentation."""
        count = min(count, len(self.names))
        indices = np.array(self.indices[:count])
        inputs = self.loader.load(indices, np.zeros(count, bool))
        return [
            Preview(
                {name: array[row] for name, array in inputs.items()},
                self._photo(row),
                self.prefix_texts[row],
                self.names[row],
                [self.tokenizer.decode_caption(tokens).strip() for tokens in self.captions[row]],
            )
            for row in range(count)
        ]

    def source(self, index: int, row: int) -> Source:
        """Returns where a row comes from; see `PackedBatches.source`."""
        _, members = self._batches[index]
        member = int(members[self.own_rows().start + row]) % len(self.names)
        return Source(self.names[member], lambda: self._photo(member))

    def _photo(self, member: int) -> Path | StoredPhoto | None:
        """Returns the photo of an example; None if there is no file, as with features."""
        photo = self.photos[member]
        return photo if isinstance(photo, StoredPhoto) or photo.is_file() else None

    @property
    def fingerprint(self) -> str:
        """A hash of everything that the batches of all epochs depend on."""
        state = {
            "contents": self._contents,
            "tokenizer": self.tokenizer.fingerprint,
            "loader": self.loader.fingerprint,
            "passes_per_epoch": self.options.passes_per_epoch,
            "row_lengths": self.row_lengths.tolist(),
            "batch_size": self.batch_size,
            "captions_per_photo": self.options.captions_per_photo,
            "shuffle": self.options.shuffle,
            "seed": self.options.seed,
        }
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()
