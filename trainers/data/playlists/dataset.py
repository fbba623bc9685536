"""Playlists with captions and features as training data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

from effcap.trainers.data.dataset import CheckedExamples, ExampleDataset, check_no_augmentation
from effcap.trainers.data.playlists.arrays import PlaylistArrays, open_arrays
from effcap.trainers.data.playlists.caption_formats import CaptionFormat
from effcap.trainers.data.playlists.caption_records import read_playlist_captions
from effcap.trainers.data.playlists.inputs import check_features

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.options.batches import BatchOptions


@dataclass(frozen=True)
class PlaylistDataset(ExampleDataset):
    """Playlists with captions and features.

    Attributes:
        examples: playlists with captions; their names are the playlists' ids.
        problems: captions that could not be read.
        arrays: features of the playlists.
    """

    arrays: PlaylistArrays

    def check(self, captioner: Captioner, options: BatchOptions) -> CheckedExamples:
        """Reads all features once; see `ExampleDataset.check`.

        Raises:
            FileNotFoundError: a modality of the captioner has no features.
            ValueError: the captioner does not take playlists, or photos are to be augmented.
        """
        check_no_augmentation(options.augmentation, "playlists")
        modalities = getattr(captioner.encoder, "modalities", None)
        if modalities is None:
            raise ValueError(
                "Expected a captioner of playlists, such as the variant playntell. "
                f"Received: a captioner of {' or '.join(captioner.encoder.input_keys)}"
            )
        self.arrays.check_modalities(modalities)
        title = f"checking {options.name} playlists"
        return CheckedExamples(*check_features(self.examples, self.arrays, modalities, title))


def read_playlist_dataset(
    captions: str | PathLike[str] | Iterable[str | PathLike[str]],
    features: str | PathLike[str],
    *,
    split: str = "train",
    caption_format: CaptionFormat = "as-is",
    artists: str | PathLike[str] | None = None,
    edit: Callable[[str], str] | None = None,
) -> PlaylistDataset:
    """Reads playlists with captions and features.

    Args:
        captions: a JSON file of captions or several, see `read_caption_records`.
        features: folder or HDF5 file of features, see `effcap.trainers.data.playlists.open_arrays`.
        split: split to take from files with several.
        caption_format: format of the captions to train on, see
            `effcap.trainers.data.playlists.format_caption`.
        artists: JSON file of the playlists' artists, whose names in captions become `artist0`,
            `artist1`, ... None takes the artists in the records.
        edit: function applied to each formatted caption, such as `tidy` or `plain`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file has another structure, or lacks the split.

    Example:
        >>> data = read_playlist_dataset("captions.json", "embeddings", caption_format="title")
        >>> captioner.compile()
        >>> captioner.fit(data.batches(captioner, batch_size=16), epochs=3)
    """
    arrays = open_arrays(features)
    examples, problems = read_playlist_captions(
        captions, split, caption_format=caption_format, artists=artists, edit=edit
    )
    return PlaylistDataset(examples, problems, arrays)
