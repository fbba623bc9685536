"""Tests of output vocabularies: captions of given tokens, with a smaller output projection."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from effcap.captioner import Captioner
from effcap.layers.lora import TiedHead
from effcap.output_vocabulary import caption_tokens, format_tokens, parse_tokens
from effcap.samplers import Beam, Greedy, Nucleus
from helpers.captioners import CAPTIONS, example_inputs, numpy, randomize, tiny_hparams

FEW = "97-110 120 260-275"  # without the end token, which is always part of it
GREEDY = Greedy(max_new_tokens=5)
SAMPLERS = [
    GREEDY,
    pytest.param(Nucleus(max_new_tokens=5, seed=1, num_captions=2), marks=pytest.mark.slow),
    pytest.param(
        Beam(
            max_new_tokens=5,
            min_new_tokens=3,
            num_captions=2,
            num_beams=4,
            num_beam_groups=2,
            diversity_penalty=0.5,
            no_repeat_ngram_size=2,
            repetition_penalty=1.5,
            suppress_tokens=(5, 99, 262, 289),
            exclude=("on", "a dog"),
        ),
        marks=pytest.mark.slow,
    ),
]


def generate(captioner, sampler, prefix=None):
    return captioner.generate_batch(example_inputs(captioner.encoder, 3), sampler, prefix=prefix)


def forbid_others(captioner, tokens, monkeypatch):
    """Lets the decoder compute logits of -inf for all other tokens."""
    allowed = np.isin(np.arange(captioner.decoder.vocabulary_size), tokens)
    step = captioner.decoder.step

    def forbidding(*arguments):
        logits, cache = step(*arguments)
        return ops.where(allowed, logits, -np.inf), cache

    captioner.decoder.output_vocabulary = None
    captioner._generation.clear()
    monkeypatch.setattr(captioner.decoder, "step", forbidding)


def assert_equal(received, expected):
    for mine, theirs in zip(received, expected, strict=True):
        assert [caption.tokens for caption in mine] == [caption.tokens for caption in theirs]
        assert [caption.text for caption in mine] == [caption.text for caption in theirs]
        scores = [[caption.score for caption in row] for row in (mine, theirs)]
        np.testing.assert_allclose(*scores, rtol=1e-5)
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(
                [x.score for x in one.details], [x.score for x in other.details], atol=1e-5
            )


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_captions_are_those_with_all_other_logits_minus_infinity(
    captioner, eager, monkeypatch, sampler
):
    prefix, sizes, project = "a black dog", set(), TiedHead.project

    def recorded(self, x, weights):
        logits = project(self, x, weights)
        sizes.add(logits.shape[-1])
        return logits

    monkeypatch.setattr(TiedHead, "project", recorded)
    captioner.decoder.output_vocabulary = FEW
    received = generate(captioner, sampler, prefix)
    assert sizes == {64}  # of 290
    tokens = {*parse_tokens(FEW), captioner.tokenizer.eos_id}
    assert set(captioner.tokenizer.encode(prefix)) - tokens
    forbid_others(captioner, list(tokens), monkeypatch)
    assert_equal(received, generate(captioner, sampler, prefix))
    assert sizes == {64, 290}


@pytest.mark.slow
def test_words_to_include_add_their_tokens(captioner, eager, monkeypatch):
    captioner.decoder.output_vocabulary = FEW
    sampler = Beam(max_new_tokens=5, include=("water",))
    received = generate(captioner, sampler)
    assert all("water" in row[0].text and row[0].missing == () for row in received)
    spellings = [form for word in ("water", "Water") for form in (word, f" {word}")]
    added = {token for ids in captioner.tokenizer.encode_batch(spellings) for token in ids}
    assert added - set(parse_tokens(FEW))
    tokens = [*parse_tokens(FEW), captioner.tokenizer.eos_id, *added]
    forbid_others(captioner, tokens, monkeypatch)
    assert_equal(received, generate(captioner, sampler))


def decoders(tokenizer) -> dict[str, Captioner]:
    """Captioners with added special tokens, and with BERT, both with adapters of the head."""
    small = tiny_hparams(num_special_tokens=5)
    sizes = {"hidden_dim": 16, "num_heads": 2, "num_layers": 1, "max_sequence_length": 12}
    bert = {**tiny_hparams(), "decoder": {"kind": "bert", "vocabulary_size": None, **sizes}}
    captioners = {}
    for kind, hparams in (("gpt2", small), ("bert", bert)):
        captioner = Captioner.from_hparams(hparams, tokenizer)
        targets = ".*(lm_head|predictions.decoder)"
        captioner.add_adapter("one", rank=2, alpha=8, targets=targets)
        captioner.add_adapter("two", rank=3, targets=targets, bias="lora_only")
        captioner.set_adapter(["one", "two"])
        captioners[kind] = randomize(captioner)
    return captioners


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_a_head_of_some_tokens_has_their_logits(tokenizer, kind):
    """Also those of added special tokens, biases and adapters of the head."""
    decoder = decoders(tokenizer)[kind].decoder
    assert decoder.head.updates
    tokens = np.array([3, 17, 200, 284, 285, 289], np.int32)
    x = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32)
    expected = numpy(decoder.logits(x))
    hidden = decoder.normalize_output(ops.convert_to_tensor(x))
    every = numpy(decoder.head.project(hidden, decoder.output_head()))
    np.testing.assert_allclose(every, expected, atol=1e-5)
    some = numpy(decoder.head.project(hidden, decoder.output_head(tokens)))
    np.testing.assert_allclose(some, expected[:, tokens], atol=1e-5)


def test_captions_give_their_tokens_and_all_bytes(tokenizer):
    tokens = caption_tokens(["a brown dog"], tokenizer)
    own = {*tokenizer.encode("a brown dog"), *tokenizer.encode(" a brown dog")}
    assert own <= tokens
    assert all(len(tokenizer.decode([token]).strip()) < 2 for token in tokens - own)
    spelled = [next(i for i in tokens if tokenizer.decode([i]) == x) for x in "zebra"]
    assert tokenizer.decode(spelled) == "zebra"
    assert not set(tokenizer.encode("street")) <= tokens


def test_a_vocabulary_can_be_undone_and_widened(captioner):
    captioner.restrict_vocabulary(CAPTIONS[:1])
    first = set(captioner.output_tokens)
    captioner.restrict_vocabulary(iter(CAPTIONS[1:2]))
    second = set(captioner.output_tokens)
    captioner.restrict_vocabulary(CAPTIONS[:1], widen=True)
    assert set(captioner.output_tokens) == first | second > first
    captioner.restrict_vocabulary(None)
    assert captioner.output_tokens is None


def test_presets_and_keras_files_keep_the_vocabulary(captioner, tmp_path):
    assert "output_vocabulary" not in captioner.decoder.get_config()
    captioner.restrict_vocabulary(CAPTIONS[:2])
    captioner.save_to_preset(tmp_path / "preset")
    captioner.save(tmp_path / "captioner.keras")
    loaded = Captioner.from_preset(tmp_path / "preset")
    assert loaded.output_tokens == captioner.output_tokens
    saved = keras.saving.load_model(tmp_path / "captioner.keras")
    assert saved.output_tokens == captioner.output_tokens
    everything = Captioner.from_preset(tmp_path / "preset", decoder={"output_vocabulary": None})
    assert everything.output_tokens is None


def test_no_captions_are_an_error(captioner):
    with pytest.raises(ValueError, match="Expected captions .* Received: none"):
        captioner.restrict_vocabulary([])
    assert captioner.output_tokens is None


@pytest.mark.parametrize("tokens", [[5], [0, 1, 2, 7], [0, 2, 4], [*range(256), 300]])
def test_tokens_are_written_as_ranges(tokens):
    assert list(parse_tokens(format_tokens(tokens[::-1]))) == tokens


def test_ranges_are_short():
    assert format_tokens([*range(256), 262, 264, 265]) == "0-255 262 264-265"


@pytest.mark.parametrize(
    "text", ["", "a", "3-", "5-4", "7 3", "1-4 4", "-3", "290", "0-999999999999", 7, [1, 2]]
)
def test_wrong_vocabularies_are_refused(text, tokenizer):
    with pytest.raises(ValueError, match="output_vocabulary"):
        Captioner.from_hparams(tiny_hparams(output_vocabulary=text), tokenizer)
