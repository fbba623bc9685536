"""CIDEr and CIDEr-D against their formulas, document frequencies and errors."""

from __future__ import annotations

import numpy as np
import pytest

from effcap.metrics import CiderD, DocumentFrequencies, PlainCider
from effcap.metrics.ngrams import HashedCaptions
from helpers import metrics_reference

REFERENCES = metrics_reference.random_references(12, 7)
CANDIDATES = metrics_reference.random_captions(12, 8)


def test_cider_d_matches_its_formula():
    expected = metrics_reference.cider(CANDIDATES, REFERENCES)
    assert CiderD(REFERENCES).score(CANDIDATES) == pytest.approx(expected, abs=1e-12)
    assert max(expected) > 0.5


def test_plain_cider_has_no_clipping_and_no_length_penalty():
    expected = metrics_reference.cider(CANDIDATES, REFERENCES, clipped=False)
    assert PlainCider(REFERENCES).score(CANDIDATES) == pytest.approx(expected, abs=1e-12)
    assert not np.allclose(expected, metrics_reference.cider(CANDIDATES, REFERENCES))


def test_several_captions_of_an_image_are_scored_independently():
    images = [3, 3, 0, 11, 3]
    expected = metrics_reference.cider(CANDIDATES[:5], REFERENCES, images)
    scores = CiderD(REFERENCES).score(CANDIDATES[:5], images)
    assert scores == pytest.approx(expected, abs=1e-12)
    assert CiderD(REFERENCES).score([], []).shape == (0,)


def test_token_ids_score_like_words():
    ids = {word: i for i, word in enumerate(metrics_reference.WORDS)}

    def numbered(captions):
        return [np.array([ids[word] for word in words], np.int32) for words in captions]

    scores = CiderD([numbered(group) for group in REFERENCES]).score(numbered(CANDIDATES))
    assert scores == pytest.approx(CiderD(REFERENCES).score(CANDIDATES), abs=1e-12)


def test_frequencies_of_other_references_can_be_saved_and_loaded(tmp_path):
    others = metrics_reference.random_references(30, 9)
    expected = metrics_reference.cider(CANDIDATES, REFERENCES, frequencies_of=others)
    DocumentFrequencies.from_references(others).save(tmp_path / "frequencies.npz")
    frequencies = DocumentFrequencies.load(tmp_path / "frequencies.npz")
    scores = CiderD(REFERENCES, frequencies).score(CANDIDATES)
    assert scores == pytest.approx(expected, abs=1e-12)


def test_the_end_token_is_appended_to_finished_captions():
    ended = [[[*words, 0] for words in group] for group in REFERENCES]
    finished = [i % 2 == 0 for i in range(len(CANDIDATES))]
    candidates = [[*w, 0] if end else w for w, end in zip(CANDIDATES, finished, strict=True)]
    scores = CiderD(REFERENCES, end_token=0).score(CANDIDATES, finished=finished)
    assert scores == pytest.approx(metrics_reference.cider(candidates, ended), abs=1e-12)
    assert not np.allclose(scores, CiderD(REFERENCES, end_token=0).score(CANDIDATES))


def test_copied_references_score_ten_and_a_single_image_zero():
    texts = [[w] for w in metrics_reference.random_captions(9, 3, least=6)]
    assert CiderD(texts).score([group[0] for group in texts]) == pytest.approx(10)
    assert CiderD(texts[:1]).score([texts[0][0]]) == pytest.approx(0)


def test_idf_is_the_log_inverse_fraction_of_images():
    frequencies = DocumentFrequencies.from_references([[["a", "b"], ["a"]], [["a", "c"]]])
    hashes = HashedCaptions.from_tokens([["a", "b", "never"]]).words
    assert frequencies.idf(hashes, 1) == pytest.approx([0, np.log(2), np.log(2)])


@pytest.mark.parametrize(
    ("candidates", "images", "message"),
    (
        ([["a"]], None, "an image for each of 1 captions. Received: 12"),
        ([["a"]], [12], "images from 0 to 11. Received: 12 to 12"),
        ([["a"]], [-1], "images from 0 to 11. Received: -1"),
    ),
)
def test_captions_of_unknown_images_raise(candidates, images, message):
    with pytest.raises(ValueError, match=message):
        CiderD(REFERENCES).score(candidates, images)


def test_invalid_references_and_files_raise(tmp_path):
    with pytest.raises(ValueError, match="at least one image. Received: none"):
        CiderD([])
    with pytest.raises(ValueError, match="none for image 1"):
        CiderD([[["a"]], []])
    with pytest.raises(TypeError, match="Received: 'a dog'"):
        CiderD([["a dog"]])
    np.savez(tmp_path / "other.npz", images=np.array([{}], object))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and nothing")
    (tmp_path / "text.npz").write_text("no numbers")
    for name in ("other", "broken", "text"):
        with pytest.raises(ValueError, match=f"written by save in .*{name}.npz"):
            DocumentFrequencies.load(tmp_path / f"{name}.npz")
    with pytest.raises(FileNotFoundError):
        DocumentFrequencies.load(tmp_path / "none.npz")
