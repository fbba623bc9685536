"""Formats of playlist captions for training, and their inverse.

PlayNTell's data has captions such as `<title> a title <description> a description`.
"""

from __future__ import annotations

from typing import Literal, get_args

CaptionFormat = Literal["as-is", "title", "description", "both"]
CAPTION_FORMATS: tuple[CaptionFormat, ...] = get_args(CaptionFormat)
TITLE, DESCRIPTION, DELIMITER = "<title>", "<description>", "<delimiter>"


def split_caption(caption: str) -> tuple[str, str]:
    """Splits a caption into title and description.

    The description is everything after the first `<description>`; the title is the text between
    `<title>` and that.

    Returns:
        (title, description), each empty if missing.

    >>> split_caption("<title> Sunday <description> slow songs")
    ('Sunday', 'slow songs')
    """
    before, _, description = caption.partition(DESCRIPTION)
    title = before.partition(TITLE)[2]
    return title.strip(), description.strip()


def join_caption(title: str, description: str) -> str:
    """Joins title and description to a caption; the inverse of `split_caption`.

    >>> join_caption("Sunday", "")
    '<title> Sunday'
    """
    sections = ((TITLE, title), (DESCRIPTION, description))
    return " ".join(f"{marker} {text}" for marker, text in sections if text)


def format_caption(caption: str, caption_format: CaptionFormat) -> str:
    """Converts a caption of the data to the format to train on.

    Args:
        caption: `<title> a title <description> a description`, or one of the two; any text for
            "as-is".
        caption_format: "as-is"; "title" or "description" for that alone; "both" for
            `a title <delimiter> a description`.

    Raises:
        ValueError: the caption lacks that section, or already has a delimiter.

    >>> format_caption("<title> Sunday <description> slow songs", "both")
    'Sunday <delimiter> slow songs'
    """
    check_caption_format(caption_format)
    if caption_format == "as-is":
        return caption
    title, description = split_caption(caption)
    if caption_format == "both":
        if DELIMITER in caption:
            raise ValueError(f"Expected a caption without {DELIMITER}. Received: {caption!r}")
        if not title and not description:
            raise ValueError(
                f"Expected a caption with {TITLE} or {DESCRIPTION}. Received: {caption[:80]!r}"
            )
        return f"{title} {DELIMITER} {description}".strip()
    is_title = caption_format == "title"
    section, marker = (title, TITLE) if is_title else (description, DESCRIPTION)
    if not section:
        raise ValueError(f"Expected a caption with text after {marker}. Received: {caption[:80]!r}")
    return section


def restore_caption(text: str, caption_format: CaptionFormat) -> str:
    """Converts generated text back to the data's format; the inverse of `format_caption`.

    With "both", text without a delimiter is a title.

    >>> restore_caption("Sunday <delimiter> slow songs", "both")
    '<title> Sunday <description> slow songs'
    """
    check_caption_format(caption_format)
    if caption_format == "as-is":
        return text
    if caption_format == "both":
        title, _, description = text.partition(DELIMITER)
        return join_caption(title.strip(), description.strip())
    if caption_format == "title":
        return join_caption(text.strip(), "")
    return join_caption("", text.strip())


def strip_markers(caption: str) -> str:
    """Removes `<title>`, `<description>` and `<delimiter>`, which are not scored."""
    for marker in (TITLE, DESCRIPTION, DELIMITER):
        caption = caption.replace(marker, " ")
    return " ".join(caption.split())


def check_caption_format(caption_format: str) -> None:
    """Raises ValueError for an unknown format."""
    if caption_format not in CAPTION_FORMATS:
        raise ValueError(
            f"Expected a caption format out of {', '.join(CAPTION_FORMATS)}. "
            f"Received: {caption_format!r}"
        )
