"""From playlists to what a captioner of playlists takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from effcap.trainers.data.playlists.arrays import PlaylistArrays, pad_arrays
from effcap.trainers.data.playlists.artists import SHARES, artist_shares
from effcap.trainers.data.playlists.playlist import Playlist, Track
from effcap.trainers.data.playlists.tags import TagEmbeddings

AudioReader = Callable[[Sequence[Path]], Iterable[np.ndarray | ValueError]]


@dataclass(frozen=True)
class PlaylistFeatures:
    """Features of one playlist.

    Attributes:
        arrays: (n, C) by modality.
        rows: what each row stands for, by modality.
        unknown: words of tags that have no embedding.
        missing: tracks without features of their audio, and why.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    rows: dict[str, list[str]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def empty(self) -> list[str]:
        """Modalities that there is nothing of."""
        return [name for name, array in self.arrays.items() if not array.any()]


def features_of(
    playlist: Playlist,
    modalities: Mapping[str, int],
    *,
    given: PlaylistArrays | None = None,
    tags: TagEmbeddings | None = None,
    audio: AudioReader | None = None,
) -> PlaylistFeatures:
    """Features of a playlist: those given, and of the rest what its tracks tell.

    Args:
        playlist: with its tracks.
        modalities: width of each, as the captioner's encoder has them.
        given: features computed earlier, by the playlist's id; they come first.
        tags: embeddings of tags.
        audio: gives (C,) of each of n audio files, or an error that says why it cannot be read,
            such as `AudioFeatures.each` of `effcap.trainers.data.audio`. Those have no row.

    Returns:
        What there is; a modality that nothing is known of has an array of 0 rows.

    Raises:
        BadArray: for given features that cannot be used.
        ValueError: for features of another width than the encoder takes.
    """
    found = PlaylistFeatures()
    for modality, width in modalities.items():
        if given is not None and given.holds(modality, playlist.id):
            array = given.read(modality, playlist.id, width)
            rows = _given_rows(modality, playlist, len(array))
        elif modality == "artist":
            array, rows = _of_artists(playlist)
        elif modality == "tags" and tags is not None:
            array, rows, unknown = tags.look_up(playlist.tags)
            found.unknown.extend(unknown)
        elif modality == "audio" and audio is not None:
            array, rows, missing = _of_audio(playlist.tracks, width, audio)
            found.missing.extend(missing)
        else:
            array, rows = np.zeros((0, width), np.float32), []
        if array.shape[1] != width:
            raise ValueError(
                f"Expected {modality} of width {width}, as the captioner takes. "
                f"Received: width {array.shape[1]}"
            )
        found.arrays[modality], found.rows[modality] = array, rows
    return found


def longest_rows(found: Sequence[PlaylistFeatures]) -> dict[str, int]:
    """The most rows that each modality has in a playlist, at least 1."""
    return {
        modality: max([1, *(len(features.arrays[modality]) for features in found)])
        for modality in found[0].arrays
    }


def batch_features(
    found: Sequence[PlaylistFeatures], rows: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """The encoder's inputs: (B, n, C) of B playlists by modality, padded with zeros to n rows."""
    return {
        modality: pad_arrays(
            [features.arrays[modality] for features in found], array.shape[1], rows[modality]
        )
        for modality, array in found[0].arrays.items()
    }


def _given_rows(modality: str, playlist: Playlist, count: int) -> list[str]:
    labels = [track.label for track in playlist.tracks]
    if modality == "audio" and len(labels) == count:
        return labels
    return [f"{modality} {number}" for number in range(1, count + 1)]


def _of_artists(playlist: Playlist) -> tuple[np.ndarray, list[str]]:
    artists = playlist.artists
    if not artists:
        return np.zeros((0, SHARES), np.float32), []
    return artist_shares(artists), ["shares of artists"]


def _of_audio(
    tracks: Sequence[Track], width: int, audio: AudioReader
) -> tuple[np.ndarray, list[str], list[str]]:
    """(features (n, C), labels of their tracks, what is wrong with the others)."""
    rows, labels, missing = [np.zeros((0, width), np.float32)], [], []
    files = [track.audio or Path(track.id) for track in tracks]
    for track, row in zip(tracks, audio(files), strict=True):
        if isinstance(row, ValueError):
            missing.append(f"{track.label}: {row}")
        else:
            rows.append(np.asarray(row, np.float32)[None])  # (1,C)
            labels.append(track.label)
    return np.concatenate(rows), labels, missing
