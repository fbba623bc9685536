"""A training run in a process of its own: `devices_worker.py ARGUMENTS`, as JSON.

Writes a line per step into the file "losses": the step and the mean loss of the epoch so far.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import checkout  # noqa: F401

SPLITS = ("train", "dev")


def main(
    data: str, losses: str, options: dict[str, Any], devices: dict[str, Any], **test: Any
) -> None:
    """Trains on CSV files or shards and writes the losses.

    Args:
        data: folder with "train" and "dev" shards, or with train.csv, dev.csv and photos/.
        losses: file for the losses; the history goes to the same name with ".history".
        options: other fields of `RunOptions`.
        devices: fields of `DeviceOptions`.
        **test: shards, joint, logical_devices, stop_step and num_previews, see below.
    """
    from effcap.adapters.lora_config import LoraConfig
    from effcap.trainers import DeviceOptions, RunOptions, read_csv, read_shards
    from effcap.trainers.engine import run as run_module

    if test.get("logical_devices"):
        make_logical_devices(test["logical_devices"])
    if test.get("joint"):
        join_processes(test["joint"])
    run_module.NUM_PREVIEWS = test.get("num_previews", 0)
    record_losses(losses, test.get("stop_step"))
    if test.get("shards"):
        datasets = [read_shards(f"{data}/{name}", image_decoder="pillow") for name in SPLITS]
    else:
        datasets = [read_csv(f"{data}/{name}.csv", f"{data}/photos") for name in SPLITS]
    options = {"model": f"{data}/tiny.json", **options}
    if "lora" in options:
        options["lora"] = LoraConfig(**options["lora"])
    run_options = RunOptions(devices=DeviceOptions(**devices), **options)
    history = run_module.run(*datasets, run_options)
    with open(f"{losses}.history", "w") as file:
        json.dump(history, file)


def make_logical_devices(count: int) -> None:
    """Splits the CPU into TensorFlow devices."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    devices = [tf.config.LogicalDeviceConfiguration()] * count
    tf.config.set_logical_device_configuration(cpu, devices)


def join_processes(count: int) -> None:
    """Makes the batches of shards that `count` processes would make, in this process."""
    from effcap.trainers import ShardDataset

    make_batches = ShardDataset.batches
    ShardDataset.batches = lambda *arguments, **options: make_batches(
        *arguments, **{**options, "num_processes": count}
    )


def record_losses(losses: str, stop_step: int | None) -> None:
    """Records the loss of each step, and sends a SIGTERM to this process in one of them."""
    from effcap.trainers.engine.callbacks import CheckpointSteps

    count_step = CheckpointSteps.on_train_batch_end

    def record_step(self: CheckpointSteps, batch: int, logs: Any = None) -> None:
        step = self.state.step + 1
        with open(losses, "a") as file:
            file.write(f"{step} {float(logs['loss'])!r}\n")
        if step == stop_step:
            os.kill(os.getpid(), 15)
        count_step(self, batch, logs)

    CheckpointSteps.on_train_batch_end = record_step


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
