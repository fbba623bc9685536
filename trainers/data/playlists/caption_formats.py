"""The forms that a playlist's caption is trained in, and back.

PlayNTell's data have a caption as `<title> a title <description> a description`.
"""

from __future__ import annotations

from typing import Literal, get_args

CaptionFormat = Literal["as-is", "title", "description", "both"]
FORMATS: tuple[CaptionFormat, ...] = get_args(CaptionFormat)
TITLE, DESCRIPTION, DELIMITER = "<title>", "<description>", "<delimiter>"


def split_caption(caption: str) -> tuple[str, str]:
    """(title, description) of a caption; empty where it has none.

    The description is all that follows the first `<description>`; the title is what stands between
    `<title>` and that.

    >>> split_caption("<title> Sunday <description> slow songs")
    ('Sunday', 'slow songs')
    """
    before, _, description = caption.partition(DESCRIPTION)
    title = before.partition(TITLE)[2]
    return title.strip(), description.strip()


def join_caption(title: str, description: str) -> str:
    """The caption with that title and description; the inverse of `split_caption`.

    >>> join_caption("Sunday", "")
    '<title> Sunday'
    """
    parts = ((TITLE, title), (DESCRIPTION, description))
    return " ".join(f"{marker} {text}" for marker, text in parts if text)


def format_caption(caption: str, form: CaptionFormat) -> str:
    """A caption of the data in the form to train on.

    Args:
        caption: `<title> a title <description> a description`, or one of the two; with "as-is",
            any text.
        form: "as-is"; "title" or "description" for that alone; "both" for
            `a title <delimiter> a description`.

    Raises:
        ValueError: for a caption without that part, or one that cannot be told back.

    >>> format_caption("<title> Sunday <description> slow songs", "both")
    'Sunday <delimiter> slow songs'
    """
    check_format(form)
    if form == "as-is":
        return caption
    title, description = split_caption(caption)
    if form == "both":
        if DELIMITER in caption:
            raise ValueError(f"Expected a caption without {DELIMITER}. Received: {caption!r}")
        if not title and not description:
            raise ValueError(f"Expected a caption with {TITLE} or {DESCRIPTION}. {_got(caption)}")
        return f"{title} {DELIMITER} {description}".strip()
    part, marker = (title, TITLE) if form == "title" else (description, DESCRIPTION)
    if not part:
        raise ValueError(f"Expected a caption with a text after {marker}. {_got(caption)}")
    return part


def restore_caption(text: str, form: CaptionFormat) -> str:
    """What a captioner trained on `format_caption`'s texts wrote, as a caption of the data.

    With "both", text without a delimiter is a title.

    >>> restore_caption("Sunday <delimiter> slow songs", "both")
    '<title> Sunday <description> slow songs'
    """
    check_format(form)
    if form == "as-is":
        return text
    if form == "both":
        title, _, description = text.partition(DELIMITER)
        return join_caption(title.strip(), description.strip())
    parts = (text.strip(), "") if form == "title" else ("", text.strip())
    return join_caption(*parts)


def words_of(caption: str) -> str:
    """A caption, in whatever form, without the markers: what there is to score."""
    for marker in (TITLE, DESCRIPTION, DELIMITER):
        caption = caption.replace(marker, " ")
    return " ".join(caption.split())


def check_format(form: str) -> None:
    """ValueError for a form that there is none of."""
    if form not in FORMATS:
        raise ValueError(
            f"Expected a caption format out of {', '.join(FORMATS)}. Received: {form!r}"
        )


def _got(caption: str) -> str:
    return f"Received: {caption[:80]!r}"
