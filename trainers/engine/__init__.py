"""The training run: loop, optimizer, checkpoints, logs, validation. May use all of `trainers`."""
