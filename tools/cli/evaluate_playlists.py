"""`effcap evaluate --playlists`: playlists captioned, to be scored against what people wrote."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.tools.cli.caption_playlists import modalities_of, trained_format
from effcap.tools.cli.playlist_arguments import EMBEDDINGS, add_format
from effcap.tools.cli.terminal import start_keras

if TYPE_CHECKING:
    from effcap.trainers import CaptionedPhoto

SPLIT = "test"
MOST_BAD = 0.01
SHOWN = 10  # playlists told one by one


def add_playlists(group) -> None:
    """Adds the options for playlists to `effcap evaluate`."""
    group.add_argument(
        "--playlists",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="in place of --csv: PlayNTell's captions of playlists, as effcap train playlists "
        "takes them; they are scored with the names of artists and without markers",
    )
    group.add_argument(
        "--split", default=SPLIT, metavar="NAME", help="of --playlists files that have several"
    )
    group.add_argument("--embeddings", type=Path, metavar="DIR|FILE", help=EMBEDDINGS)
    group.add_argument(
        "--artists", type=Path, metavar="FILE", help="artists of --playlists, as in training"
    )
    add_format(group, None)


def check_playlist_options(arguments: argparse.Namespace) -> None:
    """ValueError for options that do not go together."""
    if not arguments.playlists:
        for name in ("embeddings", "artists", "format"):
            if vars(arguments)[name] is not None:
                raise ValueError(f"Expected --playlists with --{name}. Received: none")
        return
    for name in ("captions", "features"):
        if vars(arguments)[name] is not None:
            raise ValueError(f"Expected no --{name} with --playlists. Received: both")
    if arguments.model is None or arguments.embeddings is None:
        missing = "model" if arguments.model is None else "embeddings"
        raise ValueError(f"Expected --{missing} with --playlists. Received: none")


def captions_of_playlists(
    arguments: argparse.Namespace, fields: dict
) -> tuple[list[CaptionedPhoto], list[list[str]], dict, dict[str, int], list[list[float]]]:
    """Captions of a preset of playlists, as fields of `Evaluated`.

    Raises:
        FileNotFoundError, ValueError: for data or a preset that cannot be used.
    """
    from effcap.presets import preset_folder
    from effcap.trainers.data.playlists import open_arrays
    from effcap.utils.progress import say

    preset = preset_folder(arguments.model)
    modalities = modalities_of(preset)
    form = arguments.format or trained_format(preset)
    arrays = open_arrays(arguments.embeddings)
    arrays.check(modalities)
    playlists, artists = read_references(arguments, form)
    start_keras()
    from effcap import samplers
    from effcap.captioner import Captioner
    from effcap.trainers.data.playlists import unmask_artists
    from effcap.trainers.data.playlists.caption_formats import words_of
    from effcap.trainers.data.playlists.source import caption_source, check_playlists
    from effcap.utils.progress import track

    good, source, problems = check_playlists(
        playlists, arrays, modalities, title="checking playlists"
    )
    for problem in problems[:SHOWN]:
        say(f"skipped: {problem}")
    if not good:
        raise ValueError(f"Expected features of playlists in {arrays.path}. Received: none usable")
    sampler = samplers.get(arguments.sampler, **fields)
    captioner = Captioner.from_preset(preset)
    found = caption_source(captioner, source, sampler, arguments.batch_size)
    captions = list(track(found, len(good), "captioning"))
    return (
        good,
        [
            [words_of(unmask_artists(caption.text, artists[photo.name])) for caption in options]
            for photo, options in zip(good, captions, strict=True)
        ],
        {
            "model": arguments.model,
            "format": form,
            "sampler": {"name": arguments.sampler, **fields},
        },
        {"unusable playlists": len(problems)},
        [[caption.score for caption in options] for options in captions],
    )


def read_references(
    arguments: argparse.Namespace, form: str
) -> tuple[list[CaptionedPhoto], dict[str, Sequence[str]]]:
    """(playlists with their references in words, artists of each playlist)."""
    from effcap.trainers.data.example import CaptionedPhoto, check_share
    from effcap.trainers.data.playlists.caption_formats import words_of
    from effcap.trainers.data.playlists.caption_records import read_records
    from effcap.utils.progress import say

    records, problems = read_records(arguments.playlists, arguments.split, form, arguments.artists)
    total = len(records) + len(problems)
    if not total:
        raise ValueError(f"Expected references. Received: none in {arguments.playlists[0]}")
    summary = check_share("reference", problems, total, MOST_BAD)
    if summary:
        say(summary)
    texts: dict[str, list[str]] = {}
    for record in records:
        texts.setdefault(record.playlist, []).append(words_of(record.caption))
    playlists = [CaptionedPhoto(Path(name), tuple(group), name) for name, group in texts.items()]
    return playlists, {record.playlist: record.artists or () for record in records}
