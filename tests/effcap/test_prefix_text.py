"""Captions that continue a given text: grouping, samplers, lengths, tokens and errors."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.generation import GenerationModel
from effcap.samplers import Beam, Greedy, Nucleus
from effcap.tokenizers import Tokenizer
from helpers.captioners import (
    CAPTIONS,
    example_inputs,
)

PREFIXES = ["a", None, "x "]
SAMPLERS = {
    "greedy": Greedy(max_new_tokens=4, no_repeat_ngram_size=2, repetition_penalty=1.3),
    "beam": Beam(num_beams=3, num_captions=2, max_new_tokens=6, min_new_tokens=3),
    "diverse": Beam(
        num_beams=4, num_beam_groups=2, diversity_penalty=0.5, num_captions=2, max_new_tokens=5
    ),
    "nucleus": Nucleus(num_captions=2, max_new_tokens=6, seed=3),
}
FAST = ("greedy",)


def rows(inputs: dict, chosen: slice) -> dict:
    return {name: array[chosen] for name, array in inputs.items()}


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Generates without compiling, which would take longer than the captions."""
    if keras.backend.backend() == "jax":
        return  # compiles its loops anyway
    compile_model = GenerationModel.compile
    monkeypatch.setattr(
        GenerationModel, "compile", lambda self, **_: compile_model(self, run_eagerly=True)
    )


@pytest.fixture
def small(captioner) -> tuple[Captioner, dict]:
    return captioner, example_inputs(captioner.encoder, 3)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in SAMPLERS]
)
def test_a_batch_of_prefixes_equals_each_photo_alone(small, name):
    (captioner, inputs), sampler = small, SAMPLERS[name]
    assert len({len(captioner.tokenizer.encode_prefix(text or "")) for text in PREFIXES}) == 2
    together = captioner.generate_batch(inputs, sampler, prefix=PREFIXES)
    for row, prefix in enumerate(PREFIXES):
        (alone,) = captioner.generate_batch(
            rows(inputs, slice(row, row + 1)), sampler, 1, [row], prefix=prefix
        )
        assert [c.tokens for c in alone] == [c.tokens for c in together[row]]
        np.testing.assert_allclose(
            [c.score for c in alone], [c.score for c in together[row]], atol=1e-4
        )
        assert all(caption.text.startswith((prefix or "").strip()) for caption in alone)


def test_generate_takes_one_prefix_or_one_for_each_photo(captioner):
    photos = [np.full((32, 32, 3), shade, np.uint8) for shade in (0, 90, 200)]
    sampler = Greedy(max_new_tokens=4)
    same = captioner.generate(photos, sampler, prefix="two dogs", batch_size=2)
    assert all(text.startswith("two dogs") for text in same)
    assert captioner.generate(photos[0], sampler, prefix="two dogs") == same[0]
    mixed = captioner.generate(iter(photos), sampler, prefix=iter(["", "two dogs", None]))
    assert mixed[1] == same[1]
    assert [mixed[0], mixed[2]] == captioner.generate(photos[::2], sampler)
    with pytest.raises(ValueError, match="one for each of 3 photos. Received: 2"):
        captioner.generate(photos, sampler, prefix=["a", "b"])
    with pytest.raises(ValueError, match="one for each of 3 photos. Received: 4"):
        captioner.generate(iter(photos), sampler, prefix=iter(["a"] * 4))


def test_a_captioner_with_a_prefix_of_its_own_starts_with_it(captioner, tmp_path):
    inputs, sampler = example_inputs(captioner.encoder, 1), Greedy(max_new_tokens=4)
    plain = captioner.generate_batch(inputs, sampler)
    wanted = captioner.generate_batch(inputs, sampler, prefix="a picture of")
    captioner.prefix = "a picture of"
    captioner.save_to_preset(tmp_path / "preset")
    captioner.save(tmp_path / "model.keras")
    assert captioner.generate_batch(inputs, sampler) == wanted
    assert captioner.generate_batch(inputs, sampler, prefix=[None]) == wanted
    assert captioner.generate_batch(inputs, sampler, prefix="") == plain
    assert Captioner.from_preset(tmp_path / "preset").prefix == "a picture of"
    assert keras.saving.load_model(tmp_path / "model.keras").prefix == "a picture of"


def test_a_continuation_is_the_caption_without_its_prefix(captioner):
    ((caption,),) = captioner.generate_batch(
        example_inputs(captioner.encoder, 1), Greedy(max_new_tokens=4), prefix="two dogs "
    )
    assert caption.prefix == "two dogs"
    assert caption.text == f"two dogs{captioner.tokenizer.decode(caption.tokens)[8:]}".strip()
    assert caption.continuation == caption.text[8:].strip()


def test_other_texts_of_the_same_length_use_the_same_model(small):
    captioner, inputs = small
    lengths = set()
    for prefix in ("a", "x", "two", "y "):
        captioner.generate_batch(inputs, Greedy(max_new_tokens=4), prefix=prefix)
        lengths.add(len(captioner.tokenizer.encode_prefix(prefix)))
    assert len(captioner._generation) == len(lengths) < 4


def test_groups_of_a_batch_are_padded_to_few_sizes(small):
    captioner, inputs = small
    sampler = Greedy(max_new_tokens=4)
    inputs = {name: np.repeat(array, 2, axis=0) for name, array in inputs.items()}
    for number in (1, 3):
        mixed = ["two"] * number + [""] * (6 - number)
        captioner.generate_batch(inputs, sampler, prefix=mixed)
    assert {key[-1] for key in captioner._generation._models} == {2, 6}


@pytest.mark.slow
def test_a_prefix_leaves_fewer_positions_for_the_caption(small):
    captioner, inputs = small
    tokenizer, longest = captioner.tokenizer, captioner.decoder.max_text_length  # 24
    prefix = " ".join(["dog"] * 40)
    while len(tokenizer.encode(prefix)) > longest - 3:
        prefix = prefix[:-4]
    free = longest - len(tokenizer.encode(prefix))
    captions = captioner.generate_batch(inputs, "greedy", prefix=[prefix, "", ""])
    assert captions[1:] == captioner.generate_batch(
        rows(inputs, slice(1, 3)), "greedy", indices=range(1, 3)
    )
    assert len(captions[0][0].tokens) <= longest
    captioner.generate_batch(inputs, Greedy(max_new_tokens=free), prefix=prefix)
    with pytest.raises(ValueError, match=f"at most {free}, .* after a prefix of .* Received: "):
        captioner.generate_batch(inputs, Greedy(max_new_tokens=free + 1), prefix=prefix)
    with pytest.raises(ValueError, match=f"Expected a prefix of at most {longest - 1} tokens"):
        captioner.generate_batch(inputs, "beam", prefix=" ".join(["dog"] * 40))


def test_attention_takes_the_tokens_of_a_caption_with_its_prefix(small):
    captioner, inputs = small
    captions = captioner.generate_batch(inputs, Greedy(max_new_tokens=4), prefix=PREFIXES)
    texts = [options[0].tokens for options in captions]
    tokens, weights = captioner.attention_weights(inputs, texts)
    for row, (caption,) in enumerate(captions):
        assert tokens[row, : len(caption.tokens)].tolist() == list(caption.tokens)
    assert weights[0][0].shape[2] == tokens.shape[1]


@pytest.mark.parametrize("prefix", ["a brown", "a brown dog ", " two children"])
def test_prefix_tokens_begin_those_of_a_caption_that_starts_with_it(tokenizer, prefix):
    ids = tokenizer.encode_prefix(prefix)
    words = len(prefix.split())
    whole = [text for text in CAPTIONS if text.split()[:words] == prefix.split()]
    assert whole
    for encoded in tokenizer.encode_captions(whole):
        assert encoded[: len(ids)] == ids
    rest = tokenizer.encode_captions([f" {text}" for text in CAPTIONS])
    joined = tokenizer.encode_captions([f"{prefix.strip()} {text}" for text in CAPTIONS])
    assert [ids + tokens for tokens in rest] == joined


def test_a_prefix_may_be_empty_and_must_not_end_the_caption():
    assert Tokenizer.train(CAPTIONS, 290).encode_prefix(" \n") == []
    with pytest.raises(TypeError, match="prefix"):
        Tokenizer.train(CAPTIONS, 290).encode_prefix(3)
