"""Runs jobs in several processes, with progress."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result", covariant=True)
INTERVAL = 0.2  # seconds between two progress reports
_done: Any = None  # in a worker: steps that all workers have done
_stop: Any = None  # in a worker: whether to stop


class Job(Protocol[Result]):
    """A picklable call that reports its progress."""

    def __call__(self, advance: Callable[[int], None]) -> Result: ...


def run_jobs(
    jobs: Sequence[Job[Result]],
    num_processes: int,
    advance: Callable[[int], None] | None = None,
) -> list[Result]:
    """Runs jobs and returns their results in order.

    Args:
        jobs: the jobs.
        num_processes: jobs run at the same time; 1 runs them in this process.
        advance: called in this process with the number of steps done since the last call.

    Raises:
        ValueError: `num_processes` is below 1.
        OSError: a worker was killed, for example for lack of memory.
        Exception: a job raised it; the other jobs are stopped.
    """
    if num_processes < 1:
        raise ValueError(
            f"Expected num_processes of at least 1. Received: num_processes={num_processes}"
        )
    advance = advance or (lambda count: None)
    num_processes = min(num_processes, len(jobs))
    if num_processes <= 1:
        return [job(advance) for job in jobs]
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q", 0), context.Value("b", 0)
    pool = ProcessPoolExecutor(num_processes, context, _start_worker, (done, stop))
    try:
        futures = [pool.submit(_run, job) for job in jobs]
        reported, pending = 0, set(futures)
        while pending:
            finished, pending = wait(pending, INTERVAL, FIRST_EXCEPTION)
            now = done.value
            advance(now - reported)
            reported = now
            for future in finished:
                future.result()
        return [future.result() for future in futures]
    except BrokenProcessPool:
        raise OSError(
            "A worker process was killed, perhaps for lack of memory; run again with fewer "
            "processes, finished work is kept"
        ) from None
    finally:
        stop.value = 1
        pool.shutdown(cancel_futures=True)


class _Stopped(Exception):
    """Stops a job in a worker whose result is no longer needed."""


def _start_worker(done: Any, stop: Any) -> None:
    """Prepares a worker; the main process handles Ctrl-C and then sets `stop`."""
    global _done, _stop
    _done, _stop = done, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(job: Job[Result]) -> Result:
    return job(_advance)


def _advance(count: int) -> None:
    if _stop.value:
        raise _Stopped
    with _done.get_lock():
        _done.value += count
