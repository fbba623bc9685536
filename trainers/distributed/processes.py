"""The processes that train one captioner together, one per host, through JAX."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import keras
import numpy as np


def hosts() -> int:
    """How many there are; 1 on backends other than JAX."""
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return jax.process_count()


def host() -> int:
    """Which of them this is, from 0."""
    if keras.backend.backend() != "jax":
        return 0
    import jax

    return jax.process_index()


def leads() -> bool:
    """Whether this is the one that writes the run folder and talks to people."""
    return host() == 0


def gather(numbers: np.ndarray) -> np.ndarray:
    """Numbers (N,) of all hosts: (hosts, N). All of them must call it, and wait for each other."""
    if hosts() == 1:
        return numbers[None]  # (1,N)
    from jax.experimental.multihost_utils import process_allgather

    return np.asarray(process_allgather(numbers)).reshape(hosts(), -1)  # (hosts,N)


def check_same(**values: Any) -> None:
    """Raises a ValueError where another host has another value: the run would be none.

    Args:
        values: by name, as JSON holds them.
    """
    digests = [
        hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).digest()[:4]
        for value in values.values()
    ]
    found = gather(np.frombuffer(b"".join(digests), np.uint32))  # (hosts,N)
    differ = [
        f"{name.replace('_', ' ')} on host {number}"
        for number, row in enumerate(found)
        for name, same in zip(values, row == found[0], strict=True)
        if not same
    ]
    if differ:
        raise ValueError(
            f"Expected the same on all hosts as on host 0. Received: other {', '.join(differ)}. "
            "Start them with the same command, but for --host, on the same files and with one run "
            "folder that all of them see"
        )


class Agreement:
    """What any host says, all of them hear after the same step: the one after it was said.

    An answer is waited for only once the next step is under way, so that no device is idle.
    """

    def __init__(self) -> None:
        self.answers: Any = None

    def hear(self, said: bool) -> bool:
        """Says it, and tells whether it was said by any host by the step before."""
        if hosts() == 1:
            return said
        heard = self.answers is not None and bool(np.asarray(self.answers))
        self.answers = _any_host(said)
        return heard


def _any_host(said: bool) -> Any:
    """Whether any host says so, as an array that is being computed."""
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    devices = np.array(jax.devices())
    split = NamedSharding(Mesh(devices, ("device",)), PartitionSpec("device"))
    whole = NamedSharding(Mesh(devices, ("device",)), PartitionSpec())
    own = np.full(jax.local_device_count(), said)
    of_all = jax.make_array_from_process_local_data(split, own)  # (devices,)
    return jax.jit(jax.numpy.any, out_shardings=whole)(of_all)
