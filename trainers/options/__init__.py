"""Dataclasses with every option of a training run, checked without importing Keras."""
