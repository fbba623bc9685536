"""Photos with captions, and problems found in the data."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from effcap.images import StoredPhoto

MAX_SHOWN = 10  # problems listed in a summary; the file lists all
SIDES = re.compile(r"\b(left|right)", re.IGNORECASE)
MAX_LINE = 500  # characters of a problem's place, and of its reason


@dataclass(frozen=True)
class Example:
    """A photo with its captions.

    Attributes:
        path: file of the photo; of a stored photo, its name.
        captions: all captions of the photo.
        name: name of the photo in the data; the file name by default.
        prefix: text that the captions continue, such as the prompt "a picture of". It is not part
            of them, and a photo with several prefixes is several examples.
        stored: the photo, if it is stored in a data file; None for a file of its own.
    """

    path: Path
    captions: tuple[str, ...]
    name: str = ""
    prefix: str = ""
    stored: StoredPhoto | None = None

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.path.name)

    @property
    def photo(self) -> Path | StoredPhoto:
        """Returns the photo as `effcap.load_photo` takes it."""
        return self.path if self.stored is None else self.stored

    @property
    def has_photo(self) -> bool:
        """Returns whether there is a photo: its file exists, or it is stored in a data file."""
        return self.stored is not None or self.path.is_file()

    @property
    def can_flip(self) -> bool:
        """Returns whether the captions remain true when the photo is flipped horizontally."""
        return can_flip((self.prefix, *self.captions))


def can_flip(captions: Iterable[str]) -> bool:
    """Returns whether captions remain true of the flipped photo: they mention no left or right."""
    return not any(SIDES.search(text) for text in captions)


@dataclass(frozen=True)
class Problem:
    """A photo or caption that cannot be used.

    Attributes:
        where: file and line, or path of the photo.
        reason: why it cannot be used.
        num_captions: captions that are left out because of it.
    """

    where: str
    reason: str
    num_captions: int = 1

    def __str__(self) -> str:
        return f"{one_line(self.where)}: {one_line(self.reason)}"


class TooManyProblems(ValueError):
    """More of the data is unusable than `max_bad` allows."""


def check_problems(
    name: str,
    problems: Sequence[Problem],
    num_captions: int,
    max_bad: float,
    path: Path | None = None,
) -> str:
    """Summarizes problems, and writes the complete list to a file.

    The summary lists the first ten problems. A photo that cannot be read is one problem and counts
    with all its captions.

    Args:
        name: name of the data, such as "training".
        problems: photos and captions that are left out.
        num_captions: number of captions, usable or not.
        max_bad: largest fraction of the captions that may be left out.
        path: file that lists all problems, one per line. It is removed if there are none. None
            writes no file.

    Returns:
        The summary; "" without problems.

    Raises:
        TooManyProblems: more than `max_bad` of the captions, or all, are left out.
    """
    if path is not None:
        path.unlink(missing_ok=True)
    if not problems:
        return ""
    num_bad = sum(problem.num_captions for problem in problems)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    fraction = f"{num_bad} of {num_captions} captions ({num_bad / max(num_captions, 1):.2%})"
    lines = [f"{name} data: {fraction} left out because of {count}:"]
    lines += [f"  {problem}" for problem in problems[:MAX_SHOWN]]
    if len(problems) > MAX_SHOWN:
        lines.append(f"  and {len(problems) - MAX_SHOWN} more")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{problem}\n" for problem in problems), encoding="utf-8")
        lines.append(f"  complete list: {path}")
    summary = "\n".join(lines)
    if num_bad > max_bad * num_captions or num_bad >= num_captions:
        raise TooManyProblems(
            f"Expected at most {max_bad:.2%} of the {name} data to be unusable (max_bad). "
            f"Received:\n{summary}"
        )
    return summary


def one_line(text: str) -> str:
    """Returns text from a file on one line of limited length, with control characters escaped."""
    text = " ".join(text[: 10 * MAX_LINE].split())
    if len(text) > MAX_LINE:
        text = f"{text[:MAX_LINE]}..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def first_names(names: Sequence[str], limit: int = 5) -> str:
    """Returns the first names of a list, and the number of the others, for messages."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def subset(
    examples: Sequence[Example], problems: Sequence[Problem], fraction: float, seed: int = 0
) -> tuple[list[Example], list[Problem]]:
    """Selects a random fraction of the examples, and about that fraction of the problems.

    The selection depends on names and seed, not on order. With the same seed, a smaller fraction is
    part of a larger one. Problems are reduced too, so that their fraction
    stays the same.

    Args:
        examples: examples to select from.
        problems: problems of the whole data.
        fraction: fraction of the examples, rounded to at least one example.
        seed: seed of the selection.

    Returns:
        (examples, problems), in their original order.

    Raises:
        ValueError: `fraction` is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"Expected fraction above 0 and at most 1. Received: fraction={fraction}")

    def rank(name: str) -> float:
        """Maps a name to a number from 0 to 1."""
        key = f"{seed} {name}".encode(errors="surrogateescape")
        return int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "big") / 2**128

    count = max(1, round(fraction * len(examples)))
    ranks = [rank(example.name) for example in examples]
    selected = sorted(range(len(examples)), key=ranks.__getitem__)[:count]
    return (
        [examples[i] for i in sorted(selected)],
        [problem for problem in problems if fraction == 1 or rank(problem.where) < fraction],
    )
