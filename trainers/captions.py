"""Photos with their captions, and what was wrong with those that had to be left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SHOWN = 10  # problems told one by one; the rest is in the file


@dataclass(frozen=True)
class CaptionedPhoto:
    """A photo's file and all its captions."""

    path: Path
    captions: tuple[str, ...]

    @property
    def mirrors(self) -> bool:
        """Whether the captions stay true of the mirrored photo: none speaks of left or right."""
        return not any(re.search(r"\b(left|right)", text, re.IGNORECASE) for text in self.captions)


@dataclass(frozen=True)
class Problem:
    """Something left out of training: where it stood, why, and how many captions it cost."""

    where: str
    reason: str
    captions: int = 1

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


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
    share = f"{lost} of {total} captions ({lost / total:.2%})"
    places = "1 place" if len(problems) == 1 else f"{len(problems)} places"
    lines = [f"{name} data: {share} left out, for what is wrong in {places}:"]
    lines += [f"  {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  and {len(problems) - SHOWN} more")
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        one_line_each = "".join(" ".join(str(problem).split()) + "\n" for problem in problems)
        log.write_text(one_line_each, encoding="utf-8", errors="backslashreplace")
        lines.append(f"  all of them in {log}")
    summary = "\n".join(lines)
    if lost > max_bad * total or lost >= total:
        raise TooManyProblems(
            f"Expected at most {max_bad:.2%} of the {name} data to be unusable (max_bad). "
            f"Received:\n{summary}"
        )
    return summary


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
