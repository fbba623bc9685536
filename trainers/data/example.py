"""Photos with their captions, and what was wrong with those that had to be left out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SHOWN = 10  # problems told one by one; the rest is in the file
SIDES = re.compile(r"\b(left|right)", re.IGNORECASE)
LONGEST_LINE = 500  # characters of a problem's place, and of its reason


@dataclass(frozen=True)
class CaptionedPhoto:
    """A photo's file, all its captions, and what the data call it (the file's name by default)."""

    path: Path
    captions: tuple[str, ...]
    name: str = ""

    def __post_init__(self):
        if not self.name:
            object.__setattr__(self, "name", self.path.name)

    @property
    def mirrors(self) -> bool:
        """Whether the captions stay true of the mirrored photo."""
        return stay_true_mirrored(self.captions)


def stay_true_mirrored(captions: Iterable[str]) -> bool:
    """Whether captions stay true of the mirrored photo: none speaks of left or right."""
    return not any(SIDES.search(text) for text in captions)


@dataclass(frozen=True)
class Problem:
    """Something left out of training: where it stood, why, and how many captions it cost."""

    where: str
    reason: str
    captions: int = 1

    def __str__(self) -> str:
        return f"{one_line(self.where)}: {one_line(self.reason)}"


class TooManyProblems(ValueError):
    """More of the data is unusable than was allowed."""


def check_share(
    name: str, problems: Sequence[Problem], total: int, max_bad: float, log: Path | None = None
) -> str:
    """Reports what is left out: the first ten in the text returned, all of it in the file `log`.

    The unit is the caption: a photo that cannot be read is one problem, and costs all its captions.

    Args:
        name: of the data, such as "training".
        problems: what was left out.
        total: number of captions there were, good and bad.
        max_bad: the share of captions that may be left out, from 0 to 1.
        log: file to list every problem in, one per line; None for no file.

    Returns:
        A summary to print; empty without problems.

    Raises:
        TooManyProblems: if more than `max_bad` are left out, or all.
    """
    if log is not None:
        log.unlink(missing_ok=True)
    if not problems:
        return ""
    lost = sum(problem.captions for problem in problems)
    share = f"{lost} of {total} captions ({lost / max(total, 1):.2%})"
    places = "1 place" if len(problems) == 1 else f"{len(problems)} places"
    lines = [f"{name} data: {share} left out, for what is wrong in {places}:"]
    lines += [f"  {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  and {len(problems) - SHOWN} more")
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(f"{problem}\n" for problem in problems), encoding="utf-8")
        lines.append(f"  all of them in {log}")
    summary = "\n".join(lines)
    if lost > max_bad * total or lost >= total:
        raise TooManyProblems(
            f"Expected at most {max_bad:.2%} of the {name} data to be unusable (max_bad). "
            f"Received:\n{summary}"
        )
    return summary


def one_line(text: str) -> str:
    """Text from a file as it can be printed: on one line, of bearable length, nothing hidden."""
    text = " ".join(text[: 10 * LONGEST_LINE].split())
    if len(text) > LONGEST_LINE:
        text = f"{text[:LONGEST_LINE]}..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def subset(
    photos: Sequence[CaptionedPhoto], problems: Sequence[Problem], share: float, seed: int = 0
) -> tuple[list[CaptionedPhoto], list[Problem]]:
    """That share of the photos, rounded, at least one, each with all its captions; and about that
    share of the problems, so that the others do not count against so few photos.

    Which ones depends on their names and the seed, not on their order. A smaller share of the same
    seed is part of a larger one.

    Raises:
        ValueError: unless `share` is above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"Expected a share above 0 and at most 1. Received: share={share}")

    def place(name: str) -> float:
        """From 0 to 1, at random but for ever."""
        key = f"{seed} {name}".encode(errors="surrogateescape")
        return int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "big") / 2**128

    count = max(1, round(share * len(photos)))
    places = [place(photo.name) for photo in photos]
    chosen = sorted(range(len(photos)), key=places.__getitem__)[:count]
    return (
        [photos[number] for number in sorted(chosen)],
        [problem for problem in problems if share == 1 or place(problem.where) < share],
    )


def tidy(caption: str) -> str:
    """A caption as one would print it: single spaces, none before punctuation, a capital first
    letter, a full stop.

    >>> tidy("a dog ,  with a ball .")
    'A dog, with a ball.'
    """
    text = re.sub(r"\s+", " ", caption).strip()
    text = re.sub(r"\s+([.,;:!?])", r"\1", text)
    text = re.sub(r"\s+('s|n't)\b", r"\1", text)
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?", '"')) or not text else text + "."
