"""Tests of effcap.config."""

from __future__ import annotations

import json
import math

import pytest

from effcap.captioner import Captioner, create_encoder_and_decoder
from effcap.config import (
    NOTES,
    SECTIONS,
    create,
    list_variants,
    load_hparams,
    merge_hparams,
    model_hparams,
    parse_settings,
)
from effcap.encoders.unprojected import BackboneEncoder
from helpers.captioners import tiny_hparams


def test_variants_are_the_files_in_hparams():
    assert "lite0-small" in list_variants()
    for name in list_variants():
        assert set(load_hparams(name)) <= {*NOTES, *SECTIONS}, name
        assert load_hparams(name)["description"]


def test_hparams_load_from_a_json_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"encoder": {"kind": "image"}, "decoder": {}}')
    assert load_hparams(path) == load_hparams(str(path))
    path.write_text('{"encoder": {}}')
    with pytest.raises(ValueError, match=r"mine.json lacks decoder"):
        load_hparams(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="mine.json is not a JSON file"):
        load_hparams(path)


def test_an_unknown_variant_is_an_error_that_lists_all():
    with pytest.raises(FileNotFoundError, match="lite0-small.*Received: 'lite0-huge'"):
        load_hparams("lite0-huge")


def test_settings_are_parsed_and_merged_into_a_copy():
    hparams = {"encoder": {"backbone": {"network": "a"}}, "decoder": {"dropout": 0.1}}
    before = json.dumps(hparams)
    settings = parse_settings(
        [
            "decoder.dropout=0.3",
            "encoder.backbone.network=efficientnet_b0",
            "encoder.backbone.image_size=[64, 64]",
            "decoder.fusion=null",
            "training.epochs = 3",
        ]
    )
    changed = merge_hparams(hparams, settings)
    changed["encoder"]["backbone"]["image_size"].append(3)
    assert json.dumps(hparams) == before
    assert settings["encoder"]["backbone"]["image_size"] == [64, 64]
    changed["encoder"]["backbone"]["image_size"].pop()
    assert changed == {
        "encoder": {"backbone": {"network": "efficientnet_b0", "image_size": [64, 64]}},
        "decoder": {"dropout": 0.3, "fusion": None},
        "training": {"epochs": 3},
    }


@pytest.mark.parametrize(
    "setting",
    ["dropout", "dropout=1", "decoder.=1", ".a=1", "decoder.dropout.rate=1", "decodr.dropout=1"],
)
def test_malformed_settings_are_refused(setting):
    with pytest.raises(ValueError, match="Received: .*(dropout|decoder|decodr|a=1)"):
        hparams = {"encoder": {}, "decoder": {"dropout": 0.1}}
        merge_hparams(hparams, parse_settings([setting]))


@pytest.mark.parametrize("value", ("True", "False", "None"))
def test_python_constants_are_refused_as_settings(value):
    with pytest.raises(ValueError, match=f"true, false or null. Received: .*gate={value}"):
        parse_settings([f"decoder.fusion.gate={value}"])


def test_contradicting_settings_are_refused():
    with pytest.raises(ValueError, match="Two settings set 'dropout'"):
        parse_settings(["decoder.dropout=1", "decoder.dropout.rate=2"])


def test_keywords_change_hyperparameters(tokenizer):
    hparams = tiny_hparams()
    before = json.dumps(hparams)
    captioner = Captioner.from_hparams(
        hparams, tokenizer, encoder={"num_layers": 2}, decoder={"dropout": 0.2}
    )
    assert captioner.decoder.dropout == 0.2 and len(captioner.encoder.blocks) == 2
    assert json.dumps(hparams) == before
    with pytest.raises(ValueError, match="hyperparameters of decoder.*Received: drop_out"):
        Captioner.from_hparams(hparams, tokenizer, decoder={"drop_out": 0.2})


def test_vocabulary_size_comes_from_the_tokenizer(tokenizer):
    hparams = {"encoder": {"kind": "image"}, "decoder": {"vocabulary_size": None}}
    _, decoder = model_hparams(hparams, tokenizer)
    assert decoder["vocabulary_size"] == tokenizer.vocabulary_size
    assert hparams["decoder"]["vocabulary_size"] is None
    with pytest.raises(ValueError, match="vocabulary_size is null"):
        model_hparams(hparams)


def test_unknown_and_missing_hyperparameters_are_listed():
    def layer(hidden_dim, num_heads=2, **kwargs):
        return hidden_dim, num_heads

    kinds = {"plain": layer}
    assert create("decoder", kinds, {"kind": "plain", "hidden_dim": 3}) == (3, 2)
    defaults = {"hidden_dim": 4, "num_heads": 5, "width": 6}
    assert create("decoder", kinds, {"kind": "plain", "num_heads": 3}, defaults) == (4, 3)
    with pytest.raises(ValueError, match="decoder out of hidden_dim, num_heads. Received: head$"):
        create("decoder", kinds, {"kind": "plain", "hidden_dim": 3, "head": 4})
    with pytest.raises(ValueError, match="decoder lacks the hyperparameters hidden_dim"):
        create("decoder", kinds, {"kind": "plain", "num_heads": 3})
    with pytest.raises(
        ValueError, match=r"decoder.kind out of \['plain'\]. Received: decoder.kind"
    ):
        create("decoder", kinds, {"hidden_dim": 3})


@pytest.mark.parametrize(
    "section, change, message",
    [
        ("encoder", {"kind": "ear"}, "'image'.*encoder.kind='ear'"),
        ("encoder", {"kind": None}, "encoder.kind=None"),
        ("encoder", {"block": 3}, "of encoder.*Received: block"),
        ("decoder", {"head": 3}, "of decoder.*Received: head"),
        ("decoder", {"kind": "bart"}, "decoder.kind out of.*gpt2.*Received: decoder.kind='bart'"),
        ("decoder", {"fusion": {"kind": "cross", "gate": 1}}, "gate"),
        ("decoder", {"fusion": {"hidden_dim": 3}}, "fusion.kind=None"),
    ],
)
def test_hyperparameters_that_do_not_exist_are_listed(tokenizer, section, change, message):
    hparams = tiny_hparams()
    hparams[section] |= change
    with pytest.raises(ValueError, match=f"(?s){message}"):
        Captioner.from_hparams(hparams, tokenizer)


def test_a_missing_section_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="section 'decoder'"):
        Captioner.from_hparams({"encoder": {}}, tokenizer)


def dense(inputs: int, outputs: int) -> int:
    """Returns the number of parameters of a dense layer."""
    return inputs * outputs + outputs


def size_of_block(width: int, inner: int) -> int:
    """Returns the number of parameters of a transformer block."""
    attention = dense(width, 3 * width) + dense(width, width)
    return 4 * width + attention + dense(width, inner) + dense(inner, width)


def size_of_fusion(width: int, kind: str, memory_shapes: list) -> int:
    memories, memory_width = len(memory_shapes), memory_shapes[0][-1]
    cross = dense(width, width) + dense(memory_width, 2 * width) + dense(width, width)
    gate = dense(2 * width, width)
    return {
        "cross": cross + 2 * width,
        "meshed": cross + memories * gate,
        "modalities": memories * cross + gate,
        "prefix": 0,
    }[kind]


def size_of_prefix(width: int, fusion: dict, encoder) -> int:
    """Returns the number of parameters of a mapper and its mask; 0 for a fusion in blocks."""
    if fusion["kind"] != "prefix":
        return 0
    ((_, length, channels),) = encoder.memory_shapes
    mapper = fusion["mapper"]
    positions, vectors = mapper.get("prefix_length", length), mapper.get("clip_length", 1)
    if mapper["kind"] == "mlp":
        count = dense(channels, 4 * width) + dense(4 * width, width)
    elif mapper["kind"] == "clipcap-mlp":
        inner = positions * width // 2
        count = dense(channels, inner) + dense(inner, positions * width)
    else:
        attention = 3 * width * width + dense(width, width)
        block = 4 * width + attention + dense(width, 2 * width) + dense(2 * width, width)
        count = dense(channels, vectors * width) + positions * width + mapper["num_layers"] * block
    if "sparse_mask" in fusion:
        count += 2 * dense(width, positions) + 3 * positions
    return count


def size_of_encoder(encoder, width: int, blocks: int) -> int:
    if "regions" in encoder.input_keys:
        count = dense(encoder.feature_dim, width) + 2 * width
        return count + encoder.num_levels * size_of_block(width, encoder.intermediate_dim)
    if "images" not in encoder.input_keys:
        return sum(dense(channels, width) + 2 * width for channels in encoder.modalities.values())
    positions, channels = encoder.backbone.feature_shape
    count = sum(math.prod(weight.shape) for weight in encoder.backbone.net.weights)
    if isinstance(encoder, BackboneEncoder):
        return count
    count += 2 * channels + dense(channels, width) + positions * width + 2 * width
    return count + blocks * size_of_block(width, 4 * width)


def size_of(hparams: dict) -> int:
    """Returns the number of parameters of a captioner without creating its decoder."""
    hparams = json.loads(json.dumps(hparams))
    sizes, blocks = hparams["decoder"], hparams["encoder"].get("num_layers", 0)
    sizes["vocabulary_size"] = sizes["vocabulary_size"] or 4096  # as learned from the captions
    encoder, _ = create_encoder_and_decoder(hparams)
    width, fusion = sizes["hidden_dim"], sizes.get("fusion", {"kind": "cross"})
    block = size_of_block(width, sizes.get("intermediate_dim") or 4 * width)
    block += size_of_fusion(width, fusion["kind"], encoder.memory_shapes)
    count = size_of_prefix(width, fusion, encoder)
    count += (sizes["vocabulary_size"] + sizes["max_sequence_length"] + 2) * width
    if sizes["kind"] == "bert":  # the head before the output embedding
        count += dense(width, width) + 2 * width + sizes["vocabulary_size"]
    return count + size_of_encoder(encoder, width, blocks) + sizes["num_layers"] * block


def is_large(variant: str) -> bool:
    """Returns whether a variant takes seconds to create."""
    return any(name in variant for name in ("gpt2", "blip", "clipcap"))


def is_huge(variant: str) -> bool:
    """Returns whether a variant takes ten seconds to create, and differs in its sizes only."""
    return variant in ("gpt2-774m", "gpt2-1558m", "blip-large")


def mark(variant: str) -> tuple:
    """Returns the marks of a variant."""
    if is_huge(variant):
        return (pytest.mark.exhaustive,)
    return (pytest.mark.slow,) if is_large(variant) else ()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=mark(name)) for name in list_variants()],
)
def test_variants_state_their_number_of_parameters(name):
    assert load_hparams(name)["parameters"] == size_of(load_hparams(name))


def test_counted_parameters_are_those_of_a_captioner():
    hparams = tiny_hparams()
    hparams["decoder"]["vocabulary_size"] = 300
    captioner = Captioner.from_hparams(hparams)
    assert size_of(captioner.hparams()) == captioner.count_params()
