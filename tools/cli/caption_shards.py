"""`effcap caption --shards`: webdataset shards into Parquet files of captions."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.tools.cli.captioning import model_name, sampler_fields
from effcap.tools.cli.terminal import quiet, start_keras

if TYPE_CHECKING:
    from effcap.samplers.base import Sampler
    from effcap.tools.captioning.parquet import CaptionFolder, ShardCaptions
    from effcap.utils.progress import Bar

MEGABYTE = 10**6
SHOWN = 10  # shards told one by one
RAY = ("workers", "gpus_per_worker")


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Adds the options for shards to `effcap caption`."""
    shards = parser.add_argument_group(
        "shards", "Started again with the same options, a run that was broken off goes on."
    )
    shards.add_argument(
        "--shards",
        nargs="+",
        metavar="SHARD",
        help="caption webdataset shards in place of PHOTO: file, folder, pattern or number range "
        "in quotes ('{00000..01242}.tar'), URL, or 'pipe:COMMAND'; NAME.tar becomes NAME.parquet "
        "in the folder --out",
    )
    shards.add_argument(
        "--part",
        type=part_of,
        metavar="K/N",
        help="only the shards of process K out of N, each started with the same --shards and --out",
    )
    shards.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="let the workers of a Ray cluster do it: auto, ray://HOST:10001, or without ADDRESS "
        "that in RAY_ADDRESS or else this machine",
    )
    shards.add_argument("--workers", type=int, metavar="N", help="of Ray (1 if not given)")
    shards.add_argument(
        "--gpus-per-worker",
        type=float,
        metavar="X",
        help="of Ray; 0.5 lets two share one (1 if the cluster has GPUs and X is not given)",
    )


def part_of(text: str) -> tuple[int, int]:
    """(K, N) from K/N."""
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"invalid part: {text!r}; write 1/8, 2/8, ... 8/8")
    return int(match[1]), int(match[2])


def check_options(arguments: argparse.Namespace) -> None:
    """ValueError for options that do not go together."""
    ray = [name for name in RAY if vars(arguments)[name] is not None]
    if not arguments.shards:
        given = [name for name in ("part", "ray", *RAY) if vars(arguments)[name] is not None]
        if given:
            raise ValueError(f"Expected --shards with {_flag(given[0])}. Received: none")
        return
    if arguments.photos:
        raise ValueError(
            f"Expected photos or --shards. Received: both, photos such as {arguments.photos[0]}"
        )
    for name in ("page", "beside"):
        if vars(arguments)[name] is not None:
            raise ValueError(
                f"Expected no --{name} with --shards, which has no page. Received: "
                f"--{name} {vars(arguments)[name]}"
            )
    if arguments.out is None:
        raise ValueError("Expected --out FOLDER with --shards. Received: none")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise NotADirectoryError(
            f"Expected a folder as --out, with --shards. Received: {arguments.out}, a file"
        )
    if ray and arguments.ray is None:
        raise ValueError(f"Expected --ray with {_flag(ray[0])}. Received: none")
    if arguments.ray is not None and arguments.part:
        raise ValueError("Expected --part or --ray, which shares the work out. Received: both")
    if arguments.workers is not None and arguments.workers < 1:
        raise ValueError(f"Expected --workers of at least 1. Received: {arguments.workers}")


def run_shards(arguments: argparse.Namespace) -> None:
    """Runs `effcap caption --shards`."""
    from effcap.presets import preset_folder
    from effcap.tools.captioning.parquet import CaptionFolder, fingerprint, located
    from effcap.tools.captioning.partition import take_part
    from effcap.trainers.data.shards import find_shards
    from effcap.utils.progress import say

    fields = sampler_fields(arguments)
    preset = preset_folder(arguments.model)
    shards = [located(shard) for shard in find_shards(arguments.shards)]
    if arguments.part:
        shards = take_part(shards, *arguments.part)
    if arguments.ray is None:
        start_keras()
    else:
        with quiet():
            import keras  # noqa: F401  the workers wake it up
    from effcap import samplers

    sampler = samplers.get(arguments.sampler, **fields)
    model = f"{model_name(str(preset.resolve()))} {fingerprint(preset)}"
    folder = CaptionFolder(arguments.out.absolute(), model, repr(sampler))
    folder.prepare()
    found = folder.find(shards)
    pending = [shard for shard in shards if shard not in found]
    if found:
        say(f"{len(found)} of {len(shards)} shards were captioned earlier")
    if pending:
        caption = caption_here if arguments.ray is None else caption_on_cluster
        found |= caption(arguments, preset, pending, folder, sampler)
    tell([found[shard] for shard in shards], arguments.out)


def caption_here(
    arguments: argparse.Namespace,
    preset: Path,
    shards: Sequence[str],
    folder: CaptionFolder,
    sampler: Sampler,
) -> dict[str, ShardCaptions]:
    """Captions shards in this process, under a progress bar."""
    from effcap.captioner import Captioner
    from effcap.tools.captioning.shards import caption_into
    from effcap.trainers.data.shards.check import steps
    from effcap.utils.progress import Bar

    captioner = Captioner.from_preset(preset)
    total = sum(map(steps, shards))
    unit = MEGABYTE if total >= 10 * MEGABYTE else 1  # only remote shards are fewer
    title = f"captioning shards{', MB' if unit > 1 else ''}"
    with Bar(title, -(-total // unit)) as bar:
        advance = paced(bar, unit)
        work = (captioner, shards, sampler, arguments.batch_size, advance)
        return {done.shard: done for done in caption_into(folder, *work)}


def paced(bar: Bar, unit: int) -> Callable[[int, int], None]:
    """`advance` of `caption_into`, for a bar that counts in `unit`, with the photos per second."""
    started = time.monotonic()
    done = photos = 0

    def advance(count: int, more: int) -> None:
        nonlocal done, photos
        before, done, photos = done, done + count, photos + more
        pace = f"{photos / (time.monotonic() - started):.1f} photos/s"
        if taken := done // unit - before // unit:
            bar.advance(pace, taken)
        else:
            bar.tell(pace)

    return advance


def caption_on_cluster(
    arguments: argparse.Namespace,
    preset: Path,
    shards: Sequence[str],
    folder: CaptionFolder,
    sampler: Sampler,
) -> dict[str, ShardCaptions]:
    """Captions shards on a Ray cluster, under a progress bar."""
    from effcap.tools.captioning.ray import caption_on_ray
    from effcap.utils.progress import Bar

    found = {}
    given = {name: vars(arguments)[name] for name in RAY if vars(arguments)[name] is not None}
    work = (preset, shards, folder, sampler, arguments.batch_size, arguments.ray or None)
    photos, started = 0, time.monotonic()
    with Bar("captioning shards", len(shards)) as bar:
        for done in caption_on_ray(*work, **given):
            found[done.shard] = done
            photos += done.photos + done.unreadable
            bar.advance(f"{photos / (time.monotonic() - started):.1f} photos/s")
    return found


def tell(results: Sequence[ShardCaptions], out: Path) -> None:
    """Says what it came to; ValueError where a shard is not whole."""
    from effcap.utils.progress import say

    photos = sum(done.photos for done in results)
    unreadable = sum(done.unreadable for done in results)
    say(f"{photos:,} captions of {len(results)} shard{'s' * (len(results) != 1)}: {out}")
    if unreadable:
        say(f"{unreadable:,} photos could not be read; column error says why")
    empty = [f"{done.shard}: it holds no photo" for done in results if is_empty(done)]
    broken = [f"{done.shard}: {done.problem or done.note}" for done in results if is_broken(done)]
    for line in (told := [*broken, *empty])[:SHOWN]:
        say(f"  {line}")
    if len(told) > SHOWN:
        say(f"  and {len(told) - SHOWN} more shards")
    if broken:
        unread = sum(bool(done.problem) for done in results)
        again = "; the same command tries the unreadable ones again" if unread else ""
        raise ValueError(
            f"Expected whole shards. Received: {len(broken) - unread} not whole, of which the rest "
            f"is captioned, and {unread} unreadable{again}"
        )


def is_broken(done: ShardCaptions) -> bool:
    """Whether part of the shard could not be read."""
    return bool(done.problem or done.note)


def is_empty(done: ShardCaptions) -> bool:
    """Whether a whole shard has no photo."""
    return not is_broken(done) and done.photos + done.unreadable == 0


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
