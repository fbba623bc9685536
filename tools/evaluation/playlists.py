"""Scores a captioner of playlists against reference captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effcap.metrics.java import check_available
from effcap.metrics.scores import check_extra
from effcap.metrics.tokenize import check_tokenization
from effcap.tools.captioning.playlists import playlist_modalities, trained_caption_format
from effcap.tools.captioning.results import check_batch_size, load_captioner
from effcap.tools.evaluation.evaluate import CaptionSet, Evaluation, score
from effcap.tools.features.playlists import shorten
from effcap.trainers.data.example import Example, check_problems
from effcap.trainers.data.playlists.arrays import open_arrays
from effcap.trainers.data.playlists.artists import unmask_artists
from effcap.trainers.data.playlists.caption_formats import CaptionFormat, strip_markers
from effcap.trainers.data.playlists.caption_records import TEST_SPLIT, read_caption_records
from effcap.trainers.data.playlists.inputs import PlaylistInputs, check_features
from effcap.utils.progress import track

if TYPE_CHECKING:
    from effcap.caption import Caption
    from effcap.caption_generator import CaptionGenerator
    from effcap.samplers import Sampler

MAX_BAD = 0.01  # largest fraction of the references that may be unusable


@dataclass(frozen=True, kw_only=True)
class PlaylistReferences:
    """Files of playlists with reference captions.

    Attributes:
        captions: JSON files of captions. See
            `effcap.trainers.data.playlists.read_caption_records`.
        features: folder or HDF5 file of the playlists' features. See
            `effcap.trainers.data.playlists.open_arrays`.
        split: split of files with several.
        artists: JSON file of the playlists' artists, as in training.
        caption_format: format that the captioner was trained on. None takes the one recorded in the
            preset, or "as-is".
    """

    captions: str | PathLike[str] | Sequence[str | PathLike[str]]
    features: str | PathLike[str]
    split: str = TEST_SPLIT
    artists: str | PathLike[str] | None = None
    caption_format: CaptionFormat | None = None


def evaluate_playlists(
    captioner: CaptionGenerator | str | PathLike[str],
    references: PlaylistReferences,
    sampler: str | Sampler | None = None,
    *,
    batch_size: int = 8,
    metrics: Sequence[str] = (),
    tokenization: str = "ptb",
) -> Evaluation:
    """Captions playlists and scores the captions against references.

    Captions and references are compared with artist names and without markers such as `<title>`.
    Of captions that continue a prefix, the text after it is scored.

    Args:
        captioner: captioner of playlists, or the name or folder of a preset.
        references: playlists with reference captions.
        sampler: sampler, or its name (default: that of the captioner).
        batch_size: playlists per batch.
        metrics: additional metrics, "METEOR" and "SPICE", which need Java.
        tokenization: words that are counted; see `effcap.metrics.tokenize`.

    Raises:
        FileNotFoundError: a file, the preset, or all features of a modality are missing.
        ValueError: a file has another structure, the captioner does not take playlists, or no
            playlist has features.
        TooManyProblems: more than 1 % of the references cannot be used.
        MetricUnavailable: Java or a package is missing.

    Example:
        >>> references = PlaylistReferences(
        ...     captions="captions.json", features="embeddings", artists="playlist2artists.json"
        ... )
        >>> evaluation = evaluate_playlists("runs/playntell", references)
        >>> evaluation.scores.corpus["CIDEr"]
    """
    check_extra(metrics, check_tokenization(tokenization))
    for metric in metrics:
        check_available(metric)
    check_batch_size(batch_size)
    caption_set = caption_playlist_set(captioner, references, sampler, batch_size)
    return score(caption_set, metrics, tokenization)


def caption_playlist_set(
    captioner: CaptionGenerator | str | PathLike[str],
    references: PlaylistReferences,
    sampler: str | Sampler | None,
    batch_size: int,
) -> CaptionSet:
    """Captions the playlists of references, counting those without usable features."""
    modalities = playlist_modalities(captioner)
    caption_format = references.caption_format or trained_caption_format(captioner)
    arrays = open_arrays(references.features)
    arrays.check_modalities(modalities)
    examples, artists, summary = read_references(references, caption_format)
    usable, loader, problems = check_features(examples, arrays, modalities, "checking playlists")
    if not usable:
        raise ValueError(
            f"None of {len(examples)} playlists has usable features in {arrays.path}, "
            f"such as {problems[0]}"
        )
    generated = _generate(load_captioner(captioner), loader, sampler, batch_size)
    captions = list(track(generated, len(usable), "captioning"))
    texts: list[Sequence[str]] = [
        [
            strip_markers(unmask_artists(caption.continuation, artists[example.name]))
            for caption in options
        ]
        for example, options in zip(usable, captions, strict=True)
    ]
    return CaptionSet(
        usable,
        texts,
        [[caption.score for caption in options] for options in captions],
        counts={"unusable playlists": len(problems)},
        notes=[
            *([summary] if summary else []),
            *shorten([f"skipped: {problem}" for problem in problems]),
        ],
    )


def read_references(
    references: PlaylistReferences, caption_format: CaptionFormat
) -> tuple[list[Example], dict[str, Sequence[str]], str]:
    """Reads reference captions without markers, and the artists of each playlist.

    Returns:
        (playlists with references, artists by playlist, summary of unusable references).

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file has another structure, or there are no references.
        TooManyProblems: more than 1 % of the references cannot be used.
    """
    records, problems = read_caption_records(
        references.captions,
        references.split,
        caption_format=caption_format,
        artists=references.artists,
    )
    num_captions = len(records) + len(problems)
    if not num_captions:
        raise ValueError(f"There are no captions in {references.captions}")
    summary = check_problems("reference", problems, num_captions, MAX_BAD)
    texts: dict[str, list[str]] = {}
    for record in records:
        texts.setdefault(record.playlist, []).append(strip_markers(record.caption))
    # An empty path, because playlists have no photo to show.
    examples = [Example(Path(), tuple(captions), name) for name, captions in texts.items()]
    return examples, {record.playlist: record.artists or () for record in records}, summary


def _generate(
    captioner: CaptionGenerator,
    loader: PlaylistInputs,
    sampler: str | Sampler | None,
    batch_size: int,
) -> Iterator[list[Caption]]:
    """Yields the captions of each playlist, best first, as decoded from tokens."""
    for start in range(0, len(loader.playlists), batch_size):
        indices = np.arange(start, min(start + batch_size, len(loader.playlists)))  # (B,)
        inputs = loader.load(indices, np.zeros(len(indices), bool))
        yield from captioner.generate_batch(inputs, sampler, batch_size, indices.tolist())
