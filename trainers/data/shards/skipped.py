"""Photos that could not be had while training: passed over, counted, named in a file."""

from __future__ import annotations

import threading
from pathlib import Path

from effcap.trainers.data.example import TooManyProblems, one_line


class Losses:
    """Counts photos that were lost, each once, however often an epoch comes to it.

    Args:
        total: photos there are.
        allowed: share of them that may be lost.
        file: a line for each goes there; what it holds already counts, so that a run that was
            stopped goes on counting. None for no file.
    """

    def __init__(self, total: int, allowed: float, file: Path | None = None):
        self.total, self.allowed, self.file = total, allowed, file
        self._lock = threading.Lock()
        self._lost: set[str] = set()
        if file is not None and file.is_file():
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            self._lost = {line.split("\t")[0] for line in lines if "\t" in line}

    def __len__(self) -> int:
        return len(self._lost)

    def add(self, photo: str, reason: str) -> None:
        """Counts a photo; TooManyProblems when it is one too many."""
        photo = one_line(photo)
        with self._lock:
            if photo in self._lost:
                return
            self._lost.add(photo)
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with self.file.open("a", encoding="utf-8") as file:
                    file.write(f"{photo}\t{one_line(reason)}\n")
            if len(self._lost) > max(self.allowed * self.total, 1):
                raise TooManyProblems(
                    f"Expected at most {self.allowed:.2%} of {self.total} photos to be lost while "
                    f"training (max_bad). Received: {len(self._lost)}, the last of them {photo}: "
                    f"{reason}. The last checkpoint is in place: mend the shards and resume"
                )

    def __str__(self) -> str:
        if not self._lost:
            return ""
        where = f": see {self.file}" if self.file is not None else ""
        return f"{len(self)} of {self.total} photos could not be used and were passed over{where}"
