"""The output of an encoder: vectors that a decoder attends to."""

from __future__ import annotations

from typing import Any, NamedTuple


class Memory(NamedTuple):
    """Vectors that a decoder attends to.

    An encoder returns a tuple of memories: one for an image, one for each level of a region
    encoder, one for each modality of a playlist.

    Attributes:
        values: (B, S, D).
        mask: bool (B, S), false at padding. None where nothing is padding.
    """

    values: Any
    mask: Any = None
