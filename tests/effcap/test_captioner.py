"""Tests of effcap.captioner: training, captions of photos, files."""

from __future__ import annotations

import io

import keras
import numpy as np
import pytest
from PIL import Image

from effcap.caption import Caption
from effcap.captioner import Captioner
from effcap.images import UnreadablePhoto, load_photo
from effcap.samplers import Beam, Greedy, Nucleus
from helpers.captioners import (
    compile_quickly,
    example_batch,
    example_inputs,
    numpy,
    randomize,
    tiny_hparams,
)

GREEDY = Greedy(max_new_tokens=6)


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    """Photos of several sizes."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((32, 32), (50, 40))] * 2


# Training


def test_a_new_captioner_equals_its_decoder_without_memory(tokenizer):
    captioner = Captioner.from_hparams(tiny_hparams(), tokenizer)
    inputs, _, _ = example_batch(captioner)
    alone = captioner.decoder(inputs["tokens"], None, inputs["segments"])
    np.testing.assert_array_equal(numpy(captioner(inputs)), numpy(alone))


def test_default_loss_counts_real_tokens_only(captioner):
    compile_quickly(captioner)
    inputs, targets, weights = example_batch(captioner)
    logits = numpy(captioner(inputs, training=False))
    logits = logits - logits.max(-1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    picked = np.take_along_axis(log_probabilities, targets[..., None], axis=-1)[..., 0]
    expected = -picked[weights > 0].mean()
    received = captioner.test_on_batch(inputs, targets, weights, return_dict=True)
    assert received["loss"] == pytest.approx(expected, rel=1e-4)
    assert received["cross_entropy"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.usefixtures("eager")
def test_training_moves_all_variables_but_the_frozen_backbone(captioner):
    compile_quickly(captioner)
    before = {weight.path: numpy(weight) + 0 for weight in captioner.weights}
    captioner.train_on_batch(*example_batch(captioner, key="images"))
    moved = {w.path for w in captioner.weights if not np.array_equal(before[w.path], numpy(w))}
    assert not moved & {weight.path for weight in captioner.encoder.backbone.weights}
    assert len(moved) == len(captioner.trainable_weights)


@pytest.mark.slow
def test_trains_and_writes_in_mixed_precision(tokenizer):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        captioner = Captioner.from_hparams(tiny_hparams(), tokenizer)
        compile_quickly(captioner)
        batch = example_batch(captioner, key="images")
        losses = [captioner.train_on_batch(*batch, return_dict=True)["loss"] for _ in range(6)]
        captions = captioner.generate_batch({"images": batch[0]["images"]}, Beam(max_new_tokens=4))
        assert captioner(batch[0]).dtype == keras.ops.zeros((), "float32").dtype
    finally:
        keras.config.set_dtype_policy("float32")
    assert losses[-1] < losses[0]
    assert all(np.isfinite(options[0].score) for options in captions)


def test_encoder_runs_once_per_image_however_many_captions(captioner, photos, monkeypatch):
    """Neither packed captions nor beams repeat the encoder or its memory."""
    encoder, decoder, rows = captioner.encoder, captioner.decoder, []
    encode, precompute_kv, step = encoder.call, decoder.precompute_kv, decoder.step

    def counted_encode(inputs, training=None):
        rows.append(("encoder", next(iter(inputs.values())).shape[0]))
        return encode(inputs, training=training)

    def counted_precompute_kv(memory, training=None):
        memory_kv = precompute_kv(memory, training)
        rows.extend(("memory", layer_kv[0]["keys"].shape[0]) for layer_kv in memory_kv)
        return memory_kv

    def counted_step(tokens, position, cache, memory_kv, head):
        rows.append(("text", tokens.shape[0]))
        rows.extend(("memory", layer_kv[0]["keys"].shape[0]) for layer_kv in memory_kv)
        return step(tokens, position, cache, memory_kv, head)

    monkeypatch.setattr(encoder, "call", counted_encode)
    monkeypatch.setattr(decoder, "precompute_kv", counted_precompute_kv)
    monkeypatch.setattr(decoder, "step", counted_step)
    inputs = example_inputs(encoder, 2)
    segments = np.arange(9)[None].repeat(2, axis=0) // 3  # three captions in each row
    captioner({**inputs, "tokens": np.zeros((2, 9), np.int32), "segments": segments})
    assert set(rows) == {("encoder", 2), ("memory", 2)}
    rows.clear()
    captioner.generate_batch(inputs, Beam(num_beams=3, max_new_tokens=4))
    assert set(rows) == {("encoder", 2), ("memory", 2), ("text", 6)}
    assert rows.count(("encoder", 2)) == 1 or keras.backend.backend() == "jax"


# Captions of photos


def test_photos_are_accepted_in_every_form(captioner, photos, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(photos[1]).save(path)
    expected = captioner.generate(photos[1], GREEDY)
    assert isinstance(expected, str)
    data = path.read_bytes()
    forms = [path, str(path), data, io.BytesIO(data), Image.open(path), photos[1].astype("float32")]
    tensor = keras.ops.convert_to_tensor(photos[1])
    forms += [bytearray(data), memoryview(data), tensor]
    for form in forms:
        assert captioner.generate(form, GREEDY) == expected
    assert captioner.generate([path, photos[1]], GREEDY) == [expected] * 2


def test_photos_are_accepted_in_every_collection(captioner, photos, tmp_path):
    batch = np.stack([photos[0], photos[0][::-1], photos[0][:, ::-1]])
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, photo in zip(paths, batch, strict=True):
        Image.fromarray(photo).save(path)
    expected = captioner.generate(paths, GREEDY)
    collections = [
        (path for path in paths),
        {path.name: path for path in paths}.values(),
        np.array([str(path) for path in paths]),
        np.array(paths, dtype=object),
        Series(paths),
        keras.ops.convert_to_tensor(batch),
        keras.ops.convert_to_tensor(batch, "float32"),
        iter([Image.open(path) for path in paths]),
    ]
    for collection in collections:
        assert captioner.generate(collection, GREEDY, batch_size=2) == expected
    for collection, advice in (({"a": paths[0]}, "a dict; pass its values"), (set(), "a set")):
        with pytest.raises(ValueError, match=f"Received: {advice}"):
            captioner.generate(collection)


class Series:
    """What `generate` sees of a pandas Series: an array of one axis that is no sequence."""

    def __init__(self, values):
        self.values = np.array(values, dtype=object)

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __iter__(self):
        return iter(self.values)


@pytest.mark.slow
@pytest.mark.parametrize("fit", ("squash", "crop", "pad"))
def test_photos_are_fitted_as_the_backbone_asks_also_after_loading(tokenizer, tmp_path, fit):
    hparams = tiny_hparams()
    hparams["encoder"]["backbone"]["fit"] = fit
    captioner = randomize(Captioner.from_hparams(hparams, tokenizer))
    captioner.save_to_preset(tmp_path)
    wide = np.random.default_rng(0).integers(0, 256, (40, 120, 3), np.uint8)
    expected = captioner.generate_batch({"images": load_photo(wide, (32, 32), fit)[None]}, GREEDY)
    for same in (captioner, Captioner.from_preset(tmp_path)):
        assert same.generate(wide, GREEDY, details=True)[0].score == expected[0][0].score
    others = {"squash", "crop", "pad"} - {fit}
    images = np.stack([load_photo(wide, (32, 32), other) for other in sorted(others)])
    for options in captioner.generate_batch({"images": images}, GREEDY):
        assert options[0].score != expected[0][0].score


def test_photos_are_squashed_by_default(tokenizer):
    hparams = Captioner.from_hparams(tiny_hparams(), tokenizer).hparams()
    assert hparams["encoder"]["backbone"]["fit"] == "squash"


def test_an_array_of_photos_is_a_batch(captioner, photos):
    batch = np.stack([photos[0], photos[0][::-1], photos[0][:, ::-1]])
    captions = captioner.generate(batch, GREEDY)
    assert captions == [captioner.generate(photo, GREEDY) for photo in batch]
    assert captioner.generate(list(batch), GREEDY, batch_size=2) == captions
    assert captioner.generate(tuple(batch), GREEDY) == captions


def test_samplers_are_accepted_by_name(captioner, photos):
    longest = captioner.decoder.max_text_length
    named = captioner.generate(photos[0], "greedy", details=True)
    assert named == captioner.generate(photos[0], Greedy(max_new_tokens=longest), details=True)
    assert captioner.generate(photos[0], Greedy, details=True) == named
    assert captioner.generate(photos[0], "beam") == captioner.generate(photos[0])
    with pytest.raises(ValueError, match="beam, greedy, nucleus"):
        captioner.generate(photos[0], "bean")


def test_no_photos_give_no_captions(captioner):
    assert captioner.generate([]) == []


def test_details_returns_captions_best_first(captioner, photos):
    sampler = Beam(num_beams=3, num_captions=2, max_new_tokens=6)
    single = captioner.generate(photos[0], sampler, details=True)
    several = captioner.generate(photos, sampler, details=True)
    assert len(single) == 2 and all(isinstance(caption, Caption) for caption in single)
    assert [len(options) for options in several] == [2] * 4
    assert single[0].score >= single[1].score and single[0].tokens != single[1].tokens
    for caption in single:
        assert caption.text == captioner.tokenizer.decode_caption(caption.tokens).strip()
        assert captioner.tokenizer.eos_id not in caption.tokens
    assert [options[0].text for options in several] == captioner.generate(photos, sampler)


def test_the_same_seed_draws_the_same_captions(captioner):
    inputs = example_inputs(captioner.encoder, 2)

    def draw(**arguments):
        sampler = Nucleus(top_p=1.0, num_captions=3, max_new_tokens=8, **arguments)
        return [[c.tokens for c in row] for row in captioner.generate_batch(inputs, sampler)]

    assert draw(seed=1) == draw(seed=1) != draw(seed=2)
    unseeded = Nucleus(top_p=1.0, max_new_tokens=8)
    drawn = {captioner.generate_batch(inputs, unseeded)[0][0].tokens for _ in range(4)}
    assert len(drawn) > 1


def test_changed_weights_take_effect_without_recompiling(captioner):
    inputs = example_inputs(captioner.encoder, 2)
    before = captioner.generate_batch(inputs, GREEDY)
    weight = captioner.decoder.token_embedding.embeddings
    weight.assign(weight[::-1])
    after = captioner.generate_batch(inputs, GREEDY)
    assert [c[0].tokens for c in before] != [c[0].tokens for c in after]


def test_tokens_beyond_the_tokenizer_are_never_generated(tokenizer):
    hparams = tiny_hparams(vocabulary_size=tokenizer.vocabulary_size + 500)
    captioner = Captioner.from_hparams(hparams, tokenizer)
    options = captioner.generate_batch(
        example_inputs(captioner.encoder, 2),
        Nucleus(top_p=1.0, num_captions=4, max_new_tokens=8, seed=0),
    )
    assert all(max(c.tokens) < tokenizer.vocabulary_size for row in options for c in row)


def test_a_caption_can_fill_all_positions_of_the_decoder(captioner):
    inputs = example_inputs(captioner.encoder, 1)
    longest = captioner.decoder.max_text_length
    sampler = Greedy(min_new_tokens=longest, max_new_tokens=longest)
    assert len(captioner.generate_batch(inputs, sampler)[0][0].tokens) == longest
    for sampler, message in (
        (Greedy(max_new_tokens=longest + 1), f"Expected max_new_tokens of at most {longest}"),
        (Beam(max_new_tokens=5, suppress_tokens=[10**6]), "Expected suppress_tokens below"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):  # without Keras's description
            captioner.generate_batch(inputs, sampler)
    with pytest.raises(ValueError, match="^Input 0 .* expected shape="):
        captioner.generate_batch({"images": np.zeros((1, 20, 20, 3), np.uint8)}, GREEDY)
    for wrong in ({}, {"photos": inputs["features"]}):
        with pytest.raises(ValueError, match="^Expected inputs out of images, features"):
            captioner.generate_batch(wrong)


@pytest.mark.parametrize(
    "photos, message",
    [
        ("nowhere.jpg", "nowhere.jpg.*no such file"),
        (["nowhere.jpg"], "nowhere.jpg.*no such file"),
        (b"no photo", "8 bytes"),
        (7, "Received: int"),
        (np.zeros((2, 32, 32, 5), "uint8"), r"\(32, 32, 5\)"),
    ],
)
def test_unreadable_photos_are_named(captioner, photos, message):
    with pytest.raises(UnreadablePhoto, match=f"(?s){message}"):
        captioner.generate(photos)


def test_a_batch_size_of_zero_is_refused(captioner, photos):
    with pytest.raises(ValueError, match="batch_size=0"):
        captioner.generate(photos, batch_size=0)


def test_a_captioner_without_a_tokenizer_refuses_to_write(tokenizer):
    captioner = Captioner.from_hparams(tiny_hparams(vocabulary_size=50))
    with pytest.raises(ValueError, match="has no tokenizer"):
        captioner.generate(np.zeros((32, 32, 3), "uint8"))
    with pytest.raises(ValueError, match=f"{tokenizer.vocabulary_size} tokens.*=50"):
        Captioner(captioner.encoder, captioner.decoder, tokenizer)


# Files


@pytest.mark.slow
def test_a_loaded_keras_file_continues_training(captioner, tmp_path):
    compile_quickly(captioner)
    batch = example_batch(captioner)
    captioner.train_on_batch(*batch)
    captioner.save(tmp_path / "captioner.keras")
    loaded = keras.saving.load_model(tmp_path / "captioner.keras")
    assert int(numpy(loaded.optimizer.iterations)) == 1
    assert loaded.tokenizer == captioner.tokenizer
    for model in (captioner, loaded):
        model.run_eagerly = captioner.run_eagerly
        model.train_on_batch(*batch)
    for mine, theirs in zip(captioner.weights, loaded.weights, strict=True):
        np.testing.assert_allclose(numpy(theirs), numpy(mine), rtol=0, atol=1e-5)


def test_hparams_rebuild_the_same_captioner(captioner, tokenizer):
    hparams = captioner.hparams()
    assert hparams["decoder"]["vocabulary_size"] == tokenizer.vocabulary_size
    assert hparams["encoder"]["kind"] == "image" and hparams["encoder"]["hidden_dim"] == 16
    copy = Captioner.from_hparams(hparams, tokenizer)
    assert copy.hparams() == hparams
