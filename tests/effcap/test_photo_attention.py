"""Maps of where a captioner looked, and their pictures."""

from __future__ import annotations

import io
from dataclasses import replace

import keras
import numpy as np
import pytest
from PIL import Image

from effcap.attention.caption_words import split_words
from effcap.attention.drawing import overlay
from effcap.attention.photo_attention import save_attention, seen_region
from effcap.backbones.backbone import find_grid
from effcap.backbones.vit import VisionTransformer
from effcap.backbones.vit_sizes import ViTVariant
from effcap.caption import Caption
from effcap.captioner import Captioner
from effcap.images import load_photo
from effcap.tokenizers import Tokenizer
from helpers.captioners import numpy, randomize, tiny_hparams

CAPTION = "a brown dog runs"


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """A photo of 48 x 30 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 48, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def prefix_captioner(tokenizer, **encoder) -> Captioner:
    """Makes a captioner with a prefix, on the backbone of `tiny_hparams` or another."""
    hparams = tiny_hparams(fusion={"kind": "prefix"}, max_sequence_length=32)
    hparams["encoder"] = {"kind": "backbone", "backbone": hparams["encoder"]["backbone"], **encoder}
    keras.utils.set_random_seed(0)
    return randomize(Captioner.from_hparams(hparams, tokenizer))


def test_each_word_has_the_mean_weights_of_its_tokens(captioner, photo):
    attention = captioner.attention(photo, CAPTION)
    assert attention.words == ("a", "brown", "dog", "runs")
    images = load_photo(photo, captioner.encoder.image_size)[None]
    tokens, layers = captioner.attention_weights({"images": images}, [CAPTION])
    weights = np.mean([numpy(layer[0])[0].mean(axis=0) for layer in layers], axis=0)  # (T, S)
    start = 0
    for word, heat in zip(attention.words, attention.maps, strict=True):
        stop = next(
            i for i in range(start + 1, len(tokens[0]) + 1)
            if captioner.tokenizer.decode(tokens[0][start:i]).strip() == word
        )  # fmt: skip
        expected = weights[start:stop].mean(axis=0).reshape(4, 4)  # (T, S) -> (h, w)
        np.testing.assert_allclose(heat, expected, atol=1e-6)
        start = stop


def test_layers_and_heads_can_be_chosen(captioner, photo):
    tokens = captioner.tokenizer.encode(CAPTION)
    images = load_photo(photo, captioner.encoder.image_size)[None]
    _, layers = captioner.attention_weights({"images": images}, [tokens])
    chosen = captioner.attention(photo, CAPTION, layers=-1, heads=[1])
    first = numpy(layers[1][0])[0, 1, 0].reshape(4, 4)  # of the word "a", a single token
    np.testing.assert_allclose(chosen.maps[0], first, atol=1e-6)
    assert "layer 1 of 0 to 1, head 1 of 0 to 1" in chosen.description
    with pytest.raises(ValueError, match="layers from 0 to 1.*Received: layers=2"):
        captioner.attention(photo, CAPTION, layers=2)
    with pytest.raises(ValueError, match="Received: heads=\\[\\]"):
        captioner.attention(photo, CAPTION, heads=[])


def test_words_of_a_prefix_have_no_map(captioner, photo):
    tokenizer = captioner.tokenizer
    caption = Caption(CAPTION, -1.0, tuple(tokenizer.encode(CAPTION)), prefix="a brown")
    attention = captioner.attention(photo, caption)
    assert attention.words == ("dog", "runs")
    whole = captioner.attention(photo, replace(caption, prefix=""))
    np.testing.assert_array_equal(attention.maps, whole.maps[2:])


def test_captions_that_cannot_be_looked_at_are_refused(captioner, photo):
    longest = captioner.tokenizer.encode("a brown dog " * 20)[:24]
    text = captioner.tokenizer.decode(longest)
    cut = Caption(text, -1.0, tuple(longest), is_finished=False)
    assert captioner.attention(photo, cut).words[0] == "a"
    with pytest.raises(ValueError, match="at most 24 tokens"):
        captioner.attention(photo, "a brown dog " * 20)
    with pytest.raises(ValueError, match="caption with words. Received: ' '"):
        captioner.attention(photo, " ")
    with pytest.raises(ValueError, match="no layers and heads to choose"):
        prefix_captioner(captioner.tokenizer).attention(photo, CAPTION, layers=0)


def test_grad_cam_equals_finite_differences(tokenizer, photo):
    captioner = prefix_captioner(tokenizer)
    attention = captioner.attention(photo, CAPTION)
    assert "Grad-CAM" in attention.description
    images = load_photo(photo, captioner.encoder.image_size)[None]
    features = numpy(captioner.encoder.features(images, training=False)).astype(np.float64)
    size = features[0].size  # S * C
    step = 1e-2
    shifts = np.concatenate([np.eye(size), -np.eye(size)]).reshape(2 * size, *features.shape[1:])
    tokens = np.array(tokenizer.encode(CAPTION))  # (T,)
    inputs = np.array([[tokenizer.bos_id, *tokens[:-1]]]).repeat(2 * size, axis=0)  # (2SC, T)
    moved = (features + step * shifts).astype(np.float32)  # (2SC, S, C)
    logits = numpy(captioner({"features": moved, "tokens": inputs}, training=False))
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    chosen = log_probs[:, np.arange(len(tokens)), tokens].astype(np.float64)  # (2SC, T)
    slopes = (chosen[:size] - chosen[size:]) / (2 * step)  # (SC, T)
    for i, word in enumerate(split_words(tokenizer, tokens)):
        gradient = slopes[:, word.start : word.stop].sum(axis=1).reshape(features.shape[1:])
        expected = np.maximum(features[0] @ gradient.mean(axis=0), 0).reshape(4, 4)  # (S,) -> (h,w)
        np.testing.assert_allclose(attention.maps[i], expected, atol=0.02 * expected.max() + 1e-4)
    assert attention.maps.max() > 0


def test_grad_cam_of_one_vector_is_on_an_earlier_layer(tokenizer, photo):
    variant = ViTVariant(patch_size=8, hidden_dim=12, num_layers=3, num_heads=2)
    network = VisionTransformer(variant, (32, 32))
    backbone = {"network": keras.saving.serialize_keras_object(network)}
    captioner = prefix_captioner(tokenizer, backbone=backbone, pooling="first")
    attention = captioner.attention(photo, CAPTION)
    assert attention.maps.shape == (4, 4, 4) and attention.maps.max() > 0
    assert "block_1" in attention.description  # only its class token depends on the last block


@pytest.mark.parametrize(
    "fit, expected",
    [("squash", (0, 0, 1, 1)), ("crop", (0.25, 0, 0.75, 1)), ("pad", (0, -0.5, 1, 1.5))],
)
def test_maps_cover_the_part_of_the_photo_that_the_captioner_saw(fit, expected):
    region = seen_region((400, 200), (32, 32), fit)
    assert region == pytest.approx(expected)
    heat = np.zeros((4, 4))
    heat[1, 2] = 1.0
    dark = Image.new("RGB", (400, 200))
    brightness = np.asarray(overlay(dark, heat, region)).sum(axis=2)  # (H, W)
    y, x = np.argwhere(brightness == brightness.max()).mean(axis=0) + 0.5
    left, top, right, bottom = expected
    assert x / 400 == pytest.approx(left + (right - left) * 2.5 / 4, abs=0.02)
    assert y / 200 == pytest.approx(top + (bottom - top) * 1.5 / 4, abs=0.02)


def test_maps_of_rotated_photos_are_upright(captioner):
    # Only one axis is resized, so that the order of the axes does not matter.
    pixels = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels)
    rotated = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored 90 degrees counterclockwise
    photo.transpose(Image.Transpose.ROTATE_90).save(rotated, "PNG", exif=exif)
    attention = captioner.attention(rotated.getvalue(), CAPTION)
    assert attention.photo.size == photo.size
    np.testing.assert_allclose(attention.maps, captioner.attention(photo, CAPTION).maps, atol=1e-5)


def test_grids_are_found_in_sequences():
    assert find_grid((7, 7), (224, 224)) == ((7, 7), 0)
    assert find_grid((196,), (224, 224)) == ((14, 14), 0)
    assert find_grid((197,), (224, 224)) == ((14, 14), 1)
    assert find_grid((9,), (32, 64)) == ((2, 4), 1)
    for positions in (1, 2, 195):
        with pytest.raises(ValueError, match=f"{positions} positions .* no grid"):
            find_grid((positions,), (224, 224))


def test_words_of_scripts_without_spaces_are_tokens():
    tokenizer = Tokenizer.train(["一只狗在跑。"] * 4, vocabulary_size=290)
    words = [word.text for word in split_words(tokenizer, tokenizer.encode("一只狗 在跑。"))]
    assert "".join(words) == "一只狗在跑。" and len(words) > 2
    assert words[-1].endswith("。") and words[-1] != "。"


def test_pictures_are_written_by_suffix(captioner, photo, tmp_path):
    attention = captioner.attention(photo, CAPTION)
    plot = attention.plot(columns=2)
    assert plot.width < attention.plot().width and plot.height > attention.plot().height
    attention.save(tmp_path / "new" / "a.png")
    with Image.open(tmp_path / "new" / "a.png") as saved:
        assert saved.size == attention.plot().size
    assert Image.open(io.BytesIO(attention._repr_jpeg_())).size == saved.size
    save_attention(tmp_path / "two.html", [attention, replace(attention, words=("<b>",) * 4)])
    page = (tmp_path / "two.html").read_text(encoding="utf-8")
    assert page.count('class="map') == 8 and "<b>" not in page and "<script" not in page
    assert "is not an explanation" in page and attention.description in page
    assert page.count("src=") == page.count('src="data:')
    with pytest.raises(ValueError, match=r"suffix \.png or \.html. Received: .*a\.gif"):
        attention.save(tmp_path / "a.gif")
