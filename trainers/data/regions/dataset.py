"""Region features as training data: VisualGPT's `detections.hdf5` with anyone's captions."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effcap.images import UnreadablePhoto
from effcap.trainers.data.csv_reader import read_csvs
from effcap.trainers.data.dataset import CaptionedData, refuse_augmentation
from effcap.trainers.data.example import check_share
from effcap.trainers.data.json_reader import coco_names, read_jsons
from effcap.trainers.data.regions.region_checks import check_regions, check_width, find_regions
from effcap.trainers.data.regions.region_file import MOST_REGIONS, RegionFile, UnusableRegions
from effcap.trainers.data.text_files import read_text

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.batching.in_memory import CaptionBatches
    from effcap.trainers.options.run import RunOptions


LOOKED_AT = 16  # photos whose features stand for all in the fingerprint


class RegionFeatures:
    """Features of photos' regions, read when a batch asks for them; a `Source`.

    Args:
        file: that holds them.
        names: the photos' datasets.
        channels: width C.

    Attributes:
        regions: of the photo with the most, up to the file's limit.
    """

    mirrored = False

    def __init__(self, file: RegionFile, names: Sequence[str], channels: int):
        self.file, self.names, self.channels = file, names, channels
        self.regions = min(max(file.place(name).rows for name in names), file.limit)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the names and shapes of all photos' features, and of some of the features."""
        shapes = [(name, *self.file.place(name)[:2]) for name in self.names]
        state = hashlib.sha256(repr((self.regions, shapes)).encode())
        for i in np.linspace(0, len(self.names) - 1, min(LOOKED_AT, len(self.names))).astype(int):
            state.update(self.file.read(self.names[i], self.channels).tobytes())
        return state.hexdigest()

    def load(
        self, photos: np.ndarray, mirror: np.ndarray, draws: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """`{"regions"}`: (B, S, C) float32 of photos (B,), filled up with rows of zeros; `mirror`
        and `draws` do nothing."""
        names = [self.names[photo] for photo in photos]
        try:
            return {"regions": self.file.load(names, self.regions, self.channels)}  # (B,S,C)
        except UnusableRegions as error:
            where = f"the regions of a photo in {self.file.path}"
            raise UnreadablePhoto(where, str(error)) from error


@dataclass(frozen=True)
class RegionData(CaptionedData):
    """Captions of photos, and the file with the features of their regions; see `DataSource`.

    Attributes:
        photos, problems: as `read_csv` or `read_json_captions` gives them; the files of the photos
            need not be there.
        file: of the features.
        ids: COCO's ids of the photos by their absolute paths, as `photo_ids` gives them.
    """

    file: RegionFile
    ids: Mapping[str, str] = field(default_factory=dict)

    def batches(
        self, name: str, captioner: Captioner, options: RunOptions, **more: Any
    ) -> tuple[CaptionBatches, str]:
        """See `DataSource`.

        Raises:
            ValueError: for a captioner that takes something else, or options for photos.
        """
        if name == "training":
            refuse_augmentation(options.training.augmentation, "region features")
        return self.make_batches(
            name,
            captioner,
            record=options.folder / f"checked_{name}.json",
            titles=(f"finding features of {name} photos", f"checking {name} features"),
            **options.batch_options(name),
            **more,
        )

    def make_batches(
        self,
        name: str,
        captioner: Captioner,
        *,
        max_bad: float = 0.01,
        log: Path | None = None,
        record: Path | None = None,
        titles: tuple[str | None, str | None] = (None, None),
        **options: Any,
    ) -> tuple[CaptionBatches, str]:
        """`batches` with its options one by one; those of `CaptionBatches` besides.

        Args:
            name: of the data, such as "training".
            captioner: whose tokenizer to use.
            max_bad, log: as in `check_share`.
            record: file that remembers the features found good, which are not read again as long as
                the file of features has not changed; None for no file.
            titles: of the progress bars while features are found and checked; None for no bar.
        """
        from effcap.trainers.batching.in_memory import CaptionBatches

        channels = region_channels(captioner)
        found, problems = find_regions(self.photos, self.file, self.ids, titles[0])
        check_width(self.file, [name for _, name in found], channels)
        found, wrong = check_regions(self.file, found, channels, titles[1], record)
        problems = self.problems + problems + wrong
        if not found:
            check_share(name, problems, self.total, max_bad, log)
            raise ValueError(f"Expected photos with captions as {name} data. Received: none")
        source = RegionFeatures(self.file, [name for _, name in found], channels)
        batches = CaptionBatches(
            [photo for photo, _ in found],
            source,
            captioner.tokenizer,
            captioner.decoder.positions,
            **options,
        )
        batches.problems = problems + batches.problems
        summary = check_share(name, batches.problems, self.total, max_bad, log)
        limit = self.file.limit
        cut = sum(self.file.place(name).rows > limit for name in source.names)
        if cut:
            line = f"{name} data: of {cut} photos with more regions, the first {limit} are used"
            summary = "\n".join(filter(None, (summary, line)))
        return batches, summary


def region_channels(captioner: Captioner) -> int:
    """Width C of the regions that a captioner takes; ValueError for one that takes none."""
    encoder = captioner.encoder
    if "regions" not in encoder.input_keys:
        raise ValueError(
            "Expected a captioner of region features, such as --model visualgpt. Received: one of "
            f"{' or '.join(encoder.input_keys)}"
        )
    return encoder.channels


def photo_ids(
    paths: Iterable[str | PathLike], images: str | PathLike | None = None
) -> dict[str, str]:
    """COCO's ids of photos by their absolute paths, from files in COCO's form; none from others.

    Args:
        paths: JSON files, as `read_json_captions` takes them.
        images: folder that the photos' names are relative to; the JSON file's own by default.
    """
    ids = {}
    for path in map(Path, paths):
        folder = path.parent if images is None else Path(images)
        for number, name in coco_names(read_text(path, "JSON")).items():
            ids[os.path.abspath(Path(folder, name))] = number
    return ids


def region_dataset(
    features: str | PathLike,
    captions: str | PathLike | Iterable[str | PathLike],
    captioner: Captioner,
    *,
    images: str | PathLike | None = None,
    max_regions: int = MOST_REGIONS,
    max_bad: float = 0.01,
    **options: Any,
) -> CaptionBatches:
    """Batches for `captioner.fit` from region features and captions.

    All features are read once, so that what cannot be used is known, and left out with a warning
    that names it, before training begins.

    Args:
        features: an HDF5 file such as VisualGPT's `detections.hdf5`, see `RegionFile`.
        captions: COCO's `captions_*.json`, a CSV file (`.csv`), or several of one kind.
        captioner: whose tokenizer to use.
        images: folder of the photos, by whose paths photos are told apart; they need not be there.
        max_regions: of a photo that are used, at most: the first.
        max_bad: the share of captions that may have to be left out.
        options: of `CaptionBatches`, such as `batch_size=32`, `shuffle=True`, `seed=0`.

    Raises:
        FileNotFoundError, ValueError: as `RegionFile`, `read_csv` and `read_json_captions`; for
            features of another width than the captioner takes.
        TooManyProblems: when more than `max_bad` of the captions cannot be used.

    Example:
        >>> data = region_dataset("detections.hdf5", "captions_train2014.json", captioner)
        >>> captioner.compile()
        >>> captioner.fit(data, epochs=3)
    """
    paths = [captions] if isinstance(captions, str | PathLike) else list(captions)
    tables = all(Path(path).suffix.lower() == ".csv" for path in paths)
    data = read_csvs(paths, images) if tables else read_jsons(paths, images)
    ids = {} if tables else photo_ids(paths, images)
    regions = RegionData(*data, RegionFile(features, max_regions), ids)
    batches, summary = regions.make_batches("region", captioner, max_bad=max_bad, **options)
    if summary:
        warnings.warn(summary, stacklevel=2)
    return batches
