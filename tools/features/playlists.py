"""Computes or reads the features of playlists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np

from effcap.trainers.data.playlists.arrays import (
    PlaylistArrays,
    UnreadableArray,
    open_arrays,
    save_arrays,
)
from effcap.trainers.data.playlists.artists import NUM_ARTISTS
from effcap.trainers.data.playlists.playlist import Playlist, read_playlists
from effcap.trainers.data.playlists.playlist_features import PlaylistFeatures, compute_features
from effcap.trainers.data.playlists.tags import TagEmbeddings
from effcap.utils.progress import track

AUDIO_DIM = 256
MAX_SHOWN = 10  # lines or words of one kind in a message


@dataclass(frozen=True, kw_only=True)
class FeatureSources:
    """Sources of playlist features.

    Attributes:
        features: folder with audio/ID.npy (a row of 256 per track), tags/ID.npy (a row of 300 per
            tag) and artist/ID.npy (a row of 10 fractions of tracks), or an HDF5 file with such data
            sets. Features that are missing there are computed from the tracks.
        tags: file of tag embeddings, such as PlayNTell's discogs_tags_embeddings.npy.
        audio_weights: folder of the audio network's weights. None takes those of the package
            musicnn.
        audio_pooling: pooling of the audio network, "musicnn" for captioners trained on PlayNTell's
            published features.
    """

    features: str | PathLike[str] | None = None
    tags: str | PathLike[str] | None = None
    audio_weights: str | PathLike[str] | None = None
    audio_pooling: Literal["trained", "musicnn"] = "trained"


@dataclass(frozen=True)
class FeaturizedPlaylists:
    """Playlists with features.

    Attributes:
        playlists: playlists with features of at least one modality.
        features: features of these playlists.
        skipped: ids of the other playlists, with the reason.
        notes: lines about missing features of the playlists that are not skipped.
    """

    playlists: list[Playlist]
    features: list[PlaylistFeatures]
    skipped: list[tuple[str, str]]
    notes: list[str]


def compute_playlist_features(
    playlists: str | PathLike[str] | Iterable[str | PathLike[str] | Playlist],
    modalities: Mapping[str, int] | None = None,
    sources: FeatureSources | None = None,
) -> FeaturizedPlaylists:
    """Computes features of playlists; imports Keras only to read audio files.

    Args:
        playlists: JSON files (see `read_playlists`) or playlists.
        modalities: feature dimension by modality, such as `captioner.encoder.modalities`. None
            takes those that can be computed: "artist", "tags" with `sources.tags`, and "audio" if
            there are audio files.
        sources: sources of the features.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file has another structure, features have another dimension than
            `modalities`, or no playlist has features.
    """
    sources = sources or FeatureSources()
    playlists = _as_playlists(playlists)
    stored = None if sources.features is None else open_arrays(sources.features)
    tags = None if sources.tags is None else TagEmbeddings.from_file(sources.tags)
    if modalities is None:
        modalities = _available_modalities(playlists, tags)
    audio = _read_audio(playlists, stored, sources) if "audio" in modalities else {}

    def audio_features(paths: Sequence[Path]) -> list[np.ndarray | ValueError]:
        return [audio.get(path, ValueError(f"there is no file {path}")) for path in paths]

    result = FeaturizedPlaylists([], [], [], [])
    for playlist in playlists:
        try:
            features = compute_features(
                playlist, modalities, stored=stored, tags=tags, audio=audio_features
            )
        except UnreadableArray as error:
            result.skipped.append((playlist.id, f"{error.modality}: {error.reason}"))
            continue
        if len(features.empty_modalities) == len(modalities):
            result.skipped.append((playlist.id, "no features of any modality"))
        else:
            result.playlists.append(playlist)
            result.features.append(features)
    if not result.playlists:
        name, reason = result.skipped[0]
        raise ValueError(
            f"None of {len(playlists)} playlists has usable features, such as {name}: {reason}"
        )
    result.notes.extend(_missing_features(result, has_tags=tags is not None))
    return result


def write_playlist_features(
    playlists: str | PathLike[str] | Iterable[str | PathLike[str] | Playlist],
    out: str | PathLike[str],
    sources: FeatureSources | None = None,
) -> FeaturizedPlaylists:
    """Computes features of playlists and writes them to `OUT/MODALITY/ID.npy`.

    Args:
        playlists: JSON files (see `read_playlists`) or playlists.
        out: folder, created if missing; `read_playlist_dataset` reads it.
        sources: sources of the features.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file has another structure, no playlist has features, or an id cannot be a
            file name.
    """
    result = compute_playlist_features(playlists, None, sources)
    pairs = zip(result.playlists, result.features, strict=True)
    for playlist, features in track(pairs, len(result.playlists), f"writing {Path(out).name}"):
        save_arrays(out, playlist.id, features.arrays)
    return result


def has_audio_files(playlists: Iterable[Playlist]) -> bool:
    """Returns whether the audio file of any track exists."""
    return any(
        entry.audio is not None and entry.audio.is_file()
        for playlist in playlists
        for entry in playlist.tracks
    )


def shorten(lines: Sequence[str]) -> list[str]:
    """Returns the first ten lines, followed by the number of the others."""
    num_hidden = len(lines) - MAX_SHOWN
    return [*lines[:MAX_SHOWN], *([f"  and {num_hidden} more"] if num_hidden > 0 else [])]


def _as_playlists(
    playlists: str | PathLike[str] | Iterable[str | PathLike[str] | Playlist],
) -> list[Playlist]:
    items = [playlists] if isinstance(playlists, str | PathLike) else playlists
    result: list[Playlist] = []
    for item in items:
        result += [item] if isinstance(item, Playlist) else read_playlists(item)
    return result


def _available_modalities(
    playlists: Sequence[Playlist], tags: TagEmbeddings | None
) -> dict[str, int]:
    """Returns the feature dimension of the modalities that can be computed."""
    return {
        **({"audio": AUDIO_DIM} if has_audio_files(playlists) else {}),
        **({} if tags is None else {"tags": tags.feature_dim}),
        "artist": NUM_ARTISTS,
    }


def _read_audio(
    playlists: Sequence[Playlist], stored: PlaylistArrays | None, sources: FeatureSources
) -> dict[Path, np.ndarray | ValueError]:
    """Returns the features (C,) of each existing audio file, or why it cannot be read."""
    paths = dict.fromkeys(
        entry.audio
        for playlist in playlists
        if stored is None or not stored.has("audio", playlist.id)
        for entry in playlist.tracks
        if entry.audio is not None and entry.audio.is_file()
    )
    if not paths:
        return {}
    from effcap.trainers.data.audio import AudioFeatures

    network = AudioFeatures(sources.audio_weights, sources.audio_pooling)
    rows = track(network.iter_features(paths), len(paths), "reading audio")
    return dict(zip(paths, rows, strict=True))


def _missing_features(result: FeaturizedPlaylists, has_tags: bool) -> list[str]:
    """Returns lines about missing tracks, words and modalities."""
    lines = []
    tracks = [
        f"  playlist {playlist.id}: {line}"
        for playlist, features in zip(result.playlists, result.features, strict=True)
        for line in features.unreadable_tracks
    ]
    if tracks:
        lines += [f"without audio features: {len(tracks)} tracks", *shorten(tracks)]
    unknown = Counter(word for features in result.features for word in features.unknown_words)
    if unknown:
        words = ", ".join(word for word, _ in unknown.most_common(MAX_SHOWN))
        rest = ", ..." if len(unknown) > MAX_SHOWN else ""
        lines.append(f"tag words without an embedding: {len(unknown)}: {words}{rest}")
    empty = Counter(name for features in result.features for name in features.empty_modalities)
    for modality, count in empty.items():
        needs_embeddings = modality == "tags" and not has_tags
        hint = " (tag embeddings are required)" if needs_embeddings else ""
        lines.append(f"without {modality}: {count} of {len(result.features)} playlists{hint}")
    return lines
