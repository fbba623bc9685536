"""Paths of hparams/ and res/, which are inside the installed package or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def resource_folder(name: str) -> Path:
    """Returns the folder `name` ("hparams" or "res") of this installation.

    Raises:
        FileNotFoundError: the installation has no such folder.
    """
    for root in (PACKAGE, PACKAGE.parent):
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(f"There is no folder {name} in {PACKAGE} or beside it")
