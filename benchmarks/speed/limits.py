"""Measures how fast this machine reads memory and multiplies matrices, in float32.

    python benchmarks/speed/limits.py

A decoding step of few captions takes the time to read the decoder's weights, one of many captions
the time of their arithmetic: no engine that computes in float32 is faster than the longer of the
two. Weights are read from arrays as large as a decoder's, of which the caches hold nothing.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from workers import Answer

STEP_BYTES = 551_000_000  # of a step of GPT-2 124M with cross-attention
SIDE = 2048  # of the square matrices


@dataclass(frozen=True)
class Limits:
    """What a machine can do.

    Attributes:
        read: bytes per second from memory.
        multiply: floating-point operations per second in a product of large matrices.
    """

    read: float
    multiply: float

    def seconds(self, read: float, multiply: float) -> float:
        """Returns the shortest time for work that reads and multiplies that much."""
        return max(read / self.read, multiply / self.multiply)


class Machine:
    """Measures the limits of this machine, again at each call.

    Args:
        read: bytes to read.
        threads: threads that read. Default one per core that the process may use.
    """

    def __init__(self, read: int = STEP_BYTES, threads: int | None = None) -> None:
        self.threads = threads or num_cores()
        self.pieces = np.split(np.ones(read // 4 // 64 * 64, np.float32), 64)
        self.matrix = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
        self.pool = ThreadPoolExecutor(self.threads)

    def measure(self) -> Limits:
        """Reads all pieces and multiplies the matrix by itself, the better of two times each."""
        read, multiply = [], []
        for _ in range(2):
            started = time.perf_counter()
            list(self.pool.map(np.max, self.pieces))  # one load and one maximum per element
            between = time.perf_counter()
            self.matrix @ self.matrix
            read.append(between - started)
            multiply.append(time.perf_counter() - between)
        num_bytes = sum(piece.nbytes for piece in self.pieces)
        return Limits(num_bytes / min(read), 2 * SIDE**3 / min(multiply))


def num_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def create_machine() -> tuple[Answer, dict[str, Any]]:
    """Returns a worker's functions: each answer is a new measurement."""
    machine = Machine()
    return lambda request: asdict(machine.measure()), {"threads": machine.threads}


def main() -> None:
    """Prints the limits, the best of several rounds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="measurements (default: 5)")
    parser.add_argument("--threads", type=int, help="threads (default: one per core)")
    arguments = parser.parse_args()
    machine = Machine(threads=arguments.threads)
    rounds = [machine.measure() for _ in range(arguments.rounds)]
    read, multiply = (max(getattr(one, name) for one in rounds) for name in ("read", "multiply"))
    print(f"memory: {read / 1e9:.1f} GB/s with {machine.threads} threads, cold")
    print(f"matrix products: {multiply / 1e9:.0f} GFLOP/s in float32")
    print(f"a step of GPT-2 124M with cross-attention: {1000 * STEP_BYTES / read:.0f} ms to read")


if __name__ == "__main__":
    main()
