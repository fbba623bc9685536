"""A process that tries the cases of a fuzzer, so that a crash or a hang is one of their ends."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Answer = tuple[str, str]  # "taken" or "refused", or how it went wrong; and what was told


class Worker:
    """Tries cases in a process of its own, which is started anew when it has died or hangs.

    Args:
        make: called in the process, gives the function that tries a case and returns an `Answer`.
        seconds: for one case.
        memory: bytes of address space that a case may take.
    """

    def __init__(
        self,
        make: Callable[[], Callable[[Any], Answer]],
        seconds: float = 20.0,
        memory: int = 3 * 2**30,
    ):
        self.make, self.seconds, self.memory = make, seconds, memory
        self.context = multiprocessing.get_context("spawn")

    def __enter__(self) -> Worker:
        self.here, there = self.context.Pipe()
        arguments = (there, self.make, self.memory)
        self.process = self.context.Process(target=_work, args=arguments, daemon=True)
        self.process.start()
        there.close()
        self.here.recv()  # it is ready
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.join()

    def attempt(self, case: Any) -> Answer:
        """What came of a case."""
        self.here.send(case)
        try:
            if self.here.poll(self.seconds):
                return self.here.recv()
            answer = ("hang", f"no answer in {self.seconds:.0f} s")
        except EOFError:
            self.process.join()
            answer = ("crash", f"the process died with exit code {self.process.exitcode}")
        self.__exit__()
        self.__enter__()
        return answer


def _work(pipe: Connection, make: Callable[[], Callable[[Any], Answer]], memory: int) -> None:
    attempt = make()
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + memory,) * 2)
    pipe.send("ready")
    while True:
        case = pipe.recv()
        try:
            answer = attempt(case)
        except BaseException as error:
            answer = ("unclear error", f"{type(error).__name__}: {str(error)[:500]}")
        pipe.send(answer)
