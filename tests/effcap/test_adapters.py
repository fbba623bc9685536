"""Tests of adapters on a captioner: what they train, switching, merging and saving."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from effcap.adapters.lora_config import LoraConfig
from effcap.adapters.modules import short_name
from effcap.captioner import Captioner
from effcap.losses import CaptionLoss
from effcap.samplers import Greedy
from helpers.captioners import example_batch, numpy, randomize, tiny_hparams

SAMPLER = Greedy(max_new_tokens=6)
ATOL = 1e-5


@pytest.fixture
def captioner(tokenizer) -> Captioner:
    return make(tokenizer)


def make(tokenizer, **decoder) -> Captioner:
    keras.utils.set_random_seed(1)
    return randomize(Captioner.from_hparams(tiny_hparams(**decoder), tokenizer))


def logits(captioner: Captioner) -> np.ndarray:
    inputs, *_ = example_batch(captioner)
    return numpy(captioner(inputs, training=False))


def randomize_trained(captioner: Captioner, seed: int = 0) -> None:
    """Adds noise to the weights that are trained."""
    rng = np.random.default_rng(seed)
    for weight in captioner.trainable_weights:
        weight.assign(weight + 0.1 * rng.normal(size=weight.shape))


def add(captioner: Captioner, name: str = "default", seed: int = 0, **settings) -> np.ndarray:
    """Adds an adapter with random weights, and returns the logits."""
    captioner.add_adapter(name, **settings)
    randomize_trained(captioner, seed)
    return logits(captioner)


def close(received, expected) -> bool:
    return np.allclose(received, expected, rtol=0, atol=ATOL * max(1, np.abs(expected).max()))


def test_a_new_adapter_changes_nothing_and_is_all_that_trains(captioner):
    before, parameters = logits(captioner), captioner.count_params()
    kernel = captioner.decoder.blocks[0].attn.c_attn.kernel
    captioner.add_adapter("news", rank=3, targets=["c_attn", "mlp"])
    assert np.array_equal(logits(captioner), before)
    names = [weight.path for weight in captioner.trainable_variables]
    assert all("/news/lora_" in name for name in names) and len(set(names)) == len(names)
    modules = captioner.adapter_modules("news")
    expected = sum(3 * (m.layer.input_dim + m.units) for m in modules)
    assert captioner.count_params() == parameters + expected
    assert {short_name(m.name) for m in modules} == {
        "attn.c_attn", "crossattention.c_attn", "mlp.c_fc", "mlp.c_proj"
    }  # fmt: skip
    assert captioner.decoder.blocks[0].attn.c_attn.kernel is kernel


@pytest.mark.parametrize("frozen", [None, "pretrained"])
def test_training_changes_the_adapter_alone(tokenizer, frozen):
    captioner = make(tokenizer, frozen=frozen)
    trained = [w.path for w in captioner.trainable_weights]
    captioner.add_adapter(rank=2, dropout=0.2, bias="lora_only")
    before = [numpy(weight) for weight in captioner.weights]
    captioner.compile(keras.optimizers.Adam(0.01), CaptionLoss(), run_eagerly=True)
    inputs, targets, weights = example_batch(captioner)
    for _ in range(2):
        captioner.train_on_batch(inputs, targets, weights)
    for old, weight in zip(before, captioner.weights, strict=True):
        assert np.array_equal(old, numpy(weight)) != weight.trainable, weight.path
    assert sum("lora_c" in w.path for w in captioner.trainable_weights) > 0
    captioner.delete_adapter("default")
    assert [w.path for w in captioner.trainable_weights] == trained


def test_adapters_are_switched_and_added(captioner):
    base = logits(captioner)
    one = add(captioner, "one", seed=1, targets=["c_attn"], rank=2, bias="lora_only")
    two = add(captioner, "two", seed=2, targets=["attn.c_attn", "enc_to_dec_proj", "c_fc"], rank=3)
    captioner.set_adapter("one")
    assert close(logits(captioner), one)
    captioner.set_adapter(["two", "one"])
    both = logits(captioner)
    assert captioner.active_adapters == ("two", "one")
    assert not close(both, one) and not close(both, two)
    captioner.set_adapter(None)
    assert np.array_equal(logits(captioner), base) and not captioner.trainable_weights
    captioner.delete_adapter("two")
    captioner.set_adapter("one")
    assert close(logits(captioner), one)


def test_updates_of_several_adapters_add_up(captioner):
    add(captioner, "one", seed=1, targets=["attn.c_attn"], rank=2, alpha=3)
    add(captioner, "two", seed=2, targets=["attn.c_attn"], rank=4, use_rslora=True)
    captioner.set_adapter(["one", "two"])
    layer = captioner.decoder.blocks[0].attn.c_attn
    x = np.random.default_rng(0).normal(size=(5, layer.input_dim)).astype("float32")
    scales = {"one": 3 / 2, "two": 32 / 4**0.5}
    expected = x @ numpy(layer.kernel) + numpy(layer.bias)
    for update in layer.updates:
        expected = (
            expected + x @ numpy(update.lora_a) @ numpy(update.lora_b) * (scales[update.adapter])
        )
    assert close(numpy(layer(x)), expected)


def test_merged_adapters_have_the_same_logits_and_are_unmerged(captioner):
    base = logits(captioner)
    add(captioner, "one", seed=1, bias="lora_only", rank=2)
    add(captioner, "two", seed=2, rank=3)
    captioner.set_adapter(["one", "two"])
    both = logits(captioner)
    captions = captioner.generate_batch(inputs_of(captioner), SAMPLER)
    captioner.merge_adapter()
    assert captioner.merged_adapters == ("one", "two") and close(logits(captioner), both)
    merged = captioner.generate_batch(inputs_of(captioner), SAMPLER)
    assert [c[0].tokens for c in merged] == [c[0].tokens for c in captions]
    captioner.unmerge_adapter()
    assert captioner.merged_adapters == () and close(logits(captioner), both)
    captioner.set_adapter(None)
    assert close(logits(captioner), base)


def inputs_of(captioner: Captioner) -> dict:
    inputs, *_ = example_batch(captioner)
    return {name: inputs[name] for name in captioner.encoder.input_keys if name in inputs}


def test_captions_follow_the_active_adapter(captioner):
    inputs = inputs_of(captioner)
    before = captioner.generate_batch(inputs, SAMPLER)
    add(captioner, alpha=200)
    after = captioner.generate_batch(inputs, SAMPLER)
    captioner.set_adapter(None)
    again = captioner.generate_batch(inputs, SAMPLER)
    assert [c[0].tokens for c in before] == [c[0].tokens for c in again]
    assert [c[0].tokens for c in before] != [c[0].tokens for c in after]


def test_merge_and_unload_leaves_a_captioner_without_adapters(tokenizer, captioner):
    weights = [weight.path for weight in captioner.weights]
    trained = [weight.path for weight in captioner.trainable_weights]
    expected = add(captioner, bias="lora_only")
    captioner.merge_and_unload()
    assert not captioner.adapters and close(logits(captioner), expected)
    assert [weight.path for weight in captioner.weights] == weights
    assert [weight.path for weight in captioner.trainable_weights] == trained
    plain = make(tokenizer)
    plain.set_weights([numpy(weight) for weight in captioner.weights])
    assert close(logits(plain), expected)


@pytest.mark.slow
@pytest.mark.parametrize("merged", [False, True])
def test_keras_files_and_presets_keep_adapters(captioner, tmp_path, merged):
    add(captioner, "one", seed=1, targets=["attention"], rank_pattern={"c_proj": 2})
    add(captioner, "two", seed=2, bias="lora_only", dropout=0.0, exclude=["c_fc"])
    captioner.set_adapter(["one", "two"])
    expected = logits(captioner)
    if merged:
        captioner.merge_adapter()
    captioner.save(tmp_path / "a.keras")
    captioner.save_to_preset(tmp_path / "preset")
    for loaded in (
        keras.saving.load_model(tmp_path / "a.keras"),
        Captioner.from_preset(tmp_path / "preset"),
    ):
        assert loaded.adapters == captioner.adapters
        assert loaded.active_adapters == ("one", "two")
        assert close(logits(loaded), expected)
        if merged:
            loaded.unmerge_adapter()
        loaded.set_adapter("one")
        assert all("/one/" in weight.path for weight in loaded.trainable_weights)


def test_a_preset_of_an_adapter_alone_is_small_and_needs_its_base(captioner, tmp_path):
    base, preset = tmp_path / "base", tmp_path / "adapter"
    captioner.save_to_preset(base)
    expected = add(captioner, "news", rank=1, targets=["c_attn"], bias="lora_only")
    captioner.save_to_preset(preset, base=base)
    assert sorted(path.name for path in preset.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "config.json"
    ]  # fmt: skip
    loaded = Captioner.from_preset(preset, decoder={"dropout": 0.4})
    assert close(logits(loaded), expected) and loaded.decoder.dropout == 0.4
    assert loaded.active_adapters == ("news",)
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="its base .* is not there"):
        Captioner.from_preset(preset)
    randomize(captioner)
    captioner.merge_and_unload()
    captioner.save_to_preset(base)
    with pytest.raises(ValueError, match="with other weights"):
        Captioner.from_preset(preset)


def test_saving_over_an_adapter_preset_leaves_none_of_its_files(captioner, tmp_path):
    captioner.save_to_preset(tmp_path / "base")
    add(captioner)
    captioner.save_to_preset(tmp_path / "preset", base=tmp_path / "base")
    captioner.merge_and_unload()
    captioner.save_to_preset(tmp_path / "preset")
    names = {path.name for path in (tmp_path / "preset").iterdir()}
    assert names == {"config.json", "model.weights.h5", "tokenizer.json"}


def test_a_compiled_captioner_must_be_compiled_again(captioner):
    captioner.compile()
    captioner.add_adapter()
    with pytest.raises(ValueError, match="compile"):
        captioner.fit(*example_batch(captioner)[:2])


def test_the_output_projection_is_updated_by_name_but_not_merged(captioner):
    before = logits(captioner)
    after = add(captioner, targets=["lm_head"])
    assert not close(after, before) and len(captioner.trainable_weights) == 2
    with pytest.raises(ValueError, match="table of token embeddings: it cannot be merged"):
        captioner.merge_adapter()
    assert close(logits(captioner), after)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "ranks of at least 1. Received: rank=0"),
        ({"rank_pattern": {"c_fc": 2.5}}, "Received: c_fc=2.5"),
        ({"alpha": -1}, "Received: alpha=-1"),
        ({"dropout": 1}, "Received: dropout=1"),
        ({"bias": "all"}, "none, lora_only. Received: bias='all'"),
        ({"targets": []}, "Expected targets"),
        ({"targets": ["c_atn"]}, "attn.c_attn.*Received: targets=\\('c_atn',\\)"),
        ({"targets": "a(b"}, "regular expression"),
        ({"targets": [3]}, "Received: \\[3\\]"),
        ({"exclude": "all-linear.*", "targets": ["c_fc"], "r": 4}, "Received: r"),
        ({"exclude": ["attention", "c_fc", "mlp.c_proj"], "targets": ["mlp"]}, "match layers"),
    ],
)
def test_settings_that_do_not_fit_are_refused(captioner, settings, message):
    before = logits(captioner)
    with pytest.raises(ValueError, match=message):
        captioner.add_adapter(**settings)
    assert not captioner.adapters and np.array_equal(logits(captioner), before)


def test_wrong_names_and_orders_of_calls_are_refused(captioner):
    captioner.add_adapter("one")
    with pytest.raises(ValueError, match="'one' already"):
        captioner.add_adapter("one")
    with pytest.raises(ValueError, match="out of 'one'. Received: 'two'"):
        captioner.set_adapter("two")
    with pytest.raises(ValueError, match="Received: 'a.b'"):
        captioner.add_adapter("a.b")
    with pytest.raises(ValueError, match="not both"):
        captioner.add_adapter("two", LoraConfig(), rank=3)
    captioner.merge_adapter()
    for call in (
        lambda: captioner.add_adapter("two"),
        lambda: captioner.set_adapter(None),
        lambda: captioner.delete_adapter("one"),
        lambda: captioner.merge_adapter(),
        lambda: captioner.single_adapter(),
    ):
        with pytest.raises(ValueError, match="merged .one.: call unmerge_adapter"):
            call()


def test_settings_survive_json():
    config = LoraConfig(targets="a|b", exclude=["c"], rank_pattern={"d": 2})
    assert LoraConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert LoraConfig(targets=["all-linear"]).targets == "all-linear"


@pytest.mark.slow
def test_adapters_and_quantized_kernels_exclude_each_other(captioner):
    before = logits(captioner)
    captioner.add_adapter()
    with pytest.raises(ValueError, match="call merge_and_unload before"):
        captioner.quantize("int8")
    captioner.delete_adapter("default")
    captioner.quantize("int8")
    assert np.abs(logits(captioner) - before).max() < 0.1 * np.abs(before).max()
    with pytest.raises(ValueError, match="in int8"):
        captioner.add_adapter()
