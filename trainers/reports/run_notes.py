"""Records captions and times by epoch in report.json, and thumbnails of the captioned photos."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from effcap.images import Photo, UnreadablePhoto
from effcap.trainers.reports.photo_cards import thumbnail_jpeg
from effcap.trainers.reports.run_history import (
    NOTES,
    RUNNING,
    THUMBNAILS,
    check_notes,
    read_thumbnail,
)
from effcap.utils.files import write_bytes_atomically, write_text_atomically


class RunNotes:
    """The contents of report.json while a run goes on.

    Args:
        folder: run folder.
        num_epochs: number of epochs of the run.
        split: "validation" or "training", the data of the captioned photos.
        epoch: number of finished epochs. What an interrupted run recorded after them is removed.
        resume: whether to continue what an interrupted run recorded in the folder.
    """

    def __init__(
        self, folder: Path, num_epochs: int, split: str, epoch: int = 0, *, resume: bool = False
    ) -> None:
        self.folder, self.epoch, self.start = folder, epoch, time.monotonic()
        earlier = _read_notes(folder / NOTES) if resume else {}
        self.earlier_seconds = float(earlier.get("seconds", 0.0))
        worst = earlier.get("worst")
        self.values: dict[str, Any] = {
            "state": RUNNING,
            "started": earlier.get("started", _now()),
            "num_epochs": num_epochs,
            "split": split,
            "photos": [],
            "epochs": [note for note in earlier.get("epochs", []) if note["epoch"] <= epoch],
            "worst": worst if worst and worst["epoch"] <= epoch else None,
        }

    @property
    def seconds(self) -> float:
        """Duration of the run up to now, over all its sessions."""
        return self.earlier_seconds + time.monotonic() - self.start

    def add_epoch(self, captions: Sequence[str], speed: float | None) -> None:
        """Adds an epoch that has just ended.

        Args:
            captions: captions of the photos, in their order.
            speed: images per second in training; None if it is unknown.
        """
        self.epoch += 1
        seconds = round(self.seconds, 3)
        note = {"epoch": self.epoch, "seconds": seconds, "captions": list(captions)}
        if speed is not None:
            note["images_per_second"] = round(speed, 2)
        self.values["epochs"].append(note)

    def photo(self, name: str, photo: Photo | None, **values: Any) -> dict[str, Any]:
        """Returns the entry of a photo, and writes its thumbnail unless there is an intact one.

        Args:
            name: name of the photo in the data.
            photo: the photo; None if there is none.
            **values: more values of the entry, such as its references.
        """
        entry = {"name": name, **values}
        if photo is None:
            return entry
        key = str(photo) if isinstance(photo, Path | str) else name
        file = hashlib.blake2b(key.encode(errors="replace"), digest_size=8).hexdigest() + ".jpg"
        path = self.folder / THUMBNAILS / file
        if read_thumbnail(path) is None:
            try:
                jpeg = thumbnail_jpeg(photo)
            except UnreadablePhoto as error:
                return {**entry, "unreadable": error.reason}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomically(path, jpeg)
        return {**entry, "thumbnail": file}

    def write(self) -> None:
        """Writes report.json, and removes thumbnails that are no longer shown."""
        values = {**self.values, "seconds": round(self.seconds, 3), "written": _now()}
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(values, indent=1, ensure_ascii=True) + "\n"
        write_text_atomically(self.folder / NOTES, text)
        worst = self.values["worst"] or {"photos": []}
        shown = {photo.get("thumbnail") for photo in (*self.values["photos"], *worst["photos"])}
        for path in (self.folder / THUMBNAILS).glob("*.jpg"):
            if path.name not in shown:
                path.unlink(missing_ok=True)


def _read_notes(path: Path) -> Mapping[str, Any]:
    """Returns the contents of report.json; empty if it is missing or damaged."""
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
        check_notes(notes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return notes


def _now() -> str:
    return f"{datetime.now():%Y-%m-%d %H:%M}"
