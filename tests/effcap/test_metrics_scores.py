"""score_captions: published scores, several captions per image, and errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from effcap.metrics import CiderD, score_captions, tokenize

COCO = Path(__file__).resolve().parents[3] / "shared" / "coco-eval"
REFERENCES = [
    ["A dog runs on the grass.", "The dog's running, isn't it?"],
    ["Two cats sit on a red sofa.", "cats on a sofa"],
    ["A man rides a bike down the street."],
]


@pytest.mark.skipif(not COCO.is_dir(), reason="requires shared/coco-eval")
def test_published_coco_scores_are_reproduced():
    content = json.loads((COCO / "captions_test5k.json").read_text())
    captions = json.loads((COCO / "show_edit_tell_xe_caps.json").read_text())
    references: dict[int, list[str]] = {}
    for annotation in content["annotations"]:
        references.setdefault(annotation["image_id"], []).append(annotation["caption"])
    scores = score_captions(
        [entry["caption"] for entry in captions],
        [references[entry["image_id"]] for entry in captions],
    ).corpus
    assert scores["BLEU-4"] == pytest.approx(0.37994, abs=1e-4)
    assert scores["ROUGE-L"] == pytest.approx(0.57716, abs=1e-4)
    assert scores["CIDEr"] == pytest.approx(1.20003, abs=3e-4)


def test_scores_of_corpus_and_images():
    captions = ["a dog runs on the grass", "a cat", "a cat"]
    scores = score_captions(captions, REFERENCES)
    assert list(scores.corpus) == [
        *(f"BLEU-{n}" for n in (1, 2, 3, 4)),
        *("ROUGE-L", "CIDEr", "distinct captions", "vocabulary", "mean length"),
    ]
    assert scores.corpus["distinct captions"] == pytest.approx(2 / 3)
    assert scores.corpus["vocabulary"] == 7
    words = [[tokenize(text) for text in group] for group in REFERENCES]
    expected = CiderD(words).score([tokenize(text) for text in captions])
    assert scores.images["CIDEr"] == pytest.approx(expected)
    assert scores.corpus["CIDEr"] == pytest.approx(expected.mean())


def test_several_captions_of_an_image_are_averaged_and_compared():
    captions = [["a dog runs", "dogs on grass"], ["a cat", "a cat"], ["a man rides a bike"] * 2]
    scores = score_captions(captions, REFERENCES)
    first, second = (score_captions([group[i] for group in captions], REFERENCES) for i in (0, 1))
    for name in ("CIDEr", "ROUGE-L"):
        mean = (first.images[name] + second.images[name]) / 2
        assert scores.images[name] == pytest.approx(mean)
    assert scores.corpus["div-1"] == pytest.approx((6 / 6 + 2 / 4 + 4 / 10) / 3)
    assert 0 < scores.corpus["Self-CIDEr"] < 1


def test_self_cider_uses_only_images_with_several_captions():
    scores = score_captions([["a dog", "a dog"], "a cat", "a bike"], REFERENCES)
    assert scores.corpus["Self-CIDEr"] == pytest.approx(0, abs=1e-6)


def test_empty_captions_are_scored_and_tokenization_is_tracked():
    totals = []

    def track(texts, total):
        totals.append(total)
        return texts

    scores = score_captions(["", ".", "a man"], REFERENCES, track=track)
    assert totals == [8]
    assert np.array_equal(scores.images["CIDEr"] > 0, [False, False, True])


@pytest.mark.parametrize(
    ("captions", "references", "message"),
    (
        ([], [], "at least one. Received: captions of 0"),
        (["a"], [["a"], ["b"]], "captions of 1, references of 2"),
        (["a"], ["a dog"], "list of at least one reference for image 0. Received: 'a dog'"),
        (["a", []], [["a"], ["b"]], r"at least one caption for image 1. Received: \[\]"),
    ),
)
def test_captions_and_references_must_match(captions, references, message):
    with pytest.raises(ValueError, match=message):
        score_captions(captions, references)


def test_scores_of_other_languages_count_their_words_or_characters():
    captions, references = ["犬が走る", "猫"], [["犬が走っている。"], ["黒い猫。", "猫が座る。"]]
    scores = score_captions(captions, references, tokenization="char").corpus
    words = [" ".join(text) for text in captions]
    expected = score_captions(
        words,
        [[" ".join(text) for text in group] for group in references],
        tokenization="unicode",
    ).corpus
    assert scores["BLEU-1"] > 0.3 and scores["CIDEr"] > 0
    assert scores == pytest.approx(expected)
    assert score_captions(captions, references).corpus["BLEU-1"] < 0.1


def test_metrics_of_english_are_refused_for_other_languages():
    with pytest.raises(ValueError, match="METEOR can only score English.*tokenization='char'"):
        score_captions(["a"], [["a"]], ["METEOR"], tokenization="char")
