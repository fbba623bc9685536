"""Captions into words as Stanford's tokenizer and pycocoevalcap have them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from effcap.metrics import tokenize

PAIRS = json.loads(
    (Path(__file__).resolve().parents[1] / "data" / "ptb_tokens.json").read_text(encoding="utf-8")
)


UNLIKE = ("S&P-500", "S&Ls")  # too rare for a rule


def test_hard_captions_have_the_words_that_stanfords_tokenizer_finds():
    wrong = {caption: tokenize(caption) for caption, words in PAIRS if tokenize(caption) != words}
    assert len(PAIRS) > 300 and len(wrong) == len(UNLIKE)
    assert all(any(text in caption for text in UNLIKE) for caption in wrong), wrong


def test_the_easy_way_for_plain_words_comes_to_what_the_rules_say(monkeypatch):
    module = sys.modules[tokenize.__module__]
    quick = [tokenize(caption) for caption, _ in PAIRS]
    monkeypatch.setattr(module, "_WORD_ALONE", re.compile(r"(?!)"))
    monkeypatch.setattr(module, "_NOTHING", re.compile(r"\s+"))
    assert [tokenize(caption) for caption, _ in PAIRS] == quick


@pytest.mark.parametrize(
    ("caption", "words"),
    (
        ("A dog\nand\r\na cat.", ["a", "dog", "and", "a", "cat"]),
        ("cafe\u0301", ["caf\u00e9"]),  # however the accent is encoded
        ("soft\u00adhyphen", ["softhyphen"]),
        ("\U0001f600 a dog \U0001f415", ["a", "dog"]),
        ("it\u2019s 3\u20134 \u00bd\u00a0dogs", ["it", "'s", "3", "4", "1/2", "dogs"]),
        (
            "\u72d7 \u0915\u0941\u0924\u094d\u0924\u093e",
            ["\u72d7", "\u0915\u0941\u0924\u094d\u0924\u093e"],
        ),
        ("", []),
        (" ., ! ? '' \" - ", []),
    ),
)
def test_line_ends_accents_and_signs_do_no_harm(caption, words):
    assert tokenize(caption) == words


@pytest.mark.parametrize(
    ("caption", "words"),
    (
        ("He has a Ph.D. The end", "he has a ph.d. the end"),
        ("plan B. The end", "plan b the end"),
        ("a 5'10\" man from a non-U.S. team", "a 5 10 man from a non-u.s. team"),
        ("cats, dogs, etc., and a @vet #pets", "cats dogs etc. and a @vet #pets"),
        ("dog's''ball'' d'x", "dog 's ball d' x"),
        ("call (555)555-1234", "call -lrb-555-rrb-555-1234"),
        ("A&amp;B &lt;3 &nbsp;it", "a&b < 3 it"),
    ),
)
def test_words_beyond_the_fixture(caption, words):
    assert tokenize(caption) == words.split()


@pytest.mark.parametrize(
    "text",
    (
        "a",
        "5",
        ",",
        "a,",
        "a-",
        "<a ",
        "(",
        "'",
        "a@",
        "1.",
        "a/",
        "5a.",
        "a.a-",
        "a+",
        "C. ",
        "!a",
    ),
)
def test_time_grows_with_the_length_of_a_caption_of_signs_not_with_its_square(text):
    start = time.perf_counter()
    tokenize(text * (50_000 // len(text)))
    assert time.perf_counter() - start < 5  # half a second where nothing else runs


def test_only_text_is_tokenized():
    with pytest.raises(TypeError, match="Expected a caption as text. Received: None"):
        tokenize(None)


def test_metrics_need_neither_keras_nor_java():
    code = (
        "import sys\n"
        "from effcap.metrics import score_captions\n"
        "score_captions(['a dog'], [['A dog.']])\n"
        "assert not {'keras', 'tensorflow', 'pycocoevalcap'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
