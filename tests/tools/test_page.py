"""Tests of the HTML page of photos with captions."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from effcap.tools.reports.page import write_page
from helpers.page_parser import Page, read_page


def photo(width: int = 600, height: int = 400, value: int = 90) -> np.ndarray:
    """Returns a gray photo."""
    return np.full((height, width, 3), value, np.uint8)


def written(tmp_path, *arguments, **options) -> Page:
    """Writes a page and parses it."""
    return read_page(write_page(tmp_path / "page.html", *arguments, **options))


def embedded(page: Page) -> list[Image.Image]:
    """Returns the embedded thumbnails."""
    prefix = "data:image/jpeg;base64,"
    assert all(image["src"].startswith(prefix) for image in page.images)
    return [Image.open(io.BytesIO(base64.b64decode(image["src"][len(prefix) :], validate=True)))
            for image in page.images]  # fmt: skip


def test_every_photo_is_above_its_captions_in_order(tmp_path):
    page = written(
        tmp_path,
        [photo(value=v) for v in (10, 120, 240)],
        {"before": ["a", "b", "c"], "after": ["d", "e", "f"]},
        names=["x", "y", "z"],
    )
    assert [image.getpixel((5, 5))[0] for image in embedded(page)] == pytest.approx(
        [10, 120, 240], abs=2
    )
    assert page.texts["dd"] == ["a", "d", "b", "e", "c", "f"]
    assert page.texts["dt"] == ["before", "after"] * 3
    assert [text for text in page.texts["p"] if text in "xyz"] == ["x", "y", "z"]
    assert [image["alt"] for image in page.images] == ["a", "b", "c"]


def test_page_loads_nothing_and_runs_nothing(tmp_path):
    page = written(tmp_path, [photo()], {"caption": ["see https://example.org/x.js"]})
    page.check_self_contained()


def test_captions_titles_headings_and_names_are_escaped(tmp_path):
    evil = "<script>alert('1')</script> & \"quoted\" $title ${cards}"
    page = written(tmp_path, [photo(), "/gone/<b>.jpg"], {evil: [evil, (evil, 0.5)]}, title=evil,
                   note=evil, names=[evil, evil])  # fmt: skip
    assert "script" not in page.tags and "b" not in page.tags
    assert page.texts["dd"][0] == page.texts["dt"][0] == page.texts["h1"][0] == evil
    assert page.texts["title"][0] == evil and page.images[0]["alt"] == evil


def test_thumbnails_keep_their_shape_and_are_not_enlarged(tmp_path):
    photos = [photo(600, 400), photo(400, 800), photo(50, 20)]
    page = written(tmp_path, photos, {})
    assert [image.size for image in embedded(page)] == [(360, 240), (180, 360), (50, 20)]
    assert [(i["width"], i["height"]) for i in page.images] == [
        ("360", "240"), ("180", "360"), ("50", "20")]  # fmt: skip


def test_unreadable_photo_is_a_placeholder_with_the_reason(tmp_path):
    (tmp_path / "empty.jpg").touch()
    page = written(tmp_path, [tmp_path / "gone.jpg", photo(), tmp_path / "empty.jpg"],
                   {"caption": ["a", "b", "c"]})  # fmt: skip
    assert len(page.images) == 1
    assert page.texts["strong"] == ["Not readable"] * 2
    assert "no such file" in "".join(page.texts["span"])
    assert "0 bytes" in "".join(page.texts["span"])
    assert page.texts["dd"] == ["a", "b", "c"]
    assert {"gone.jpg", "empty.jpg", "photo 2"} <= set(page.texts["p"])


def test_several_captions_and_scores_are_all_shown(tmp_path):
    beams = [("a dog", -0.25), ("a cat", np.float32(-1.5)), "a bird"]
    page = written(tmp_path, [photo(), photo()], {"beam": [beams, ("one", 3)], "none": [None, []]})
    assert [text.strip() for text in page.texts["dd"]] == [
        "a dog", "a cat", "a bird", "–", "one", "–"]  # fmt: skip
    assert page.texts["span"] == ["−0.25", "−1.5", "3"]


def test_empty_caption_is_marked_as_empty(tmp_path):
    page = written(tmp_path, [photo()], {"caption": [" "]})
    assert page.texts["em"] == ["empty"]


def test_page_without_photos_is_complete(tmp_path):
    page = written(tmp_path, [], {"caption": []}, title="Nothing yet")
    assert page.texts["h1"] == ["Nothing yet"] and "No photos." in page.texts["p"]


def test_missing_folders_are_created_and_the_path_is_returned(tmp_path):
    path = tmp_path / "runs" / "1" / "page.html"
    assert write_page(str(path), [photo()], {}) == path and path.is_file()


def test_surrogates_are_replaced(tmp_path):
    page = written(tmp_path, [photo()], {"caption": ["a \ud800 dog"]}, names=["\udce9.jpg"])
    assert page.texts["dd"] == ["a ? dog"]


def test_columns_and_names_of_another_length_are_errors(tmp_path):
    with pytest.raises(ValueError, match="Expected 2 entries in column 'after'.*Received: 1"):
        written(tmp_path, [photo(), photo()], {"after": ["a"]})
    with pytest.raises(ValueError, match="column 'after'.*Received: 'a dog'"):
        written(tmp_path, [photo()] * 5, {"after": "a dog"})
    with pytest.raises(ValueError, match="Expected 1 names.*Received: 2"):
        written(tmp_path, [photo()], {}, names=["a", "b"])


@pytest.mark.parametrize("caption", [3, [3], [("a", "b")], [["a", 1.0]]])
def test_values_that_are_not_captions_are_errors(tmp_path, caption):
    with pytest.raises(TypeError, match="A caption must be"):
        written(tmp_path, [photo()], {"after": [caption]})


def test_sections_have_headings_before_their_first_photo(tmp_path):
    page = written(tmp_path, [photo()] * 3, {}, sections={0: "Best", 2: "Worst"})
    assert page.texts["h2"] == ["Best", "Worst"]
    assert [tag for tag in page.tags if tag in ("h2", "figure")] == [
        "h2", "figure", "figure", "h2", "figure"]  # fmt: skip
