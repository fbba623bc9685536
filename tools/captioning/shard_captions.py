"""Captions shards in this process."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from effcap.tools.captioning.results import check_batch_size
from effcap.tools.captioning.shard_output import Row, ShardCaptions, ShardOutput
from effcap.tools.captioning.shard_photos import PhotoBatch, prefetch, read_batches
from effcap.tools.shards.shard_progress import shard_steps
from effcap.trainers.data.dataset import photo_encoder
from effcap.trainers.data.shards.shard_index import is_remote

if TYPE_CHECKING:
    from effcap.caption_generator import CaptionGenerator
    from effcap.samplers import Sampler


def caption_each(
    shards: Sequence[str],
    folder: ShardOutput,
    captioner: CaptionGenerator,
    sampler: Sampler,
    batch_size: int,
    advance: Callable[[int, int], None] | None = None,
) -> Iterator[ShardCaptions]:
    """Captions shards in this process and yields the result of each.

    Existing captions of these shards are replaced.

    Args:
        shards: shards as `locate` returns them.
        folder: folder of the captions, prepared.
        captioner: captioner of photos.
        sampler: sampler.
        batch_size: photos per batch.
        advance: called after each batch with the number of steps done, out of `shard_steps` of all
            shards, and the number of photos.

    Raises:
        ValueError: the captioner takes other inputs, or `batch_size` is below 1.
        OSError: captions cannot be written.
        ImportError: a shard is remote and webdataset is not installed.
    """
    encoder = photo_encoder(captioner)
    check_batch_size(batch_size)
    advance = advance or (lambda steps, num_photos: None)
    rows: list[Row] = []
    done = 0  # steps of the current shard
    remaining = iter(shards)
    shard = next(remaining, "")
    batches = read_batches(shards, encoder.image_size, encoder.fit, batch_size, encoder.resample)
    for item in prefetch(batches):
        if isinstance(item, PhotoBatch):
            first_index = (zlib.crc32(PurePosixPath(shard).name.encode()) << 32) + len(rows)
            rows += caption_batch(captioner, item, sampler, batch_size, first_index)
            before, done = done, 0 if is_remote(shard) else min(item.position, shard_steps(shard))
            advance(done - before, len(item.keys))
            continue
        if item.error:
            yield ShardCaptions(shard, error=item.error)
        else:
            yield folder.write(shard, rows, item.tar_bytes, item.damage)
        advance(shard_steps(shard) - done, 0)
        rows, done, shard = [], 0, next(remaining, "")


def caption_batch(
    captioner: CaptionGenerator,
    batch: PhotoBatch,
    sampler: Sampler,
    batch_size: int,
    first_index: int,
) -> list[Row]:
    """Captions a batch and returns its rows in the order of the keys.

    Args:
        captioner: captioner of photos.
        batch: photos.
        sampler: sampler.
        batch_size: number of rows to pad the photos to.
        first_index: index of the first photo, which what a seeded sampler draws depends on.
    """
    from effcap.generation_call import pad_rows

    images = batch.images  # (N, h, w, 3)
    best = []
    if len(images):
        # Always the same batch size: otherwise captions would depend on earlier batches.
        inputs = {"images": pad_rows(images, batch_size)}  # (B, h, w, 3)
        indices = [first_index + i for i, error in enumerate(batch.errors) if not error]
        indices += indices[-1:] * (batch_size - len(indices))
        captions = captioner.generate_batch(inputs, sampler, indices=indices)[: len(images)]
        best = [alternatives[0] for alternatives in captions]
    remaining = iter(best)
    rows = []
    for key, error in zip(batch.keys, batch.errors, strict=True):
        if error:
            rows.append(Row(key, error=error))
        else:
            caption = next(remaining)
            rows.append(Row(key, caption.text, caption.score, missing=caption.missing))
    return rows
