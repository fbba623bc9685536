"""The four forms of a playlist's caption, and back."""

from __future__ import annotations

import random

import pytest

from effcap.trainers.data.playlists import (
    format_caption,
    join_caption,
    restore_caption,
    split_caption,
)
from effcap.trainers.data.playlists.caption_formats import FORMATS, words_of

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
def test_captions_are_split_as_those_of_playntell(caption, parts):
    assert split_caption(caption) == parts


@pytest.mark.parametrize(
    ("form", "text"),
    (
        ("as-is", CAPTION),
        ("title", "Sunday"),
        ("description", "slow songs"),
        ("both", "Sunday <delimiter> slow songs"),
    ),
)
def test_a_caption_has_four_forms(form, text):
    assert format_caption(CAPTION, form) == text


@pytest.mark.parametrize(
    ("form", "text", "caption"),
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
def test_what_a_captioner_wrote_is_turned_back(form, text, caption):
    assert restore_caption(text, form) == caption


def test_turning_back_is_the_exact_inverse():
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
        for form, part in (("title", title), ("description", description)):
            if part:
                text = format_caption(caption, form)
                restored = restore_caption(text, form)
                assert text == part and format_caption(restored, form) == text


@pytest.mark.parametrize(
    ("caption", "form", "word"),
    (
        ("<description> slow", "title", "<title>"),
        ("<title> Sunday", "description", "<description>"),
        ("plain words", "both", "<title> or <description>"),
        ("<title> a <delimiter> b", "both", "without <delimiter>"),
    ),
)
def test_a_caption_without_the_part_is_refused(caption, form, word):
    with pytest.raises(ValueError, match=f"Expected a caption.*{word}.*Received: {caption!r}"):
        format_caption(caption, form)


def test_a_form_that_there_is_none_of_is_refused():
    for call in (format_caption, restore_caption):
        with pytest.raises(ValueError, match=f"{', '.join(FORMATS)}. Received: 'both-parts'"):
            call(CAPTION, "both-parts")


def test_the_words_to_score_are_without_markers():
    assert words_of(CAPTION) == words_of("Sunday <delimiter> slow songs") == "Sunday slow songs"
