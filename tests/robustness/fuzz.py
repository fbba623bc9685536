"""Feeds damaged input to EffCap: every case must be read correctly or refused with a clear error.

    python tests/robustness/fuzz.py captions
    python tests/robustness/fuzz.py photos
    python tests/robustness/fuzz.py metadata
    python tests/robustness/fuzz.py weights --cases 2000 --seed 0

Prints how the cases ended. Exits with 1 after a crash, a hang, an unclear error or a wrong result.
"""

from __future__ import annotations

import argparse
import importlib
import time

import checkout  # noqa: F401
from fuzz_report import Report

from effcap.tools.cli.terminal import start_keras

FUZZERS = {
    "captions": "fuzz_captions",
    "metadata": "fuzz_metadata",
    "photos": "fuzz_photos",
    "weights": "fuzz_weights",
}


def print_report(kind: str, report: Report, seconds: float) -> None:
    """Prints the counts and all errors, the most frequent ones first."""
    refused = report.errors.total()
    print(
        f"{kind}: {report.cases} cases in {seconds:.0f} s, {report.successes} accepted, {refused} "
        f"refused, {len(report.failures)} failures"
    )
    for message, count in report.errors.most_common():
        print(f"{count:7}  {message}")
    for case, description in report.failures:
        print(f"FAILURE of case {case}: {description}")


def main() -> int:
    """Runs a fuzzer; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("kind", choices=FUZZERS, help="kind of input")
    parser.add_argument("--cases", type=int, default=2000, help="number of cases (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damage (default: 0)")
    arguments = parser.parse_args()
    start_keras()
    fuzzer = importlib.import_module(FUZZERS[arguments.kind])
    started = time.monotonic()
    report = fuzzer.fuzz(arguments.cases, arguments.seed)
    print_report(arguments.kind, report, time.monotonic() - started)
    return 1 if report.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
