"""Scores a captioner, or captions from a file, against references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from effcap.metrics import Scores, score_captions
from effcap.metrics.java import check_available
from effcap.metrics.scores import check_extra
from effcap.metrics.tokenize import check_tokenization, language_note
from effcap.tools.evaluation.caption_files import (
    MAX_SHOWN,
    as_captions,
    match_captions,
    read_captions,
)
from effcap.tools.evaluation.references import References, dataset_references, read_references
from effcap.trainers.data.dataset import ExampleDataset
from effcap.trainers.data.example import Example, first_names
from effcap.utils.progress import track

if TYPE_CHECKING:
    from effcap.caption import Caption
    from effcap.caption_generator import CaptionGenerator
    from effcap.samplers import Sampler
    from effcap.trainers.data.regions.region_file import RegionFile


@dataclass(frozen=True)
class CaptionSet:
    """Captions to score.

    Attributes:
        photos: photos, or other inputs, with references.
        captions: one or several captions of each photo.
        log_probs: scores of the captions by the sampler; empty for captions from a file.
        counts: numbers of photos and captions that cannot be scored.
        notes: lines about them to print.
    """

    photos: list[Example]
    captions: list[Sequence[str]]
    log_probs: list[list[float]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Evaluation(NamedTuple):
    """Scored captions.

    Attributes:
        scores: scores of the corpus and of each photo, see `effcap.metrics.Scores`.
        captions: the captions that were scored.
    """

    scores: Scores
    captions: CaptionSet

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of photos, captions and references, and of what could not be scored."""
        return {
            "photos": len(self.captions.photos),
            "captions": sum(map(len, self.captions.captions)),
            "references": sum(len(photo.captions) for photo in self.captions.photos),
            **self.captions.counts,
        }


def evaluate(
    captions: CaptionGenerator | str | PathLike[str] | Mapping[str, str | Sequence[str]],
    references: References | ExampleDataset | str | PathLike[str] | Sequence[str | PathLike[str]],
    sampler: str | Sampler | None = None,
    *,
    features: RegionFile | str | PathLike[str] | None = None,
    batch_size: int = 8,
    metrics: Sequence[str] = (),
    tokenization: str = "ptb",
) -> Evaluation:
    """Scores a captioner or captions against references.

    Computes BLEU, ROUGE-L and CIDEr as COCO's evaluation does; see `effcap.metrics`. Of captions
    that continue a prefix, that of the photo's references or the captioner's `prefix`, the text
    after it is scored, as in BLIP.

    Args:
        captions: captioner to score, or the name or folder of a preset; or captions to score: a
            JSON file (see `read_captions`), or captions by name of the photo.
        references: files (see `read_references`), `References`, or a dataset, such as that of
            `effcap.trainers.read_dataset`.
        sampler: sampler, or its name (default: that of the captioner).
        features: region features to caption in place of photos; see `caption_regions`.
        batch_size: photos captioned per batch.
        metrics: additional metrics, "METEOR" and "SPICE", which need Java.
        tokenization: words that are counted, "ptb" for English, "unicode" or "char" for other
            languages; see `effcap.metrics.tokenize`.

    Raises:
        FileNotFoundError: a file, a preset or all photos are missing.
        ValueError: captions and references do not match, no photo can be captioned, or the
            metrics do not apply to the language.
        MetricUnavailable: Java or a package is missing.

    Example:
        >>> evaluation = effcap.tools.evaluate("flickr8k-lite0", "dev.csv")
        >>> evaluation.scores.corpus["CIDEr"]
        >>> effcap.tools.write_report(evaluation, "scores")
    """
    check_extra(metrics, check_tokenization(tokenization))
    for metric in metrics:
        check_available(metric)
    if isinstance(references, ExampleDataset):
        references = dataset_references(references)
    elif not isinstance(references, References):
        references = read_references(references)
    if isinstance(captions, Mapping):
        caption_set = match_set(as_captions(captions), references)
    elif isinstance(captions, str | PathLike) and Path(captions).is_file():
        caption_set = match_set(read_captions(captions), references)
    elif features is not None:
        caption_set = caption_region_set(captions, references, sampler, features, batch_size)
    else:
        caption_set = caption_photo_set(captions, references, sampler, batch_size)
    if references.summary:
        caption_set.notes.insert(0, references.summary)
    return score(caption_set, metrics, tokenization)


def score(
    captions: CaptionSet, metrics: Sequence[str] = (), tokenization: str = "ptb"
) -> Evaluation:
    """Scores captions with a progress bar.

    Args:
        captions: captions with references.
        metrics: additional metrics, "METEOR" and "SPICE", which need Java and may take minutes.
        tokenization: words that are counted; see `effcap.metrics.tokenize`.
    """
    scores = score_captions(
        captions.captions,
        [photo.captions for photo in captions.photos],
        metrics,
        lambda texts, total: track(texts, total, "tokenizing"),
        tokenization,
    )
    references = chain.from_iterable(photo.captions for photo in captions.photos)
    if note := language_note(references, tokenization):
        captions.notes.append(note)
    if len(captions.photos) == 1:
        captions.notes.append(
            "CIDEr is 0 for a single photo, because it weights words by other photos"
        )
    return Evaluation(scores, captions)


def match_set(captions: Sequence[Any], references: References) -> CaptionSet:
    """Matches captions from a file with references."""
    matched = match_captions(captions, references)
    notes = [
        f"not scored: {len(names)} {text}: {first_names(names, MAX_SHOWN)}"
        for names, text in (
            (matched.missing, f"of {len(references.photos)} photos with references, no caption"),
            (matched.extra, f"of {len(captions)} captioned photos, no references"),
        )
        if names
    ]
    counts = {
        "photos without captions": len(matched.missing),
        "captions without references": len(matched.extra),
    }
    photos = [references.photos[index] for index in matched.captions]
    texts: list[Sequence[str]] = [entry.captions for entry in matched.captions.values()]
    return CaptionSet(photos, texts, counts=counts, notes=notes)


def caption_photo_set(
    captioner: CaptionGenerator | str | PathLike[str],
    references: References,
    sampler: str | Sampler | None,
    batch_size: int,
) -> CaptionSet:
    """Captions the photos of references, counting those that cannot be read."""
    from effcap.tools.captioning.photos import caption_paths
    from effcap.tools.captioning.results import load_captioner

    photos = references.photos
    check_photos_exist(references)
    results = caption_paths(
        [photo.photo for photo in photos],
        load_captioner(captioner),
        sampler,
        batch_size,
        [photo.prefix or None for photo in photos],
    )
    skipped = {photo for photo, _ in results.skipped}
    readable = [photo for photo in photos if photo.photo not in skipped]
    captions = [captions for _, captions in results.captions]
    return captioned_set(
        list(zip(readable, captions, strict=True)),
        counts={"unreadable photos": len(results.skipped)},
        notes=[f"skipped: {photo}: {reason}" for photo, reason in results.skipped],
    )


def check_photos_exist(references: References) -> None:
    """Raises a `FileNotFoundError` if none of the photos exists."""
    if not any(photo.has_photo for photo in references.photos):
        raise FileNotFoundError(
            f"None of the photos exists, such as {references.photos[0].path}; set their folder "
            "(images)"
        )


def caption_region_set(
    captioner: CaptionGenerator | str | PathLike[str],
    references: References,
    sampler: str | Sampler | None,
    features: RegionFile | str | PathLike[str],
    batch_size: int,
) -> CaptionSet:
    """Captions the photos of references from their region features."""
    from effcap.tools.captioning.regions import caption_datasets, open_regions
    from effcap.tools.captioning.results import load_captioner
    from effcap.trainers.data.regions.region_file import RegionFile, candidate_keys

    file = features if isinstance(features, RegionFile) else open_regions(features, captioner)
    ids = {index: coco_id for coco_id, index in references.ids.items()}
    if any(photo.prefix for photo in references.photos):
        raise ValueError("Photos with prefixes of their own cannot be captioned from features")
    datasets: dict[str, str] = {}
    photos: dict[str, Example] = {}
    missing = []
    for index, photo in enumerate(references.photos):
        dataset = file.find_dataset(candidate_keys(photo.name, ids.get(index)))
        if dataset is None:
            missing.append(photo.name)
        else:
            datasets[dataset], photos[photo.name] = photo.name, photo
    if not datasets:
        raise ValueError(
            f"There are no features of {missing[0]} and the other photos in {file.path}, only of "
            f"photos such as {file.example_name}"
        )
    results = caption_datasets(file, datasets, load_captioner(captioner), sampler, batch_size)
    notes = [f"skipped: {name}: {reason}" for name, reason in results.skipped]
    if missing:
        notes.insert(
            0,
            f"no features in {file.path}: {len(missing)} photos: {first_names(missing, MAX_SHOWN)}",
        )
    return captioned_set(
        [(photos[name], captions) for name, captions in results.captions],
        counts={"photos not captioned": len(references.photos) - len(results.captions)},
        notes=notes,
    )


def captioned_set(
    captioned: Sequence[tuple[Example, Sequence[Caption]]],
    counts: dict[str, int],
    notes: list[str],
) -> CaptionSet:
    """Returns captions by a captioner, without their prefixes, as a `CaptionSet`."""
    return CaptionSet(
        [photo for photo, _ in captioned],
        [[caption.continuation for caption in captions] for _, captions in captioned],
        [[caption.score for caption in captions] for _, captions in captioned],
        counts,
        notes,
    )
