"""Feeds damaged input to EffCap: each must be taken rightly or refused in one clear error.

    python benchmarks/fuzz.py weights --cases 2000 --seed 0
    python benchmarks/fuzz.py csv
    python benchmarks/fuzz.py images

Prints how the cases ended; exits with 1 if there was a crash, a hang, an unclear error or a wrong
result.
"""

from __future__ import annotations

import argparse
import importlib
import time

from fuzz_report import Report

from effcap.tools.cli.terminal import start_keras

FUZZERS = {
    "csv": ("fuzzing_data", "fuzz_csv"),
    "images": ("fuzzing_data", "fuzz_images"),
    "weights": ("fuzzing_weights", "fuzz_weights"),
}


def show(kind: str, report: Report, seconds: float) -> None:
    """Prints a table of outcomes, the most frequent errors first."""
    refused = sum(report.errors.values())
    print(
        f"{kind}: {report.cases} cases in {seconds:.0f} s, {report.successes} taken, {refused} "
        f"refused, {len(report.failures)} failures"
    )
    for message, count in report.errors.most_common():
        print(f"{count:7}  {message}")
    for seed, what in report.failures:
        print(f"FAILURE of case {seed}: {what}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("kind", choices=FUZZERS)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start_keras()
    module, name = FUZZERS[arguments.kind]
    started = time.monotonic()
    report = getattr(importlib.import_module(module), name)(arguments.cases, arguments.seed)
    show(arguments.kind, report, time.monotonic() - started)
    return 1 if report.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
