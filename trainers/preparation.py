"""Photos with captions, as they were read, into batches of those that can be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.trainers.batches import CaptionBatches
from effcap.trainers.captions import CaptionedPhoto, Problem, check_share
from effcap.trainers.photo_files import PhotoFiles, check_photos

if TYPE_CHECKING:
    from effcap.captioner import Captioner


def prepare(
    name: str,
    data: tuple[list[CaptionedPhoto], list[Problem]],
    captioner: Captioner,
    *,
    max_bad: float = 0.01,
    log: Path | None = None,
    title: str | None = None,
    mirror: bool = False,
    **options: Any,
) -> tuple[CaptionBatches, str]:
    """Leaves out what cannot be used, of whatever kind, and counts it.

    Args:
        name: of the data, such as "training".
        data: photos with captions and what was wrong with the rest, as `read_csv` returns them.
        captioner: whose tokenizer and image size to use.
        max_bad, log: as in `check_share`.
        title: of the progress bar while photos are checked; None for no bar.
        mirror: mirror photos at random, except where a caption says left or right.
        options: of `CaptionBatches`.

    Returns:
        (batches, summary of what was left out, empty where nothing was); all of that is in the
        batches' `problems`.

    Raises:
        TooManyProblems: when more than `max_bad` of the captions cannot be used, or none can.
    """
    photos, problems = data
    total = sum(problem.captions for problem in problems)
    total += sum(len(photo.captions) for photo in photos)
    size = captioner.encoder.image_size
    good, unreadable = check_photos(photos, size, title=title)
    problems = problems + unreadable
    if not good:
        check_share(name, problems, total, max_bad, log)
        raise ValueError(f"Expected photos with captions as {name} data. Received: none")
    source = PhotoFiles([photo.path for photo in good], size, mirror)
    batches = CaptionBatches(
        good, source, captioner.tokenizer, captioner.decoder.positions, **options
    )
    batches.problems = problems + batches.problems
    return batches, check_share(name, batches.problems, total, max_bad, log)
