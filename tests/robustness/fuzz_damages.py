"""Damages of text and binary files, and the loop that runs damaged cases."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from fuzz_report import Report
from fuzz_worker import Result, Worker

INSERTED = (
    b'"', b'""', b",", b"\n", b"\r", b"\r\n", b"\0", b";", b"\t", b"\xff", b"\xef\xbb\xbf", b"\\",
    b" ", b"[", b"]", b"{", b"}", b"null", b"\\ud800", b"1e999", b'"image"', b"\xe2\x80\xa8", b"-",
)  # fmt: skip


def run_cases(
    cases: int,
    seed: int,
    make_case: Callable[[Random], tuple[str, Any]],
    make_reader: Callable[[], Callable[[Any], Result]],
) -> Report:
    """Runs damaged cases in a worker process.

    Args:
        cases: number of cases.
        seed: seed of all cases.
        make_case: returns (description, case) for a random number generator.
        make_reader: returns the function that reads a case; called in the worker process.
    """
    report = Report()
    with Worker(make_reader) as worker:
        for number in range(cases):
            description, case = make_case(Random(f"{seed} {number}"))
            kind, message = worker.run(case)
            if kind == "accepted":
                report.add_success()
            elif kind == "refused":
                report.add_error(message)
            else:
                report.add_failure(number, f"{description}: {kind}: {message}")
    return report


def flip_bits(data: bytearray, rng: Random) -> bytes:
    """Flips one to twenty bits."""
    for _ in range(min(len(data), rng.choice((1, 1, 3, 20)))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def insert(data: bytearray, rng: Random) -> bytes:
    """Inserts bytes that mean something in text files."""
    position = rng.randrange(len(data) + 1)
    return data[:position] + rng.choice(INSERTED) + data[position:]


def remove(data: bytearray, rng: Random) -> bytes:
    """Removes up to 19 bytes."""
    position = rng.randrange(len(data) + 1)
    return data[:position] + data[position + rng.randrange(1, 20) :]


def cut(data: bytearray, rng: Random) -> bytes:
    """Removes the end."""
    return data[: rng.randrange(len(data) + 1)]
