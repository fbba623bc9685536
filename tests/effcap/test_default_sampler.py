"""Tests of the sampler that a captioner generates with by default."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.generation_call import suppress_undecodable
from effcap.samplers import Beam, Greedy, Nucleus
from effcap.tokenizers.wordpiece import WordPieceTokenizer
from helpers.captioners import randomize, tiny_hparams

SAMPLERS = [
    Greedy(max_new_tokens=5, suppress_tokens=(3, 7)),
    Beam(num_beams=2, max_new_tokens=4, length_penalty=1.0, no_repeat_ngram_size=2),
    Nucleus(top_k=3, seed=4, max_new_tokens=6),
]
PHOTO = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


def captioner_with(sampler, tokenizer) -> Captioner:
    keras.utils.set_random_seed(0)
    captioner = Captioner.from_hparams(tiny_hparams(), tokenizer)
    captioner.sampler = sampler
    return randomize(captioner)


def test_captions_are_those_of_the_default_sampler(tokenizer):
    sampler = SAMPLERS[1]
    captioner = captioner_with(sampler, tokenizer)
    captions = captioner.generate(PHOTO, details=True)
    assert captions == captioner.generate(PHOTO, sampler, details=True)
    assert captions != captioner.generate(PHOTO, "beam", details=True)
    inputs = {"images": captioner.encoder.image_size}
    inputs = {"images": np.zeros((1, *inputs["images"], 3), np.uint8)}
    assert captioner.generate_batch(inputs) == captioner.generate_batch(inputs, sampler)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_the_default_sampler_survives_presets_and_keras_files(sampler, tokenizer, tmp_path):
    captioner = captioner_with(sampler, tokenizer)
    captioner.save_to_preset(tmp_path / "preset")
    assert Captioner.from_preset(tmp_path / "preset").sampler == sampler
    captioner.save(tmp_path / "captioner.keras")
    assert keras.saving.load_model(tmp_path / "captioner.keras").sampler == sampler
    assert captioner.hparams()["sampler"]["max_new_tokens"] == sampler.max_new_tokens


def test_a_captioner_has_no_default_sampler_unless_it_is_given(captioner, tmp_path):
    assert captioner.sampler is None and "sampler" not in captioner.hparams()
    captioner.save_to_preset(tmp_path)
    assert Captioner.from_preset(tmp_path).sampler is None
    assert captioner.generate(PHOTO) == captioner.generate(PHOTO, "beam")


def test_an_unknown_field_of_the_default_sampler_is_an_error(tokenizer):
    hparams = {**tiny_hparams(), "sampler": {"kind": "greedy", "num_beams": 3}}
    with pytest.raises(ValueError, match="greedy sampler has the fields.*num_beams=3"):
        Captioner.from_hparams(hparams, tokenizer)
    with pytest.raises(ValueError, match="beam, greedy, nucleus.*None"):
        Captioner.from_hparams({**hparams, "sampler": {"num_beams": 3}}, tokenizer)


def test_a_start_token_after_the_vocabulary_is_never_generated(tokenizer, tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[SEP]\na\ndog\n")
    wordpiece = WordPieceTokenizer.from_folder(tmp_path, "[DEC]")
    decoder = SimpleNamespace(vocabulary_size=8)  # two more than the tokenizer
    sampler = Greedy(suppress_tokens=[3])
    received = suppress_undecodable(sampler, decoder, wordpiece)
    assert received.suppress_tokens == (3, 5, 6, 7)
    # A start token that is part of the vocabulary may be part of a caption.
    inside = WordPieceTokenizer.from_folder(tmp_path, "a")
    received = suppress_undecodable(sampler, decoder, inside)
    assert received.suppress_tokens == (3, 5, 6, 7)  # without "a"
    same = SimpleNamespace(vocabulary_size=tokenizer.vocabulary_size)
    assert suppress_undecodable(sampler, same, tokenizer).suppress_tokens == (3,)
