"""Hides TensorFlow's warning of retracing where functions are compiled on purpose."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_is_intended = ContextVar("is_intended", default=False)


@contextmanager
def intended_retracing() -> Iterator[None]:
    """Hides the warning inside a `with` statement, of this thread only.

    TensorFlow takes the compiled functions of several models for one function that is compiled
    again and again.
    """
    logger = logging.getLogger("tensorflow")
    if _hide not in logger.filters:
        logger.addFilter(_hide)
    token = _is_intended.set(True)
    try:
        yield
    finally:
        _is_intended.reset(token)


def _hide(record: logging.LogRecord) -> bool:
    """Returns whether a message is to be logged."""
    return not (_is_intended.get() and "tf.function retracing" in record.getMessage())
