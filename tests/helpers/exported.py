"""Runs the runners of exported captioners as a user does: in a Python without Keras and EffCap."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

# Fails if a runner imports what it must not need.
CODE = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("effcap", "h5py"):
            raise ImportError(f"{name} must not be needed")
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, "")
sys.argv = ["run.py", *sys.argv[1:]]
runpy.run_path("run.py", run_name="__main__")
assert "keras" not in sys.modules or "tensorflow" in sys.modules, "Keras must not be needed"
"""


def run_exported(folder: Path, *words: str | Path) -> list[str]:
    """Returns the captions that `python run.py WORDS` prints in an exported folder.

    Raises:
        AssertionError: it fails.
    """
    command = [sys.executable, "-c", CODE, *map(str, words)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("PYTHONPATH", None)
    result = subprocess.run(command, cwd=folder, capture_output=True, env=environment)
    assert result.returncode == 0, result.stderr.decode()[-2000:]
    names = "|".join(re.escape(str(word)) for word in words)
    captions = re.split(f"^(?:{names})\t", result.stdout.decode(), flags=re.MULTILINE)[1:]
    return [caption.removesuffix("\n") for caption in captions]  # which may have lines


def input_files(inputs: dict[str, np.ndarray], folder: Path) -> list[Path]:
    """Writes each row of the inputs of an encoder as a file for `run.py`, photos as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = len(next(iter(inputs.values())))
    paths = []
    for row in range(rows):
        if "images" in inputs:
            paths.append(folder / f"{row}.png")
            Image.fromarray(inputs["images"][row]).save(paths[-1])
        else:
            paths.append(folder / f"{row}.npz")
            np.savez(paths[-1], **{name: array[row : row + 1] for name, array in inputs.items()})
    return paths
