"""Options of training check their values."""

from __future__ import annotations

import dataclasses
import re

import pytest

from effcap.trainers import DeviceOptions, RunOptions, ScstOptions, TrainingOptions
from effcap.trainers.objectives import OBJECTIVES, CrossEntropy, Objective
from effcap.trainers.options import run as run_module


def test_training_options_come_from_a_section_of_hyperparameters():
    section = {"epochs": 3, "learning_rate": 1, "steps": None, "horizontal_flip": True}
    options = TrainingOptions.from_dict(section)
    assert (options.epochs, options.learning_rate, options.horizontal_flip) == (3, 1, True)
    assert options.make_augmentation().horizontal_flip


def test_unknown_training_options_are_named_with_the_known_ones():
    with pytest.raises(ValueError, match="out of epochs, .* Received: epoch, lr"):
        TrainingOptions.from_dict({"lr": 1e-3, "epoch": 3})


@pytest.mark.parametrize(
    ("name", "value"),
    (
        ("epochs", 0),
        ("epochs", 1.5),
        ("epochs", "many"),
        ("epochs", True),
        ("steps", 0),
        ("batch_size", 0),
        ("captions_per_photo", 0),
        ("passes_per_epoch", 0),
        ("gradient_accumulation_steps", 0),
        ("learning_rate", -1e-3),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("weight_decay", None),
        ("warmup_fraction", 1.0),
        ("label_smoothing", 1.0),
        ("ema_momentum", 1.0),
        ("horizontal_flip", 1),
        ("seed", -1),
        ("precision", "half"),
    ),
)
def test_wrong_training_options_are_rejected(name, value):
    with pytest.raises(ValueError, match=rf"training\.{name} .*Received: {name}="):
        TrainingOptions.from_dict({name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"num_samples": 1}, "at least 2 samples"),
        ({"baseline": "mean"}, "baseline out of others, greedy"),
        ({"cross_entropy_weight": 1.0}, "cross_entropy_weight from 0"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"top_p": 1.5}, "top_p above 0"),
        ({"max_new_tokens": 0}, "max_new_tokens of at least 1"),
        ({"min_distinct": -1.0}, "min_distinct"),
        ({"bleu_weight": -1}, "bleu_weight of at least 0"),
        ({"length_weight": float("nan")}, "length_weight of at least 0"),
    ),
)
def test_wrong_scst_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        ScstOptions(**options)


@pytest.mark.parametrize(
    ("values", "message"),
    (
        ({"count": 0}, "devices=0"),
        ({"count": "two"}, "devices='two'"),
        ({"num_processes": 0}, "num_processes of at least 1. Received: 0"),
        ({"process_index": 1}, "process_index from 0 to 0. Received: process_index=1"),
        (
            {"num_processes": 2, "process_index": 2, "coordinator": "a:1"},
            "from 0 to 1. Received: process_index=2",
        ),
        ({"num_processes": 2}, "coordinator=HOST:PORT.*Received: coordinator=None"),
        ({"num_processes": 2, "coordinator": "a"}, "coordinator='a'"),
        ({"coordinator": "a:1"}, "num_processes=1, coordinator='a:1'"),
    ),
)
def test_wrong_device_options_are_rejected(values, message):
    with pytest.raises(ValueError, match=message):
        DeviceOptions(**values)


def test_scst_has_training_defaults_that_can_be_changed(tmp_path):
    model = "flickr8k-lite0"
    options = RunOptions(model=model, out=tmp_path, objective="scst", training={"epochs": 2})
    assert options.training_options == TrainingOptions(learning_rate=5e-5, epochs=2)
    assert RunOptions(model=model, out=tmp_path).training_options == TrainingOptions()


def test_the_objectives_of_the_options_are_those_that_exist():
    assert tuple(OBJECTIVES) == run_module.OBJECTIVES
    assert all(issubclass(one, Objective) for one in OBJECTIVES.values())
    assert all(name == one.name for name, one in OBJECTIVES.items())
    assert OBJECTIVES["cross-entropy"] is CrossEntropy


@pytest.mark.parametrize("options", (TrainingOptions, ScstOptions, DeviceOptions, RunOptions))
def test_each_option_is_documented_once(options):
    attributes, _, _ = options.__doc__.partition("Raises:")
    documented = re.findall(r"^        (\w+): ", attributes, re.MULTILINE)
    assert documented == [field.name for field in dataclasses.fields(options)]
