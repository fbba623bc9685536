"""The options that name playlists: captions, features, artists."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.trainers.data.playlists.caption_formats import FORMATS

if TYPE_CHECKING:
    from effcap.trainers.data.playlists.dataset import PlaylistData

EMBEDDINGS = (
    "features of playlists: a folder with audio/ID.npy (a row of 256 per track), tags/ID.npy (a "
    "row of 300 per tag) and artist/ID.npy (a row of 10 shares), or HDF5 with such data sets"
)


def add_playlist_data(data) -> None:
    """Adds what goes with captions of playlists."""
    data.add_argument("--embeddings", type=Path, metavar="DIR|FILE", help=EMBEDDINGS)
    data.add_argument(
        "--artists",
        type=Path,
        metavar="FILE",
        help="artists of the playlists, whose names in captions become artist0, artist1, ...: "
        'PlayNTell\'s {id: [{"artist", "count"}]}, or playlists with their tracks',
    )
    add_format(data, "as-is")


def add_format(data, default: str | None) -> None:
    """Adds the form of captions."""
    text = "of captions '<title> T <description> D': as they are, T, D, or 'T <delimiter> D'"
    if default is None:
        text += " (what the model was trained on, where that is known)"
    data.add_argument("--format", choices=FORMATS, default=default, help=text)


def takes_playlists(arguments: argparse.Namespace, names: Sequence[str]) -> bool:
    """Whether the data named by the options `names` are playlists.

    Raises:
        ValueError: for options of playlists and of something else.
    """
    playlists = [name for name in names if name.endswith("playlists")]
    if not playlists:
        for option in ("embeddings", "artists"):
            if vars(arguments).get(option) is not None:
                raise ValueError(f"Expected --playlists with --{option}. Received: none")
        return False
    others = [name for name in names if name not in playlists]
    others += ["features"] * (vars(arguments).get("features") is not None)
    if others or "playlists" not in playlists:
        other = f"--{others[0].replace('_', '-')}" if others else "no --playlists"
        option = f"--{playlists[0].replace('_', '-')}"
        raise ValueError(
            f"Expected playlists to train on and to validate on with {option}. Received: {other}"
        )
    if arguments.embeddings is None:
        raise ValueError("Expected --embeddings with --playlists. Received: none")
    return True


def read_playlists_of(
    arguments: argparse.Namespace,
) -> tuple[PlaylistData, PlaylistData | None]:
    """Playlists to train on, and those to validate on: of --val-playlists, or where it is not
    given, of the split "val" in the files of --playlists; None where there is no such split.

    Raises:
        FileNotFoundError, ValueError: as `read_playlist_data`.
    """
    from effcap.trainers.data.example import tidy
    from effcap.trainers.data.playlists.caption_records import HELD_OUT, with_split
    from effcap.trainers.data.playlists.dataset import read_playlist_data

    def read(files: Sequence[Path], split: str) -> PlaylistData:
        return read_playlist_data(
            files,
            arguments.embeddings,
            split=split,
            form=arguments.format,
            artists=arguments.artists,
            edit=tidy if arguments.tidy else None,
        )

    held_out = arguments.val_playlists or with_split(arguments.playlists)
    training = read(arguments.playlists, "train")
    return training, read(held_out, HELD_OUT) if held_out else None
