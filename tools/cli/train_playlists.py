"""Options of playlists with captions, for `effcap train playlists`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.tools.cli.data_options import caption_edit
from effcap.tools.cli.features_playlists import add_sources
from effcap.trainers.data.playlists.caption_formats import CAPTION_FORMATS

if TYPE_CHECKING:
    from effcap.trainers.data.playlists import PlaylistDataset


def add_playlist_data(group: Any) -> None:
    """Adds the options that complete captions of playlists."""
    add_sources(group, {"features": "embeddings"})
    group.add_argument(
        "--artists",
        type=Path,
        metavar="FILE",
        help="JSON file of the playlists' artists, whose names in captions become artist0, "
        'artist1, ...: PlayNTell\'s {id: [{"artist", "count"}]}, or playlists with tracks',
    )
    add_caption_format(group, "as-is")


def add_caption_format(group: Any, default: str | None = None) -> None:
    """Adds --format; the default None means the format recorded in the preset."""
    text = "caption format: '<title> T <description> D' as is, T, D, or both as 'T <delimiter> D'"
    if default is None:
        text += " (default: as recorded in the preset)"
    group.add_argument("--format", choices=CAPTION_FORMATS, default=default, help=text)


def read_playlist_data(
    arguments: argparse.Namespace,
) -> tuple[PlaylistDataset, PlaylistDataset | None]:
    """Reads the training and the validation data.

    Validation data are the files of --val-playlists, or else the split "val" in the files of
    --playlists; None if there is neither.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file has another structure, or --embeddings is missing.
    """
    if arguments.embeddings is None:
        raise ValueError("--playlists requires --embeddings")
    from effcap.trainers.data.playlists import read_playlist_dataset
    from effcap.trainers.data.playlists.caption_records import VALIDATION_SPLIT, files_with_split

    def read(files: Sequence[Path], split: str) -> PlaylistDataset:
        return read_playlist_dataset(
            files,
            arguments.embeddings,
            split=split,
            caption_format=arguments.format,
            artists=arguments.artists,
            edit=caption_edit(arguments),
        )

    files = arguments.val_playlists or files_with_split(arguments.playlists)
    training = read(arguments.playlists, "train")
    return training, read(files, VALIDATION_SPLIT) if files else None
