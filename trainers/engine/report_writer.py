"""Writes the report of a run while it trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from effcap.trainers.reports.run_history import FINISHED, STOPPED
from effcap.trainers.reports.run_notes import RunNotes
from effcap.trainers.reports.run_report import REPORT, write_run_report
from effcap.utils.progress import print_line

if TYPE_CHECKING:
    from effcap.images import Photo
    from effcap.trainers.batching.packed import Preview
    from effcap.trainers.engine.validation import Validation

SECONDS = 60.0  # between two reports within an epoch


class ReportWriter:
    """Writes report.html and report.json; a `LogWriter`.

    The report is written at the start, after each epoch, about once per minute within an epoch, and
    at the end, also of an interrupted run. An error in it is printed and does not end the run.

    Args:
        notes: captions and times of the run, which the writer extends.
        previews: examples whose captions are written, in their order.
    """

    def __init__(self, notes: RunNotes, previews: Sequence[Preview]) -> None:
        self.notes = notes
        notes.values["photos"] = [
            self._preview(preview, number) for number, preview in enumerate(previews, 1)
        ]
        self._captions: list[str] = []
        self._speeds: list[float] = []
        self._write()

    def write_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Keeps the speed of an epoch, and writes the report if the last one is a minute old."""
        if "step/images_per_second" in scalars:
            self._speeds.append(scalars["step/images_per_second"])
        if time.monotonic() - self._written >= SECONDS:
            self._write()

    def write_caption(self, name: str, caption: str, photo: Image.Image | None, step: int) -> None:
        """Keeps a caption for the epoch that ends."""
        self._captions.append(caption)

    def write_validation(self, validation: Validation, epoch: int, is_best: bool) -> None:
        """Keeps the worst captions of the best epoch.

        Args:
            validation: result of the validation.
            epoch: number of the epoch, from 1.
            is_best: whether it is the best epoch so far.
        """
        if is_best and validation.worst:
            self.notes.values["worst"] = {
                "epoch": epoch,
                "num_photos": validation.num_photos,
                "photos": [
                    self._photo(
                        one.source.name,
                        one.source.photo,
                        caption=one.text,
                        cider=round(one.cider, 4),
                        references=one.references,
                    )
                    for one in validation.worst
                ],
            }

    def flush(self) -> None:
        """Adds the epoch that ends, and writes the report."""
        speed = sum(self._speeds) / len(self._speeds) if self._speeds else None
        self.notes.add_epoch(self._captions, speed)
        self._captions, self._speeds = [], []
        self._write()

    def close(self, failed: bool) -> None:
        """Writes the report of the finished or stopped run."""
        self.notes.values["state"] = STOPPED if failed else FINISHED
        self._write()

    def _preview(self, preview: Preview, number: int) -> dict[str, Any]:
        return self._photo(
            preview.name or f"photo {number}",
            lambda: preview.photo,
            references=list(preview.references),
            **({"prefix": preview.prefix} if preview.prefix else {}),
        )

    def _photo(self, name: str, photo: Callable[[], Photo | None], **values: Any) -> dict[str, Any]:
        """Returns the entry of a photo, without a thumbnail if it cannot be written."""
        try:
            return self.notes.photo(name, photo(), **values)
        except Exception as error:  # such as a full disk, which training may outlast
            reason = f"its thumbnail was not written: {one_line(error)}"
            print_line(f"{name}: {reason}")
            return {"name": name, **values, "unreadable": reason}

    def _write(self) -> None:
        self._written = time.monotonic()
        try:
            self.notes.write()
            write_run_report(self.notes.folder)
        except Exception as error:
            print_line(f"{REPORT} was not written: {one_line(error)}")


def one_line(error: Exception) -> str:
    """Returns the message of an error in one line, or its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
