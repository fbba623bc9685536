"""Options of training are checked when they are made."""

from __future__ import annotations

import pytest

from effcap.trainers import TrainingOptions


def test_options_come_from_a_section_of_hyperparameters():
    options = TrainingOptions.of({"epochs": 3, "learning_rate": 1, "steps": None, "mirror": True})
    assert (options.epochs, options.learning_rate, options.mirror) == (3, 1, True)


def test_unknown_options_are_named_with_the_known_ones():
    with pytest.raises(ValueError, match="out of epochs, .* Received: epoch, lr"):
        TrainingOptions.of({"lr": 1e-3, "epoch": 3})


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
        ("passes", 0),
        ("learning_rate", -1e-3),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("weight_decay", None),
        ("warmup", 1.0),
        ("label_smoothing", 1.0),
        ("ema", 1.0),
        ("mirror", 1),
        ("seed", -1),
    ),
)
def test_values_of_another_kind_or_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"training\.{name} .*Received: {name}="):
        TrainingOptions.of({name: value})
