"""Measures how the time of captions grows with photos, tokens, beams and the size of GPT-2.

    python benchmarks/speed/cost.py --out cost.jsonl --python ../torch/bin/python
    python benchmarks/speed/cost.py --out cost.jsonl --plot docs/assets/captioning_cost.png

Each setting that --out does not have yet is measured and added to it, so that the run can be
stopped and continued at any time, and others of --sizes, --engines or --axes added later. Settings
differ from 8 photos, 5 beams and 20 tokens in one number. Engines take turns as in captioning.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from captioning import LIMITS, compare, start, write_model
from engines import CHOICES, work_of
from workers import WorkerError

SIZES = ("124m", "355m")
BASE = {"photos": 8, "beams": 5, "tokens": 20}
AXES = {
    "photos": (1, 2, 4, 8, 16, 32, 64),
    "beams": (1, 2, 3, 5, 8, 10),
    "tokens": (10, 20, 40, 60),
}
VALUES = {"seconds": "seconds", "cpu": "seconds of all cores"}
Point = tuple[str, str, int, int, int]  # size, engine, photos, beams, tokens


def settings(axes: list[str]) -> Iterator[dict[str, int]]:
    """Yields the settings of the axes, each once, the cheapest first."""
    points = {tuple({**BASE, axis: value}.items()) for axis in axes for value in AXES[axis]}
    yield from sorted(map(dict, points), key=lambda x: int(np.prod(list(x.values()))))


def read_rows(path: Path) -> dict[Point, dict[str, Any]]:
    """Returns the measured rows of a file, the last of each point."""
    if not path.is_file():
        return {}
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {point(row["size"], row["engine"], row): row for row in rows}


def point(size: str, engine: str, setting: dict[str, Any]) -> Point:
    """Returns the key of a measurement."""
    return (size, engine, setting["photos"], setting["beams"], setting["tokens"])


def measure(size: str, arguments: argparse.Namespace, end: float) -> None:
    """Measures the missing settings of a size until a time."""
    done = read_rows(arguments.out)
    missing = [
        setting
        for setting in settings(arguments.axes)
        if any(point(size, engine, setting) not in done for engine in arguments.engines)
    ]
    if not missing or time.monotonic() > end:
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder, workers = Path(temporary), {}
        write_model(f"v2s-gpt2-{size}", folder)
        try:
            for name in (LIMITS, *arguments.engines):
                workers[name] = start(name, arguments.python, folder)
            for setting in missing:
                if time.monotonic() > end:
                    return
                for row in compare(workers, setting, arguments.rounds, work_of(folder)):
                    with arguments.out.open("a", encoding="utf-8") as file:
                        print(json.dumps({"size": size, **row}), file=file)
                    print(f"{size} {setting} {row['engine']}: {row['seconds']:.2f} s", flush=True)
        finally:
            for worker in workers.values():
                worker.close()


def plot(rows: dict[Point, dict[str, Any]], path: Path, value: str) -> None:
    """Draws a value in seconds over each axis, one line per engine and size.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        import matplotlib
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install matplotlib") from None
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(AXES), figsize=(9, 3), layout="constrained")
    lines = sorted({(engine, size) for size, engine, *_ in rows})
    colors = {size: f"C{number}" for number, size in enumerate(SIZES)}
    styles = dict(
        zip(sorted({engine for engine, _ in lines}), ("-", "--", ":", "-."), strict=False)
    )
    for axis, panel in zip(AXES, panels, strict=True):
        for engine, size in lines:
            along = {x: rows.get(point(size, engine, {**BASE, axis: x})) for x in AXES[axis]}
            xs = [x for x, row in along.items() if row]
            ys = [row[value] for row in along.values() if row]
            style, color = styles.get(engine, "-"), colors[size]
            if not xs:
                continue
            panel.plot(xs, ys, style, marker=".", color=color, label=f"{engine}, {size.upper()}")
        others = ", ".join(f"{number} {name}" for name, number in BASE.items() if name != axis)
        panel.set(xlabel=axis, xticks=AXES[axis])
        panel.set_title(others, fontsize=9)
        if axis == "photos":  # the others are about linear
            panel.set_xscale("log", base=2)
            panel.set_yscale("log", base=2)
            panel.set_xticks(AXES[axis], map(str, AXES[axis]))
            panel.yaxis.set_major_formatter("{x:g}")
        else:
            panel.set_ylim(0, 1.1 * max(panel.get_ylim()))
    panels[0].set_ylabel(VALUES[value])
    panels[0].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measures what is missing, then draws if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="file of JSON lines")
    parser.add_argument("--python", type=Path, help="Python with torch and transformers")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES)
    parser.add_argument("--engines", nargs="+", choices=CHOICES, default=["keras-float32"])
    parser.add_argument("--axes", nargs="+", choices=list(AXES), default=list(AXES))
    parser.add_argument("--rounds", type=int, default=2, help="timed runs of each (default: 2)")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no setting after this")
    parser.add_argument("--plot", type=Path, help="picture to draw from --out, .png or .svg")
    parser.add_argument(
        "--value",
        choices=VALUES,
        default="seconds",
        help="what to draw: seconds, or cpu for processor time, which a busy machine disturbs less "
        "(default: seconds)",
    )
    arguments = parser.parse_args()
    if arguments.python is None and any(x.startswith("transformers") for x in arguments.engines):
        parser.error("--python is required for transformers")
    end = time.monotonic() + 60 * arguments.minutes
    if arguments.plot:
        plot(read_rows(arguments.out), arguments.plot, arguments.value)
        return
    for size in arguments.sizes:
        try:
            measure(size, arguments, end)
        except WorkerError as error:
            parser.exit(1, f"{size}: {error}\n")


if __name__ == "__main__":
    main()
