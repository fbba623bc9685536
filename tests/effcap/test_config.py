"""Tests of effcap.config."""

from __future__ import annotations

import json
import math

import pytest
from helpers.captioners import tiny_hparams

from effcap.captioner import Captioner, make_parts
from effcap.config import (
    ABOUT,
    SECTIONS,
    construct,
    list_variants,
    load_hparams,
    model_hparams,
    set_hparams,
)


def test_variants_are_the_files_of_the_folder():
    assert "lite0-small" in list_variants()
    for name in list_variants():
        assert set(load_hparams(name)) <= {*ABOUT, *SECTIONS}, name
        assert load_hparams(name)["description"]


def test_variant_may_be_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"encoder": {"kind": "image"}, "decoder": {}}')
    assert load_hparams(path) == load_hparams(str(path))
    path.write_text('{"encoder": {}}')
    with pytest.raises(ValueError, match=r"mine.json. Missing: decoder"):
        load_hparams(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="JSON in .*mine.json"):
        load_hparams(path)


def test_unknown_variant_is_named_with_those_there_are():
    with pytest.raises(FileNotFoundError, match="lite0-small.*Received: 'lite0-huge'"):
        load_hparams("lite0-huge")


def test_settings_change_a_copy():
    hparams = {"encoder": {"backbone": {"network": "a"}}, "decoder": {"dropout": 0.1}}
    before = json.dumps(hparams)
    changed = set_hparams(
        hparams,
        [
            "decoder.dropout=0.3",
            "encoder.backbone.network=efficientnet_b0",
            "encoder.backbone.image_size=[64, 64]",
            "decoder.fusion=null",
            "training.epochs = 3",
        ],
    )
    assert json.dumps(hparams) == before
    assert changed == {
        "encoder": {"backbone": {"network": "efficientnet_b0", "image_size": [64, 64]}},
        "decoder": {"dropout": 0.3, "fusion": None},
        "training": {"epochs": 3},
    }


@pytest.mark.parametrize(
    "setting", ["dropout", "dropout=1", "decoder.=1", "decoder.dropout.rate=1", "decodr.dropout=1"]
)
def test_setting_that_makes_no_sense_is_refused(setting):
    with pytest.raises(ValueError, match="Received: .*(dropout|decoder|decodr)"):
        set_hparams({"encoder": {}, "decoder": {"dropout": 0.1}}, [setting])


def test_vocabulary_is_the_tokenizers_and_width_the_decoders(tokenizer):
    hparams = {"encoder": {"kind": "image"}, "decoder": {"vocabulary_size": None, "width": 48}}
    encoder, decoder = model_hparams(hparams, tokenizer)
    assert decoder["vocabulary_size"] == tokenizer.vocabulary_size and encoder["width"] == 48
    assert hparams["decoder"]["vocabulary_size"] is None and "width" not in hparams["encoder"]
    with pytest.raises(ValueError, match="vocabulary_size, or a tokenizer"):
        model_hparams(hparams)


def test_arguments_unknown_or_missing_are_named():
    def layer(width, heads=2, **kwargs):
        return width, heads

    assert construct(layer, {"width": 3}, "decoder") == (3, 2)
    with pytest.raises(ValueError, match="of decoder out of width, heads. Received: head$"):
        construct(layer, {"width": 3, "head": 4}, "decoder")
    with pytest.raises(ValueError, match="of decoder. Missing: width"):
        construct(layer, {"heads": 3}, "decoder")


@pytest.mark.parametrize(
    "section, change, message",
    [
        ("encoder", {"kind": "ear"}, "'image'.*encoder.kind='ear'"),
        ("encoder", {"kind": None}, "encoder.kind=None"),
        ("encoder", {"block": 3}, "of encoder.*Received: block"),
        ("decoder", {"head": 3}, "of decoder.*Received: head"),
        ("decoder", {"fusion": {"kind": "cross", "gate": 1}}, "gate"),
        ("decoder", {"fusion": {"width": 3}}, "fusion.kind=None"),
    ],
)
def test_hyperparameter_that_does_not_exist_is_named(tokenizer, section, change, message):
    hparams = tiny_hparams()
    hparams[section] |= change
    with pytest.raises(ValueError, match=f"(?s){message}"):
        Captioner.from_hparams(hparams, tokenizer)


def test_missing_section_is_named(tokenizer):
    with pytest.raises(ValueError, match="section 'decoder'"):
        Captioner.from_hparams({"encoder": {}}, tokenizer)


def dense(inputs: int, outputs: int) -> int:
    """Parameters of a dense layer."""
    return inputs * outputs + outputs


def size_of_block(width: int, inner: int) -> int:
    """Parameters of a transformer block."""
    attention = dense(width, 3 * width) + dense(width, width)
    return 4 * width + attention + dense(width, inner) + dense(inner, width)


def size_of_fusion(width: int, kind: str, memories: int) -> int:
    cross = dense(width, width) + dense(width, 2 * width) + dense(width, width)
    gate = dense(2 * width, width)
    return {
        "cross": cross + 2 * width,
        "meshed": cross + memories * gate,
        "branches": memories * cross + gate,
    }[kind]


def size_of_encoder(encoder, width: int, blocks: int) -> int:
    if "regions" in encoder.input_keys:
        count = dense(encoder.channels, width) + 2 * width
        return count + encoder.levels * size_of_block(width, encoder.inner)
    if "images" not in encoder.input_keys:
        return sum(dense(channels, width) + 2 * width for channels in encoder.modalities.values())
    positions, channels = encoder.backbone.feature_shape
    count = sum(math.prod(weight.shape) for weight in encoder.backbone.net.weights)
    count += 2 * channels + dense(channels, width) + positions * width + 2 * width
    return count + blocks * size_of_block(width, 4 * width)


def size_of(hparams: dict) -> int:
    """Parameters of a captioner, without making its decoder."""
    hparams = json.loads(json.dumps(hparams))
    sizes, blocks = hparams["decoder"], hparams["encoder"].get("blocks", 0)
    sizes["vocabulary_size"] = sizes["vocabulary_size"] or 4096  # as learned from the captions
    encoder, _ = make_parts(hparams)
    width, memories = sizes["width"], len(encoder.memory_shapes)
    block = size_of_block(width, sizes.get("inner") or 4 * width)
    block += size_of_fusion(width, sizes["fusion"]["kind"], memories)
    count = (sizes["vocabulary_size"] + sizes["positions"] + 2) * width
    return count + size_of_encoder(encoder, width, blocks) + sizes["layers"] * block


@pytest.mark.parametrize("name", list_variants())
def test_variants_say_how_large_they_are(name):
    assert load_hparams(name)["parameters"] == size_of(load_hparams(name))


def test_the_size_is_counted_right():
    hparams = tiny_hparams()
    hparams["decoder"]["vocabulary_size"] = 300
    captioner = Captioner.from_hparams(hparams)
    assert size_of(captioner.hparams()) == captioner.count_params()
