"""Shards as training data: what a notebook or the command line names them by."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effcap.trainers.data.augmentation import Augmentation
from effcap.trainers.data.example import Problem, check_share
from effcap.trainers.data.shards.find_shards import find_shards
from effcap.trainers.data.shards.shard_index import ShardIndex, is_remote, read_indexes

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.data.shards.batches import ShardBatches
    from effcap.trainers.options.run import RunOptions

LOCAL_BLOCK, REMOTE_BLOCK = 2**15, 2**11  # photos; those of remote shards are held in memory
MOST_CAPTIONS = 1_000_000  # that a tokenizer is trained on


@dataclass(frozen=True)
class Shards:
    """webdataset shards with their indexes.

    Attributes:
        indexes: of the shards.
        passes: how often an epoch sees the photos of each: 2 for twice, 0.5 for half of them,
            others in each epoch.
        decoder: see `effcap.trainers.data.shards.image_decoder.make_decoder`.
        block: photos that are shuffled together; None for 32,768, or 2,048 where a shard is remote.
        share: of the photos to use.
    """

    indexes: Sequence[ShardIndex]
    passes: Sequence[float]
    decoder: str | None = None
    block: int | None = None
    share: float = 1.0

    def subset(self, share: float, seed: int) -> Shards:
        """The same share of the photos in every epoch; the seed is that of the batches."""
        return replace(self, share=share)

    def captions(self) -> list[str]:
        """Captions for a tokenizer: all, or a million spread evenly over the shards."""
        total = sum(int(index.first[-1]) for index in self.indexes)
        every = -(-total // MOST_CAPTIONS)
        texts = (text for group in self.references() for text in group)
        return [text for i, text in enumerate(texts) if i % every == 0]

    def references(self) -> Iterator[Sequence[str]]:
        """The captions of one photo after the other."""
        for index in self.indexes:
            for i in range(len(index)):
                yield index.captions(i)

    def problems(self) -> list[Problem]:
        """Local shards that are gone; photos that changed show when they are read."""
        return [
            Problem(index.shard, "the shard is gone", int(index.first[-1]))
            for index in self.indexes
            if not is_remote(index.shard) and not os.path.exists(index.shard)
        ]

    def batches(
        self, name: str, captioner: Captioner, options: RunOptions, **more: Any
    ) -> tuple[ShardBatches, str]:
        """(batches for a run, summary of what is wrong with the shards).

        Raises:
            TooManyProblems: when more than `options.max_bad` of the captions cannot be used.
        """
        file = options.folder / f"lost_{name}.tsv"
        if not options.resume:
            file.unlink(missing_ok=True)
        return self.make_batches(
            name,
            captioner,
            augmentation=(options.training.augmentation if name == "training" else Augmentation()),
            file=file,
            **options.batch_options(name),
            **more,
        )

    def make_batches(
        self,
        name: str,
        captioner: Captioner,
        *,
        augmentation: Augmentation,
        max_bad: float,
        log: Path | None = None,
        file: Path | None = None,
        batch_size: int = 32,
        passes: int = 1,
        **options: Any,
    ) -> tuple[ShardBatches, str]:
        """`batches` with its options one by one; those of `ShardBatches` besides."""
        from effcap.trainers.data.preparation import check_sees_photos
        from effcap.trainers.data.shards.batches import ShardBatches
        from effcap.trainers.data.shards.image_decoder import make_decoder
        from effcap.trainers.data.shards.skipped import Losses

        total = sum(int(index.first[-1]) for index in self.indexes)
        problems = self.problems()
        summary = check_share(name, problems, total, max_bad, log)
        encoder = check_sees_photos(captioner)
        remote = any(is_remote(index.shard) for index in self.indexes)
        batches = ShardBatches(
            self.indexes,
            [passes * each for each in self.passes],
            captioner.tokenizer,
            captioner.decoder.positions,
            decoder=make_decoder(
                self.decoder, encoder.image_size, encoder.fit, batch_size, os.cpu_count() or 1
            ),
            losses=Losses(sum(map(len, self.indexes)), max_bad, file),
            augmentation=augmentation,
            block=self.block or (REMOTE_BLOCK if remote else LOCAL_BLOCK),
            share=self.share,
            batch_size=batch_size,
            **options,
        )
        batches.problems = problems
        return batches, summary


def read_shards(
    shards: str | PathLike | Sequence[str | PathLike],
    index: str | PathLike | None = None,
    passes: Sequence[float] | None = None,
    decoder: str | None = None,
    block: int | None = None,
) -> Shards:
    """webdataset shards that `effcap index` has indexed.

    Args:
        shards: names, folders and patterns such as `cc12m/{00000..01242}.tar`; remote shards by
            `http:`, `https:`, `s3:`, `gs:` or `pipe:`.
        index: folder of their indexes; beside the shards by default.
        passes: for each of `shards`, how often an epoch sees its photos; once by default.
        decoder, block: as in `Shards`.

    Raises:
        FileNotFoundError: for shards that are not there, or not indexed.
        ValueError: for passes that do not fit, or damaged indexes.

    Example:
        >>> read_shards(["cc3m/*.tar", "coco/*.tar"], passes=[1, 4])
    """
    shards = [shards] if isinstance(shards, str | PathLike) else list(shards)
    passes = [1.0] * len(shards) if passes is None else list(passes)
    if len(passes) != len(shards):
        raise ValueError(
            f"Expected as many passes as shards are named: {len(shards)}. Received: {passes}"
        )
    if not all(np.isfinite(value) and value >= 0 for value in passes):
        raise ValueError(f"Expected passes of at least 0. Received: {passes}")
    names, of_each = [], []
    for argument, value in zip(shards, passes, strict=True):
        found = find_shards([argument])
        names += found
        of_each += [float(value)] * len(found)
    return Shards(read_indexes(names, index), of_each, decoder, block)


def shard_dataset(
    shards: str | PathLike | Sequence[str | PathLike],
    captioner: Captioner,
    *,
    index: str | PathLike | None = None,
    passes: Sequence[float] | None = None,
    decoder: str | None = None,
    block: int | None = None,
    max_bad: float = 0.01,
    mirror: bool = False,
    crop: float = 1.0,
    colour: float = 0.0,
    **options: Any,
) -> ShardBatches:
    """Batches for `captioner.fit` from webdataset shards that `effcap index` has indexed.

    Args:
        shards, index, passes, decoder, block: as in `read_shards`.
        captioner: whose tokenizer, image size and fit to use.
        max_bad: the share of photos that may turn out to be unusable.
        mirror, crop, colour: how photos are varied (see `Augmentation`).
        options: of `PackedBatches`, such as `batch_size=32`, `shuffle=True`, `seed=0`, and for
            several processes `parts=4, part=0`.

    Raises:
        FileNotFoundError, ValueError: as `read_shards`.
        TooManyProblems: when more than `max_bad` of the captions cannot be used.

    Example:
        >>> data = shard_dataset("cc12m/{00000..01242}.tar", captioner, batch_size=256)
        >>> captioner.compile()
        >>> captioner.fit(data, epochs=1)
    """
    data = read_shards(shards, index, passes, decoder, block)
    batches, summary = data.make_batches(
        "shard",
        captioner,
        augmentation=Augmentation(mirror=mirror, crop=crop, colour=colour),
        max_bad=max_bad,
        **options,
    )
    if summary:
        warnings.warn(summary, stacklevel=2)
    return batches
