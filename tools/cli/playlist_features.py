"""What is known of playlists by their tracks; `effcap features --playlist` keeps it."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.tools.cli.terminal import start_keras

if TYPE_CHECKING:
    import numpy as np

    from effcap.trainers.data.playlists import (
        Playlist,
        PlaylistArrays,
        PlaylistFeatures,
        TagEmbeddings,
    )

TRACKS = ("tags", "audio_weights", "audio_pooling")  # options
PHOTOS = ("photos", "csv", "annotations", "backbone", "model")  # what playlists do without
POOLINGS = ("trained", "musicnn")
AUDIO, ARTIST = {"audio": 256}, {"artist": 10}  # widths
SHOWN = 10  # tracks, words and playlists told one by one


def add_track_options(group) -> None:
    """Adds the options that tell how features are made of tracks."""
    group.add_argument(
        "--tags", type=Path, metavar="FILE", help="embeddings of tags, such as Discogs's"
    )
    group.add_argument(
        "--audio-weights",
        type=Path,
        metavar="DIR",
        help="of the network that listens to audio files (those of the package musicnn)",
    )
    group.add_argument(
        "--audio-pooling",
        choices=POOLINGS,
        help="musicnn: hear as PlayNTell's published features were made, which its published "
        "weights need (trained)",
    )


def add_playlists(parser: argparse.ArgumentParser) -> None:
    """Adds the options for playlists to `effcap features`."""
    group = parser.add_argument_group("playlists")
    group.add_argument(
        "--playlist",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="features of playlists in place of photos, for effcap train playlists: JSON as effcap "
        "caption --playlist takes it; --out is a folder",
    )
    add_track_options(group)


def takes_playlists(arguments: argparse.Namespace) -> bool:
    """Whether the features asked for are of playlists.

    Raises:
        ValueError: for options that do not go together.
    """
    names = PHOTOS if arguments.playlist else TRACKS
    given = [name.replace("_", "-") for name in names if vars(arguments)[name]]
    if given and arguments.playlist:
        raise ValueError(f"Expected no {given[0]} with --playlist. Received: both")
    if given:
        raise ValueError(f"Expected --playlist with --{given[0]}. Received: none")
    return bool(arguments.playlist)


def run_playlists(arguments: argparse.Namespace) -> None:
    """Runs `effcap features --playlist`."""
    from effcap.trainers.data.playlists import TagEmbeddings, read_playlists, save_arrays
    from effcap.utils.progress import say, track

    if arguments.out is None or arguments.out.is_file():
        raise ValueError(f"Expected --out FOLDER with --playlist. Received: {arguments.out}")
    playlists = [playlist for path in arguments.playlist for playlist in read_playlists(path)]
    tags = TagEmbeddings.from_file(arguments.tags) if arguments.tags else None
    files = any(t.audio and t.audio.is_file() for p in playlists for t in p.tracks)
    modalities = {**(AUDIO if files else {}), **({"tags": tags.width} if tags else {}), **ARTIST}
    found = find_features(arguments, playlists, modalities, tags)
    for playlist, features in track(found, len(found), f"writing {arguments.out.name}"):
        save_arrays(arguments.out, playlist.id, features.arrays)
    say(f"{', '.join(modalities)} of {len(found)} playlists: {arguments.out}")


def find_features(
    arguments: argparse.Namespace,
    playlists: Sequence[Playlist],
    modalities: Mapping[str, int],
    tags: TagEmbeddings | None,
    given: PlaylistArrays | None = None,
) -> list[tuple[Playlist, PlaylistFeatures]]:
    """The playlists that there are features of; says what is missing of them and of the others.

    Args:
        arguments: of `add_track_options`.
        playlists: with their tracks.
        modalities: that are wanted, and their widths.
        tags: embeddings of tags.
        given: features that need not be made.

    Raises:
        ValueError: where there are none of any.
    """
    from effcap.trainers.data.playlists import BadArray, features_of
    from effcap.utils.progress import say

    heard = hear(arguments, playlists, given) if "audio" in modalities else {}

    def audio(paths: Sequence[Path]) -> list[np.ndarray | ValueError]:
        return [heard.get(path, ValueError(f"there is no file {path}")) for path in paths]

    found, skipped = [], []
    for playlist in playlists:
        try:
            features = features_of(playlist, modalities, given=given, tags=tags, audio=audio)
        except BadArray as error:
            skipped.append(f"skipped: {error}")
            continue
        if len(features.empty) == len(modalities):
            skipped.append(f"skipped: playlist {playlist.id}: nothing is known of its tracks")
        else:
            found.append((playlist, features))
    for line in [*lacking(found, tags is None), *shortened(skipped)]:
        say(line)
    if not found:
        raise ValueError(f"Expected features of a playlist. Received: none of {len(playlists)}")
    return found


def hear(
    arguments: argparse.Namespace, playlists: Sequence[Playlist], given: PlaylistArrays | None
) -> dict[Path, np.ndarray | ValueError]:
    """What the network hears of each audio file that is there, or why it cannot be read."""
    paths = dict.fromkeys(
        track.audio
        for playlist in playlists
        for track in playlist.tracks
        if not (given is not None and given.holds("audio", playlist.id))
        and track.audio is not None
        and track.audio.is_file()
    )
    if not paths:
        return {}
    start_keras()
    from effcap.trainers.data.audio import AudioFeatures
    from effcap.utils.progress import track as tracked

    network = AudioFeatures(arguments.audio_weights, arguments.audio_pooling or POOLINGS[0])
    rows = network.each(paths)
    return dict(zip(paths, tracked(rows, len(paths), "listening"), strict=True))


def lacking(
    found: Sequence[tuple[Playlist, PlaylistFeatures]], without_tags: bool
) -> Iterator[str]:
    """Lines on what is not known of playlists of which something is."""
    missing = [
        f"playlist {playlist.id}: {line}"
        for playlist, features in found
        for line in features.missing
    ]
    if missing:
        yield f"not heard: {len(missing)} tracks"
        yield from shortened([f"  {line}" for line in missing])
    unknown = Counter(word for _, features in found for word in features.unknown)
    if unknown:
        words = ", ".join(word for word, _ in unknown.most_common(SHOWN))
        more = ", ..." if len(unknown) > SHOWN else ""
        yield f"words of tags without an embedding: {len(unknown)}: {words}{more}"
    empty = Counter(name for _, features in found for name in features.empty)
    for modality, count in empty.items():
        hint = "; --tags has their embeddings" if modality == "tags" and without_tags else ""
        yield f"without {modality}: {count} of {len(found)} playlists{hint}"


def shortened(lines: Sequence[str]) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"  and {more} more"] if more > 0 else [])]
