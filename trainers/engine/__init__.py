"""Training runs: the loop, its callbacks, optimizer, checkpoints and run folder."""
