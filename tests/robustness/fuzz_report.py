"""What came of a run of a fuzzer: the type that all of them return."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Report:
    """How many cases ended how.

    Attributes:
        cases: how many were tried.
        successes: how many of them the program took as good input.
        errors: clear errors by their kind, which is the message without its values.
        failures: (seed of the case, what went wrong): a crash, a hang, an unclear error or a wrong
            result. Empty when all is well.
    """

    cases: int = 0
    successes: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)

    def add_success(self) -> None:
        """Counts a case that was taken."""
        self.cases += 1
        self.successes += 1

    def add_error(self, message: str) -> None:
        """Counts a case that was refused with `message`."""
        self.cases += 1
        self.errors[kind_of(message)] += 1

    def add_failure(self, seed: int, what: str) -> None:
        """Counts a case that went wrong."""
        self.cases += 1
        self.failures.append((seed, what))


def kind_of(message: str) -> str:
    """How a message begins, without paths, quoted words, numbers and what was received."""
    line = re.split(r" Received:| \(", " ".join(message.split()))[0]
    line = re.sub(r"(?<!\w)(['\"]).*?\1(?!\w)", "'…'", line)
    line = re.sub(r"\S*/\S+", "…", line)
    return re.sub(r"-?\d[\d.,]*", "#", line)[:80]
