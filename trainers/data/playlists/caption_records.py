"""Captions of playlists and their artists, read from JSON files such as PlayNTell's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from effcap.trainers.data.example import Example, Problem, one_line
from effcap.trainers.data.playlists.artists import PLACEHOLDER, mask_artists, rank_artists
from effcap.trainers.data.playlists.caption_formats import (
    CaptionFormat,
    check_caption_format,
    format_caption,
)
from effcap.trainers.data.playlists.playlist import parse_json, read_playlists
from effcap.trainers.data.text_files import as_paths, describe, edit_caption, find_fault

VALIDATION_SPLIT, TEST_SPLIT = "val", "test"  # names in PlayNTell's files
CAPTIONS_STRUCTURE = (
    'a list [{"playlist_id", "caption"}], or an object of such lists by split: '
    '{"train": [...], "val": [...], "test": [...]}'
)
ARTISTS_STRUCTURE = (
    '{playlist id: [{"artist", "count"}]}, or playlists with "id" and "tracks" that have an '
    '"artist"'
)


@dataclass(frozen=True)
class CaptionRecord:
    """A caption of a playlist.

    Attributes:
        where: file and position of the record, for messages.
        playlist: id of the playlist.
        caption: the formatted caption, with artist names.
        artists: artists of the playlist, most frequent first; None if unknown.
    """

    where: str
    playlist: str
    caption: str
    artists: Sequence[str] | None


def read_playlist_captions(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    split: str = "train",
    *,
    caption_format: CaptionFormat = "as-is",
    artists: str | PathLike[str] | None = None,
    edit: Callable[[str], str] | None = None,
) -> tuple[list[Example], list[Problem]]:
    """Reads playlists with captions to train on.

    Artist names in captions become `artist0`, `artist1`, ... (see `mask_artists`), except in
    playlists whose artists are unknown.

    Args:
        paths, split, caption_format, artists: see `read_caption_records`.
        edit: function applied to each formatted caption, such as `tidy` or `plain`. It follows the
            masking, so that names match before their punctuation is removed.

    Returns:
        (playlists in order of first appearance, problems). The name of an example is the id of
        its playlist.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file has another structure, or lacks the split.
    """
    records, problems = read_caption_records(
        paths, split, caption_format=caption_format, artists=artists
    )
    captions: dict[str, list[str]] = {}
    for record in records:
        try:
            caption = _mask_and_edit(record, edit)
        except ValueError as error:
            problems.append(Problem(record.where, _uncapitalize(str(error))))
        else:
            captions.setdefault(record.playlist, []).append(caption)
    examples = [Example(Path(name), tuple(texts), name) for name, texts in captions.items()]
    return examples, problems


def read_caption_records(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    split: str = "train",
    *,
    caption_format: CaptionFormat = "as-is",
    artists: str | PathLike[str] | None = None,
) -> tuple[list[CaptionRecord], list[Problem]]:
    """Reads captions of playlists.

    Args:
        paths: a JSON file in UTF-8 or several, each a list of records
            `{"playlist_id", "caption"}`, as PlayNTell has one per split, or an object of such lists
            by split. A playlist may have several records. A record may list the playlist's
            "artists", as names or as {"artist", "count"}.
        split: split to take from files with several.
        caption_format: format of the captions, see `format_caption`.
        artists: JSON file of the artists of all playlists: PlayNTell's `playlist2artists.json`,
            `{playlist id: [{"artist", "count"}]}`, or playlists as `read_playlists` reads them.
            None takes the artists in the records.

    Returns:
        (records, problems). A record without an id, without a usable caption, or whose playlist is
        missing in the file of artists is a problem.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file has another structure, or lacks the split.
    """
    check_caption_format(caption_format)
    known = None if artists is None else read_artists(artists)
    records: list[CaptionRecord] = []
    problems: list[Problem] = []
    for path in map(Path, as_paths(paths)):
        for number, entry in enumerate(_read_entries(path, split)):
            where = f"{path}, [{number}]"
            if isinstance(entry, dict) and _is_id(entry.get("playlist_id")):
                where += f", playlist {entry['playlist_id']}"
            try:
                playlist, caption = _parse_caption(entry, caption_format)
                ranked = _find_artists(entry, playlist, known)
                records.append(CaptionRecord(where, playlist, caption, ranked))
            except ValueError as error:
                problems.append(Problem(where, _uncapitalize(str(error))))
    return records, problems


def files_with_split(
    paths: Iterable[str | PathLike[str]], split: str = VALIDATION_SPLIT
) -> list[Path]:
    """Returns the files with several splits that include this one."""
    contents = ((Path(path), parse_json(Path(path))) for path in paths)
    return [path for path, content in contents if isinstance(content, dict) and split in content]


def read_artists(path: str | PathLike[str]) -> dict[str, list[str]]:
    """Reads the artists of playlists.

    Args:
        path: JSON file, see `read_caption_records`.

    Returns:
        Names of artists by playlist id, most frequent first.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file has another structure.
    """
    path = Path(path)
    content = parse_json(path)
    if isinstance(content, list) or (isinstance(content, dict) and "tracks" in content):
        return {playlist.id: list(playlist.artists) for playlist in read_playlists(path)}
    if not isinstance(content, dict):
        raise ValueError(f"Expected {ARTISTS_STRUCTURE} in {path}. Received: {describe(content)}")
    try:
        return {name: _rank_entries(entries) for name, entries in content.items()}
    except ValueError as error:
        reason = _uncapitalize(str(error))
        raise ValueError(f"Expected {ARTISTS_STRUCTURE} in {path}: {reason}") from None


def _read_entries(path: Path, split: str) -> list[Any]:
    """Returns the unchecked records of a split."""
    content = parse_json(path)
    if isinstance(content, dict) and all(isinstance(value, list) for value in content.values()):
        if split not in content:
            raise ValueError(
                f"Expected a split {split!r} in {path}. "
                f"Received: {one_line(', '.join(content)) or 'an empty object'}"
            )
        return content[split]
    if not isinstance(content, list):
        raise ValueError(f"Expected {CAPTIONS_STRUCTURE} in {path}. Received: {describe(content)}")
    return content


def _mask_and_edit(record: CaptionRecord, edit: Callable[[str], str] | None) -> str:
    """Returns the caption to train on; raises ValueError if it cannot be used."""
    masked = mask_artists(record.caption, record.artists or ())
    caption, fault = edit_caption(masked, edit)
    if fault:
        raise ValueError(f"Expected a caption. Received: {fault}")
    # A capital letter would give a placeholder other tokens.
    return PLACEHOLDER.sub(lambda match: match.group().lower(), caption)


def _parse_caption(entry: Any, caption_format: CaptionFormat) -> tuple[str, str]:
    """Returns (playlist, caption) of a record; raises ValueError if it cannot be used."""
    if not isinstance(entry, dict) or not _is_id(entry.get("playlist_id")):
        raise ValueError(
            f"Expected an object with playlist_id and caption. Received: {describe(entry)}"
        )
    caption: Any = entry.get("caption")
    reason = find_fault(caption)
    if not reason:
        caption = format_caption(caption.strip(), caption_format)
        reason = find_fault(caption)
    if reason:
        raise ValueError(f"Expected a caption. Received: {reason}")
    return str(entry["playlist_id"]).strip(), caption


def _find_artists(
    entry: dict[str, Any], playlist: str, known: Mapping[str, list[str]] | None
) -> list[str] | None:
    """Returns the artists in the record or in the file; None if there is neither."""
    if "artists" in entry:
        return _rank_entries(entry["artists"])
    if known is None:
        return None
    if playlist not in known:
        raise ValueError("the file of artists does not have this playlist")
    return known[playlist]


def _rank_entries(entries: Any) -> list[str]:
    """Returns ranked names; raises ValueError unless `entries` is a list of artists."""
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


def _uncapitalize(reason: str) -> str:
    return reason[:1].lower() + reason[1:]


def _is_id(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool)
    return find_fault(value) is None
