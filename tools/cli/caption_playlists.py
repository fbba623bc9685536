"""`effcap caption --playlist`: captions playlists."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.tools.cli.features_playlists import (
    SOURCES,
    add_sources,
    given_sources,
    print_notes,
)
from effcap.tools.cli.options import option_flag
from effcap.tools.cli.outputs import print_missing, refuse_page, write_captions
from effcap.tools.cli.sampling import (
    chosen_captioner,
    find_preset,
    make_sampler,
    sampler_fields,
    start_engine,
)
from effcap.tools.cli.train_playlists import add_caption_format

if TYPE_CHECKING:
    from effcap.tools.captioning.playlists import CaptionedPlaylists, PlaylistCaption


def add_playlists(parser: argparse.ArgumentParser) -> None:
    """Adds the options of playlists to `effcap caption`."""
    group = parser.add_argument_group("playlists")
    group.add_argument(
        "--playlist",
        nargs="+",
        type=Path,
        metavar="FILE",
        help='JSON files of playlists in place of PHOTO: {"id", "tracks": [{"id", "artist", '
        '"tags", "audio"}]} or a list of them; audio is a file (default: the track\'s id)',
    )
    add_sources(group, SOURCES)
    add_caption_format(group)


def check_playlist_options(arguments: argparse.Namespace) -> None:
    """Raises a `ValueError` for options that cannot be combined."""
    if not arguments.playlist:
        for name in (*SOURCES.values(), "format"):
            if getattr(arguments, name):
                raise ValueError(f"{option_flag(name)} requires --playlist")
        return
    if arguments.photos or arguments.shards or arguments.features:
        raise ValueError("Give only one of PHOTO, --shards, --features and --playlist")
    refuse_page(arguments, "--playlist")


def run_playlists(arguments: argparse.Namespace) -> None:
    """Runs `effcap caption --playlist`."""
    from effcap.tools.captioning.playlists import (
        caption_playlists,
        playlist_modalities,
        trained_caption_format,
    )
    from effcap.trainers.data.playlists import read_playlists

    sampler_fields(arguments)  # reports errors before Keras is imported
    preset = find_preset(arguments)
    playlist_modalities(preset)
    playlists = read_playlists(arguments.playlist)
    start_engine(arguments)
    captioned = caption_playlists(
        playlists,
        chosen_captioner(arguments, preset),
        make_sampler(arguments),
        sources=given_sources(arguments),
        caption_format=arguments.format or trained_caption_format(preset),
        batch_size=arguments.batch_size,
        attention=arguments.attention is not None,
    )
    print_notes(captioned.notes, captioned.skipped, len(playlists))
    write(arguments, captioned)


def write(arguments: argparse.Namespace, captioned: CaptionedPlaylists) -> None:
    """Writes captions to --out or prints them, and prints and draws the attention."""
    from effcap.tools.captioning.playlist_attention import attention_lines
    from effcap.utils.progress import print_line

    for caption in captioned.captions:
        if not arguments.out or caption.attention:
            print(f"{caption.id}\t{caption.text}")
        for line in attention_lines(caption.attention):
            print(f"  {line}")
    if arguments.out:
        write_captions(arguments.out, [caption.to_json() for caption in captioned.captions])
    if arguments.attention and captioned.captions:
        captioned.save_attention(arguments.attention)
        print_line(f"attention: {arguments.attention}")
    print_missing([(caption.id, [caption]) for caption in captioned.captions])
    print_excluded(captioned.captions)


def print_excluded(captions: Sequence[PlaylistCaption]) -> None:
    """Prints the playlists whose captions have words of --exclude, and their number."""
    from effcap.utils.progress import print_line

    excluded = [caption for caption in captions if caption.excluded]
    for caption in excluded:
        print_line(f"with {', '.join(caption.excluded)}: {caption.id}")
    if excluded:
        print_line(
            f"{len(excluded)} of {len(captions)} captions have words of --exclude in artist names"
        )
