"""Processes that take turns on one machine, for scripts of this folder.

A worker answers each request, a line of JSON, with a line of JSON. Only one of them works at a
time, and they alternate within a round, so that all of them see the same disturbances.
"""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ANSWER = "answer "  # begins the lines that are answers; libraries print others
Answer = Callable[[dict[str, Any]], dict[str, Any]]


class WorkerError(RuntimeError):
    """A worker could not start or could not answer."""


class Worker:
    """A process that answers requests.

    Args:
        command: command line of the process, which calls `serve`.
    """

    def __init__(self, command: Sequence[str | Path]) -> None:
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._read()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the answer to a request.

        Raises:
            WorkerError: the process reports an error or has ended.
        """
        assert self._process.stdin is not None
        try:
            print(json.dumps(dict(request)), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise WorkerError("the process has ended; see its messages above") from None
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(ANSWER):
                answer = json.loads(line[len(ANSWER) :])
                if "error" in answer:
                    raise WorkerError(answer["error"])
                return answer
        raise WorkerError("the process has ended; see its messages above")

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


def serve(create: Callable[[], tuple[Answer, dict[str, Any]]]) -> None:
    """Answers the requests on the standard input; the body of a worker's process.

    Args:
        create: returns the function that answers a request, and what `Worker.about` shows.
    """

    def send(answer: Mapping[str, Any]) -> None:
        print(ANSWER + json.dumps(answer), flush=True)

    try:
        answer, about = create()
        send(about)
        for line in sys.stdin:
            send(answer(json.loads(line)))
    except Exception as error:
        if not isinstance(error, ImportError | NotImplementedError):
            traceback.print_exc()
        send({"error": f"{type(error).__name__}: {error}"})


def take_turns(
    workers: Mapping[str, Worker], request: Mapping[str, Any], rounds: int
) -> dict[str, list[dict[str, Any]]]:
    """Returns the answers of each worker to a request: a first one, then one per round."""
    answers = {name: [worker.ask(request)] for name, worker in workers.items()}
    for _ in range(rounds):
        for name, worker in workers.items():
            answers[name].append(worker.ask(request))
    return answers
