"""Tokens of captions against those of Stanford's tokenizer and pycocoevalcap."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest

from effcap.metrics import tokenize
from effcap.metrics.tokenize import language_note

PAIRS = json.loads(
    (Path(__file__).resolve().parents[1] / "data" / "ptb_tokens.json").read_text(encoding="utf-8")
)

EXCEPTIONS = ("S&P-500", "S&Ls")  # too rare for a rule


def test_difficult_captions_have_the_tokens_of_stanfords_tokenizer():
    wrong = {caption: tokenize(caption) for caption, words in PAIRS if tokenize(caption) != words}
    assert len(PAIRS) > 300 and len(wrong) == len(EXCEPTIONS)
    assert all(any(text in caption for text in EXCEPTIONS) for caption in wrong), wrong


def test_the_fast_path_gives_the_tokens_of_the_rules(monkeypatch):
    module = sys.modules[tokenize.__module__]
    fast = [tokenize(caption) for caption, _ in PAIRS]
    monkeypatch.setattr(module, "_PLAIN_WORD", re.compile(r"(?!)"))
    monkeypatch.setattr(module, "_SPACE", re.compile(r"\s+"))
    assert [tokenize(caption) for caption, _ in PAIRS] == fast


@pytest.mark.parametrize(
    ("caption", "words"),
    (
        ("A dog\nand\r\na cat.", ["a", "dog", "and", "a", "cat"]),
        ("cafe\u0301", ["caf\u00e9"]),  # a decomposed accent
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
def test_line_ends_accents_and_signs(caption, words):
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
def test_rules_beyond_the_recorded_captions(caption, words):
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
def test_time_is_linear_in_the_length_of_a_caption(text):
    start = time.perf_counter()
    tokenize(text * (50_000 // len(text)))
    assert time.perf_counter() - start < 5  # 0.5 s on an idle machine


def test_non_text_raises_type_error():
    with pytest.raises(TypeError, match="Expected a caption as text. Received: None"):
        tokenize(None)


def test_metrics_import_neither_keras_nor_pycocoevalcap():
    code = (
        "import sys\n"
        "from effcap.metrics import score_captions\n"
        "score_captions(['a dog'], [['A dog.']])\n"
        "assert not {'keras', 'tensorflow', 'pycocoevalcap'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


SENTENCES = {
    "Don't stop: 3.5 T-shirts!": "don't stop 3.5 t shirts",
    "Ein Müller, l’eau, Straße.": "ein müller l’eau straße",
    "कुत्ता घास पर दौड़ता है।": "कुत्ता घास पर दौड़ता है",
    "كلب بنّيّ يجري، على العشب؟": "كلب بنّيّ يجري على العشب",
    "سگ می\u200cدود.": "سگ می\u200cدود",
    "강아지가 공을 쫓는다.": "강아지가 공을 쫓는다",
    "Собака бежит — по траве…": "собака бежит по траве",
    "snow_board 🐕 ♥ ½": "snow_board ½",
    "cafe\u0301 CAFÉ": "café café",
    "\n \u3000!?": "",
}


@pytest.mark.parametrize("caption", SENTENCES)
def test_unicode_words_are_those_of_any_language_with_spaces(caption):
    words = [unicodedata.normalize("NFC", word) for word in SENTENCES[caption].split()]
    assert tokenize(caption, "unicode") == words


@pytest.mark.parametrize(
    ("caption", "tokens"),
    (
        ("犬がボールを、追う。", "犬 が ボ ー ル を 追 う"),
        ("一只狗在 2 楼！", "一 只 狗 在 2 楼"),
        ("कुत्ता", "कु त् ता"),
        ("か\u3099 ガ", "が ガ"),
        ("👨\u200d👩\u200d👧 A-b", "a b"),
        ("หมา", "ห ม า"),
    ),
)
def test_characters_keep_their_accents_and_vowel_signs(caption, tokens):
    assert tokenize(caption, "char") == tokens.split()


def test_unknown_tokenizations_are_errors():
    with pytest.raises(ValueError, match="ptb, unicode, char. Received: tokenization='jieba'"):
        tokenize("a", "jieba")


@pytest.mark.parametrize("tokenization", ("unicode", "char"))
def test_long_texts_are_segmented_in_linear_time(tokenization):
    start = time.perf_counter()
    tokens = tokenize("犬 dog " * 20_000, tokenization)
    assert len(tokens) == 20_000 * (2 if tokenization == "unicode" else 4)
    assert time.perf_counter() - start < 2


def test_english_words_in_other_scripts_are_warned_about():
    japanese, english = ["犬が走る"] * 3, ["a dog runs"] * 3
    assert "choose 'unicode', or 'char'" in language_note([*japanese, "a"], "ptb")
    assert language_note(japanese, "char") == language_note([*english, "犬"], "ptb") == ""
    assert language_note([], "ptb") == language_note(["1 ♥"], "ptb") == ""
