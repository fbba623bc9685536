"""Keras and its backend without their chatter."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Holds back what native libraries print to stderr as they start; shown only on failure."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def start_keras() -> None:
    """Imports Keras and its backend, and lets the backend wake up, all quietly."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of what is meant so
    with quiet():
        import keras

        if keras.backend.backend() == "tensorflow":
            # It updates slices through XLA, whose first use is announced, too.
            woken = keras.ops.slice_update(keras.ops.zeros(2), (0,), keras.ops.ones(1))
            keras.ops.convert_to_numpy(woken)
