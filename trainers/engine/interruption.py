"""Stopping a run in good order: Ctrl-C, and the signal by which schedulers end a job."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Interruption:
    """Within it, the first SIGINT or SIGTERM only sets `asked`; the second does what it always did.

    Signals reach the main thread alone: elsewhere nothing changes.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.asked = False
        self.before: dict = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                self.before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.__exit__()
