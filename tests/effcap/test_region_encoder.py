"""Tests of effcap.encoders.regions and effcap.encoders.modalities."""

from __future__ import annotations

import numpy as np
import pytest

from effcap.encoders.modalities import ModalityEncoder
from effcap.encoders.regions import RegionEncoder
from helpers.captioners import example_inputs, numpy


def regions(**changes) -> RegionEncoder:
    arguments = {
        "hidden_dim": 16,
        "feature_dim": 12,
        "num_heads": 2,
        "intermediate_dim": 24,
        "dropout": 0.0,
    }
    encoder = RegionEncoder(**arguments | changes)
    encoder.build()
    return encoder


def test_every_layer_gives_a_level_of_memory():
    encoder = regions()
    inputs = example_inputs(encoder, 3)
    memory = encoder(inputs)
    assert len(memory) == 3 == len(encoder.memory_shapes)
    real = (inputs["regions"] != 0).any(axis=-1)
    for level in memory:
        assert level.values.shape == (3, 6, 16)
        np.testing.assert_array_equal(numpy(level.mask), real)
    first, last = numpy(memory[0].values), numpy(memory[-1].values)
    assert np.abs(first - last).max() > 1e-3


def test_num_levels_keeps_the_last_levels():
    encoder, inputs = regions(num_levels=1), example_inputs(regions(), 2)
    (last,) = encoder(inputs)
    encoder.num_levels = 3
    np.testing.assert_array_equal(numpy(last.values), numpy(encoder(inputs)[-1].values))


@pytest.mark.parametrize("levels", [0, 4])
def test_more_levels_than_layers_are_refused(levels):
    with pytest.raises(ValueError, match=f"Received: num_levels={levels}, num_layers=3"):
        regions(num_levels=levels)


def test_padding_does_not_change_other_regions():
    encoder = regions()
    inputs = example_inputs(encoder, 2)["regions"]
    more = np.pad(inputs, ((0, 0), (0, 5), (0, 0)))
    for short, padded in zip(encoder({"regions": inputs}), encoder({"regions": more}), strict=True):
        mask = numpy(short.mask)
        received = numpy(padded.values)[:, :6][mask]
        np.testing.assert_allclose(received, numpy(short.values)[mask], atol=1e-5)
        assert not numpy(padded.mask)[:, 6:].any()


def test_each_modality_gives_a_memory():
    encoder = ModalityEncoder(16, {"audio": 7, "tags": 5}, dropout=0.0)
    encoder.build()
    inputs = example_inputs(encoder, 2)
    assert encoder.input_keys == ("audio", "tags")
    audio, tags = encoder(inputs)
    assert audio.values.shape == tags.values.shape == (2, 5, 16)
    np.testing.assert_array_equal(numpy(tags.mask), (inputs["tags"] != 0).any(axis=-1))
    other = encoder({**inputs, "tags": 2 * inputs["tags"]})
    np.testing.assert_array_equal(numpy(other[0].values), numpy(audio.values))


@pytest.mark.parametrize("modalities", [{}, {"audio": 0}, {"audio": "many"}])
def test_modalities_without_a_width_are_refused(modalities):
    with pytest.raises(ValueError, match="Received: modalities="):
        ModalityEncoder(16, modalities)
