"""Dataset of indexed webdataset shards."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from effcap.trainers.data.dataset import CaptionDataset, photo_encoder, tokenizer_of
from effcap.trainers.data.example import Problem, check_problems
from effcap.trainers.data.shards.order import Collection
from effcap.trainers.data.shards.shard_index import ShardIndex, is_remote, read_indexes
from effcap.trainers.data.shards.shard_paths import find_shards
from effcap.trainers.data.shards.skipped import SkippedSamples
from effcap.trainers.options.batches import BatchOptions, batch_options

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.data.shards.batches import ShardBatches

LOCAL_BLOCK, REMOTE_BLOCK = 2**15, 2**11  # photos; a block of remote ones is held in memory
MAX_CAPTIONS = 1_000_000  # captions that a tokenizer is trained on


@dataclass(frozen=True)
class ShardDataset(CaptionDataset):
    """Photos with captions in indexed webdataset shards; `read_shards` returns it.

    Attributes:
        indexes: indexes of the shards.
        passes: passes per epoch over each shard: 2 for every photo twice, 0.5 for half of the
            photos, others in each epoch.
        image_decoder: name of the image decoder; see `make_image_decoder`.
        shuffle_block: number of photos that are shuffled together. None takes 32,768, or 2,048 if
            a shard is remote.
        fraction: fraction of the photos to use.
    """

    indexes: Sequence[ShardIndex]
    passes: Sequence[float]
    image_decoder: str | None = None
    shuffle_block: int | None = None
    fraction: float = 1.0

    @property
    def num_photos(self) -> int:
        """Number of indexed photos."""
        return sum(map(len, self.indexes))

    @property
    def num_captions(self) -> int:
        """Number of indexed captions."""
        return sum(index.num_captions for index in self.indexes)

    def subset(self, fraction: float, seed: int = 0) -> ShardDataset:
        """Returns a fraction of the photos, the same ones in all epochs.

        Args:
            fraction: fraction above 0 and at most 1.
            seed: ignored; the seed of the batches selects the photos.

        Raises:
            ValueError: `fraction` is not above 0 and at most 1.
        """
        if not 0 < fraction <= 1:
            raise ValueError(
                f"Expected fraction above 0 and at most 1. Received: fraction={fraction}"
            )
        return replace(self, fraction=fraction)

    def captions(self) -> list[str]:
        """Returns all captions, or a million spread evenly over the shards."""
        step = -(-self.num_captions // MAX_CAPTIONS)
        texts = (text for captions in self.references() for text in captions)
        return [text for i, text in enumerate(texts) if i % step == 0]

    def references(self) -> Iterator[Sequence[str]]:
        """Yields the captions of each photo."""
        for index in self.indexes:
            for i in range(len(index)):
                yield index.captions(i)

    def missing_shards(self) -> list[Problem]:
        """Returns the local shards that no longer exist; changed photos are found while reading."""
        return [
            Problem(index.shard, "the shard no longer exists", index.num_captions)
            for index in self.indexes
            if not is_remote(index.shard) and not os.path.exists(index.shard)
        ]

    def batches(self, captioner: Captioner, **options: Any) -> ShardBatches:
        """Makes batches for `captioner.fit`; see `CaptionDataset.batches`.

        Photos that cannot be read are skipped, and listed in the run folder.

        Example:
            >>> data = read_shards("cc12m/{00000..01242}.tar")
            >>> captioner.compile()
            >>> captioner.fit(data.batches(captioner, batch_size=256), shuffle=False)
        """
        from effcap.trainers.data.shards.batch_planner import BatchPlanner
        from effcap.trainers.data.shards.batches import ShardBatches
        from effcap.trainers.data.shards.decoder_choice import make_image_decoder
        from effcap.trainers.data.shards.photo_fetcher import PhotoFetcher

        settings = batch_options(options)
        encoder = photo_encoder(captioner)
        problems = self.missing_shards()
        summary = check_problems(
            settings.name, problems, self.num_captions, settings.max_bad, settings.problems_file
        )
        fetcher = PhotoFetcher(self.indexes)
        passes = [settings.passes_per_epoch * value for value in self.passes]
        planner = BatchPlanner(
            self.indexes,
            Collection(
                [len(index) for index in self.indexes], passes, self.fraction, settings.seed
            ),
            tokenizer_of(captioner),
            captioner.decoder.max_text_length,
            settings,
            self.shuffle_block or (REMOTE_BLOCK if fetcher.remote else LOCAL_BLOCK),
        )
        image_decoder = make_image_decoder(
            self.image_decoder,
            encoder.image_size,
            encoder.fit,
            settings.batch_size,
            os.cpu_count() or 1,
            encoder.resample,
        )
        batches = ShardBatches(planner, fetcher, image_decoder, self._skipped(settings))
        batches.problems, batches.summary = problems, summary
        if summary and settings.folder is None:
            warnings.warn(summary, stacklevel=2)
        return batches

    def _skipped(self, options: BatchOptions) -> SkippedSamples:
        """Returns the counter of skipped photos; a run that is not resumed starts at none."""
        file = options.skipped_file
        if file is not None and not options.resume:
            file.unlink(missing_ok=True)
        return SkippedSamples(self.num_photos, options.max_bad, file)


def read_shards(
    shards: str | PathLike | Sequence[str | PathLike],
    index: str | PathLike | None = None,
    passes: Sequence[float] | None = None,
    *,
    image_decoder: str | None = None,
    shuffle_block: int | None = None,
) -> ShardDataset:
    """Reads the indexes of webdataset shards that `effcap index` made.

    Args:
        shards: files, folders and patterns such as `cc12m/{00000..01242}.tar`; remote shards by
            `http:`, `https:`, `s3:`, `gs:` or `pipe:`.
        index: folder of the indexes; by default each is beside its shard.
        passes: for each item of `shards`, passes per epoch over its photos (default: 1).
        image_decoder: "dali", "dali-cpu", "dali-gpu" or "pillow"; None selects one.
        shuffle_block: number of photos that are shuffled together. None takes 32,768, or 2,048 if
            a shard is remote.

    Raises:
        FileNotFoundError: shards do not exist or have no index.
        ValueError: `passes` or `shuffle_block` is out of range, or an index is damaged.

    Example:
        >>> read_shards(["cc3m/*.tar", "coco/*.tar"], passes=[1, 4])
    """
    arguments = [shards] if isinstance(shards, str | PathLike) else list(shards)
    values = [1.0] * len(arguments) if passes is None else list(passes)
    if len(values) != len(arguments):
        raise ValueError(
            f"Expected {len(arguments)} passes, one for each item of shards. Received: {values}"
        )
    if not all(np.isfinite(value) and value >= 0 for value in values):
        raise ValueError(f"Expected passes of at least 0. Received: {values}")
    if shuffle_block is not None and shuffle_block < 1:
        raise ValueError(
            f"Expected shuffle_block of at least 1. Received: shuffle_block={shuffle_block}"
        )
    paths: list[str] = []
    passes_of_paths: list[float] = []
    for argument, value in zip(arguments, values, strict=True):
        matches = find_shards([argument])
        paths += matches
        passes_of_paths += [float(value)] * len(matches)
    return ShardDataset(read_indexes(paths, index), passes_of_paths, image_decoder, shuffle_block)
