"""`effcap evaluate --playlists`: scores captions of playlists."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.tools.cli.options import add_options
from effcap.tools.cli.sampling import chosen_captioner, find_preset, make_sampler, start_engine
from effcap.tools.cli.train_playlists import add_caption_format

if TYPE_CHECKING:
    from effcap.tools.evaluation.evaluate import Evaluation


def add_playlists(group: Any) -> None:
    """Adds the options of playlists to `effcap evaluate`."""
    from effcap.tools.evaluation.playlists import PlaylistReferences

    group.add_argument(
        "--playlists",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="PlayNTell's captions of playlists in place of --csv, as for effcap train playlists; "
        "captions are scored with artist names and without markers",
    )
    add_options(
        group,
        PlaylistReferences,
        ("features", "artists"),
        flags={"features": "embeddings"},
        metavars={"features": "DIR|FILE", "artists": "FILE"},
        unset="{}",
    )
    add_caption_format(group)


def check_playlist_options(arguments: argparse.Namespace) -> None:
    """Raises a `ValueError` for options that cannot be combined."""
    if not arguments.playlists:
        for name in ("embeddings", "artists", "format"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"--{name} requires --playlists")
        return
    for name in ("captions", "features"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name} cannot be used with --playlists")
    for name in ("model", "embeddings"):
        if getattr(arguments, name) is None:
            raise ValueError(f"--playlists requires --{name}")


def run_playlists(
    arguments: argparse.Namespace, metrics: Sequence[str]
) -> tuple[Evaluation, dict[str, Any]]:
    """Returns the scored captions, and entries of scores.json about them."""
    from effcap.tools.captioning.playlists import playlist_modalities, trained_caption_format
    from effcap.tools.evaluation.playlists import PlaylistReferences, evaluate_playlists
    from effcap.trainers.data.playlists import open_arrays

    preset = find_preset(arguments)
    caption_format = arguments.format or trained_caption_format(preset)
    references = PlaylistReferences(
        captions=arguments.playlists,
        features=arguments.embeddings,
        split=arguments.split or PlaylistReferences.split,
        artists=arguments.artists,
        caption_format=caption_format,
    )
    modalities = playlist_modalities(preset)
    open_arrays(references.features).check_modalities(modalities)  # before Keras starts
    start_engine(arguments)
    evaluation = evaluate_playlists(
        chosen_captioner(arguments, preset),
        references,
        make_sampler(arguments),
        batch_size=arguments.batch_size,
        metrics=metrics,
        tokenization=arguments.tokenize,
    )
    return evaluation, {"model": str(arguments.model), "format": caption_format}
