"""Photos with captions, as they were read, into batches of those that can be used."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from effcap.trainers.batching.in_memory import CaptionBatches
from effcap.trainers.batching.packed import PackedBatches
from effcap.trainers.data.augmentation import Augmentation
from effcap.trainers.data.dataset import CaptionedData
from effcap.trainers.data.example import check_share
from effcap.trainers.data.photos import PhotoFiles, check_photos
from effcap.trainers.data.text_files import Data

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.options.run import RunOptions


class DataSource(Protocol):
    """Data that a run can be made of."""

    def subset(self, share: float, seed: int) -> DataSource:
        """A share of the photos and of what was wrong with others, chosen by the seed."""

    def captions(self) -> list[str]:
        """Captions to train a tokenizer on."""

    def references(self) -> Iterator[Sequence[str]]:
        """The captions of one photo after the other."""

    def batches(
        self, name: str, captioner: Captioner, options: RunOptions, **more: Any
    ) -> tuple[PackedBatches, str]:
        """(batches, summary of what was left out, empty where nothing was).

        Args:
            name: "training" or "validation".
            captioner: whose tokenizer, image size and fit to use.
            options: of the run.
            more: options of `PackedBatches`.

        Raises:
            TooManyProblems: when more than `options.max_bad` of the captions cannot be used.
        """


@dataclass(frozen=True)
class PhotoData(CaptionedData):
    """Photos in files, with captions, and what was wrong with the rest; see `DataSource`."""

    def batches(
        self, name: str, captioner: Captioner, options: RunOptions, **more: Any
    ) -> tuple[CaptionBatches, str]:
        """See `DataSource`."""
        augmentation = options.training.augmentation if name == "training" else Augmentation()
        return prepare(
            name,
            (self.photos, self.problems),
            captioner,
            record=options.folder / f"checked_{name}.bin",
            title=f"checking {name} photos",
            **asdict(augmentation),
            **options.batch_options(name),
            **more,
        )


def prepare(
    name: str,
    data: Data,
    captioner: Captioner,
    *,
    max_bad: float = 0.01,
    log: Path | None = None,
    title: str | None = None,
    record: Path | None = None,
    mirror: bool = False,
    crop: float = 1.0,
    colour: float = 0.0,
    **options: Any,
) -> tuple[CaptionBatches, str]:
    """Leaves out what cannot be used, of whatever kind, and counts it.

    Args:
        name: of the data, such as "training".
        data: photos with captions and what was wrong with the rest, as `read_csv` returns them.
        captioner: whose tokenizer, image size and fit to use.
        max_bad, log: as in `check_share`.
        title: of the progress bar while photos are checked; None for no bar.
        record: file that remembers the photos found good, as in `check_photos`.
        mirror, crop, colour: how photos are varied, as in `Augmentation`.
        options: of `CaptionBatches`.

    Returns:
        (batches, summary of what was left out, empty where nothing was); all of that is in the
        batches' `problems`.

    Raises:
        ValueError: for options out of range, or when there is no data.
        TooManyProblems: when more than `max_bad` of the captions cannot be used, or none can.
    """
    augmentation = Augmentation(mirror=mirror, crop=crop, colour=colour)
    photos, problems = data
    total = sum(problem.captions for problem in problems)
    total += sum(len(photo.captions) for photo in photos)
    encoder = check_sees_photos(captioner)
    good, unreadable = check_photos(photos, encoder.image_size, title=title, record=record)
    problems = problems + unreadable
    if not good:
        check_share(name, problems, total, max_bad, log)
        raise ValueError(f"Expected photos with captions as {name} data. Received: none")
    paths = [photo.path for photo in good]
    source = PhotoFiles(paths, encoder.image_size, encoder.fit, augmentation)
    batches = CaptionBatches(
        good, source, captioner.tokenizer, captioner.decoder.positions, **options
    )
    batches.problems = problems + batches.problems
    return batches, check_share(name, batches.problems, total, max_bad, log)


def check_sees_photos(captioner: Captioner) -> Any:
    """The captioner's encoder; ValueError for one of something else."""
    if "images" not in captioner.encoder.input_keys:
        raise ValueError(
            "Expected a captioner of photos. Received: one of "
            f"{' and '.join(captioner.encoder.input_keys)}; see effcap train regions and playlists"
        )
    return captioner.encoder


def dataset(name: str, data: Data, captioner: Captioner, **options: Any) -> CaptionBatches:
    """`prepare` for a notebook: what is left out is a warning to the caller's caller."""
    batches, summary = prepare(name, data, captioner, **options)
    if summary:
        warnings.warn(summary, stacklevel=3)
    return batches
