"""A process that runs the cases of a fuzzer, so that crashes and hangs are results too."""

from __future__ import annotations

import multiprocessing
import resource
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from checkout import ROOT

Result = tuple[str, str]  # kind, such as "accepted", "refused" or "crash"; and a message
MAX_MESSAGE = 20_000  # characters of an error: ten problems of up to a kilobyte each, and text


class Worker:
    """Runs cases in a process, which is restarted after a crash or a hang.

    Args:
        make: called in the process; returns the function that runs a case.
        timeout: seconds per case.
        memory: bytes of address space that a case may add.
    """

    def __init__(
        self,
        make: Callable[[], Callable[[Any], Result]],
        timeout: float = 20.0,
        memory: int = 3 * 2**30,
    ):
        self.make, self.timeout, self.memory = make, timeout, memory
        self.context = multiprocessing.get_context("spawn")

    def __enter__(self) -> Worker:
        self.pipe, remote = self.context.Pipe()
        arguments = (remote, self.make, self.memory)
        self.process = self.context.Process(target=_run_cases, args=arguments, daemon=True)
        self.process.start()
        remote.close()
        self.pipe.recv()  # the process is ready
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()

    def run(self, case: Any) -> Result:
        """Runs a case and returns its result."""
        self.pipe.send(case)
        try:
            if self.pipe.poll(self.timeout):
                return self.pipe.recv()
            result = ("hang", f"no answer in {self.timeout:.0f} s")
        except EOFError:
            self.process.join()
            result = ("crash", f"the process ended with exit code {self.process.exitcode}")
        self.__exit__()
        self.__enter__()
        return result


def _run_cases(pipe: Connection, make: Callable[[], Callable[[Any], Result]], memory: int) -> None:
    run = make()
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + memory,) * 2)
    pipe.send("ready")
    while True:
        case = pipe.recv()
        try:
            result = run(case)
        except BaseException as error:
            result = ("unclear error", f"{type(error).__name__}: {str(error)[:500]}")
        pipe.send(result)


def refusal(error: Exception) -> Result:
    """Returns the result of a case that raised an error.

    An error is clear if EffCap raises it itself with a printable message of limited length.
    """
    message = str(error)
    origin = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    folders = [ROOT / name for name in ("effcap", "trainers", "tools", "samplers")]
    is_own = any(origin.is_relative_to(folder) for folder in folders)
    is_printable = all(line.isprintable() for line in message.split("\n"))
    if is_own and is_printable and 0 < len(message) < MAX_MESSAGE:
        return "refused", message
    return "unclear error", f"{type(error).__name__}: {message[:500]!r}"
