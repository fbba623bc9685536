"""Captions photos, skipping those that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from effcap.images import StoredPhoto, UnreadablePhoto, load_ahead, load_photo
from effcap.tools.captioning.caption_writer import CannotWrite, CaptionWriter, WritePlan
from effcap.tools.captioning.results import (
    DEFAULT_PRESET,
    CaptionResults,
    check_batch_size,
    check_min_confidence,
    check_some_used,
    load_captioner,
)
from effcap.trainers.data.dataset import photo_encoder
from effcap.utils.find_files import find_photos
from effcap.utils.progress import ProgressBar

if TYPE_CHECKING:
    from effcap.caption import Caption
    from effcap.caption_generator import CaptionGenerator
    from effcap.samplers import Sampler

AnyPhoto = TypeVar("AnyPhoto", bound=Path | StoredPhoto)


def caption_folder(
    photos: str | PathLike[str] | Sequence[str | PathLike[str]],
    captioner: CaptionGenerator | str | PathLike[str] = DEFAULT_PRESET,
    sampler: str | Sampler | None = None,
    *,
    batch_size: int = 8,
    writer: CaptionWriter | None = None,
    min_confidence: float = 0.0,
) -> CaptionResults[Path]:
    """Captions photos under a progress bar, skipping those that cannot be read.

    Args:
        photos: one or several files, folders (with the folders below them) or patterns.
        captioner: captioner, or the name or folder of a preset.
        sampler: sampler, or its name (default: that of the captioner).
        batch_size: photos per batch.
        writer: writes the captions of each photo after its batch, while the next is captioned:
            `Sidecars` into text files, `XmpSidecars` into XMP files beside the photos,
            `EmbeddedCaptions` into the photos.
        min_confidence: photos whose best caption has a lower confidence are left for a person:
            no captions of theirs are written, and they are `uncertain` in the results.

    Returns:
        Paths with captions, paths of skipped photos with the reason, with `writer` paths of
        photos that have captions, and with `min_confidence` uncertain ones.

    Raises:
        FileNotFoundError: a file, folder or preset does not exist, or there are no photos.
        ValueError: without `writer`, no photo can be read; with it, none can be written to; the
            captioner takes other inputs, two photos share a file of captions, or `min_confidence`
            is not in 0..1.
        OSError: captions cannot be written.

    Example:
        >>> results = effcap.tools.caption_folder("photos", "flickr8k-lite0")
        >>> for path, captions in results.captions:
        ...     print(path, captions[0].text)
    """
    check_batch_size(batch_size)
    check_min_confidence(min_confidence)
    paths = expand(photos)
    plan = None if writer is None else writer.plan(paths)
    if plan is not None and len(plan.left_out) == len(paths):  # without loading the captioner
        return CaptionResults([], plan.refused, plan.existing)
    return caption_paths(
        paths,
        load_captioner(captioner),
        sampler,
        batch_size,
        plan=plan,
        min_confidence=min_confidence,
    )


def expand(photos: str | PathLike[str] | Sequence[str | PathLike[str]]) -> list[Path]:
    """Returns the photos in files, folders and patterns; see `find_photos`."""
    items = [photos] if isinstance(photos, str | PathLike) else photos
    return find_photos([os.fspath(item) for item in items])


def caption_paths(
    paths: Sequence[AnyPhoto],
    captioner: CaptionGenerator,
    sampler: str | Sampler | None,
    batch_size: int,
    prefixes: Sequence[str | None] | None = None,
    plan: WritePlan | None = None,
    min_confidence: float = 0.0,
) -> CaptionResults[AnyPhoto]:
    """Captions photo files or stored photos; see `caption_folder`.

    Args:
        paths: photo files, or without a `plan` stored photos.
        captioner: captioner of photos.
        sampler: sampler, or its name. None for that of the captioner.
        batch_size: photos per batch.
        prefixes: text that the captions of each photo continue. None, also for one photo, takes
            that of the captioner.
        plan: which photos get captions and what writes these as they come, if anything does.
        min_confidence: as in `caption_folder`.
    """
    encoder = photo_encoder(captioner)
    prefixes = prefixes or [None] * len(paths)
    left_out = set() if plan is None else plan.left_out
    order = [
        index
        for index in captioner.order_by_prefix(prefixes, len(paths))
        if paths[index] not in left_out
    ]
    captions: dict[int, list[Caption]] = {}
    uncertain: dict[int, list[Caption]] = {}
    skipped: list[tuple[AnyPhoto, str]] = []
    ordered = [paths[index] for index in order]

    def write(batch: dict[int, list[Caption]]) -> None:
        for index, photo_captions in batch.items():
            try:
                path = paths[index]
                if plan is not None and isinstance(path, Path):
                    plan.writer.write(path, photo_captions)
                captions[index] = photo_captions
            except CannotWrite as error:
                skipped.append((paths[index], str(error)))

    writing: Future[None] | None = None  # of the batch before
    with ThreadPoolExecutor(1) as thread, ProgressBar("captioning", len(order)) as bar:
        for numbers, images in load_batches(ordered, encoder, batch_size, skipped):
            inputs = {"images": np.stack(images)}  # (B, h, w, 3)
            indices = [order[number] for number in numbers]
            batch = captioner.generate_batch(
                inputs, sampler, batch_size, indices, prefix=[prefixes[index] for index in indices]
            )
            by_index = dict(zip(indices, batch, strict=True))
            doubtful = {i for i in indices if by_index[i][0].confidence < min_confidence}
            uncertain |= {i: by_index.pop(i) for i in doubtful}
            if writing is not None:
                writing.result()
            writing = thread.submit(write, by_index)
            bar.advance(steps=len(batch))
        if writing is not None:
            writing.result()
    if plan is None:  # a repeated call with one may find only unreadable photos left
        check_some_used(len(order), skipped)
    return CaptionResults(
        [(paths[index], captions[index]) for index in sorted(captions)],
        skipped if plan is None else [*plan.refused, *skipped],
        [] if plan is None else plan.existing,
        [(paths[index], uncertain[index]) for index in sorted(uncertain)],
    )


def load_batches(
    paths: Sequence[AnyPhoto],
    encoder: Any,
    batch_size: int,
    skipped: list[tuple[AnyPhoto, str]],
) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Decodes photos in threads, a batch ahead, and yields those that can be read in batches.

    Args:
        paths: photo files or stored photos.
        encoder: encoder whose image size, fit and filter are used; see `effcap.load_photo`.
        batch_size: photos per batch; only the last one is smaller.
        skipped: list to which photos that cannot be read are added, with the reason.

    Yields:
        Indices of paths, and photos (height, width, 3) uint8.
    """

    size, fit, resample = encoder.image_size, encoder.fit, encoder.resample

    def load(index: int) -> np.ndarray | UnreadablePhoto:
        try:
            return load_photo(paths[index], size, fit, resample)  # (h,w,3)
        except UnreadablePhoto as error:
            return error

    readable: list[tuple[int, np.ndarray]] = []
    for indices, photos in load_ahead(range(len(paths)), load, batch_size):
        for index, photo in zip(indices, photos, strict=True):
            if isinstance(photo, UnreadablePhoto):
                skipped.append((paths[index], photo.reason))
            else:
                readable.append((index, photo))
        if len(readable) >= batch_size:
            yield unzip(readable[:batch_size])
            readable = readable[batch_size:]
    if readable:
        yield unzip(readable)


def unzip(pairs: Sequence[tuple[int, np.ndarray]]) -> tuple[list[int], list[np.ndarray]]:
    """Returns the indices and the photos of (index, photo) pairs."""
    return [index for index, _ in pairs], [photo for _, photo in pairs]
