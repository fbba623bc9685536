"""A run in a process of its own, for the tests of several devices: `worker.py ARGUMENTS`, as JSON.

Writes into the file "losses" a line per step: the mean loss since the epoch began.
"""

from __future__ import annotations

import json
import os
import sys


def main(
    folder: str,
    data: str,
    out: str,
    losses: str,
    settings: list[str],
    devices: dict | None = None,
    joint: int = 1,
    logical: int = 0,
    stop: int | None = None,
    samples: int = 0,
    **options,
) -> None:
    """Trains.

    Args:
        folder: as `make_data` makes it, with a tiny.json and shards/.
        data: "csv" or "shards".
        out, settings, options: of `RunOptions`.
        losses: file for the losses.
        devices: of `Devices`.
        joint: makes batches as so many processes would, one part after the other.
        logical: makes so many TensorFlow devices of the CPU.
        samples: photos whose captions TensorBoard shows.
        stop: sends itself a SIGTERM after so many steps.
    """
    from effcap.trainers import RunOptions, read_csv, read_shards
    from effcap.trainers.distributed.devices import Devices
    from effcap.trainers.engine import callbacks
    from effcap.trainers.engine import run as runner

    if logical:
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * logical
        )
    if joint > 1:
        from effcap.trainers.data.shards.dataset import Shards

        batches = Shards.batches
        Shards.batches = lambda *given, **more: batches(*given, **more, parts=joint)
    runner.SAMPLES = samples
    count = callbacks.Steps.on_train_batch_end

    def noted(self, batch, logs=None):
        with open(losses, "a") as file:
            file.write(f"{self.position.steps + 1} {float(logs['loss'])!r}\n")
        if stop is not None and self.position.steps + 1 == stop:
            os.kill(os.getpid(), 15)
        count(self, batch, logs)

    callbacks.Steps.on_train_batch_end = noted
    if data == "csv":
        sources = [
            read_csv(f"{folder}/{name}.csv", f"{folder}/photos") for name in ("train", "dev")
        ]
    else:
        sources = [read_shards(f"{folder}/{name}", decoder="pillow") for name in ("train", "dev")]
    history = runner.run(
        *sources,
        RunOptions(
            model=f"{folder}/tiny.json",
            out=out,
            vocabulary_size=300,
            settings=settings,
            devices=Devices(**devices or {}),
            **options,
        ),
    )
    with open(f"{losses}.history", "w") as file:
        json.dump(history, file)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
