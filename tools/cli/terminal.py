"""Starts Keras without the messages of its backend."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from effcap.utils.quiet import quiet

# Keras imports these if they are installed, which takes up to a third of its start, for wrappers
# and plots that no command uses.
UNUSED_BY_COMMANDS = ("matplotlib", "sklearn")


@contextmanager
def without_packages(names: Iterable[str]) -> Iterator[None]:
    """Makes packages that are not imported yet look as if they were not installed."""
    hidden = [name for name in names if name not in sys.modules]
    try:
        for name in hidden:
            sys.modules[name] = None  # type: ignore[assignment]  # importing it raises ImportError
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def start_keras() -> None:
    """Imports Keras and initializes its backend without their messages."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # hides warnings on intended retracing
    with quiet(), without_packages(UNUSED_BY_COMMANDS):
        import keras

        if keras.backend.backend() == "tensorflow":
            # TensorFlow compiles slice updates by XLA, which prints a message at the first use.
            updated = keras.ops.slice_update(keras.ops.zeros(2), (0,), keras.ops.ones(1))
            keras.ops.convert_to_numpy(updated)
