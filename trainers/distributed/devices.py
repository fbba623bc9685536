"""Selects the devices of a run: one, several of this machine, or those of several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from effcap.trainers.options.devices import DeviceOptions
from effcap.utils.progress import print_line

Scope = Callable[[], AbstractContextManager[Any]]


@contextmanager
def computing_on(devices: DeviceOptions, batch_size: int) -> Iterator[Scope]:
    """Distributes training over devices, within a `with` statement.

    Args:
        devices: devices and processes to use.
        batch_size: rows of a batch, over all devices.

    Yields:
        A function that returns a context manager; a captioner made in it computes on the devices.

    Raises:
        ValueError: there are too few devices, they cannot share a batch evenly, or the backend does
            not support them.
    """
    import keras

    backend = keras.backend.backend()
    if devices.num_processes > 1:
        check_backend(backend, ("jax",), f"num_processes={devices.num_processes}")
        join_processes(devices)
    elif devices.count == 1:
        yield nullcontext
        return
    check_backend(backend, ("jax", "tensorflow"), f"devices={devices.count}")
    if backend == "tensorflow":
        strategy = mirrored_strategy(devices.count, batch_size)
        if strategy.num_replicas_in_sync == 1:
            yield nullcontext
            return
        print_line(f"training on {strategy.num_replicas_in_sync} devices")
        yield strategy.scope
        return
    names = jax_devices(devices.count)
    check_batch_size(batch_size, len(names))
    if len(names) == 1:
        yield nullcontext
        return
    if devices.process_index == 0:
        processes = f" of {devices.num_processes} processes" if devices.num_processes > 1 else ""
        print_line(f"training on {len(names)} devices{processes}")
    # Each process makes its own rows of a batch.
    data_parallel = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
    with data_parallel.scope():
        yield nullcontext


def describe_devices(devices: DeviceOptions) -> str:
    """Returns the number and the name of the devices that a run computes on, such as "2 × CPU"."""
    import keras

    names = device_names(keras.backend.backend())
    count = len(names) if devices.count == "all" else int(devices.count)
    count *= devices.num_processes
    return names[0] if count == 1 else f"{count} × {names[0]}"


def device_names(backend: str) -> list[str]:
    """Returns the names of the GPUs, or other devices, that a backend computes on."""
    if backend == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        names = [detail.get("device_name", "GPU") for detail in details]
        return names or ["CPU"] * len(tf.config.list_logical_devices("CPU"))
    if backend == "jax":
        import jax

        kinds = [device.device_kind for device in jax.local_devices()]
        return [kind.upper() if kind == "cpu" else kind for kind in kinds]
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return names or ["CPU"]


def check_backend(backend: str, supported: Sequence[str], setting: str) -> None:
    """Checks that the Keras backend supports a setting.

    Raises:
        ValueError: it does not.
    """
    if backend not in supported:
        names = " or ".join(f"KERAS_BACKEND={name}" for name in supported)
        raise ValueError(f"{setting} requires {names}. Received: the backend {backend}")


def check_batch_size(batch_size: int, num_devices: int) -> None:
    """Checks that devices can share a batch evenly.

    Raises:
        ValueError: they cannot.
    """
    if batch_size % num_devices:
        raise ValueError(
            f"Expected a batch_size that {num_devices} devices can share evenly. "
            f"Received: batch_size={batch_size}"
        )


def check_count(count: int, available: int, kind: str) -> None:
    """Checks that a process has as many devices as requested.

    Raises:
        ValueError: it has fewer.
    """
    if count > available:
        raise ValueError(
            f"Expected devices up to {available}, the number of {kind.upper()} devices of a "
            f"process. Received: devices={count}"
        )


def join_processes(devices: DeviceOptions) -> None:
    """Connects this process to the others, unless it is connected already.

    Raises:
        ValueError: this process was connected with another index or number of processes.
    """
    import jax
    import keras

    if not jax.distributed.is_initialized():
        keras.distribution.initialize(
            devices.coordinator, devices.num_processes, devices.process_index
        )
    connected = (jax.process_count(), jax.process_index())
    if connected != (devices.num_processes, devices.process_index):
        raise ValueError(
            f"This process is already process {connected[1]} of {connected[0]}. Received: "
            f"process_index={devices.process_index}, num_processes={devices.num_processes}"
        )


def jax_devices(count: int | str) -> list[str]:
    """Returns the Keras names of `count` devices (or "all") of each process, grouped by process.

    Raises:
        ValueError: a process has fewer devices, or "all" are requested and their numbers differ.
    """
    import jax

    names_by_process: dict[int, list[str]] = {i: [] for i in range(jax.process_count())}
    for device in jax.devices():
        names_by_process[device.process_index].append(f"{device.platform}:{device.id}")
    counts = [len(names) for names in names_by_process.values()]
    if count == "all" and min(counts) < max(counts):
        raise ValueError(
            "devices='all' requires the same number of devices in each process. Received: from "
            f"{min(counts)} to {max(counts)}; use devices={min(counts)}"
        )
    num_devices = min(counts) if count == "all" else int(count)
    check_count(num_devices, min(counts), jax.default_backend())
    return [name for names in names_by_process.values() for name in names[:num_devices]]


def mirrored_strategy(count: int | str, batch_size: int) -> Any:
    """Returns TensorFlow's `MirroredStrategy` over `count` GPUs (or "all"), or CPUs without GPUs.

    Raises:
        ValueError: there are too few devices, or they cannot share a batch evenly.
    """
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    num_devices = len(devices) if count == "all" else int(count)
    check_count(num_devices, len(devices), devices[0].device_type)
    check_batch_size(batch_size, num_devices)
    return tf.distribute.MirroredStrategy([device.name for device in devices[:num_devices]])
