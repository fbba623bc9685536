"""Jobs in several processes, with progress."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result", covariant=True)
SECONDS = 0.2  # between two looks at how far the workers are
_done: Any = None  # in a worker: how much all workers have done,
_stop: Any = None  # and whether they are to stop


class Job(Protocol[Result]):
    """Something to do, that tells how much of it is done; it is pickled for other processes."""

    def __call__(self, advance: Callable[[int], None]) -> Result: ...


def run_jobs(
    jobs: Sequence[Job[Result]], processes: int, advance: Callable[[int], None] | None = None
) -> list[Result]:
    """The jobs' results, in their order.

    Args:
        jobs: what to do.
        processes: how many work at the same time; 1 does it in this process.
        advance: called here, now and then, with how much was done since.

    Raises:
        ValueError: for fewer processes than one.
        OSError: when a worker was killed, as by a lack of memory.
        Exception: what a job raises; the other jobs are stopped.
    """
    if processes < 1:
        raise ValueError(f"Expected at least 1 process. Received: processes={processes}")
    advance = advance or (lambda count: None)
    processes = min(processes, len(jobs))
    if processes <= 1:
        return [job(advance) for job in jobs]
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q", 0), context.Value("b", 0)
    pool = ProcessPoolExecutor(processes, context, _begin, (done, stop))
    try:
        futures = [pool.submit(_run, job) for job in jobs]
        told, pending = 0, set(futures)
        while pending:
            finished, pending = wait(pending, SECONDS, FIRST_EXCEPTION)
            now = done.value
            advance(now - told)
            told = now
            for future in finished:
                future.result()
        return [future.result() for future in futures]
    except BrokenProcessPool:
        raise OSError(
            "Expected every worker to live. Received: one was killed, perhaps for want of memory; "
            "run it again with fewer processes, what is done stays done"
        ) from None
    finally:
        stop.value = 1
        pool.shutdown(cancel_futures=True)


class _Stopped(Exception):
    """In a worker: nobody waits for the result any more."""


def _begin(done: Any, stop: Any) -> None:
    """In a new worker: Ctrl-C is for the process that started it, which then says stop."""
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
