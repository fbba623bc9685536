"""Starts Keras without the messages of its backend."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
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


def start_keras() -> None:
    """Imports Keras and initializes its backend without their messages."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # hides warnings on intended retracing
    with quiet():
        import keras

        if keras.backend.backend() == "tensorflow":
            # TensorFlow compiles slice updates by XLA, which prints a message at the first use.
            updated = keras.ops.slice_update(keras.ops.zeros(2), (0,), keras.ops.ones(1))
            keras.ops.convert_to_numpy(updated)
