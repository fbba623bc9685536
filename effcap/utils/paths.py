"""Where hparams/ and res/ lie: inside the installed package, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

import effcap


def resource_folder(name: str) -> Path:
    """The folder `name` ("hparams" or "res") of this installation."""
    return next(Path(place) / name for place in effcap.__path__ if (Path(place) / name).is_dir())
