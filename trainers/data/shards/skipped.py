"""Counts photos that could not be used in training and lists them in a file."""

from __future__ import annotations

import threading
from pathlib import Path

from effcap.trainers.data.example import TooManyProblems, one_line


class SkippedSamples:
    """Photos that were skipped, each counted once over all epochs.

    Args:
        total: number of photos in the dataset.
        max_fraction: largest fraction of the photos that may be skipped.
        file: file that gets one line per photo. Photos that it already lists are counted, so
            that a resumed run continues counting. None writes no file.
    """

    def __init__(self, total: int, max_fraction: float, file: Path | None = None):
        self.total, self.max_fraction, self.file = total, max_fraction, file
        self._lock = threading.Lock()
        self._names: set[str] = set()
        if file is not None and file.is_file():
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            self._names = {line.split("\t")[0] for line in lines if "\t" in line}

    def __len__(self) -> int:
        """Returns the number of skipped photos."""
        return len(self._names)

    def add(self, name: str, reason: str) -> None:
        """Counts a photo.

        Raises:
            TooManyProblems: more than `max_fraction` of the photos were skipped.
        """
        name = one_line(name)
        with self._lock:
            if name in self._names:
                return
            self._names.add(name)
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with self.file.open("a", encoding="utf-8") as file:
                    file.write(f"{name}\t{one_line(reason)}\n")
            if len(self._names) > max(self.max_fraction * self.total, 1):
                raise TooManyProblems(
                    f"{len(self._names)} of {self.total} photos could not be used in training, "
                    f"more than max_bad ({self.max_fraction:.2%}) allows; the last one is {name}: "
                    f"{reason}. Repair the shards and resume from the last checkpoint"
                )

    def summary(self) -> str:
        """Returns a line with the number of skipped photos; "" if there are none."""
        if not self._names:
            return ""
        hint = f": see {self.file}" if self.file is not None else ""
        return f"{len(self)} of {self.total} photos could not be used and were skipped{hint}"
