"""Compares exported captioners with Keras in one run: size, loading, captions per second, CIDEr.

    python benchmarks/speed/exports.py --csv flickr8k/dev.csv --images flickr8k/images --out exports

Exports `--model` to `--out` in every format and type, unless it is there, and runs each by its own
runner in a process without Keras; all processes take turns on the same photos, from files to text.
"savedmodel-signatures" are the signatures that take the bytes of photos. "load" is the time until
the graphs can run, without imports of packages; that of Keras has the first caption in it, because
only then it is compiled. "MB" are the graphs alone. "equal" is the share of `--photos` captions,
5 beams, that are those of Keras.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
import numpy as np
from workers import Worker, WorkerError, serve, take_turns

KERAS = "keras-float32"
SIGNATURES = "savedmodel-signatures"
EXPORTS = (
    *("savedmodel-float32", "onnx-float32", "onnx-int8", "litert-float32", "litert-int8"),
    *("openvino-float32", "openvino-int8"),
)
CHOICES = (KERAS, *EXPORTS, SIGNATURES)
SETTINGS = [(1, 1), (1, 8), (5, 1), (5, 8)]  # beams and photos
Caption = Callable[[list[str], int], list[str]]  # of photos, by a number of beams


def main() -> None:
    """Prints one row for each format and type."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--csv", type=Path, help="captions of held-out photos")
    parser.add_argument("--images", type=Path, help="folder of the photos")
    parser.add_argument("--out", type=Path, help="folder of the exports")
    parser.add_argument("--model", default="flickr8k-lite0", help="preset")
    parser.add_argument("--choices", nargs="+", choices=CHOICES, default=list(CHOICES))
    parser.add_argument("--photos", type=int, default=1000, help="photos of equal and CIDEr")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each (default: 5)")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        choice, folder, model = arguments.serve
        serve(lambda: create(choice, Path(folder), model))
        return
    if arguments.csv is None or arguments.images is None or arguments.out is None:
        parser.error("--csv, --images and --out are required")
    workers: dict[str, Worker] = {}
    try:
        for choice in arguments.choices:
            try:
                workers[choice] = start(choice, arguments.out, arguments.model)
            except WorkerError as error:
                print(f"without {choice}: {error}", flush=True)
        compare(workers, arguments)
    finally:
        for worker in workers.values():
            worker.close()


def start(choice: str, out: Path, model: str) -> Worker:
    """Exports a preset if needed, in another process, and starts the process of a choice."""
    folder = out / choice.replace(SIGNATURES, "savedmodel-float32")
    command = [sys.executable, __file__, "--serve"]
    if choice != KERAS and not (folder / "manifest.json").is_file():
        Worker([*command, f"export {folder.name}", folder, model]).close()
    return Worker([*command, choice, folder, model])


def create(job: str, folder: Path, model: str) -> tuple[Any, dict[str, Any]]:
    """Returns the function that a process answers with, and what it says of itself."""
    if job.startswith("export "):
        from effcap import Captioner, export_captioner

        format, _, dtype = job.removeprefix("export ").partition("-")
        export_captioner(Captioner.from_preset(model), folder, format, dtype)
        return dict, {}
    load = {KERAS: load_keras, SIGNATURES: load_signatures}.get(job, load_runner)
    caption, seconds = load(model if job == KERAS else folder)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        begun = time.perf_counter()
        captions = caption(request["photos"], request["beams"])
        return {"seconds": time.perf_counter() - begun, "captions": captions}

    files = [x for x in folder.rglob("*") if x.suffix not in (".py", ".json") and x.is_file()]
    return answer, {"load": seconds, "size": sum(file.stat().st_size for file in files)}


def load_keras(model: Any) -> tuple[Caption, float]:
    """Returns the captions of EffCap itself, and the seconds until the first."""
    from effcap.tools.cli.terminal import start_keras

    start_keras()
    import effcap

    begun = time.perf_counter()
    captioner: Any = effcap.Captioner.from_preset(model)

    def caption(photos: list[str], beams: int) -> list[str]:
        sampler = effcap.Greedy() if beams == 1 else effcap.Beam(num_beams=beams)
        return captioner.generate(photos, sampler, batch_size=len(photos))

    caption([str(next(Path("res/photos").glob("*.jpg")))], 5)
    return caption, time.perf_counter() - begun


def load_runner(folder: Path) -> tuple[Caption, float]:
    """Returns the captions of the runner of an export, and the seconds to load the graphs."""
    sys.path.insert(0, str(folder))
    run = importlib.import_module("run")
    begun = time.perf_counter()
    graphs = run.Graphs(folder)
    seconds = time.perf_counter() - begun
    tokenizer = run.Tokenizer.from_file(str(folder / "tokenizer.json"))

    def caption(photos: list[str], beams: int) -> list[str]:
        loaded = [run.load_inputs(photo, run.MANIFEST)["images"] for photo in photos]
        found = run.search(graphs, {"images": np.concatenate(loaded)}, beams)
        return [tokenizer.decode(tokens).strip() for _, tokens, _ in found]

    return caption, seconds


def load_signatures(folder: Path) -> tuple[Caption, float]:
    """Returns the captions of the signatures of a SavedModel, and the seconds to load it."""
    import tensorflow as tf
    from tokenizers import Tokenizer

    begun = time.perf_counter()
    model = tf.saved_model.load(str(folder / "saved_model"))
    seconds = time.perf_counter() - begun
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def caption(photos: list[str], beams: int) -> list[str]:
        data = tf.constant([Path(photo).read_bytes() for photo in photos])
        found = model.signatures["greedy" if beams == 1 else "beam"](photos=data)
        rows = zip(found["tokens"].numpy(), found["lengths"].numpy(), strict=True)
        return [tokenizer.decode(tokens[:length]).strip() for tokens, length in rows]

    return caption, seconds


def compare(workers: dict[str, Worker], arguments: argparse.Namespace) -> None:
    """Measures all choices and prints their rows."""
    from effcap.metrics import score_captions
    from effcap.trainers import read_csv

    examples = read_csv(arguments.csv, arguments.images).examples[: arguments.photos]
    paths = [str(Path(example.path).resolve()) for example in examples]
    references = [example.captions for example in examples]
    rates: dict[str, list[float]] = {choice: [] for choice in workers}
    for beams, photos in SETTINGS:
        answers = take_turns(workers, {"photos": paths[:photos], "beams": beams}, arguments.rounds)
        for choice, of_choice in answers.items():
            seconds = np.median([answer["seconds"] for answer in of_choice[1:]])
            rates[choice].append(photos / float(seconds))
    titles = [f"{beams}x{photos}" for beams, photos in SETTINGS]
    print(f"captions/s by beams x photos; {len(paths)} photos for equal and CIDEr")
    columns = "".join(f"{title:>8}" for title in titles)
    print(f"{'':22} {'MB':>6} {'load':>6} {columns} {'equal':>6} {'CIDEr':>7}")
    expected: list[str] = []
    for choice, worker in workers.items():
        captions: list[str] = []
        for first in range(0, len(paths), 8):
            request = {"photos": paths[first : first + 8], "beams": 5}
            captions += worker.ask(request)["captions"]
        expected = expected or captions
        equal = np.mean([one == other for one, other in zip(captions, expected, strict=True)])
        cider = score_captions(captions, references).corpus["CIDEr"]
        size = worker.about["size"] / 1e6
        speeds = "".join(f"{rate:8.1f}" for rate in rates[choice])
        row = {"choice": choice, "rates": rates[choice], "equal": float(equal), "cider": cider}
        print(
            f"{choice:22} {size:6.1f} {worker.about['load']:6.1f} {speeds} {equal:6.1%} "
            f"{cider:7.4f}",
            flush=True,
        )
        with (arguments.out / "rows.jsonl").open("a", encoding="utf-8") as file:
            print(json.dumps({**row, **worker.about}), file=file)


if __name__ == "__main__":
    main()
