"""`effcap caption`: photos into captions."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from effcap.tools.cli.caption_playlists import (
    add_playlists,
    check_playlist_options,
    run_playlists,
)
from effcap.tools.cli.caption_regions import (
    add_regions,
    check_region_options,
    run_regions,
)
from effcap.tools.cli.caption_shards import add_shards, check_options, run_shards
from effcap.tools.cli.captioning import (
    DEFAULT_PRESET,
    add_sampling,
    caption_photos,
    model_name,
    sampler_fields,
    write_captions,
)
from effcap.tools.cli.parsing import add_config
from effcap.tools.cli.terminal import start_keras


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `caption`."""
    parser = commands.add_parser(
        "caption",
        help="caption photos, or playlists",
        description="Captions photos, all photos in webdataset shards, or playlists. Captions of "
        "photos and playlists go to stdout, or with --out into a file; those of shards into a "
        "folder of Parquet files.",
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument(
        "photos", nargs="*", metavar="PHOTO", help="file, folder, or pattern in quotes"
    )
    parser.add_argument(
        "--model", default=DEFAULT_PRESET, metavar="PRESET", help="folder or name of a preset"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write photos, captions and scores as JSON; with --shards, a folder",
    )
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="write photos and captions as HTML"
    )
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="FILE",
        help="captions written earlier by --out, shown beside these on the page",
    )
    add_config(parser)
    add_shards(parser)
    add_regions(parser)
    add_playlists(parser)
    add_sampling(parser)


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap caption`."""
    check_options(arguments)
    check_region_options(arguments)
    check_playlist_options(arguments)
    if arguments.shards:
        run_shards(arguments)
        return
    if arguments.features:
        run_regions(arguments)
        return
    if arguments.playlist:
        run_playlists(arguments)
        return
    if not arguments.photos:
        arguments.parser.error(
            "the following arguments are required: PHOTO, --shards, --features or --playlist"
        )
    from effcap.presets import preset_folder
    from effcap.utils.find_files import find_photos

    for path in (arguments.out, arguments.page):
        if path is not None and path.is_dir():
            raise IsADirectoryError(f"Expected a file to write. Received: {path}, a folder")
    if arguments.beside and not arguments.page:
        raise ValueError("Expected --page FILE with --beside. Received: --beside alone")
    fields = sampler_fields(arguments)
    preset = preset_folder(arguments.model)
    paths = find_photos(arguments.photos)
    earlier = read_captions(arguments.beside) if arguments.beside else None
    start_keras()
    from effcap import samplers
    from effcap.captioner import Captioner

    sampler = samplers.get(arguments.sampler, **fields)
    captioner = Captioner.from_preset(preset)
    results = [
        {"image": str(path), "caption": options[0].text, "score": options[0].score}
        for path, options in caption_photos(captioner, paths, sampler, arguments.batch_size)
    ]
    write(arguments, results, earlier)


def write(arguments: argparse.Namespace, results: list[dict], earlier: dict | None) -> None:
    """Writes what was asked for; captions go to stdout where no JSON was asked for."""
    from effcap.utils.progress import say

    if arguments.out:
        write_captions(arguments.out, results)
    else:
        for result in results:
            print(f"{result['image']}\t{result['caption']}")
    if arguments.page:
        from effcap.tools.reports.page import write_page

        columns = page_columns(arguments, results, earlier)
        write_page(arguments.page, [result["image"] for result in results], columns)
        say(f"page: {arguments.page}")


def page_columns(
    arguments: argparse.Namespace, results: list[dict], earlier: dict | None
) -> dict[str, list]:
    """The page's columns: the earlier captions by their file's name, then the new ones."""
    scored = [(result["caption"], result["score"]) for result in results]
    if earlier is None:
        return {model_name(arguments.model): scored}
    before = [earlier.get(os.path.abspath(result["image"])) for result in results]
    if not any(before):
        raise ValueError(
            f"Expected captions of these photos in {arguments.beside}. Received: of others, such "
            f"as {next(iter(earlier), 'none')}"
        )
    names = [arguments.beside.stem, arguments.out.stem if arguments.out else "now"]
    if names[0] == names[1]:
        names = [str(arguments.beside), str(arguments.out or "these")]
    return dict(zip(names, (before, scored), strict=True))


def read_captions(path: Path) -> dict[str, tuple[str, float]]:
    """(caption, score) by photo from a file that `--out` wrote."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {
            os.path.abspath(entry["image"]): (entry["caption"], entry["score"]) for entry in entries
        }
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"Expected captions written by --out in {path}. Received: {error!r}"
        ) from None
