"""Runs that train an adapter of a preset: what they save, resuming, SCST, options."""

from __future__ import annotations

import json

import numpy as np
import pytest
from keras.ops import convert_to_numpy as numpy

from effcap.adapters.lora_config import LoraConfig
from effcap.captioner import Captioner
from effcap.trainers import RunOptions, ScstOptions, read_csv
from effcap.trainers.engine.callbacks import CheckpointSteps
from effcap.trainers.engine.run import run
from helpers.captioners import eagerly
from helpers.data_maker import make_data, make_randomized_captioner, make_variant

LORA = LoraConfig(rank=2, dropout=0.2, targets=("attn.c_attn", "mlp"), bias="lora_only")
TRAINING = {"steps": 4, "batch_size": 4, "learning_rate": 0.03, "num_cider_photos": 0}


@pytest.fixture(scope="module", autouse=True)
def eager():
    with eagerly():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_data(tmp_path_factory.mktemp("data"))
    make_variant(folder / "tiny.json")
    make_randomized_captioner().save_to_preset(folder / "base")
    return folder


def train(folder, out, model="base", **changes) -> list[dict[str, float]]:
    options = RunOptions(
        **{"model": folder / model, "out": out, "lora": LORA, "training": TRAINING, **changes}
    )
    data = [read_csv(folder / f"{name}.csv", folder / "photos") for name in ("train", "dev")]
    return run(*data, options)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """(run folder, history) of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, train(folder, out, training={**TRAINING, "ema_momentum": 0.5})


def assert_equal_to_the_bit(one: Captioner, other: Captioner) -> None:
    for weight, same in zip(one.weights, other.weights, strict=True):
        assert np.array_equal(numpy(weight), numpy(same)), weight.path


@pytest.mark.slow
def test_a_run_saves_the_adapter_alone_and_leaves_the_base_as_it_is(folder, whole):
    out, history = whole
    assert len(history) == 2 and history[1]["loss"] < history[0]["loss"]
    for name in ("best", "last"):
        assert sorted(path.name for path in (out / name).iterdir()) == [
            "adapter_config.json", "adapter_model.safetensors", "config.json", "training.json"
        ]  # fmt: skip
    base, trained = Captioner.from_preset(folder / "base"), Captioner.from_preset(out)
    for weight, other in zip(base.weights, trained.base_weights(), strict=True):
        assert np.array_equal(numpy(weight), numpy(other))
    assert trained.adapters["default"].rank == 2
    assert all(np.abs(numpy(weight)).max() > 0 for weight in trained.trainable_weights)
    record = json.loads((out / "run.json").read_text())
    assert record["adapters"]["configs"]["default"]["dropout"] == 0.2
    sizes = [numpy(weight).size for weight in trained.trainable_weights]
    expected = f"of which {sum(sizes):,} in {len(sizes)} tensors of adapters are trained"
    assert expected in (out / "log.txt").read_text()


@pytest.mark.slow
def test_a_resumed_run_of_an_adapter_equals_an_uninterrupted_one(
    folder, whole, tmp_path, monkeypatch
):
    training = {**TRAINING, "ema_momentum": 0.5}
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointSteps, "on_train_batch_end", stopping(2))
        with pytest.raises(KeyboardInterrupt):
            train(folder, tmp_path / "run", training=training)
    checkpoint = tmp_path / "run" / "checkpoint.h5"
    assert checkpoint.stat().st_size < (folder / "base" / "model.weights.h5").stat().st_size
    with pytest.raises(ValueError, match="rank was 2 and is 3"):
        lora = LoraConfig(rank=3, dropout=0.2, targets=LORA.targets, bias="lora_only")
        train(folder, tmp_path / "run", lora=lora, training=training, resume=True)
    history = train(folder, tmp_path / "run", training=training, resume=True)
    out, expected = whole
    assert history == expected
    for name in ("best", "last"):
        assert_equal_to_the_bit(
            Captioner.from_preset(tmp_path / "run" / name), Captioner.from_preset(out / name)
        )


def stopping(step: int):
    """Returns a replacement of `on_train_batch_end` that requests to stop after a step."""
    count_step = CheckpointSteps.on_train_batch_end

    def count_and_stop(self, batch, logs=None):
        self.interruption.requested = self.state.step + 1 == step
        count_step(self, batch, logs)

    return count_and_stop


@pytest.mark.slow
def test_an_adapter_is_trained_further_and_by_scst(folder, whole, tmp_path):
    out, _ = whole
    scst = {
        "objective": "scst",
        "scst": ScstOptions(max_new_tokens=6, num_samples=2, cross_entropy_weight=0.5),
        "lora": None,
        "training": {"steps": 2, "batch_size": 4, "learning_rate": 0.03, "num_cider_photos": 2},
    }
    train(folder, tmp_path / "run", model=out, **scst)
    before, after = Captioner.from_preset(out / "best"), Captioner.from_preset(tmp_path / "run")
    for old, new in zip(before.base_weights(), after.base_weights(), strict=True):
        assert np.array_equal(numpy(old), numpy(new))
    changed = zip(before.trainable_weights, after.trainable_weights, strict=True)
    assert all(not np.array_equal(numpy(old), numpy(new)) for old, new in changed)
    config = json.loads((tmp_path / "run" / "last" / "config.json").read_text())
    assert config["base"] == str((folder / "base").resolve())


@pytest.mark.slow  # trains, as the other tests of the file
def test_an_adapter_needs_a_trained_captioner_without_one(folder, whole, tmp_path):
    with pytest.raises(ValueError, match="tiny.json' is a variant: train it first"):
        train(folder, tmp_path, model="tiny.json")
    with pytest.raises(ValueError, match="holds an adapter already: leave lora out"):
        train(folder, tmp_path, model=whole[0])
