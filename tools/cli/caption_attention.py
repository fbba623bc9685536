"""`effcap caption --attention`: draws where the captioner looked for each word."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.tools.cli.options import option_flag
from effcap.tools.cli.outputs import check_file

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.tools.captioning.results import CaptionResults

MAX_PHOTOS = 100  # of a picture, which is drawn in memory


def add_attention(parser: argparse.ArgumentParser) -> None:
    """Adds the options of attention to `effcap caption`."""
    group = parser.add_argument_group("attention")
    group.add_argument(
        "--attention",
        type=Path,
        metavar="FILE",
        help="picture to write, .png or .html, of where the captioner looked for each word of the "
        "best caption; with --playlist, of its attention to tracks, tags and artists",
    )
    for name, text in (("layers", "layers"), ("heads", "attention heads")):
        group.add_argument(
            f"--attention-{name}",
            type=int,
            nargs="+",
            metavar="N",
            help=f"{text} to average over, from 0 or, negative, from the last (default: all)",
        )


def check_attention_options(arguments: argparse.Namespace) -> None:
    """Checks the options of attention.

    Raises:
        ValueError: they cannot be combined, or the suffix is not that of a picture.
        IsADirectoryError: --attention is a folder.
    """
    from effcap.attention.drawing import check_picture_file

    chosen = [name for name in ("attention_layers", "attention_heads") if getattr(arguments, name)]
    if arguments.attention is None:
        if chosen:
            raise ValueError(f"{option_flag(chosen[0])} requires --attention")
        return
    check_file(arguments.attention, "--attention")
    check_picture_file(arguments.attention)
    for name in ("shards", "features"):
        if getattr(arguments, name):
            raise ValueError(f"--attention requires PHOTO or --playlist. Received: --{name}")
    if chosen and arguments.playlist:
        raise ValueError(f"{option_flag(chosen[0])} requires PHOTO. Received: --playlist")


def check_number_of_photos(arguments: argparse.Namespace, number: int) -> None:
    """Raises a `ValueError` if there are too many photos for one picture."""
    if arguments.attention is not None and number > MAX_PHOTOS:
        raise ValueError(
            f"--attention draws at most {MAX_PHOTOS} photos into one file. Received: {number}"
        )


def write_attention(
    arguments: argparse.Namespace, captioner: Captioner, results: CaptionResults[Path]
) -> None:
    """Writes the picture of --attention, for the best caption of each photo.

    Raises:
        ValueError: it can be drawn for none of the photos.
    """
    from effcap.attention.photo_attention import save_attention
    from effcap.utils.progress import print_line, track

    if arguments.attention is None:
        return
    if not results.captions:
        print_line(f"no captions to draw in {arguments.attention}")
        return
    drawn = []
    errors: list[tuple[Path, ValueError]] = []
    choice = {"layers": arguments.attention_layers, "heads": arguments.attention_heads}
    for path, captions in track(results.captions, len(results.captions), "attention"):
        try:
            drawn.append(captioner.attention(path, captions[0], **choice))
        except ValueError as error:  # such as an empty caption
            errors.append((path, error))
    if not drawn:
        raise errors[0][1]
    save_attention(arguments.attention, drawn)
    print_line(f"attention: {arguments.attention}")
    for path, reason in errors:
        print_line(f"without attention: {path}: {reason}")
