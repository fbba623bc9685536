"""What notebooks show of captioners, captions and photos with captions."""

from __future__ import annotations

import logging
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from effcap.caption import Caption, CaptionedPhotos, PhotoCaptions, TokenDetail
from effcap.samplers import Beam, Greedy
from effcap.tools.captioning.results import CaptionResults
from effcap.utils.retracing import intended_retracing


class Page(HTMLParser):
    """Collects the text, the pictures and the unclosed tags of HTML."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.words, self.pictures, self.open = [], 0, []
        self.feed(source)
        self.text = "".join(self.words)

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "style", "link")
        self.pictures += tag == "img" and dict(attrs)["src"].startswith("data:image/jpeg;base64,")
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def photos(tmp_path):
    paths = [tmp_path / f"{name}.jpg" for name in ("a <b>", "ü")]
    for path in paths:
        Image.new("RGB", (40, 30), "teal").save(path)
    return paths


def caption(text: str = "a dog", score: float = -1.0) -> Caption:
    pieces = [*text.partition(" ")[::2], "<|endoftext|>"]
    details = (TokenDetail(1, pieces[0], -0.1), TokenDetail(2, f" {pieces[1]}", -0.7))
    return Caption(text, score, (1, 2), details=(*details, TokenDetail(0, pieces[2], -0.2)))


def test_a_caption_shows_its_words_and_scores_without_the_end_token():
    page = Page(caption()._repr_html_())
    assert page.text.startswith("a dog") and "endoftext" not in page.text
    assert "confidence 0.717" in page.text and "score -1" in page.text and not page.open
    assert "<b>" not in caption("a <b>")._repr_html_()
    continued = Caption("an old dog", -1.0, (3, 2), "an old", False, (TokenDetail(2, " dog", -1),))
    assert Page(continued._repr_html_()).text.startswith("an old dog")
    assert "empty" in Page(Caption("", -3.0, ())._repr_html_()).text


def test_results_of_generate_show_the_photos(captioner, photos, eager):
    sampler = Beam(num_beams=2, num_captions=2, max_new_tokens=3)
    results = captioner.generate(photos, sampler, details=True)
    assert isinstance(results, CaptionedPhotos) and results == [list(x) for x in results]
    page = Page(results._repr_html_())
    assert page.pictures == 2 and "a <b>.jpg" in page.text and not page.open
    assert page.text.count("confidence") == 4
    single = captioner.generate(photos[0], sampler, details=True)
    assert isinstance(single, PhotoCaptions) and Page(single._repr_html_()).pictures == 1


def test_photos_of_an_iterator_are_not_kept(captioner, photos, eager):
    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    greedy = Greedy(max_new_tokens=2)
    assert [x.photo for x in captioner.generate(iter(pixels), greedy, details=True)] == [None, None]
    kept = captioner.generate(iter(photos), greedy, details=True)
    assert [x.photo for x in kept] == photos


def test_long_lists_show_the_first_photos_and_how_many_are_left(photos):
    results = CaptionedPhotos(PhotoCaptions([caption()], photos[0]) for _ in range(30))
    page = Page(results._repr_html_())
    assert page.pictures == 24 and "and 6 more" in page.text
    gone = PhotoCaptions([caption()], photos[0].with_name("gone.jpg"))
    assert "gone.jpg" in Page(gone._repr_html_()).text


def test_results_of_a_folder_show_what_was_skipped(photos):
    results = CaptionResults([(photos[0], [caption()])], [(photos[1], "it is empty")])
    page = Page(results._repr_html_())
    assert page.pictures == 1 and "1 skipped" in page.text


def test_a_captioner_shows_its_parts(captioner):
    captioner.prefix = "a <photo>"
    page = Page(captioner._repr_html_())
    assert "tiny_network, photos of 32 x 32 pixels (squash)" in page.text
    assert "2 layers of width 16" in page.text and "a <photo>" in page.text and not page.open


def test_only_intended_retracing_is_not_warned_of(monkeypatch):
    messages = []
    logger = logging.getLogger("tensorflow")
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: messages.append(record.getMessage()))
    monkeypatch.setattr(logger, "level", logging.WARNING)
    logger.addHandler(handler)
    with intended_retracing():
        logger.warning("5 out of the last 5 calls triggered tf.function retracing.")
        logger.warning("another warning")
    logger.warning("6 out of the last 6 calls triggered tf.function retracing.")
    logger.removeHandler(handler)
    assert [message[:3] for message in messages] == ["ano", "6 o"]
