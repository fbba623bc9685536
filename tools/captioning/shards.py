"""Shards captioned into a folder of Parquet files, in pieces that need not be done at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.generation import pad_rows
from effcap.samplers import Beam
from effcap.tools.captioning.parquet import CaptionFolder, Row, ShardCaptions, located
from effcap.tools.captioning.shard_photos import PhotoBatch, ahead, read_batches
from effcap.trainers.data.shards.check import steps
from effcap.trainers.data.shards.shard_index import is_remote

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.samplers.base import Sampler

Advance = Callable[[int, int], None]


def caption_shards(
    captioner: Captioner,
    shards: Sequence[str],
    out: str | PathLike,
    model: str,
    sampler: Sampler | None = None,
    batch_size: int = 8,
    advance: Advance | None = None,
) -> list[ShardCaptions]:
    """Captions every photo in webdataset shards, whatever captions it has.

    The captions of NAME.tar are written to NAME.parquet in `out`, whole or not at all, with the
    columns shard (absolute path or URL), key (the photo's name in the tar without its suffix),
    caption, score, and error: why a photo has no caption, or, without a key, what is wrong with the
    shard. Shards captioned earlier are passed over, so that a run that was broken off goes on, and
    any number of processes can write into one folder, each its own shards.

    Args:
        captioner: takes photos.
        shards: paths and URLs, as `effcap.trainers.data.shards.find_shards` gives them.
        out: folder; made if missing.
        model: the captioner's name in the results. A folder has captions of one model and sampler.
        sampler: `Beam()` by default. A `Nucleus` without a seed writes other captions each time.
        batch_size: photos captioned at once.
        advance: called after every batch with how much was done since, out of the `steps` of all
            shards not captioned earlier, and how many photos that was.

    Returns:
        What it came to, for each shard. A shard that cannot be read, of which nothing is written,
        is told there, too.

    Raises:
        ValueError: for a captioner that takes something else than photos, or a folder with captions
            of another model, sampler or shard of the same name.
        OSError: when captions cannot be written.

    Example:
        >>> captioner = effcap.Captioner.from_preset("flickr8k-lite0")
        >>> effcap.tools.caption_shards(captioner, ["00000.tar"], "captions.parquet", "lite0")
    """
    sampler = sampler or Beam()
    folder = CaptionFolder(Path(out), model, repr(sampler))
    folder.prepare()
    shards = [located(shard) for shard in shards]
    found = folder.find(shards)
    pending = [shard for shard in shards if shard not in found]
    for done in caption_into(folder, captioner, pending, sampler, batch_size, advance):
        found[done.shard] = done
    return [found[shard] for shard in shards]


def caption_into(
    folder: CaptionFolder,
    captioner: Captioner,
    shards: Sequence[str],
    sampler: Sampler,
    batch_size: int,
    advance: Advance | None = None,
) -> Iterator[ShardCaptions]:
    """As `caption_shards`, one by one, into a folder prepared for that model and sampler.

    Captions there of these shards are replaced.
    """
    encoder = captioner.encoder
    if "images" not in encoder.input_keys:
        raise ValueError(
            f"Expected a captioner of photos. Received: one of {', '.join(encoder.input_keys)}"
        )
    if batch_size < 1:
        raise ValueError(f"Expected batch_size of at least 1. Received: batch_size={batch_size}")
    advance = advance or (lambda count, photos: None)
    rows: list[Row] = []
    done = 0  # steps of this shard
    waiting = iter(shards)
    shard = next(waiting, "")
    for item in ahead(read_batches(shards, encoder.image_size, encoder.fit, batch_size)):
        if isinstance(item, PhotoBatch):
            rows += caption_batch(captioner, item, sampler, batch_size)
            before, done = done, 0 if is_remote(shard) else min(item.position, steps(shard))
            advance(done - before, len(item.keys))
            continue
        if item.problem:
            yield ShardCaptions(shard, problem=item.problem)
        else:
            yield folder.write(shard, rows, item.tar_bytes, item.note)
        advance(steps(shard) - done, 0)
        rows, done, shard = [], 0, next(waiting, "")


def caption_batch(
    captioner: Captioner, batch: PhotoBatch, sampler: Sampler, batch_size: int
) -> list[Row]:
    """The rows of a batch, in the order of its keys.

    Every batch is brought to one size, so that captions do not depend on what came before.
    """
    images = batch.images  # (N,h,w,3)
    best = []
    if len(images):
        inputs = {"images": pad_rows(images, batch_size)}  # (B,h,w,3)
        best = [options[0] for options in captioner.generate_batch(inputs, sampler)[: len(images)]]
    captions = iter(best)
    rows = []
    for key, error in zip(batch.keys, batch.errors, strict=True):
        if error:
            rows.append(Row(key, error=error))
        else:
            caption = next(captions)
            rows.append(Row(key, caption.text, caption.score))
    return rows
