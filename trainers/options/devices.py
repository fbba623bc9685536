"""Options of the devices and processes that train one captioner together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Options of devices and processes; by default, the backend's first device is used.

    Attributes:
        count: devices of each process, a number or "all". Each computes its part of every batch.
        num_processes: number of processes that train together, one per machine. Requires
            KERAS_BACKEND=jax.
        process_index: index of this process, from 0. Process 0 writes the run folder.
        coordinator: address of process 0, HOST:PORT, which the others connect to.

    Raises:
        ValueError: a value is out of range, or there are several processes and no coordinator.
    """

    count: int | Literal["all"] = 1
    num_processes: int = 1
    process_index: int = 0
    coordinator: str | None = None

    def __post_init__(self) -> None:
        if self.count != "all" and (not isinstance(self.count, int) or self.count < 1):
            raise ValueError(
                f"Expected devices of at least 1, or 'all'. Received: devices={self.count!r}"
            )
        if self.num_processes < 1:
            raise ValueError(
                f"Expected num_processes of at least 1. Received: {self.num_processes}"
            )
        if not 0 <= self.process_index < self.num_processes:
            raise ValueError(
                f"Expected process_index from 0 to {self.num_processes - 1}. "
                f"Received: process_index={self.process_index}"
            )
        name, _, port = (self.coordinator or "").rpartition(":")
        if self.num_processes > 1 and not (name and port.isdigit()):
            raise ValueError(
                "Expected coordinator=HOST:PORT, the address of process 0 and a free port there. "
                f"Received: coordinator={self.coordinator!r}"
            )
        if self.num_processes == 1 and self.coordinator is not None:
            raise ValueError(
                "coordinator requires num_processes of at least 2. "
                f"Received: num_processes=1, coordinator={self.coordinator!r}"
            )
