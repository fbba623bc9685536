"""CIDEr and CIDEr-D are their formulas, for words and token ids, one caption or many per image."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import metrics_reference

from effcap.metrics import CiderD, DocumentFrequencies, PlainCider

REFERENCES = metrics_reference.random_references(12, 7)
CANDIDATES = metrics_reference.random_captions(12, 8)


def test_cider_d_is_its_formula():
    expected = metrics_reference.cider(CANDIDATES, REFERENCES)
    assert CiderD(REFERENCES).score(CANDIDATES) == pytest.approx(expected, abs=1e-12)
    assert max(expected) > 0.5


def test_plain_cider_neither_clips_nor_minds_lengths():
    expected = metrics_reference.cider(CANDIDATES, REFERENCES, clipped=False)
    assert PlainCider(REFERENCES).score(CANDIDATES) == pytest.approx(expected, abs=1e-12)
    assert not np.allclose(expected, metrics_reference.cider(CANDIDATES, REFERENCES))


def test_several_captions_of_an_image_are_scored_each_by_itself():
    images = [3, 3, 0, 11, 3]
    expected = metrics_reference.cider(CANDIDATES[:5], REFERENCES, images)
    scores = CiderD(REFERENCES).score(CANDIDATES[:5], images)
    assert scores == pytest.approx(expected, abs=1e-12)
    assert CiderD(REFERENCES).score([], []).shape == (0,)


def test_token_ids_score_as_words_do():
    ids = {word: i for i, word in enumerate(metrics_reference.WORDS)}

    def numbered(captions):
        return [np.array([ids[word] for word in words], np.int32) for words in captions]

    scores = CiderD([numbered(group) for group in REFERENCES]).score(numbered(CANDIDATES))
    assert scores == pytest.approx(CiderD(REFERENCES).score(CANDIDATES), abs=1e-12)


def test_frequencies_may_come_from_other_references_and_from_a_file(tmp_path):
    others = metrics_reference.random_references(30, 9)
    expected = metrics_reference.cider(CANDIDATES, REFERENCES, frequencies_of=others)
    DocumentFrequencies.of(others).save(tmp_path / "frequencies.npz")
    frequencies = DocumentFrequencies.load(tmp_path / "frequencies.npz")
    scores = CiderD(REFERENCES, frequencies).score(CANDIDATES)
    assert scores == pytest.approx(expected, abs=1e-12)


def test_the_end_token_is_a_word_of_captions_that_came_to_their_end():
    ended = [[[*words, 0] for words in group] for group in REFERENCES]
    finished = [i % 2 == 0 for i in range(len(CANDIDATES))]
    candidates = [[*w, 0] if end else w for w, end in zip(CANDIDATES, finished, strict=True)]
    scores = CiderD(REFERENCES, end_token=0).score(CANDIDATES, finished=finished)
    assert scores == pytest.approx(metrics_reference.cider(candidates, ended), abs=1e-12)
    assert not np.allclose(scores, CiderD(REFERENCES, end_token=0).score(CANDIDATES))


def test_a_caption_that_is_all_references_has_ten_and_of_one_image_nothing():
    texts = [[w] for w in metrics_reference.random_captions(9, 3, least=6)]
    assert CiderD(texts).score([group[0] for group in texts]) == pytest.approx(10)
    assert CiderD(texts[:1]).score([texts[0][0]]) == pytest.approx(0)


def test_frequencies_weigh_by_the_share_of_images():
    frequencies = DocumentFrequencies.of([[["a", "b"], ["a"]], [["a", "c"]]])
    from effcap.metrics.ngrams import Captions

    hashes = Captions.of([["a", "b", "never"]]).words
    assert frequencies.idf(hashes, 1) == pytest.approx([0, np.log(2), np.log(2)])


@pytest.mark.parametrize(
    ("candidates", "images", "message"),
    (
        ([["a"]], None, "an image for each of 1 captions. Received: 12"),
        ([["a"]], [12], "images from 0 to 11. Received: 12 to 12"),
        ([["a"]], [-1], "images from 0 to 11. Received: -1"),
    ),
)
def test_captions_of_no_image_are_refused(candidates, images, message):
    with pytest.raises(ValueError, match=message):
        CiderD(REFERENCES).score(candidates, images)


def test_bad_references_and_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one image. Received: none"):
        CiderD([])
    with pytest.raises(ValueError, match="none for image 1"):
        CiderD([[["a"]], []])
    with pytest.raises(TypeError, match="Received the text: 'a dog'"):
        CiderD([["a dog"]])
    np.savez(tmp_path / "other.npz", images=np.array([{}], object))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and nothing")
    (tmp_path / "text.npz").write_text("no numbers")
    for name in ("other", "broken", "text"):
        with pytest.raises(ValueError, match=f"written by save in .*{name}.npz"):
            DocumentFrequencies.load(tmp_path / f"{name}.npz")
    with pytest.raises(FileNotFoundError):
        DocumentFrequencies.load(tmp_path / "none.npz")
