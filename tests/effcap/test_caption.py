"""Tests of captions: the scores of their tokens, and their confidence."""

from __future__ import annotations

import math
from dataclasses import replace

import keras
import numpy as np
import pytest

import effcap
from effcap.caption import Caption, TokenDetail
from effcap.samplers import Beam, Greedy, Nucleus, Sampler
from effcap.tokenizers import Tokenizer
from helpers.captioners import example_inputs

SAMPLERS = [
    Greedy(max_new_tokens=6),
    Nucleus(max_new_tokens=6, num_captions=2, temperature=0.3, seed=1),
    Beam(max_new_tokens=6, num_beams=3, num_captions=3),
]


def forced(captioner: effcap.Captioner, inputs: dict, caption: Caption) -> np.ndarray:
    """Returns the log-probability of each detail, computed from the whole caption at once."""
    tokenizer = captioner.tokenizer
    targets = [*caption.tokens, *[tokenizer.eos_id] * caption.is_finished]
    tokens = np.array([[tokenizer.bos_id, *targets[:-1]]], np.int32)  # (1, T)
    logits = captioner({**inputs, "tokens": tokens}, training=False)[0]  # (T, V)
    log_probs = keras.ops.convert_to_numpy(keras.ops.log_softmax(logits, axis=-1))
    scores = log_probs[np.arange(len(targets)), targets]
    return scores[len(targets) - len(caption.details) :]


@pytest.mark.usefixtures("eager")
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_details_are_the_tokens_and_their_log_probabilities(captioner, sampler: Sampler):
    inputs = example_inputs(captioner.encoder, 1)
    finished = set()
    for prefix in ("", "a brown"):
        (captions,) = captioner.generate_batch(inputs, sampler, prefix=prefix)
        for caption in captions:
            ids = [detail.token for detail in caption.details]
            given = captioner.tokenizer.encode_prefix(prefix)
            end = [captioner.tokenizer.eos_id] * caption.is_finished
            assert [*given, *ids] == [*caption.tokens, *end]
            scores = np.array([detail.score for detail in caption.details])
            np.testing.assert_allclose(scores, forced(captioner, inputs, caption), atol=1e-4)
            np.testing.assert_allclose(scores.sum(), caption.score, rtol=1e-5)
            np.testing.assert_allclose(caption.mean_score, scores.mean(), rtol=1e-5)
            mean = np.exp(scores).prod() ** (1 / len(ids))
            np.testing.assert_allclose(caption.confidence, mean, rtol=1e-5)
            finished.add(caption.is_finished)
    assert False in finished


@pytest.mark.slow
def test_details_of_the_preset_equal_the_forward_pass():
    captioner = effcap.Captioner.from_preset("flickr8k-lite0")
    images = effcap.load_photo("res/photos/cat.jpg", captioner.encoder.backbone.image_size)[None]
    inputs = {"images": images}
    (captions,) = captioner.generate_batch(inputs, Beam(num_captions=3), prefix="A")
    for caption in captions:
        scores = [detail.score for detail in caption.details]
        np.testing.assert_allclose(scores, forced(captioner, inputs, caption), atol=1e-3)
        text = "A" + "".join(detail.text for detail in caption.details)
        assert text == caption.text + "<|endoftext|>"


def test_text_of_tokens_adds_up_to_the_caption(tokenizer: Tokenizer):
    ids = tokenizer.encode("a brown dog \U0001f415 runs")
    pieces = tokenizer.caption_pieces(ids)
    assert "".join(pieces) == "a brown dog \U0001f415 runs"
    assert "" in pieces and "\ufffd" not in "".join(pieces)  # a dog of four bytes
    assert tokenizer.caption_pieces(ids, 2) == pieces[2:]
    assert tokenizer.caption_pieces([]) == []
    rng = np.random.default_rng(0)
    for _ in range(50):  # any bytes, most of them not characters
        ids = rng.integers(0, 256, 8).tolist()
        assert "".join(tokenizer.caption_pieces(ids)) == tokenizer.decode_caption(ids)


def test_confidence_is_the_geometric_mean_of_the_probabilities():
    details = (TokenDetail(5, " cat", math.log(0.5)), TokenDetail(0, "<end>", math.log(0.125)))
    caption = Caption("cat", math.log(0.0625), (5,), details=details)
    assert math.isclose(caption.confidence, 0.25)
    assert math.isclose(details[0].probability, 0.5)
    missing = replace(caption, score=-math.inf, details=())
    assert (missing.mean_score, missing.confidence) == (-math.inf, 0.0)
