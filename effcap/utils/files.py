"""Atomic file writes and checks of free disk space."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path


def write_text_atomically(path: Path, text: str) -> None:
    """Writes a UTF-8 text file; an existing file is replaced only once the new one is on disk."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Writes a file; see `replace_contents`."""
    replace_contents(path, [content])


def replace_contents(path: Path, pieces: Iterable[bytes]) -> None:
    """Writes a file; an existing one is replaced only once the new one is on disk.

    An existing file keeps its mode, extended attributes and, where permitted, its owner. A symbolic
    link stays, and the file that it points to is replaced. Other hard links keep the old contents.

    Raises:
        OSError: the file cannot be written; the existing one is unchanged.
    """
    path = Path(os.path.realpath(path))
    new = path.with_name(f".new-{uuid.uuid4().hex}")  # unique to this process
    try:
        with new.open("xb") as file:
            file.writelines(pieces)
        if path.exists():
            owner = path.stat()
            with contextlib.suppress(PermissionError):  # only root gives files away
                os.chown(new, owner.st_uid, owner.st_gid)
            shutil.copystat(path, new)
            os.utime(new)  # backups look at the time of modification
        replace_file(new, path)
    finally:
        new.unlink(missing_ok=True)


def replace_file(new: Path, path: Path) -> None:
    """Moves the file `new` to `path`, after flushing its contents to disk."""
    with new.open("rb+") as file:
        os.fsync(file.fileno())
    new.replace(path)


def check_disk_space(path: Path, num_bytes: int) -> None:
    """Checks that a file of `num_bytes` can be written at `path`, by allocating and removing it.

    Call it before writing HDF5, which ends the whole process when the disk is full.

    Raises:
        OSError: there is too little space, with the numbers.
    """
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            elif shutil.disk_usage(path.parent).free < num_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise OSError(f"Cannot write {path}: {error.strerror or error}") from error
        raise OSError(_space_message(path.parent, num_bytes)) from error
    finally:
        path.unlink(missing_ok=True)


def check_free_space(folder: Path, num_bytes: int, hint: str = "") -> None:
    """Checks that `num_bytes` are free on the disk of a folder, without writing.

    Args:
        folder: an existing folder.
        num_bytes: number of bytes needed.
        hint: text to append to the error.

    Raises:
        OSError: there is too little space.
    """
    if num_bytes > shutil.disk_usage(folder).free:
        raise OSError(_space_message(folder, num_bytes) + hint)


def _space_message(folder: Path, num_bytes: int) -> str:
    free = shutil.disk_usage(folder).free
    return (
        f"Not enough disk space in {folder}: {num_bytes / 1e6:.0f} MB needed, "
        f"{free / 1e6:.0f} MB free"
    )
