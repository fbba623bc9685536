"""Playlists and their tracks, read from JSON files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from effcap.trainers.data.playlists.artists import rank_artists
from effcap.trainers.data.text_files import as_paths, read_text


@dataclass(frozen=True)
class Track:
    """A track of a playlist.

    Attributes:
        id: id of the track; in PlayNTell's files, the name of its audio file.
        artist: name of the artist, empty if unknown.
        tags: tags such as "Hip-Hop".
        audio: path of the audio file, which may be missing.
    """

    id: str
    artist: str = ""
    tags: tuple[str, ...] = ()
    audio: Path | None = None

    @property
    def label(self) -> str:
        """The id, followed by the artist if known, for messages."""
        return f"{self.id} ({self.artist})" if self.artist else self.id


@dataclass(frozen=True)
class Playlist:
    """A playlist.

    Attributes:
        id: id of the playlist.
        tracks: its tracks in order.
    """

    id: str
    tracks: tuple[Track, ...]

    @property
    def artists(self) -> dict[str, int]:
        """Number of tracks by artist, most frequent first (see `rank_artists`)."""
        return rank_artists(track.artist for track in self.tracks)

    @property
    def tags(self) -> Iterator[str]:
        """Tags of all tracks."""
        return (tag for track in self.tracks for tag in track.tags)


def read_playlists(paths: str | PathLike[str] | Iterable[str | PathLike[str]]) -> list[Playlist]:
    """Reads playlists from JSON files.

    Args:
        paths: a file or several, each with a playlist
            `{"id", "tracks": [{"id", "artist", "tags", "audio"}]}` or a list of them. Of a track,
            only `id` is required. `audio` is the path of its audio file relative to the JSON file;
            it defaults to the track's id. Other keys are ignored.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file has another structure; the message names the place.
    """
    return [playlist for path in as_paths(paths) for playlist in _read_file(Path(path))]


def _read_file(path: Path) -> list[Playlist]:
    content = parse_json(path)
    is_list = isinstance(content, list)
    entries = content if is_list else [content]
    playlists = [
        _parse_playlist(entry, f"{path}, [{i}]" if is_list else str(path), path.parent)
        for i, entry in enumerate(entries)
    ]
    if not playlists:
        raise ValueError(f"Expected playlists in {path}. Received: an empty list")
    name, count = Counter(playlist.id for playlist in playlists).most_common(1)[0]
    if count > 1:
        raise ValueError(f"Expected each playlist once in {path}. Received: id {name!r} twice")
    return playlists


def parse_json(path: Path) -> Any:
    """Returns the content of a JSON file in UTF-8.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is not JSON, or not in UTF-8.
    """
    try:
        return json.loads(read_text(path, "JSON"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"Expected JSON in {path}. Received: {error}") from None


def _parse_playlist(entry: Any, where: str, folder: Path) -> Playlist:
    if not isinstance(entry, dict) or not isinstance(entry.get("tracks"), list):
        raise _wrong_value('a playlist {"id", "tracks": [...]}', where, entry)
    if not entry["tracks"]:
        raise ValueError(f"Expected tracks in {where}. Received: an empty list")
    tracks = tuple(
        _parse_track(track, f"{where}, tracks[{i}]", folder)
        for i, track in enumerate(entry["tracks"])
    )
    return Playlist(_parse_id(entry, where), tracks)


def _parse_track(entry: Any, where: str, folder: Path) -> Track:
    if not isinstance(entry, dict):
        raise _wrong_value('a track {"id", "artist", "tags"}', where, entry)
    track_id = _parse_id(entry, where)
    artist, tags, audio = entry.get("artist"), entry.get("tags"), entry.get("audio")
    if not isinstance(artist, str | None):
        raise _wrong_value("artist, a name", where, artist)
    if not isinstance(tags, list | None) or not all(isinstance(tag, str) for tag in tags or ()):
        raise _wrong_value("tags, a list of strings", where, tags)
    if not isinstance(audio, str | None):
        raise _wrong_value("audio, the path of a file", where, audio)
    return Track(track_id, (artist or "").strip(), tuple(tags or ()), folder / (audio or track_id))


def _parse_id(entry: dict[str, Any], where: str) -> str:
    value = entry.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise _wrong_value("id, a string or an integer", where, value)
    return value.strip()


def _wrong_value(expected: str, where: str, received: Any) -> ValueError:
    text = json.dumps(received, ensure_ascii=False)
    text = text if len(text) <= 80 else f"{text[:80]}..."
    return ValueError(f"Expected {expected} in {where}. Received: {text}")
