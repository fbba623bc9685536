"""`effcap features --playlist`: writes features of playlists."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.tools.cli.options import add_options, given_options, option_flag
from effcap.tools.cli.outputs import check_folder
from effcap.tools.cli.terminal import start_keras

if TYPE_CHECKING:
    from effcap.tools.features.playlists import FeatureSources

# Fields of `FeatureSources` with their options.
TRACK_SOURCES = {
    "tags": "tags",
    "audio_weights": "audio_weights",
    "audio_pooling": "audio_pooling",
}
SOURCES = {"features": "embeddings", **TRACK_SOURCES}
METAVARS = {"features": "DIR|FILE", "tags": "FILE", "audio_weights": "DIR"}
PHOTO_OPTIONS = ("photos", "csv", "annotations", "backbone", "model")


def add_sources(group: Any, sources: Mapping[str, str]) -> None:
    """Adds options for fields of `FeatureSources`; they default to None."""
    from effcap.tools.features.playlists import FeatureSources

    add_options(group, FeatureSources, tuple(sources), flags=sources, metavars=METAVARS, unset="{}")


def given_sources(
    arguments: argparse.Namespace, sources: Mapping[str, str] = SOURCES
) -> FeatureSources:
    """Returns the sources of the options that are set."""
    from effcap.tools.features.playlists import FeatureSources

    return FeatureSources(**given_options(arguments, tuple(sources), flags=sources))


def add_playlists(parser: argparse.ArgumentParser) -> None:
    """Adds the options of playlists to `effcap features`."""
    group = parser.add_argument_group("playlists")
    group.add_argument(
        "--playlist",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="JSON files of playlists in place of photos, as for effcap caption --playlist; --out "
        "is a folder for effcap train playlists --embeddings",
    )
    add_sources(group, TRACK_SOURCES)


def takes_playlists(arguments: argparse.Namespace) -> bool:
    """Returns whether `effcap features` reads playlists.

    Raises:
        ValueError: options cannot be combined.
    """
    for name in PHOTO_OPTIONS if arguments.playlist else TRACK_SOURCES.values():
        if getattr(arguments, name):
            option = "PHOTO" if name == "photos" else option_flag(name)
            raise ValueError(
                f"{option} cannot be used with --playlist"
                if arguments.playlist
                else f"{option} requires --playlist"
            )
    return bool(arguments.playlist)


def run_playlists(arguments: argparse.Namespace) -> None:
    """Runs `effcap features --playlist`."""
    from effcap.tools.features.playlists import has_audio_files, write_playlist_features
    from effcap.trainers.data.playlists import read_playlists
    from effcap.utils.progress import print_line

    if arguments.out is None:
        raise ValueError("--playlist requires --out FOLDER")
    check_folder(arguments.out, "--out")
    playlists = read_playlists(arguments.playlist)
    if has_audio_files(playlists):
        start_keras()
    written = write_playlist_features(
        playlists, arguments.out, given_sources(arguments, TRACK_SOURCES)
    )
    print_notes(written.notes, written.skipped, len(playlists))
    modalities = ", ".join(written.features[0].arrays)
    print_line(f"{modalities} of {len(written.playlists)} playlists: {arguments.out}")


def print_notes(
    notes: Sequence[str], skipped: Sequence[tuple[str, str]], num_playlists: int
) -> None:
    """Prints notes, and the first skipped playlists with their reasons.

    Args:
        notes: lines to print.
        skipped: (id, reason) pairs.
        num_playlists: number of all playlists.
    """
    from effcap.tools.features.playlists import shorten
    from effcap.utils.progress import print_line

    lines = [f"skipped: playlist {playlist}: {reason}" for playlist, reason in skipped]
    for line in [*notes, *shorten(lines)]:
        print_line(line)
    if skipped:
        print_line(f"{len(skipped)} of {num_playlists} playlists have no usable features")
