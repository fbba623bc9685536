"""Tests of effcap.phrases and of words in captions, against regular expressions."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.phrases import contains, missing_groups, phrase_tables
from effcap.phrases.matcher import DEAD, START
from effcap.samplers import Beam, Greedy, Nucleus
from effcap.tokenizers import Tokenizer
from effcap.tokenizers.wordpiece import WordPieceTokenizer
from helpers.captioners import example_inputs, tiny_hparams

WORDS = [
    "dog",
    "Dogs",
    "DOG",
    "doghouse",
    "hot",
    "café",
    "cafés",
    "t-shirt",
    "猫",
    "狗",
    ".",
    "'s",
    "a",
]
PIECES = ["d", "##o", "##g", "dog", "##s", "##house", "hot", "t", "-", "shirt", "a", ".", "'", "s"]


def write_wordpiece(folder: Path) -> WordPieceTokenizer:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    return WordPieceTokenizer.from_folder(folder)


def expected(phrase: str, text: str) -> bool:
    """Returns whether a regular expression finds the phrase; Chinese has no spaces."""
    text = re.sub("([猫狗])", r" \1 ", text.lower())
    pattern = re.escape(phrase.lower()).replace(r"\ ", r"\s+")
    return re.search(rf"(?<!\w){pattern}(?!\w)", text) is not None


def follow(tables: dict[str, np.ndarray], ids: list[int]) -> tuple[int, int]:
    """Returns the state after tokens, and the bits of the groups that are met."""
    state, met = START, 0
    for token in ids:
        kind = tables["word_classes"][token]
        if "word_hits" in tables:
            met |= int(tables["word_hits"][state, kind])
        state = int(tables["word_next"][state, kind])
    return state, met


@pytest.mark.parametrize(
    "include, exclude",
    [((("dog",), ("hot dog", "t-shirt")), ("a hot",)), ((), ("dog",)), ((("café", "猫"),), ())],
)
def test_tables_find_whole_words_in_all_spellings(include, exclude, tokenizer: Tokenizer):
    tables = phrase_tables(include, exclude, tokenizer, tokenizer.vocabulary_size)
    bytes_of = tokenizer.token_bytes()
    rng, seen = random.Random(0), set()
    for _ in range(800):
        text = "".join(rng.choice(["", " ", "  ", "\n"]) + rng.choice(WORDS) for _ in range(5))
        canonical, single = (
            tokenizer.encode(text),
            [bytes_of.index(bytes([b])) for b in text.encode()],
        )
        ids = [*rng.choice([canonical, single]), tokenizer.eos_id]
        assert b"".join(bytes_of[i] for i in ids).decode() == text
        state, met = follow(tables, ids)
        has_excluded = any(expected(phrase, text) for phrase in exclude)
        groups = [any(expected(phrase, text) for phrase in group) for group in include]
        if text.isascii() or "猫" not in text + str(include):
            assert (state == DEAD) >= has_excluded, text  # what may be excluded, is
        if text.isascii():
            assert (state == DEAD) == has_excluded, text
            assert has_excluded or [bool(met >> i & 1) for i in range(len(groups))] == groups, text
        assert missing_groups(text, include) == tuple(
            "|".join(group) for group, is_met in zip(include, groups, strict=True) if not is_met
        )
        seen.add((has_excluded, *groups))
    assert len(seen) > 1


def test_tables_follow_the_pieces_of_wordpiece(tmp_path):
    tokenizer = write_wordpiece(tmp_path)
    tables = phrase_tables((("dog", "t-shirt"),), ("a hot",), tokenizer, 25)
    for pieces, is_met in (
        (["dog"], True),
        (["d", "##o", "##g"], True),
        (["hot", "dog", "."], True),
        (["dog", "##s"], False),
        (["dog", "##house"], False),
        (["t", "-", "shirt"], True),
        (["t", "shirt"], False),
    ):
        ids = [5 + PIECES.index(piece) for piece in pieces]
        state, met = follow(tables, [*ids, tokenizer.eos_id])
        assert (state != DEAD, bool(met)) == (True, is_met), pieces
        text = tokenizer.decode_caption(ids)
        assert (missing_groups(text, (("dog", "t-shirt"),)) == ()) == is_met, text
    ids = [5 + PIECES.index(piece) for piece in ("dog", "a", "hot", "dog")]
    assert follow(tables, ids)[0] == DEAD


@pytest.mark.parametrize(
    "text, phrase, found",
    [
        ("A Cat.", "cat", True),
        ("the cat's ball", "cat", True),
        ("cats", "cat", False),
        ("a_cat", "cat", False),
        ("a light   red car", "Light Red", True),
        ("a light, red car", "light red", False),
        ("a t - shirt", "t-shirt", True),
        ("一只黑猫坐着", "黑猫", True),
        ("a cat catcat cat", "cat cat", False),
        ("", "cat", False),
    ],
)
def test_contains_finds_whole_words(text, phrase, found):
    assert contains(text, phrase) == found


def test_words_must_be_possible(tokenizer, tmp_path):
    size = tokenizer.vocabulary_size
    with pytest.raises(ValueError, match="not excluded.*include='a dog', exclude=.'dog',."):
        phrase_tables((("a dog",),), ("dog",), tokenizer, size)
    with pytest.raises(ValueError, match="has tokens for. Received: 'zebra'"):
        phrase_tables((("zebra",),), (), write_wordpiece(tmp_path), 25)
    assert phrase_tables((), (), tokenizer, size) == {}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    "sampler",
    [
        Beam(num_beams=3, include=["dog", "red|blue"], exclude=["the"], max_new_tokens=8),
        Nucleus(seed=1, include=["two dogs"], exclude=["a"], max_new_tokens=8),
        Greedy(exclude=["a", "water"], max_new_tokens=8),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_captions_of_a_captioner_have_the_words(captioner: Captioner, sampler):
    inputs = example_inputs(captioner.encoder, 2)
    for captions in captioner.generate_batch(inputs, sampler, prefix="two"):
        for caption in captions:
            assert caption.missing == ()
            for group in sampler.include:
                assert any(expected(phrase, caption.text) for phrase in group), caption.text
            assert not any(expected(phrase, caption.text) for phrase in sampler.exclude)


@pytest.mark.usefixtures("eager")
def test_captions_say_which_words_are_missing(captioner: Captioner):
    inputs = example_inputs(captioner.encoder, 1)
    sampler = Beam(num_beams=2, include=["dog", "red|blue", "beach"], max_new_tokens=3)
    ((caption,),) = captioner.generate_batch(inputs, sampler)
    assert caption.missing and set(caption.missing) <= {"dog", "red|blue", "beach"}
    with pytest.raises(ValueError, match="prefix without the excluded 'dog'. Received: 'a Dog'"):
        captioner.generate_batch(inputs, Greedy(exclude=["dog"], max_new_tokens=3), prefix="a Dog")


@pytest.mark.usefixtures("eager")
def test_captions_of_wordpiece_have_the_words(tmp_path):
    tokenizer = write_wordpiece(tmp_path)
    captioner = Captioner.from_hparams(tiny_hparams(), tokenizer)
    inputs = example_inputs(captioner.encoder, 2)
    sampler = Beam(num_beams=3, include=["t-shirt", "dog"], exclude=["a"], max_new_tokens=10)
    for (caption,) in captioner.generate_batch(inputs, sampler):
        assert caption.missing == () and "dog" in caption.text.split()
        assert "a" not in caption.text.split()
