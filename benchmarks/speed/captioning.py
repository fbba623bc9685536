"""Compares captions per second of engines in one run, as ratios to transformers on torch.

    python benchmarks/speed/captioning.py --python ../torch/bin/python
    python benchmarks/speed/captioning.py --python ../torch/bin/python --models vit-gpt2 blip-base

Engines stay in processes of their own and take turns on the same random images; transformers runs
in the environment of --python, which has torch and transformers. Every caption has exactly --tokens
tokens out of the whole vocabulary. Reading and resizing of photos is left out on all sides. See
random_captioners.py for the models and engines.py for the engines.

"ratio" is the time of transformers-float32 divided by that of the engine, the median over rounds;
"CPU" is the same of processor time, which others on the machine disturb less.
"of limit" is the shortest time that this machine allows divided by the engine's, both the best of
the same rounds: the encoder's arithmetic, and for each token the longer of reading the decoder's
weights from memory at the engine's precision and of their arithmetic in float32. Processors with
instructions for shorter numbers may exceed it. "equal" is the share of captions that are those of
keras-float32.

On a busy machine, threads wait for those that are interrupted, and some libraries suffer more than
others: OMP_WAIT_POLICY=passive keeps those of OpenMP from waiting at full load.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from engines import CHOICES, PEER, has_bfloat16, serve_engine, work_of
from limits import Limits, create_machine
from workers import Worker, WorkerError, serve, take_turns

DEFAULTS = ["keras-float32", "onnxruntime-float32", PEER]
REFERENCE = "keras-float32"  # captions of others are compared with its
LIMITS = "limits"
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


def start(choice: str, python: Path, folder: Path) -> Worker:
    """Starts an engine, or measurements of the machine."""
    is_peer = choice.startswith("transformers")
    command = [python if is_peer else sys.executable, __file__, "--serve", choice, folder]
    return Worker(command)


def write_model(model: str, folder: Path) -> None:
    """Writes a model in another process, whose memory is then free."""
    import subprocess

    command = [sys.executable, __file__, "--serve", f"write {model}", str(folder)]
    subprocess.run(command, check=True)


def shortest(
    work: dict[str, int] | None, limits: Limits, precision: str, setting: dict[str, int]
) -> float:
    """Returns the shortest time of a setting on this machine in seconds; NaN if not known."""
    if work is None:
        return float("nan")
    photos, rows = setting["photos"], setting["photos"] * setting["beams"]
    step = limits.seconds(work["step"] * BYTES[precision], 2 * work["step"] * rows)
    return limits.seconds(0, work["encoder"] * photos) + setting["tokens"] * step


def compare(
    workers: dict[str, Worker], setting: dict[str, int], rounds: int, work: dict[str, int] | None
) -> list[dict[str, Any]]:
    """Measures a setting with all engines and returns a row for each of them."""
    answers = take_turns(workers, setting, rounds)
    measured = answers.pop(LIMITS)
    limits = Limits(*(max(answer[name] for answer in measured) for name in ("read", "multiply")))
    captions = {name: [answer["captions"] for answer in of] for name, of in answers.items()}
    rows = []
    for name, of_engine in answers.items():
        first, *timed = [answer["seconds"] for answer in of_engine]
        precision = name.partition("-")[2]
        row: dict[str, Any] = {"engine": name, **setting, "first": first}
        row |= {"seconds": float(np.median(timed)), "seconds_all": timed}
        row["cpu"] = float(np.median([answer["cpu"] for answer in of_engine[1:]]))
        if PEER in answers:
            peer = [answer["seconds"] for answer in answers[PEER][1:]]
            row["ratio"] = float(np.median(np.divide(peer, timed)))
            cpu = [[answer["cpu"] for answer in of[1:]] for of in (answers[PEER], of_engine)]
            row["cpu_ratio"] = float(np.median(np.divide(*cpu)))
        if not name.startswith("transformers"):
            row["of_limit"] = shortest(work, limits, precision, setting) / min(timed)
        if REFERENCE in captions and not name.startswith("transformers"):
            pairs = zip(captions[name][-1], captions[REFERENCE][-1], strict=True)
            row["equal"] = float(np.mean([list(one) == list(other) for one, other in pairs]))
        rows.append({**row, "read": limits.read, "multiply": limits.multiply})
    return rows


def line(model: str, row: dict[str, Any]) -> str:
    """Returns a line of the table."""
    names = ("ratio", "cpu_ratio", "of_limit")
    numbers = [f"{row[name]:9.2f}" if name in row else " " * 9 for name in names]
    equal = f"{row['equal']:6.0%}" if "equal" in row else ""
    return (
        f"{model:14} {row['beams']:5} {row['photos']:6} {row['engine']:22} {row['seconds']:8.2f} "
        f"{row['photos'] / row['seconds']:8.2f} {''.join(numbers)} {equal}"
    )


def main() -> None:
    """Prints one row per model, number of beams, number of photos and engine."""
    from random_captioners import MODELS

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", type=Path, help="Python with torch and transformers")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["v2s-gpt2-124m"])
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=CHOICES,
        default=DEFAULTS + ["transformers-bfloat16"] * has_bfloat16(),
        help=f"(default: {', '.join(DEFAULTS)}, and transformers-bfloat16 where the processor has "
        "instructions for it; without them, torch takes minutes)",
    )
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 5], help="(default: 1 5)")
    parser.add_argument("--photos", type=int, nargs="+", default=[1, 8], help="(default: 1 8)")
    parser.add_argument("--tokens", type=int, default=20, help="tokens per caption (default: 20)")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each (default: 5)")
    parser.add_argument("--out", type=Path, help="file of JSON lines that rows are added to")
    parser.add_argument("--serve", nargs=2, metavar=("JOB", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        job, folder = arguments.serve
        run_job(job, Path(folder))
        return
    if arguments.python is None and any(x.startswith("transformers") for x in arguments.engines):
        parser.error("--python is required for transformers")
    print(
        f"{'model':14} {'beams':>5} {'photos':>6} {'engine':22} {'seconds':>8} {'photos/s':>8} "
        f"{'ratio':>9}{'CPU':>9}{'of limit':>9} {'equal':>6}"
    )
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as temporary:
            run_model(model, Path(temporary), arguments)


def run_model(model: str, folder: Path, arguments: argparse.Namespace) -> None:
    """Measures a model in all settings and prints the rows."""
    write_model(model, folder)
    workers: dict[str, Worker] = {}
    try:
        for choice in (LIMITS, *arguments.engines):
            try:
                workers[choice] = start(choice, arguments.python, folder)
            except WorkerError as error:
                print(f"{model:14} without {choice}: {error}", flush=True)
        for beams in arguments.beams:
            for photos in arguments.photos:
                setting = {"beams": beams, "photos": photos, "tokens": arguments.tokens}
                rows = compare(workers, setting, arguments.rounds, work_of(folder))
                for row in rows:
                    print(line(model, row), flush=True)
                    if arguments.out:
                        with arguments.out.open("a", encoding="utf-8") as file:
                            print(json.dumps({"model": model, **row}), file=file)
                read, multiply = rows[0]["read"] / 1e9, rows[0]["multiply"] / 1e9
                print(f"{'':14} limits: {read:.1f} GB/s cold, {multiply:.0f} GFLOP/s", flush=True)
    finally:
        for worker in workers.values():
            worker.close()


def run_job(job: str, folder: Path) -> None:
    """Runs what a process of this script is for."""
    if job == LIMITS:
        serve(create_machine)
    elif job.startswith("write "):
        from random_captioners import write

        from effcap.tools.cli.terminal import start_keras

        start_keras()
        write(job.removeprefix("write "), folder)
    else:
        serve_engine(job, folder)


if __name__ == "__main__":
    main()
