"""The result of a fuzzer."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Report:
    """Counts of how the cases of a fuzzer ended.

    Attributes:
        cases: number of cases.
        successes: cases that were accepted as valid input.
        errors: number of clear errors by message, without the values in it.
        failures: (case number, description) of crashes, hangs, unclear errors and wrong results.
    """

    cases: int = 0
    successes: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)

    def add_success(self) -> None:
        """Counts an accepted case."""
        self.cases += 1
        self.successes += 1

    def add_error(self, message: str) -> None:
        """Counts a case that was refused with a clear error."""
        self.cases += 1
        self.errors[error_kind(message)] += 1

    def add_failure(self, case: int, description: str) -> None:
        """Counts a case that failed."""
        self.cases += 1
        self.failures.append((case, description))


def error_kind(message: str) -> str:
    """Returns the start of a message without paths, quoted words, numbers and received values."""
    line = re.split(r" Received:| \(", " ".join(message.split()))[0]
    line = re.sub(r"(?<!\w)(['\"]).*?\1(?!\w)", "'…'", line)
    line = re.sub(r"\S*/\S+", "…", line)
    return re.sub(r"-?\d[\d.,]*", "#", line)[:80]
