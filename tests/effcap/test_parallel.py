"""Tests of effcap.utils.parallel."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

import pytest

from effcap.utils.parallel import run_jobs


@dataclass(frozen=True)
class Square:
    number: int

    def __call__(self, advance):
        advance(self.number)
        return self.number**2


@dataclass(frozen=True)
class Fail:
    def __call__(self, advance):
        raise ValueError("failed on purpose")


@dataclass(frozen=True)
class Die:
    def __call__(self, advance):
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Endless:
    def __call__(self, advance):
        while True:
            advance(0)
            time.sleep(0.01)


@pytest.mark.parametrize("num_processes", (1, 2))
def test_results_are_in_order_and_progress_adds_up(num_processes):
    steps = []
    jobs = [Square(number) for number in range(5)]
    assert run_jobs(jobs, num_processes, steps.append) == [0, 1, 4, 9, 16]
    assert sum(steps) == 10 and run_jobs([], num_processes) == []


def test_an_error_stops_the_other_jobs():
    started = time.monotonic()
    with pytest.raises(ValueError, match="failed on purpose"):
        run_jobs([Endless(), Fail(), Endless()], 2)
    assert time.monotonic() - started < 30


def test_a_killed_worker_raises_an_error():
    with pytest.raises(OSError, match="was killed"):
        run_jobs([Die(), Square(1)], 2)


def test_zero_processes_raise_an_error():
    with pytest.raises(ValueError, match="num_processes=0"):
        run_jobs([Square(1)], 0)
