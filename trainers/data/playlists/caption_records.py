"""Captions of playlists as PlayNTell's JSON files have them, and the artists that they name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from effcap.trainers.data.example import CaptionedPhoto, Problem, one_line
from effcap.trainers.data.playlists.artists import mask_artists, rank_artists
from effcap.trainers.data.playlists.caption_formats import (
    CaptionFormat,
    check_format,
    format_caption,
)
from effcap.trainers.data.playlists.playlist import read_playlists
from effcap.trainers.data.text_files import Data, describe, fault, read_text

HELD_OUT = "val"  # the split that PlayNTell validates on
FORM = (
    'a list [{"playlist_id", "caption"}], or an object of such lists by split: '
    '{"train": [...], "val": [...], "test": [...]}'
)
ARTISTS_FORM = (
    '{playlist id: [{"artist", "count"}]}, or playlists with "id" and "tracks" that have an '
    '"artist"'
)


@dataclass(frozen=True)
class PlaylistRecord:
    """A caption of a playlist.

    Attributes:
        where: it stood, for people.
        playlist: its id.
        caption: in the form that was asked for, with the names of artists.
        artists: of the playlist, those with most tracks first; None where they are not known.
    """

    where: str
    playlist: str
    caption: str
    artists: Sequence[str] | None


def read_playlist_captions(
    paths: str | PathLike | Iterable[str | PathLike],
    split: str = "train",
    form: CaptionFormat = "as-is",
    artists: str | PathLike | None = None,
    edit: Callable[[str], str] | None = None,
) -> Data:
    """Playlists with their captions to train on, in the order in which they first appear.

    Args:
        paths, split, form, artists, edit: as in `read_records`. Names of artists in captions become
            artist0, artist1, ... (see `effcap.trainers.data.playlists.mask_artists`); those of a playlist
            whose artists are not known stay.

    Returns:
        (playlists, problems): the ids of the playlists are their names.

    Raises:
        FileNotFoundError, ValueError: as `read_records`.
    """
    records, problems = read_records(paths, split, form, artists, edit)
    found: dict[str, list[str]] = {}
    for record in records:
        try:
            caption = mask_artists(record.caption, record.artists or ())
        except ValueError as error:
            problems.append(Problem(record.where, _lower(str(error))))
        else:
            found.setdefault(record.playlist, []).append(caption)
    playlists = [CaptionedPhoto(Path(name), tuple(texts), name) for name, texts in found.items()]
    return playlists, problems


def read_records(
    paths: str | PathLike | Iterable[str | PathLike],
    split: str = "train",
    form: CaptionFormat = "as-is",
    artists: str | PathLike | None = None,
    edit: Callable[[str], str] | None = None,
) -> tuple[list[PlaylistRecord], list[Problem]]:
    """Captions of playlists.

    Args:
        paths: JSON files in UTF-8, each a list of records `{"playlist_id", "caption"}`, as
            PlayNTell has one for each split; or one object of such lists by the name of their
            split. A caption is `<title> a title <description> a description`, or with "as-is" any
            text. A playlist has as many captions as records. A record may name the playlist's
            "artists" itself, as a list of names or of {"artist", "count"}.
        split: which of the lists to take, of files that have several.
        form: of the captions, see `effcap.trainers.data.playlists.format_caption`.
        artists: a JSON file with the artists of all playlists: PlayNTell's
            `playlist2artists.json`, `{playlist id: [{"artist", "count"}]}`, or playlists as
            `effcap.trainers.data.playlists.read_playlists` takes them. None for what records name.
        edit: applied to every caption in its form, such as `tidy`.

    Returns:
        (records, problems): records without an id, a usable caption, or artists although there is a
        file of them are problems, named by place.

    Raises:
        FileNotFoundError: without such a file.
        ValueError: when one is of another form, or has no such split.
    """
    check_format(form)
    paths = [paths] if isinstance(paths, str | PathLike) else list(paths)
    known = None if artists is None else read_artists(artists)
    found: list[PlaylistRecord] = []
    problems: list[Problem] = []
    for path in map(Path, paths):
        for number, entry in enumerate(_entries(path, split)):
            where = f"{path}, [{number}]"
            if isinstance(entry, dict) and _is_id(entry.get("playlist_id")):
                where += f", playlist {entry['playlist_id']}"
            try:
                found.append(PlaylistRecord(where, *_read(entry, form, known, edit)))
            except ValueError as error:
                problems.append(Problem(where, _lower(str(error))))
    return found, problems


def with_split(paths: Iterable[str | PathLike], split: str = HELD_OUT) -> list[Path]:
    """Those of the files that hold several splits, and this one among them."""
    contents = ((Path(path), _parse(Path(path))) for path in paths)
    return [path for path, content in contents if isinstance(content, dict) and split in content]


def read_artists(path: str | PathLike) -> dict[str, list[str]]:
    """Artists by playlist, those with most tracks first; see `read_playlist_captions`.

    Raises:
        FileNotFoundError: without such a file.
        ValueError: when it is of another form.
    """
    path = Path(path)
    content = _parse(path)
    if isinstance(content, list) or (isinstance(content, dict) and "tracks" in content):
        return {playlist.id: list(playlist.artists) for playlist in read_playlists(path)}
    if not isinstance(content, dict):
        raise ValueError(f"Expected {ARTISTS_FORM} in {path}. Received: {describe(content)}")
    try:
        return {name: _ranked(entries) for name, entries in content.items()}
    except ValueError as error:
        raise ValueError(f"Expected {ARTISTS_FORM} in {path}: {_lower(str(error))}") from None


def _parse(path: Path) -> Any:
    try:
        return json.loads(read_text(path, "JSON"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"Expected JSON in {path}. Received: {error}") from None


def _entries(path: Path, split: str) -> list:
    """The records of a split, as they stand there."""
    content = _parse(path)
    if isinstance(content, dict) and all(isinstance(value, list) for value in content.values()):
        if split not in content:
            raise ValueError(
                f"Expected a split {split!r} in {path}. "
                f"Received: {one_line(', '.join(content)) or 'an empty object'}"
            )
        return content[split]
    if not isinstance(content, list):
        raise ValueError(f"Expected {FORM} in {path}. Received: {describe(content)}")
    return content


def _read(
    entry: Any,
    form: CaptionFormat,
    known: Mapping[str, list[str]] | None,
    edit: Callable[[str], str] | None,
) -> tuple[str, str, list[str] | None]:
    """(playlist, caption, artists) of a record; ValueError where it cannot be used."""
    if not isinstance(entry, dict) or not _is_id(entry.get("playlist_id")):
        expected = "Expected an object with playlist_id and caption"
        raise ValueError(f"{expected}. Received: {describe(entry)}")
    playlist = str(entry["playlist_id"]).strip()
    caption = entry.get("caption")
    reason = fault(caption)
    if not reason:
        caption = format_caption(caption.strip(), form)
        caption = edit(caption) if edit else caption
        reason = fault(caption)
    if reason:
        raise ValueError(f"Expected a caption. Received: {reason}")
    if "artists" in entry:
        return playlist, caption, _ranked(entry["artists"])
    if known is not None and playlist not in known:
        raise ValueError("Expected its artists in the file of artists. Received: none")
    return playlist, caption, None if known is None else known[playlist]


def _ranked(entries: Any) -> list[str]:
    """Names of artists in order; ValueError for what is no list of artists."""
    expected = 'Expected artists, a list of names or of {"artist", "count"}'
    if not isinstance(entries, list):
        raise ValueError(f"{expected}. Received: {describe(entries)}")
    pairs = []
    for entry in entries:
        name, count = entry, 1
        if isinstance(entry, dict):
            name, count = entry.get("artist"), entry.get("count", 1)
        if not isinstance(name, str) or not isinstance(count, int) or isinstance(count, bool):
            raise ValueError(f"{expected}. Received: {describe(entry)}")
        pairs.append((name, count))
    return list(rank_artists(pairs))


def _lower(reason: str) -> str:
    return reason[:1].lower() + reason[1:]


def _is_id(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool)
    return fault(value) is None
