"""Formats of playlist captions and their inverse."""

from __future__ import annotations

import random

import pytest

from effcap.trainers.data.playlists import (
    format_caption,
    join_caption,
    restore_caption,
    split_caption,
    strip_markers,
)
from effcap.trainers.data.playlists.caption_formats import CAPTION_FORMATS

CAPTION = "<title> Sunday <description> slow songs"


@pytest.mark.parametrize(
    ("caption", "parts"),
    (
        ("<title> bla", ("bla", "")),
        ("<description> bla", ("", "bla")),
        ("<title> the title <description> what it is", ("the title", "what it is")),
        ("<description> what <title> it is", ("", "what <title> it is")),
        ("bla bla <title> ble <description> bla", ("ble", "bla")),
        ("bla", ("", "")),
    ),
)
def test_captions_are_split_as_in_playntell(caption, parts):
    assert split_caption(caption) == parts


@pytest.mark.parametrize(
    ("caption_format", "text"),
    (
        ("as-is", CAPTION),
        ("title", "Sunday"),
        ("description", "slow songs"),
        ("both", "Sunday <delimiter> slow songs"),
    ),
)
def test_a_caption_is_formatted(caption_format, text):
    assert format_caption(CAPTION, caption_format) == text


@pytest.mark.parametrize(
    ("caption_format", "text", "caption"),
    (
        ("as-is", "as it is", "as it is"),
        ("title", "Sunday", "<title> Sunday"),
        ("description", "slow songs", "<description> slow songs"),
        ("both", "Sunday <delimiter> slow songs", CAPTION),
        ("both", "Sunday", "<title> Sunday"),
        ("both", "<delimiter> slow songs", "<description> slow songs"),
        ("both", "a <delimiter> b <delimiter> c", "<title> a <description> b <delimiter> c"),
    ),
)
def test_generated_text_is_restored(caption_format, text, caption):
    assert restore_caption(text, caption_format) == caption


def test_restoring_inverts_formatting():
    rng = random.Random(0)
    words = ["a", "b", "<title>", "<description>", "<", "artist0"]
    for _ in range(2000):
        title, description = (" ".join(rng.choices(words, k=rng.randint(0, 4))) for _ in range(2))
        if "<description>" in title or not (title or description):
            continue
        caption = join_caption(title, description)
        if description or "<description>" not in caption:
            assert split_caption(caption) == (title, description)
        assert restore_caption(format_caption(caption, "as-is"), "as-is") == caption
        assert restore_caption(format_caption(caption, "both"), "both") == caption
        for name, section in (("title", title), ("description", description)):
            if section:
                text = format_caption(caption, name)
                restored = restore_caption(text, name)
                assert text == section and format_caption(restored, name) == text


@pytest.mark.parametrize(
    ("caption", "caption_format", "word"),
    (
        ("<description> slow", "title", "<title>"),
        ("<title> Sunday", "description", "<description>"),
        ("plain words", "both", "<title> or <description>"),
        ("<title> a <delimiter> b", "both", "without <delimiter>"),
    ),
)
def test_a_caption_without_the_section_is_rejected(caption, caption_format, word):
    with pytest.raises(ValueError, match=f"Expected a caption.*{word}.*Received: {caption!r}"):
        format_caption(caption, caption_format)


def test_an_unknown_format_is_rejected():
    for call in (format_caption, restore_caption):
        with pytest.raises(ValueError, match=f"{', '.join(CAPTION_FORMATS)}. Received: 'all'"):
            call(CAPTION, "all")


def test_markers_are_stripped_for_scoring():
    assert strip_markers(CAPTION) == "Sunday slow songs"
    assert strip_markers("Sunday <delimiter> slow songs") == "Sunday slow songs"
