"""`effcap caption --playlist`: playlists into captions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.tools.cli.captioning import refuse_page, sampler_fields, write_captions
from effcap.tools.cli.playlist_arguments import EMBEDDINGS, add_format
from effcap.tools.cli.playlist_features import TRACKS, add_track_options, find_features
from effcap.tools.cli.terminal import start_keras

if TYPE_CHECKING:
    from effcap.tools.captioning.playlists import PlaylistCaption

ONLY = (*TRACKS, "embeddings", "format", "attention")


def add_playlists(parser: argparse.ArgumentParser) -> None:
    """Adds the options for playlists to `effcap caption`."""
    playlists = parser.add_argument_group("playlists")
    playlists.add_argument(
        "--playlist",
        nargs="+",
        type=Path,
        metavar="FILE",
        help='caption playlists in place of PHOTO: JSON {"id", "tracks": [{"id", "artist", "tags", '
        '"audio"}]}, or a list of such; audio is the path of a file, the id if not given',
    )
    playlists.add_argument(
        "--embeddings",
        type=Path,
        metavar="DIR|FILE",
        help=f"{EMBEDDINGS}; what is not there is computed from the tracks",
    )
    add_track_options(playlists)
    add_format(playlists, None)
    playlists.add_argument(
        "--attention",
        action="store_true",
        help="print which tracks and tags the captioner looked at",
    )


def check_playlist_options(arguments: argparse.Namespace) -> None:
    """ValueError for options that do not go together."""
    if not arguments.playlist:
        given = [name for name in ONLY if vars(arguments)[name]]
        if given:
            option = f"--{given[0].replace('_', '-')}"
            raise ValueError(f"Expected --playlist with {option}. Received: none")
        return
    if arguments.photos or arguments.shards or arguments.features:
        raise ValueError("Expected photos or --playlist. Received: --playlist and something else")
    refuse_page(arguments, "--playlist")


def run_playlists(arguments: argparse.Namespace) -> None:
    """Runs `effcap caption --playlist`."""
    from effcap.presets import preset_folder
    from effcap.trainers.data.playlists import TagEmbeddings, open_arrays, read_playlists

    fields = sampler_fields(arguments)
    preset = preset_folder(arguments.model)
    modalities = modalities_of(preset)
    form = arguments.format or trained_format(preset)
    playlists = [playlist for path in arguments.playlist for playlist in read_playlists(path)]
    given = open_arrays(arguments.embeddings) if arguments.embeddings else None
    tags = TagEmbeddings.from_file(arguments.tags) if arguments.tags else None
    found = find_features(arguments, playlists, modalities, tags, given)
    start_keras()
    from effcap import samplers
    from effcap.captioner import Captioner
    from effcap.tools.captioning.playlists import caption_playlists
    from effcap.utils.progress import track

    sampler = samplers.get(arguments.sampler, **fields)
    captioner = Captioner.from_preset(preset)
    captions = caption_playlists(
        captioner, found, sampler, form, arguments.batch_size, arguments.attention
    )
    write(arguments, list(track(captions, len(found), "captioning")))


def modalities_of(preset: Path) -> dict[str, int]:
    """Width of each modality that a preset of playlists takes; ValueError for another preset."""
    from effcap.config import read_json
    from effcap.presets import CONFIG

    encoder = read_json(preset / CONFIG, ("encoder", "decoder"))["encoder"]
    if encoder.get("kind") != "branches":
        raise ValueError(
            "Expected a captioner of playlists with --playlist, such as one of effcap train "
            f"playlists; give it with --model. Received: {preset}, one of {encoder.get('kind')}"
        )
    return encoder["modalities"]


def trained_format(preset: Path) -> str:
    """The form of captions that a preset was trained on; "as-is" where it is not known."""
    from effcap.config import read_json
    from effcap.presets import RECORD
    from effcap.trainers.data.playlists.caption_formats import FORMATS

    record = read_json(preset / RECORD) if (preset / RECORD).is_file() else {}
    form = record.get("flags", {}).get("format")
    return form if form in FORMATS else FORMATS[0]


def write(arguments: argparse.Namespace, captions: Sequence[PlaylistCaption]) -> None:
    """Captions go to stdout, or with --out into a file; what was looked at, to stdout."""
    from effcap.tools.captioning.playlist_attention import attention_lines

    for caption in captions:
        if not arguments.out or caption.attention:
            print(f"{caption.id}\t{caption.text}")
        for line in attention_lines(caption.attention):
            print(f"  {line}")
    if arguments.out:
        write_captions(arguments.out, [as_json(caption) for caption in captions])


def as_json(caption: PlaylistCaption) -> dict[str, Any]:
    """A caption with what there is of it."""
    parts = {"title": caption.title, "description": caption.description}
    found = {name: text for name, text in parts.items() if text}
    looked = {"attention": caption.attention} if caption.attention else {}
    return {"id": caption.id, "caption": caption.text, **found, "score": caption.score, **looked}
