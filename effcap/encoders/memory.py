"""What an encoder saw, as the decoder looks at it."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops


class Memory(NamedTuple):
    """One thing to look at. An encoder gives a tuple of them: an image is one, each level of a
    region encoder and each modality of a playlist is one.

    Attributes:
        values: (B, S, D).
        visible: (B, S) bool, false where there is nothing but padding; None where all is visible.
    """

    values: Any
    visible: Any = None


def real_rows(features):
    """(B, S) bool: which rows of features (B, S, C) are no padding, that is, not all zero."""
    return ops.any(ops.not_equal(features, 0), axis=-1)  # (B,S)
