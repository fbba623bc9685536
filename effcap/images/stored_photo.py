"""A photo that is stored in a data file with others, such as a row of a table."""

from __future__ import annotations

from abc import ABC, abstractmethod


class StoredPhoto(ABC):
    """A photo in a data file, which is read when it is needed.

    `load_photo` takes it like a file.

    Attributes:
        name: file and position of the photo, for messages.
        size: size of the photo in bytes.
        time_ns: time of modification of the data file, in nanoseconds.
    """

    __slots__ = ()

    name: str
    size: int
    time_ns: int

    @abstractmethod
    def read(self) -> bytes:
        """Returns the bytes of the photo's image file."""

    def __str__(self) -> str:
        return self.name
