"""Starts Keras without the messages of its backend."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses the stderr of native libraries; prints it if an error is raised."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            buffer.seek(0)
            os.write(stderr, buffer.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


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
