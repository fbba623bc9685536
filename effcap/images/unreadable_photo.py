"""The error raised for photos that cannot be read."""

from __future__ import annotations


class UnreadablePhoto(ValueError):
    """A photo is missing, damaged, or not a photo.

    Attributes:
        photo: its path, or a description of the input.
        reason: what is wrong with it.
    """

    def __init__(self, photo: str, reason: str) -> None:
        super().__init__(photo, reason)
        self.photo = photo
        self.reason = reason

    def __str__(self) -> str:
        return f"Cannot read {self.photo}: {self.reason}"
