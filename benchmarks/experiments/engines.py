"""Compares the captions of each engine and precision with those of Keras: equal ones, and CIDEr.

python benchmarks/experiments/engines.py --csv flickr8k/dev.csv --images flickr8k/images
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
import numpy as np

from effcap.tools.cli.terminal import start_keras

CHOICES = (
    ("keras", "float32"),
    ("keras", "bfloat16"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
)


def main() -> None:
    """Prints one row for each engine and precision."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--csv", type=Path, required=True, help="captions of held-out photos")
    parser.add_argument("--images", type=Path, required=True, help="folder of the photos")
    parser.add_argument("--model", default="flickr8k-lite0", help="preset")
    parser.add_argument("--photos", type=int, help="number of photos (default: all)")
    parser.add_argument("--engines", nargs="+", help="such as openvino-int8 (default: all)")
    arguments = parser.parse_args()
    start_keras()
    from effcap.metrics import score_captions
    from effcap.trainers import read_csv

    examples = read_csv(arguments.csv, arguments.images).examples[: arguments.photos]
    references = [example.captions for example in examples]
    print(f"{len(examples)} photos, 5 beams")
    print(f"{'engine':10} {'precision':10} {'CIDEr':>7} {'equal':>7} {'scores':>9} {'photos/s':>9}")
    expected: list[Any] = []
    for engine, precision in CHOICES:
        name = f"{engine}-{precision}"
        if arguments.engines and name not in ("keras-float32", *arguments.engines):
            continue
        started = time.perf_counter()
        captions = caption(arguments.model, engine, precision, [x.path for x in examples])
        rate = len(examples) / (time.perf_counter() - started)
        expected = expected or captions
        pairs = list(zip(captions, expected, strict=True))
        equal = np.mean([one.text == other.text for one, other in pairs])
        differences = [abs(a.score - b.score) for a, b in pairs if a.text == b.text]
        cider = score_captions([one.text for one in captions], references).corpus["CIDEr"]
        columns = f"{cider:7.4f} {equal:7.1%} {max(differences, default=0):9.1e} {rate:9.2f}"
        print(f"{engine:10} {precision:10} {columns}", flush=True)


def caption(model: str, engine: str, precision: str, paths: list[Path]) -> list[Any]:
    """Returns the best caption of each photo."""
    import effcap
    from effcap.tools import caption_folder
    from effcap.tools.captioning.results import load_captioner

    captioner = load_captioner(model, precision=precision, engine=engine)
    sampler = effcap.Beam(max_new_tokens=30)
    best = dict(caption_folder(paths, captioner, sampler, batch_size=16).captions)
    return [best[path][0] for path in paths]


if __name__ == "__main__":
    main()
