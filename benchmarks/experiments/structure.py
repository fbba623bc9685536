"""Measures the structure of the code: module paths, options, files, words.

    python benchmarks/experiments/structure.py

Prints the number of modules of the package that a CSV row, a photo path and a shard sample go
through, the number of options of
each command, the number and length of source files, the words in the README, and the time of
`effcap --help`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("samplers", "effcap", "trainers", "tools")


def modules_called(function: Callable[[], Any]) -> set[str]:
    """Returns the source files of the package whose functions run during `function`."""
    import threading

    files: set[str] = set()

    def record(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)

    threading.setprofile(record)
    sys.setprofile(record)
    try:
        function()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    folders = [f"{ROOT / floor}/" for floor in FLOORS]
    return {name for name in files if name.startswith(tuple(folders))}


def module_paths(folder: Path) -> dict[str, str]:
    """Returns the number of modules that a CSV row, a photo path and a shard sample go through."""
    import effcap
    from effcap.tools import index_shards, write_shards
    from effcap.trainers import read_csv, read_shards

    captioner = effcap.Captioner.from_preset("flickr8k-lite0")
    captioner.compile("sgd", run_eagerly=True)
    table, photos = ROOT / "res" / "captions.csv", ROOT / "res" / "photos"

    def train_on_csv() -> None:
        batches = read_csv(table, photos).batches(captioner, batch_size=2, num_threads=1)
        captioner.train_on_batch(*batches[0])

    def caption_photo() -> None:
        captioner.generate(str(photos / "cat.jpg"), "greedy")

    def batch_of_shards() -> None:
        batches = read_shards([folder]).batches(captioner, batch_size=2, num_threads=1)
        captioner.train_on_batch(*batches[0])

    write_shards(read_csv(table, photos), folder)
    index_shards([str(path) for path in sorted(folder.glob("*.tar"))])
    paths = {
        "CSV row to gradient step": train_on_csv,
        "photo path to caption": caption_photo,
        "shard sample to gradient step": batch_of_shards,
    }
    counts = {}
    for name, function in paths.items():
        modules = modules_called(function)
        model = {path for path in modules if "/effcap/" in path.removeprefix(str(ROOT))}
        counts[name] = f"{len(modules)}, {len(modules - model)} of them outside effcap/"
    return counts


def options_per_command() -> dict[str, int]:
    """Returns the number of options of each command, without --help."""
    from effcap.tools.cli.main import parser
    from effcap.tools.cli.parsing import Parser

    def commands(top: Parser, name: str) -> Iterator[tuple[str, Parser]]:
        top.add_lazy_arguments()
        children = [a for a in top._actions if isinstance(a, argparse._SubParsersAction)]
        if not children:
            yield name, top
        for action in children:
            for word, child in action.choices.items():
                yield from commands(child, f"{name} {word}")

    return {
        name: sum(
            any(flag.startswith("--") and flag != "--help" for flag in action.option_strings)
            for action in command._actions
        )
        for name, command in commands(parser(), "effcap")
    }


def main() -> None:
    """Prints all measurements."""
    lengths = sorted(
        len(path.read_text(encoding="utf-8").splitlines())
        for floor in FLOORS
        for path in (ROOT / floor).rglob("*.py")
    )
    print(f"files {len(lengths)}, median {statistics.median(lengths):g}, longest {lengths[-1]}")
    print(f"words in README.md: {len((ROOT / 'README.md').read_text(encoding='utf-8').split())}")
    for name, count in options_per_command().items():
        print(f"options of {name}: {count}")
    times = []
    for _ in range(5):
        started = time.perf_counter()
        command = [sys.executable, "-m", "effcap.tools", "--help"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    print(f"effcap --help: {min(times):.2f} s, best of {len(times)}")
    with tempfile.TemporaryDirectory() as folder:
        for name, count in module_paths(Path(folder) / "shards").items():
            print(f"modules from {name}: {count}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
