"""Tests of effcap.trainers.data.caption_cleaning."""

from __future__ import annotations

import json
import re
import string

import pytest

from effcap.trainers import plain, read_csv, read_json, tidy
from helpers.data_maker import write_csv


@pytest.mark.parametrize(
    ("raw", "wanted"),
    (
        ("a dog ,  with a ball .", "A dog, with a ball."),
        ("the man 's hat does n't fit !", "The man's hat doesn't fit!"),
        (" two\nlines ", "Two lines."),
        ("Done.", "Done."),
        ("犬が走る。", "犬が走る。"),
        ("कुत्ता  दौड़ता है ।", "कुत्ता दौड़ता है ।"),
        ("собака бежит", "Собака бежит."),
        ("", ""),
    ),
)
def test_tidy_cleans_spacing_and_punctuation(raw, wanted):
    assert tidy(raw) == wanted
    assert tidy(wanted) == wanted


@pytest.mark.parametrize(
    ("raw", "wanted"),
    (
        ("A dog runs on the grass", "a dog runs on the grass."),
        (
            'Two men, in T-shirts and/or hats; ("smiling")!',
            "two men in t shirts and or hats smiling.",
        ),
        ("The man's #1 * ~ no.: what?", "the mans 1 no what."),
        ("<PERSON> waves to a <person>.", "person waves to a person."),
        (" two\n\tlines - \u00a0here ", "two lines here."),
        ("Ein Mädchen läuft über die Straße", "ein mädchen läuft über die straße."),
        ("一只猫。 “кот” & co", "一只猫。 “кот” & co."),
    ),
)
def test_plain_leaves_words_in_lower_case_and_a_full_stop(raw, wanted):
    assert plain(raw) == wanted
    assert plain(wanted) == wanted


def test_plain_has_the_words_of_the_published_cleaning():
    caption = "".join(f"A{mark}B {mark} " for mark in string.punctuation)
    words = re.sub(r"([,.'!?\"()*#:;~])", "", caption.lower())
    words = words.replace("-", " ").replace("/", " ").replace("<person>", "person")
    assert plain(caption).removesuffix(".").split() == words.split()


@pytest.mark.parametrize("raw", ("", ".", " ?! ", "-/-", "(...)"))
def test_a_caption_without_words_becomes_empty(raw):
    assert plain(raw) == ""


def test_captions_that_become_empty_are_problems_of_their_file(tmp_path):
    csv_file = write_csv(tmp_path / "a.csv", [("a.jpg", [".", "A DOG"])])
    json_file = tmp_path / "a.json"
    json_file.write_text(json.dumps([{"image": "a.jpg", "text": [".", "A DOG"]}]))
    for dataset in (read_csv(csv_file, edit=plain), read_json(json_file, edit=plain)):
        (example,), (problem,) = dataset.examples, dataset.problems
        assert example.captions == ("a dog.",)
        assert "a caption of a.jpg. Received: empty text after cleaning '.'" in problem.reason
