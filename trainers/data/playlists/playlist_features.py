"""Features of playlists for the encoder, stored or computed from the tracks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from effcap.trainers.data.playlists.arrays import PlaylistArrays, pad_arrays
from effcap.trainers.data.playlists.artists import NUM_ARTISTS, artist_fractions
from effcap.trainers.data.playlists.playlist import Playlist, Track
from effcap.trainers.data.playlists.tags import TagEmbeddings

AudioReader = Callable[[Sequence[Path]], Iterable[np.ndarray | ValueError]]


@dataclass(frozen=True)
class PlaylistFeatures:
    """Features of one playlist.

    Attributes:
        arrays: features (n, C) by modality; a modality without features has 0 rows.
        rows: label of each row by modality, such as a track or a tag.
        unknown_words: words of tags without an embedding.
        unreadable_tracks: tracks without audio features, each with the reason.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    rows: dict[str, list[str]] = field(default_factory=dict)
    unknown_words: list[str] = field(default_factory=list)
    unreadable_tracks: list[str] = field(default_factory=list)

    @property
    def empty_modalities(self) -> list[str]:
        """Names of the modalities without features."""
        return [name for name, array in self.arrays.items() if not array.any()]


def compute_features(
    playlist: Playlist,
    modalities: Mapping[str, int],
    *,
    stored: PlaylistArrays | None = None,
    tags: TagEmbeddings | None = None,
    audio: AudioReader | None = None,
) -> PlaylistFeatures:
    """Reads the stored features of a playlist and computes the others from its tracks.

    Args:
        playlist: the playlist.
        modalities: feature dimension by modality, such as `captioner.encoder.modalities`.
        stored: features computed earlier; these are preferred.
        tags: embeddings of tags.
        audio: function from n audio files to n results, each features (C,) or an error, such as
            `AudioFeatures.iter_features`. Files with an error get no row.

    Raises:
        UnreadableArray: stored features cannot be used.
        ValueError: features have another dimension than the encoder takes.
    """
    features = PlaylistFeatures()
    for modality, feature_dim in modalities.items():
        if stored is not None and stored.has(modality, playlist.id):
            array = stored.read(modality, playlist.id, feature_dim)  # (n, C)
            rows = _stored_rows(modality, playlist, len(array))
        elif modality == "artist":
            array, rows = _artist_features(playlist)
        elif modality == "tags" and tags is not None:
            array, rows, unknown = tags.look_up(playlist.tags)
            features.unknown_words.extend(unknown)
        elif modality == "audio" and audio is not None:
            array, rows, unreadable = _audio_features(playlist.tracks, feature_dim, audio)
            features.unreadable_tracks.extend(unreadable)
        else:
            array, rows = np.zeros((0, feature_dim), np.float32), []
        if array.shape[1] != feature_dim:
            raise ValueError(
                f"Expected {modality} features of dimension {feature_dim}, as the encoder takes. "
                f"Received: dimension {array.shape[1]}"
            )
        features.arrays[modality], features.rows[modality] = array, rows
    return features


def max_rows(features: Sequence[PlaylistFeatures]) -> dict[str, int]:
    """Returns the largest number of rows of each modality, at least 1."""
    return {
        modality: max([1, *(len(playlist.arrays[modality]) for playlist in features)])
        for modality in features[0].arrays
    }


def stack_features(
    features: Sequence[PlaylistFeatures], num_rows: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Returns the encoder's inputs for B playlists.

    Args:
        features: features of B playlists.
        num_rows: rows n that each modality is padded to with zeros.

    Returns:
        (B, n, C) float32 by modality.
    """
    return {
        modality: pad_arrays(
            [playlist.arrays[modality] for playlist in features],
            array.shape[1],
            num_rows[modality],
        )  # (B, n, C)
        for modality, array in features[0].arrays.items()
    }


def _stored_rows(modality: str, playlist: Playlist, count: int) -> list[str]:
    labels = [track.label for track in playlist.tracks]
    if modality == "audio" and len(labels) == count:
        return labels
    return [f"{modality} {number}" for number in range(1, count + 1)]


def _artist_features(playlist: Playlist) -> tuple[np.ndarray, list[str]]:
    artists = playlist.artists
    if not artists:
        return np.zeros((0, NUM_ARTISTS), np.float32), []
    return artist_fractions(artists), ["fractions of tracks by artist"]


def _audio_features(
    tracks: Sequence[Track], feature_dim: int, audio: AudioReader
) -> tuple[np.ndarray, list[str], list[str]]:
    """Returns (features (n, C), labels of their tracks, the other tracks with the reasons)."""
    rows, labels, unreadable = [np.zeros((0, feature_dim), np.float32)], [], []
    paths = [track.audio or Path(track.id) for track in tracks]
    for track, row in zip(tracks, audio(paths), strict=True):
        if isinstance(row, ValueError):
            unreadable.append(f"{track.label}: {row}")
        else:
            rows.append(np.asarray(row, np.float32)[None])  # (1, C)
            labels.append(track.label)
    return np.concatenate(rows), labels, unreadable
