"""What a run computes on: one device, several of one host, or those of several hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from effcap.utils.progress import say

Scope = Callable[[], AbstractContextManager]


@dataclass(frozen=True, kw_only=True)
class Devices:
    """What to compute on; by default one device, the backend's first.

    Attributes:
        count: devices of each host, or "all". Each computes its share of every batch.
        hosts: hosts that train together, each running the same command with another `host`.
        host: which of them this is, from 0, which writes the run folder.
        coordinator: "HOST:PORT" of host 0, where the others find it.

    Raises:
        ValueError: for values out of range, or several hosts without a coordinator.
    """

    count: int | Literal["all"] = 1
    hosts: int = 1
    host: int = 0
    coordinator: str | None = None

    def __post_init__(self):
        if self.count != "all" and (not isinstance(self.count, int) or self.count < 1):
            raise ValueError(
                f"Expected devices of at least 1, or 'all'. Received: devices={self.count!r}"
            )
        if self.hosts < 1:
            raise ValueError(f"Expected hosts of at least 1. Received: hosts={self.hosts}")
        if not 0 <= self.host < self.hosts:
            raise ValueError(
                f"Expected host from 0 to {self.hosts - 1}. Received: host={self.host}"
            )
        name, _, port = (self.coordinator or "").rpartition(":")
        if self.hosts > 1 and not (name and port.isdigit()):
            raise ValueError(
                "Expected coordinator=HOST:PORT, the address of host 0 and a free port there. "
                f"Received: coordinator={self.coordinator!r}"
            )
        if self.hosts == 1 and self.coordinator is not None:
            raise ValueError(
                "Expected hosts=2 or more with a coordinator. "
                f"Received: hosts=1, coordinator={self.coordinator!r}"
            )


@contextmanager
def computing_on(devices: Devices, batch_size: int) -> Iterator[Scope]:
    """Within it, a captioner made in the scope that it gives computes on these devices.

    Args:
        devices: which.
        batch_size: rows of a batch, which they are to share evenly.

    Raises:
        ValueError: for devices that there are none of, or the backend cannot use together.
    """
    import keras

    backend = keras.backend.backend()
    if devices.hosts > 1:
        check_backend(backend, ("jax",), f"hosts={devices.hosts}")
        join(devices)
    elif devices.count == 1:
        yield nullcontext
        return
    check_backend(backend, ("jax", "tensorflow"), f"devices={devices.count}")
    if backend == "tensorflow":
        strategy = mirrored_strategy(devices.count, batch_size)
        if strategy.num_replicas_in_sync == 1:
            yield nullcontext
            return
        say(f"computing on {strategy.num_replicas_in_sync} devices")
        yield strategy.scope
        return
    found = jax_devices(devices.count)
    check_batch_size(batch_size, len(found))
    if len(found) == 1:
        yield nullcontext
        return
    if devices.host == 0:
        of_hosts = f" of {devices.hosts} hosts" if devices.hosts > 1 else ""
        say(f"computing on {len(found)} devices{of_hosts}")
    # Batches come in parts already: each host makes its own.
    data_parallel = keras.distribution.DataParallel(devices=found, auto_shard_dataset=False)
    with data_parallel.scope():
        yield nullcontext


def check_backend(backend: str, able: tuple[str, ...], received: str) -> None:
    """Raises a ValueError for a backend that cannot."""
    if backend not in able:
        raise ValueError(
            f"Expected {' or '.join(f'KERAS_BACKEND={name}' for name in able)} for {received}. "
            f"Received: the backend {backend}; set that environment variable"
        )


def check_batch_size(batch_size: int, devices: int) -> None:
    """Raises a ValueError for batches that the devices cannot share evenly."""
    if batch_size % devices:
        raise ValueError(
            f"Expected a batch_size that {devices} devices can share evenly. "
            f"Received: batch_size={batch_size}"
        )


def check_count(wanted: int, there: int, kind: str) -> None:
    """Raises a ValueError for more devices than there are on a host."""
    if wanted > there:
        raise ValueError(
            f"Expected devices up to {there}, as many {kind.upper()} devices as there are on a "
            f"host. Received: devices={wanted}"
        )


def join(devices: Devices) -> None:
    """Makes this process one of several; once is enough, and it stays one."""
    import jax
    import keras

    if not jax.distributed.is_initialized():
        keras.distribution.initialize(devices.coordinator, devices.hosts, devices.host)
    if (jax.process_count(), jax.process_index()) != (devices.hosts, devices.host):
        raise ValueError(
            f"Expected host {jax.process_index()} of {jax.process_count()}, as which this process "
            f"began. Received: host={devices.host}, hosts={devices.hosts}"
        )


def jax_devices(count: int | str) -> list[str]:
    """So many devices of each host, those of a host one after the other, as Keras names them."""
    import jax

    by_host: dict[int, list[str]] = {number: [] for number in range(jax.process_count())}
    for device in jax.devices():
        by_host[device.process_index].append(f"{device.platform}:{device.id}")
    fewest, most = min(map(len, by_host.values())), max(map(len, by_host.values()))
    if count == "all" and fewest < most:
        raise ValueError(
            f"Expected as many devices on each host. Received: from {fewest} to {most}; "
            f"use devices={fewest}"
        )
    wanted = fewest if count == "all" else count
    check_count(wanted, fewest, jax.default_backend())
    return [name for names in by_host.values() for name in names[:wanted]]


def mirrored_strategy(count: int | str, batch_size: int) -> Any:
    """TensorFlow's `MirroredStrategy` over so many GPUs of this host; CPUs where there are none."""
    import tensorflow as tf

    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    names = [device.name for device in found]
    wanted = len(names) if count == "all" else count
    check_count(wanted, len(names), found[0].device_type)
    check_batch_size(batch_size, wanted)
    return tf.distribute.MirroredStrategy(names[:wanted])
