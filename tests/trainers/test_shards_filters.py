"""Tests of effcap.trainers.data.shards.filters."""

from __future__ import annotations

import functools
import io

import pytest
from PIL import Image

from effcap.trainers import plain, tidy
from effcap.trainers.data.shards import Filters
from effcap.trainers.data.shards.filters import Fault
from helpers.tar_maker import photo


def emptied(text: str) -> str:
    return " "


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    (
        ({}, "  a dog\n", "a dog"),
        ({}, "<PERSON> runs", "<PERSON> runs"),
        ({"persons": "person"}, "<PERSON> and <person> run", "person and person run"),
        ({"persons": r"\1"}, "<PERSON>", r"\1"),
        ({"edit": tidy}, "a dog ,  with a ball .", "A dog, with a ball."),
        ({"edit": plain}, "A <PERSON>'s ball", "a persons ball."),
        ({"edit": tidy, "persons": "somebody"}, "<PERSON> runs", "Somebody runs."),
        ({"min_words": 2, "max_words": 2}, "a dog", "a dog"),
        ({"match": "d.g"}, "a dog", "a dog"),
        ({"reject": "cat"}, "a dog", "a dog"),
    ),
)
def test_captions_are_edited_and_kept(options, text, expected):
    assert Filters(**options).edit_caption(text) == expected


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    (
        ({}, " \n ", "caption empty"),
        ({}, None, "caption is not text"),
        ({}, 7, "caption is not text"),
        ({}, ["a dog"], "caption is not text"),
        ({}, "a\0b", "caption is not text"),
        ({}, "half \ud83d", "caption is not text"),
        ({}, "x" * 200_000, "caption is not text"),
        ({"persons": "drop"}, "a <PERSON>", "caption has <PERSON>"),
        ({"min_words": 3}, "a dog", "caption too short"),
        ({"max_words": 1}, "a dog", "caption too long"),
        ({"match": "^d"}, "a dog", "caption does not match"),
        ({"reject": "(?i)DOG"}, "a dog", "caption rejected"),
        ({"reject": "person", "persons": "person"}, "a <PERSON>", "caption rejected"),
        ({"edit": emptied}, "a", "caption empty"),
    ),
)
def test_captions_are_left_out_with_a_reason(options, text, reason):
    fault = Filters(**options).edit_caption(text)
    assert isinstance(fault, Fault) and fault.reason == reason
    fault.detail.encode()


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"min_side": -1}, "min_side=-1"),
        ({"min_words": 5, "max_words": 4}, "max_words=4"),
        ({"max_duplicates": 0}, "at least 1"),
        ({"match": "(a"}, r"regular expression as match.*\(a"),
        ({"reject": "*"}, "regular expression as reject"),
        ({"persons": ""}, "word as persons"),
        ({"caption": " "}, "word as caption"),
        ({"edit": lambda text: text}, "function of a module"),
        ({"edit": functools.partial(tidy)}, "function of a module"),
    ),
)
def test_invalid_options_raise_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        Filters(**options)


@pytest.mark.parametrize("kind", ("JPEG", "PNG", "WEBP", "GIF"))
def test_complete_photos_pass_and_truncated_ones_do_not(kind):
    data = photo(kind=kind, side=128)
    assert Filters().image_fault(data) is None
    for bad in (b"", data[:1], data[: len(data) // 2], b"text " * 20):
        assert Filters().image_fault(bad).reason == "image unreadable"


@pytest.mark.parametrize("cut", (0.1, 0.5, 0.9))
def test_truncated_jpegs_with_an_end_marker_are_found(cut):
    data = photo(side=256)
    start = data.rfind(b"\xff\xda") + 20
    data = data[: start + int(cut * (len(data) - start))] + b"\xff\xd9"
    assert "truncated" in Filters().image_fault(data).detail


def test_min_side_applies_to_the_smaller_side():
    assert Filters(min_side=64).image_fault(photo(side=64)) is None
    assert Filters(min_side=65).image_fault(photo(side=64)) == Fault("image too small", "96x64")


def test_tiny_photos_of_one_color_pass():
    for size in ((1, 1), (3, 2000), (300, 200)):
        file = io.BytesIO()
        Image.new("RGB", size, "white").save(file, "JPEG")
        assert Filters().image_fault(file.getvalue()) is None


def test_the_key_depends_on_every_option():
    changes = (
        {}, {"caption": "txt"}, {"min_side": 1}, {"min_words": 2}, {"max_words": 9},
        {"max_duplicates": 1}, {"match": "a"}, {"reject": "a"}, {"persons": "drop"}, {"edit": tidy},
    )  # fmt: skip
    assert len({Filters(**change).key for change in changes}) == len(changes)
