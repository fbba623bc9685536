"""Playlists as training data: what a notebook or the command line names them by."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.trainers.data.dataset import CaptionedData, refuse_augmentation
from effcap.trainers.data.example import check_share
from effcap.trainers.data.playlists.arrays import PlaylistArrays, open_arrays
from effcap.trainers.data.playlists.caption_formats import CaptionFormat
from effcap.trainers.data.playlists.caption_records import read_playlist_captions
from effcap.trainers.data.playlists.source import check_playlists

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.batching.in_memory import CaptionBatches
    from effcap.trainers.options.run import RunOptions


@dataclass(frozen=True)
class PlaylistData(CaptionedData):
    """Playlists with captions and features; see `DataSource` in `preparation`.

    Attributes:
        photos: the playlists, called by their ids, with their captions.
        problems: what was wrong with the rest.
        arrays: the features.
    """

    arrays: PlaylistArrays

    def batches(
        self, name: str, captioner: Captioner, options: RunOptions, **more: Any
    ) -> tuple[CaptionBatches, str]:
        """See `DataSource`."""
        if name == "training":
            refuse_augmentation(options.training.augmentation, "playlists")
        return self.make_batches(
            name,
            captioner,
            title=f"checking {name} playlists",
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
        title: str | None = None,
        **options: Any,
    ) -> tuple[CaptionBatches, str]:
        """(batches, summary of what was left out, empty where nothing was).

        Args:
            name: of the data, such as "training".
            captioner: one whose encoder takes modalities of playlists.
            max_bad, log: as in `check_share`.
            title: of the progress bar while features are checked; None for no bar.
            options: of `CaptionBatches`.

        Raises:
            FileNotFoundError: without any features of a modality.
            ValueError: for a captioner of something else, or when there is no data.
            TooManyProblems: when more than `max_bad` of the captions cannot be used, or none can.
        """
        from effcap.trainers.batching.in_memory import CaptionBatches

        modalities = getattr(captioner.encoder, "modalities", None)
        if modalities is None:
            raise ValueError(
                "Expected a captioner of playlists, such as the variant playntell. Received: one "
                f"of {' or '.join(captioner.encoder.input_keys)}"
            )
        self.arrays.check(modalities)
        good, source, bad = check_playlists(self.photos, self.arrays, modalities, title=title)
        problems = self.problems + bad
        if not good:
            check_share(name, problems, self.total, max_bad, log)
            raise ValueError(f"Expected playlists with captions as {name} data. Received: none")
        batches = CaptionBatches(
            good, source, captioner.tokenizer, captioner.decoder.positions, **options
        )
        batches.problems = problems + batches.problems
        return batches, check_share(name, batches.problems, self.total, max_bad, log)


def read_playlist_data(
    captions: str | PathLike | Iterable[str | PathLike],
    embeddings: str | PathLike,
    *,
    split: str = "train",
    form: CaptionFormat = "as-is",
    artists: str | PathLike | None = None,
    edit: Callable[[str], str] | None = None,
) -> PlaylistData:
    """Playlists with captions and features, for `run`.

    Args:
        captions, split, form, artists, edit: as in `read_records`.
        embeddings: features as `effcap.trainers.data.playlists.open_arrays` takes them.

    Raises:
        FileNotFoundError, ValueError: as these do.
    """
    arrays = open_arrays(embeddings)
    photos, problems = read_playlist_captions(captions, split, form, artists, edit)
    return PlaylistData(photos, problems, arrays)


def playlist_dataset(
    captions: str | PathLike | Iterable[str | PathLike],
    embeddings: str | PathLike,
    captioner: Captioner,
    *,
    split: str = "train",
    form: CaptionFormat = "as-is",
    artists: str | PathLike | None = None,
    edit: Callable[[str], str] | None = None,
    max_bad: float = 0.01,
    **options: Any,
) -> CaptionBatches:
    """Batches for `captioner.fit` from playlists with captions and features.

    Args:
        captions, embeddings, split, form, artists, edit: as in `read_playlist_data`.
        captioner: one of playlists.
        max_bad: the share of captions that may have to be left out.
        options: of `CaptionBatches`, such as `batch_size=32`, `shuffle=True`, `seed=0`.

    Returns:
        `CaptionBatches`, with what had to be left out in its `problems`.

    Raises:
        FileNotFoundError, ValueError: as `read_playlist_data`.
        TooManyProblems: when more than `max_bad` of the captions cannot be used.

    Example:
        >>> data = playlist_dataset("captions.json", "embeddings", captioner, form="title")
        >>> captioner.compile()
        >>> captioner.fit(data, epochs=3)
    """
    data = read_playlist_data(
        captions, embeddings, split=split, form=form, artists=artists, edit=edit
    )
    batches, summary = data.make_batches("playlist", captioner, max_bad=max_bad, **options)
    if summary:
        warnings.warn(summary, stacklevel=2)
    return batches
