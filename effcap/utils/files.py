"""Atomic file writes, and a check of free disk space before a large file is written."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path


def write_text_atomically(path: Path, text: str) -> None:
    """Writes a UTF-8 text file; an existing file is replaced only once the new one is on disk."""
    new = path.with_name(f".new-{path.name}")
    new.write_text(text, encoding="utf-8")
    replace_file(new, path)


def replace_file(new: Path, path: Path) -> None:
    """Moves the file `new` to `path`, after flushing its contents to disk."""
    with new.open("rb+") as file:
        os.fsync(file.fileno())
    new.replace(path)


def check_disk_space(path: Path, num_bytes: int) -> None:
    """Checks that a file of `num_bytes` can be written at `path`; nothing is left there.

    HDF5 ends the whole process when a disk runs full while it writes, so this comes first.

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
        raise OSError(_space_message(path, num_bytes, error)) from error
    finally:
        path.unlink(missing_ok=True)


def _space_message(path: Path, num_bytes: int, error: OSError) -> str:
    if error.errno != errno.ENOSPC:
        return f"Cannot write {path}: {error.strerror or error}"
    free = shutil.disk_usage(path.parent).free
    return (
        f"Not enough disk space in {path.parent}: {num_bytes / 1e6:.0f} MB needed, "
        f"{free / 1e6:.0f} MB free"
    )
