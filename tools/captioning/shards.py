"""Captions the photos of webdataset shards to Parquet files or to copies of the shards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.presets import preset_folder
from effcap.tools.captioning.parquet import CaptionFolder
from effcap.tools.captioning.ray import RayOptions, caption_on_ray
from effcap.tools.captioning.results import (
    DEFAULT_PRESET,
    check_batch_size,
    load_captioner,
    preset_sampler,
)
from effcap.tools.captioning.shard_captions import caption_each
from effcap.tools.captioning.shard_copies import ShardCopies
from effcap.tools.captioning.shard_output import ShardCaptions, ShardOutput, locate, preset_id
from effcap.tools.shards.shard_progress import ShardProgress
from effcap.utils.progress import ProgressBar

if TYPE_CHECKING:
    from effcap.caption_generator import CaptionGenerator
    from effcap.samplers import Sampler


def caption_shards(
    shards: Sequence[str],
    out: str | PathLike,
    captioner: CaptionGenerator | str | PathLike = DEFAULT_PRESET,
    sampler: str | Sampler | None = None,
    *,
    batch_size: int = 8,
    model: str | None = None,
    ray: RayOptions | None = None,
) -> list[ShardCaptions]:
    """Captions every photo in webdataset shards, with a progress bar.

    The captions of NAME.tar are written to NAME.parquet in `out`, atomically, with the columns
    shard (absolute path or URL), key (the photo's name in the tar without suffix), caption, score,
    error (why a photo has no caption; without a key, damage of the shard) and missing (groups of
    the sampler's `include` of which the caption contains no word). Shards captioned earlier are
    skipped, so that an interrupted call can be repeated, and several processes can write different
    shards to the same folder.

    Args:
        shards: paths and URLs, such as `find_shards` returns.
        out: folder of the captions, created if missing. It holds captions of one model and sampler.
        captioner: captioner of photos, or the name or folder of a preset. Its `prefix` is part of
            the sampler in the results.
        sampler: sampler, or its name (default: that of the captioner). A `Nucleus` without a seed
            gives other captions each time.
        batch_size: photos per batch.
        model: name of the captioner in the results. By default the name of the preset with a hash
            of its files; required if `captioner` is a `Captioner`.
        ray: options of a Ray cluster that captions the shards; None captions them in this process.

    Returns:
        The result of each shard, in their order. A shard that cannot be read has an `error` and no
        file.

    Raises:
        FileNotFoundError: there is no such preset.
        ValueError: the captioner takes other inputs, an option is out of range, or the folder holds
            captions of another model, sampler or shard with the same name.
        OSError: captions cannot be written, or the Ray cluster cannot be reached.
        ImportError: pyarrow for Parquet, webdataset for remote shards, or Ray is not installed.

    Example:
        >>> shards = find_shards("cc12m/{00000..01242}.tar")
        >>> results = effcap.tools.caption_shards(shards, "captions.parquet", "flickr8k-lite0")
    """
    make_folder = partial(CaptionFolder, Path(out).absolute())
    return _caption(shards, make_folder, captioner, sampler, batch_size, model, ray)


def caption_into_shards(
    shards: Sequence[str],
    out: str | PathLike,
    captioner: CaptionGenerator | str | PathLike = DEFAULT_PRESET,
    sampler: str | Sampler | None = None,
    *,
    batch_size: int = 8,
    model: str | None = None,
    ray: RayOptions | None = None,
) -> list[ShardCaptions]:
    """Writes copies of webdataset shards whose texts are captions, with a progress bar.

    In the copy of NAME.tar in `out`, the caption of KEY.jpg is the member KEY.txt, in the place of
    an existing one or at the end of the sample. All other members are the same bytes in the same
    order. Samples whose photo cannot be read stay as they are; NAME.captions.json has the reasons,
    and the groups of the sampler's `include` of which captions contain no word. The shards
    themselves are not changed. Copies are written atomically, and an interrupted call can be
    repeated, as one of `caption_shards`.

    Args:
        shards, captioner, sampler, batch_size, model, ray: see `caption_shards`.
        out: folder of the copies, created if missing.

    Returns:
        The result of each shard, in their order. A shard that cannot be read has an `error` and no
        copy.

    Raises:
        FileNotFoundError: there is no such preset.
        ValueError: as `caption_shards`, or the folder holds a shard with the same name that was not
            written here.
        OSError: copies cannot be written, or the Ray cluster cannot be reached.
        ImportError: webdataset for remote shards, or Ray is not installed.

    Example:
        >>> results = effcap.tools.caption_into_shards(find_shards("cc12m"), "recaptioned")
    """
    make_folder = partial(ShardCopies, Path(out).absolute())
    return _caption(shards, make_folder, captioner, sampler, batch_size, model, ray)


def _caption(
    shards: Sequence[str],
    make_folder: Callable[[str, str], ShardOutput],
    captioner: CaptionGenerator | str | PathLike,
    sampler: str | Sampler | None,
    batch_size: int,
    model: str | None,
    ray: RayOptions | None,
) -> list[ShardCaptions]:
    """Captions shards to the folder that `make_folder` returns for a model and a sampler."""
    check_batch_size(batch_size)
    preset = preset_folder(captioner) if isinstance(captioner, str | PathLike) else None
    if ray is not None and preset is None:
        raise ValueError("A Ray cluster requires a preset as captioner, which each worker loads")
    if model is None:
        if preset is None:
            raise ValueError("A Captioner requires model, its name in the results")
        model = preset_id(preset)
    # The name of a preset identifies its prefix too.
    prefix = "" if isinstance(captioner, str | PathLike) else captioner.prefix
    sampler = _find_sampler(sampler, captioner, preset)
    made_by = f"{sampler!r} after {prefix!r}" if prefix else repr(sampler)
    folder = make_folder(model, made_by)
    locations = [locate(shard) for shard in shards]
    folder.prepare(locations)
    results = folder.find(locations)
    pending = [shard for shard in locations if shard not in results]
    if pending and ray is not None and preset is not None:
        new = caption_on_ray(pending, folder, preset, sampler, batch_size, ray)
        results |= _track_shards(new, len(pending))
    elif pending:
        loaded = load_captioner(captioner)
        results |= _caption_here(pending, folder, loaded, sampler, batch_size)
    return [results[shard] for shard in locations]


def _find_sampler(
    sampler: str | Sampler | None, captioner: CaptionGenerator | str | PathLike, preset: Path | None
) -> Sampler:
    """Returns a sampler, by default that of a captioner or of a preset."""
    from effcap.samplers import get

    if sampler is not None:
        return get(sampler)
    if not isinstance(captioner, str | PathLike):
        return captioner.sampler or get("beam")
    return (None if preset is None else preset_sampler(preset)) or get("beam")


def _caption_here(
    shards: Sequence[str],
    folder: ShardOutput,
    captioner: CaptionGenerator,
    sampler: Sampler,
    batch_size: int,
) -> dict[str, ShardCaptions]:
    """Captions shards in this process and returns the results by shard."""
    speed = _Speed()
    with ShardProgress("captioning shards", shards) as progress:

        def advance(steps: int, num_photos: int) -> None:
            progress.advance(steps, speed.update(num_photos))

        results = caption_each(shards, folder, captioner, sampler, batch_size, advance)
        return {result.shard: result for result in results}


def _track_shards(results: Iterator[ShardCaptions], total: int) -> dict[str, ShardCaptions]:
    """Collects results by shard, with a progress bar over shards."""
    results_by_shard, speed = {}, _Speed()
    with ProgressBar("captioning shards", total) as bar:
        for result in results:
            results_by_shard[result.shard] = result
            bar.advance(speed.update(result.num_captions + result.num_unreadable))
    return results_by_shard


class _Speed:
    """Photos per second since the start."""

    def __init__(self) -> None:
        self.num_photos, self.start = 0, time.monotonic()

    def update(self, num_photos: int) -> str:
        """Adds photos and returns the speed as text."""
        self.num_photos += num_photos
        return f"{self.num_photos / (time.monotonic() - self.start):.1f} photos/s"
