"""The folder of the photos that are uploaded to the page."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path

MAX_AGE = 3600.0  # seconds
MAX_BYTES = 2 * 2**30


@cache
def upload_folder() -> Path:
    """Returns the folder for uploads of all pages of this process, which is removed at its end."""
    folder = tempfile.mkdtemp(prefix="effcap-uploads-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = folder
    return Path(folder)


def delete_old_files(folder: Path, max_age: float = MAX_AGE) -> int:
    """Deletes files that are older than an hour.

    Args:
        folder: folder of uploads.
        max_age: seconds after which a file is deleted.

    Returns:
        The number of bytes of the files that are left.
    """
    oldest, num_bytes = time.time() - max_age, 0
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                status = path.lstat()
                if status.st_ctime < oldest:  # copies have the time of modification of the original
                    path.unlink()
                else:
                    num_bytes += status.st_size
            except FileNotFoundError:  # deleted meanwhile
                continue
    return num_bytes
