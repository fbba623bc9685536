"""Communication between the processes that train one captioner together, through JAX."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import keras
import numpy as np


def process_count() -> int:
    """Returns the number of processes; 1 on backends other than JAX."""
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return jax.process_count()


def process_index() -> int:
    """Returns the index of this process, from 0."""
    if keras.backend.backend() != "jax":
        return 0
    import jax

    return jax.process_index()


def is_main_process() -> bool:
    """Returns whether this is process 0, which writes the run folder and prints messages."""
    return process_index() == 0


def all_gather(numbers: np.ndarray) -> np.ndarray:
    """Gathers numbers (N,) of all P processes: (P, N). All processes must call it."""
    if process_count() == 1:
        return numbers[None]  # (1,N)
    from jax.experimental.multihost_utils import process_allgather

    return np.asarray(process_allgather(numbers)).reshape(process_count(), -1)  # (P,N)


def check_same(**values: Any) -> None:
    """Checks that values are the same in all processes.

    Args:
        **values: values that JSON can hold, by name.

    Raises:
        ValueError: a value differs in another process.
    """
    digests = [
        hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).digest()[:4]
        for value in values.values()
    ]
    gathered = all_gather(np.frombuffer(b"".join(digests), np.uint32))  # (P,N)
    different = [
        f"{name.replace('_', ' ')} of process {index}"
        for index, row in enumerate(gathered)
        for name, is_same in zip(values, row == gathered[0], strict=True)
        if not is_same
    ]
    if different:
        raise ValueError(
            "Expected the same options and data in all processes. Received: other "
            f"{', '.join(different)} than process 0. Start all processes with the same command "
            "except for --process-index, the same files and one shared run folder"
        )


class AnyProcess:
    """All-reduces a boolean across processes, one step late so that no device waits."""

    def __init__(self) -> None:
        self._pending: Any = None

    def update(self, flag: bool) -> bool:
        """Returns whether any process had passed True up to the previous call.

        With a single process, returns `flag`. All processes must call it after the same step.
        """
        if process_count() == 1:
            return flag
        any_flag = self._pending is not None and bool(np.asarray(self._pending))
        self._pending = _any_process(flag)
        return any_flag


def _any_process(flag: bool) -> Any:
    """Starts the reduction of a boolean over all processes and returns its array."""
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    devices = np.array(jax.devices())
    sharded = NamedSharding(Mesh(devices, ("device",)), PartitionSpec("device"))
    replicated = NamedSharding(Mesh(devices, ("device",)), PartitionSpec())
    local_flags = np.full(jax.local_device_count(), flag)
    flags = jax.make_array_from_process_local_data(sharded, local_flags)  # (devices,)
    return jax.jit(jax.numpy.any, out_shardings=replicated)(flags)
