"""`effcap caption`: photos into captions."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.tools.cli.parsing import add_config
from effcap.tools.cli.terminal import start_keras

if TYPE_CHECKING:
    import numpy as np

    from effcap.encoder import ImageEncoder

DEFAULT_PRESET = "flickr8k-lite0"
SAMPLERS = ("beam", "nucleus", "greedy")
# (option, kind, the sampler it belongs to or None for all, help)
SAMPLING = (
    ("beams", int, "beam", "hypotheses kept"),
    ("length-penalty", float, "beam", "exponent of the length that a score is divided by"),
    ("p", float, "nucleus", "share of probability to sample from"),
    ("k", int, "nucleus", "most likely tokens to sample from; 0 for all"),
    ("temperature", float, "nucleus", "flattens (above 1) or sharpens the distribution"),
    ("seed", int, "nucleus", "same seed, same captions"),
    ("min-tokens", int, None, "fewest tokens of a caption"),
    ("max-tokens", int, None, "most tokens of a caption"),
    ("no-repeat-ngram", int, None, "length of word sequences that may not come twice"),
    ("repetition-penalty", float, None, "above 1 makes repeated tokens less likely"),
)


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `caption`."""
    parser = commands.add_parser(
        "caption",
        help="caption photos",
        description="Captions photos. Captions go to stdout, or with --out into a file.",
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="file, folder, or pattern in quotes"
    )
    parser.add_argument(
        "--model", default=DEFAULT_PRESET, metavar="PRESET", help="folder or name of a preset"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write photos, captions and scores as JSON"
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
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="photos at once")
    add_config(parser)
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--sampler", choices=SAMPLERS, default=SAMPLERS[0], help="how to search")
    for flag, kind, owner, text in SAMPLING:
        text = f"{text} ({owner})" if owner else text
        sampling.add_argument(
            f"--{flag}", type=kind, metavar="N" if kind is int else "X", help=text
        )


def sampler_fields(arguments: argparse.Namespace) -> dict:
    """The sampler's fields that were given; ValueError for one of another sampler."""
    fields = {}
    for flag, _, owner, _ in SAMPLING:
        name = flag.replace("-", "_")
        value = getattr(arguments, name)
        if value is None:
            continue
        if owner not in (None, arguments.sampler):
            raise ValueError(
                f"Expected no --{flag}, which is for --sampler {owner}. "
                f"Received: --sampler {arguments.sampler} --{flag} {value}"
            )
        fields[name] = value
    return fields


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap caption`."""
    from effcap.photos import UnreadablePhoto, find_photos
    from effcap.presets import preset_folder
    from effcap.trainers.progress import Bar, say

    if arguments.batch_size < 1:
        raise ValueError(f"Expected --batch-size of at least 1. Received: {arguments.batch_size}")
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
    results: list[dict] = []
    skipped: list[UnreadablePhoto] = []
    encoder, batch_size = captioner.encoder, arguments.batch_size
    with Bar("captioning", len(paths)) as bar:
        for batch in readable(paths, encoder, batch_size, skipped):
            images = [image for _, image in batch]
            captions = captioner.generate(images, sampler, details=True, batch_size=batch_size)
            for (path, _), options in zip(batch, captions, strict=True):
                best = options[0]
                results.append({"image": str(path), "caption": best.text, "score": best.score})
            bar.advance(steps=len(batch))
    for error in skipped:
        say(f"skipped: {error}")
    if skipped:
        say(f"{len(skipped)} of {len(paths)} photos could not be read")
    if not results:
        raise ValueError(f"Expected at least one readable photo. Received: {len(paths)} unreadable")
    write(arguments, results, earlier)


def readable(
    paths: Sequence[Path], encoder: ImageEncoder, batch_size: int, skipped: list
) -> Iterator[list[tuple[Path, np.ndarray]]]:
    """Batches of photos, decoded in threads; the errors of the others go to `skipped`."""
    from effcap.photos import UnreadablePhoto, load_photo

    def load(path: Path) -> np.ndarray | UnreadablePhoto:
        try:
            return load_photo(path, encoder.image_size, encoder.fit)
        except UnreadablePhoto as error:
            return error

    read: list[tuple[Path, np.ndarray]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), batch_size):
            group = paths[start : start + batch_size]
            for path, photo in zip(group, pool.map(load, group), strict=True):
                if isinstance(photo, UnreadablePhoto):
                    skipped.append(photo)
                else:
                    read.append((path, photo))
            if len(read) >= batch_size:
                yield read[:batch_size]
                read = read[batch_size:]
    if read:
        yield read


def write(arguments: argparse.Namespace, results: list[dict], earlier: dict | None) -> None:
    """Writes what was asked for; captions go to stdout where no JSON was asked for."""
    from effcap.trainers.progress import say

    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(results, indent=1, ensure_ascii=False)
        arguments.out.write_text(text + "\n", encoding="utf-8")
        say(f"captions: {arguments.out}")
    else:
        for result in results:
            print(f"{result['image']}\t{result['caption']}")
    if arguments.page:
        from effcap.tools.page import write_page

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


def model_name(model: str) -> str:
    """What to call a preset: its name, or for the best or last of a run, the run's with it."""
    folder = Path(model)
    return "/".join(folder.parts[-2:]) if folder.name in ("best", "last") else folder.name


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
