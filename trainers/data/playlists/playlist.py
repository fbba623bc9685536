"""Playlists as a JSON file lists them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from effcap.trainers.data.playlists.artists import rank_artists


@dataclass(frozen=True)
class Track:
    """A track of a playlist.

    Attributes:
        id: what it is called; in PlayNTell's files, the name of its audio file.
        artist: empty where it is not known.
        tags: such as "Hip-Hop"; none where they are not known.
        audio: its audio file, which need not be there.
    """

    id: str
    artist: str = ""
    tags: tuple[str, ...] = ()
    audio: Path | None = None

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.id} ({self.artist})" if self.artist else self.id


@dataclass(frozen=True)
class Playlist:
    """A playlist's id and tracks."""

    id: str
    tracks: tuple[Track, ...]

    @property
    def artists(self) -> dict[str, int]:
        """Number of tracks by artist, see `rank_artists`."""
        return rank_artists(track.artist for track in self.tracks)

    @property
    def tags(self) -> Iterable[str]:
        """The tags of all tracks."""
        return (tag for track in self.tracks for tag in track.tags)


def read_playlists(path: str | PathLike) -> list[Playlist]:
    """The playlists of a JSON file.

    Args:
        path: a playlist `{"id", "tracks": [{"id", "artist", "tags", "audio"}]}`, or a list of
            such. Of a track, `id` alone is needed; `audio` is the path of its audio file, relative
            to the JSON file; where it is not given, that is the track's id. Other keys are passed
            over.

    Raises:
        FileNotFoundError: without such a file.
        ValueError: when it is of another form, naming the place.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a JSON file of playlists. Received: {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected JSON in UTF-8 in {path}. Received: {error}") from None
    entries = content if isinstance(content, list) else [content]
    several = isinstance(content, list)
    playlists = [
        _playlist(entry, f"{path}{f', [{i}]' if several else ''}", path.parent)
        for i, entry in enumerate(entries)
    ]
    if not playlists:
        raise ValueError(f"Expected playlists in {path}. Received: an empty list")
    name, count = Counter(playlist.id for playlist in playlists).most_common(1)[0]
    if count > 1:
        raise ValueError(f"Expected each playlist once in {path}. Received: id {name!r} twice")
    return playlists


def _playlist(entry: Any, where: str, folder: Path) -> Playlist:
    if not isinstance(entry, dict) or not isinstance(entry.get("tracks"), list):
        raise _wrong('a playlist {"id", "tracks": [...]}', where, entry)
    if not entry["tracks"]:
        raise ValueError(f"Expected tracks in {where}. Received: an empty list")
    tracks = tuple(
        _track(track, f"{where}, tracks[{i}]", folder) for i, track in enumerate(entry["tracks"])
    )
    return Playlist(_name(entry, where), tracks)


def _track(entry: Any, where: str, folder: Path) -> Track:
    if not isinstance(entry, dict):
        raise _wrong('a track {"id", "artist", "tags"}', where, entry)
    name = _name(entry, where)
    artist, tags, audio = entry.get("artist"), entry.get("tags"), entry.get("audio")
    if not isinstance(artist, str | None):
        raise _wrong("artist, a name", where, artist)
    if not isinstance(tags, list | None) or not all(isinstance(tag, str) for tag in tags or ()):
        raise _wrong("tags, a list of texts", where, tags)
    if not isinstance(audio, str | None):
        raise _wrong("audio, the path of a file", where, audio)
    return Track(name, (artist or "").strip(), tuple(tags or ()), folder / (audio or name))


def _name(entry: dict, where: str) -> str:
    name = entry.get("id")
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise _wrong("id, a text or a number", where, name)
    return name.strip()


def _wrong(expected: str, where: str, received: Any) -> ValueError:
    text = json.dumps(received, ensure_ascii=False)
    text = text if len(text) <= 80 else f"{text[:80]}..."
    return ValueError(f"Expected {expected} in {where}. Received: {text}")
