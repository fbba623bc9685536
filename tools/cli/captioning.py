"""What `effcap caption` and `effcap evaluate` share: sampling options, and photos into captions."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from effcap.caption import Caption
    from effcap.captioner import Captioner
    from effcap.encoders.image import ImageEncoder
    from effcap.samplers.base import Sampler

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


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Adds the options of samplers, and how many photos are captioned at once."""
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="photos at once")
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--sampler", choices=SAMPLERS, default=SAMPLERS[0], help="how to search")
    for flag, kind, owner, text in SAMPLING:
        text = f"{text} ({owner})" if owner else text
        sampling.add_argument(
            f"--{flag}", type=kind, metavar="N" if kind is int else "X", help=text
        )


def sampler_fields(arguments: argparse.Namespace) -> dict:
    """The sampler's fields that were given; ValueError for one of another sampler."""
    if arguments.batch_size < 1:
        raise ValueError(f"Expected --batch-size of at least 1. Received: {arguments.batch_size}")
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


def caption_photos(
    captioner: Captioner, paths: Sequence[Path], sampler: Sampler, batch_size: int
) -> Iterator[tuple[Path, list[Caption]]]:
    """Photos that can be read and their captions, best first, under a progress bar.

    At the end the others are named and counted; ValueError when that is all of them.
    """
    from effcap.images import UnreadablePhoto
    from effcap.utils.progress import Bar, say

    if "images" not in captioner.encoder.input_keys:
        raise ValueError(
            "Expected a captioner of photos. Received: one of "
            f"{' and '.join(captioner.encoder.input_keys)}; see --features and --playlist"
        )
    skipped: list[UnreadablePhoto] = []
    with Bar("captioning", len(paths)) as bar:
        for batch in readable(paths, captioner.encoder, batch_size, skipped):
            images = [image for _, image in batch]
            captions = captioner.generate(images, sampler, details=True, batch_size=batch_size)
            for (path, _), options in zip(batch, captions, strict=True):
                yield path, options
            bar.advance(steps=len(batch))
    for error in skipped:
        say(f"skipped: {error}")
    if skipped:
        say(f"{len(skipped)} of {len(paths)} photos could not be read")
    if len(skipped) == len(paths):
        raise ValueError(f"Expected at least one readable photo. Received: {len(paths)} unreadable")


def readable(
    paths: Sequence[Path], encoder: ImageEncoder, batch_size: int, skipped: list
) -> Iterator[list[tuple[Path, np.ndarray]]]:
    """Batches of photos, decoded in threads; the errors of the others go to `skipped`."""
    from effcap.images import UnreadablePhoto, load_photo

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


def model_name(model: str) -> str:
    """What to call a preset: its name, or for the best or last of a run, the run's with it."""
    folder = Path(model)
    return "/".join(folder.parts[-2:]) if folder.name in ("best", "last") else folder.name


def refuse_page(arguments: argparse.Namespace, option: str) -> None:
    """ValueError where a page of photos is asked for and there are none; and for --out that is a
    folder."""
    for name in ("page", "beside"):
        if vars(arguments)[name] is not None:
            raise ValueError(
                f"Expected no --{name} with {option}: there are no photos to show. "
                f"Received: --{name} {vars(arguments)[name]}"
            )
    if arguments.out and arguments.out.is_dir():
        raise IsADirectoryError(f"Expected a file to write. Received: {arguments.out}, a folder")


def write_captions(path: Path, results: list[dict]) -> None:
    """Writes captions as JSON, and says so."""
    from effcap.utils.progress import say

    write_json(path, results)
    say(f"captions: {path}")


def write_json(path: Path, content: Any) -> None:
    """Writes JSON for people and programs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
