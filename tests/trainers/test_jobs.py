"""Jobs in processes give their results in order, and end as a whole."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from effcap.trainers.data.shards.jobs import run_jobs


@dataclass(frozen=True)
class Square:
    number: int

    def __call__(self, advance):
        advance(self.number)
        return self.number**2


@dataclass(frozen=True)
class Fail:
    def __call__(self, advance):
        raise ValueError("no such thing")


@dataclass(frozen=True)
class Die:
    def __call__(self, advance):
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Endless:
    folder: Path

    def __call__(self, advance):
        while True:
            advance(0)
            time.sleep(0.01)


@pytest.mark.parametrize("processes", (1, 2))
def test_results_come_in_order_and_progress_adds_up(processes):
    done = []
    jobs = [Square(number) for number in range(5)]
    assert run_jobs(jobs, processes, done.append) == [0, 1, 4, 9, 16]
    assert sum(done) == 10 and run_jobs([], processes) == []


def test_an_error_stops_the_other_jobs(tmp_path):
    started = time.monotonic()
    with pytest.raises(ValueError, match="no such thing"):
        run_jobs([Endless(tmp_path), Fail(), Endless(tmp_path)], 2)
    assert time.monotonic() - started < 30


def test_a_worker_that_is_killed_is_told():
    with pytest.raises(OSError, match="one was killed"):
        run_jobs([Die(), Square(1)], 2)


def test_no_processes_are_refused():
    with pytest.raises(ValueError, match="processes=0"):
        run_jobs([Square(1)], 0)
