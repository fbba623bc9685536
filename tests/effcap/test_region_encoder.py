"""Tests of effcap.encoders.regions and effcap.encoders.modalities."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.captioners import example_inputs, numpy

from effcap.encoders.modalities import BranchEncoder
from effcap.encoders.regions import RegionEncoder


def regions(**changes) -> RegionEncoder:
    arguments = {"width": 16, "channels": 12, "heads": 2, "inner": 24, "dropout": 0.0}
    encoder = RegionEncoder(**arguments | changes)
    encoder.build()
    return encoder


def test_every_layer_is_a_level_of_memory():
    encoder = regions()
    inputs = example_inputs(encoder, 3)
    memory = encoder(inputs)
    assert len(memory) == 3 == len(encoder.memory_shapes)
    real = (inputs["regions"] != 0).any(axis=-1)
    for level in memory:
        assert level.values.shape == (3, 6, 16)
        np.testing.assert_array_equal(numpy(level.visible), real)
    first, last = numpy(memory[0].values), numpy(memory[-1].values)
    assert np.abs(first - last).max() > 1e-3


def test_only_the_last_levels_may_be_kept():
    encoder, inputs = regions(levels=1), example_inputs(regions(), 2)
    (last,) = encoder(inputs)
    encoder.levels = 3
    np.testing.assert_array_equal(numpy(last.values), numpy(encoder(inputs)[-1].values))


@pytest.mark.parametrize("levels", [0, 4])
def test_more_levels_than_layers_are_refused(levels):
    with pytest.raises(ValueError, match=f"Received: levels={levels}, layers=3"):
        regions(levels=levels)


def test_padded_regions_change_no_other():
    encoder = regions()
    inputs = example_inputs(encoder, 2)["regions"]
    more = np.pad(inputs, ((0, 0), (0, 5), (0, 0)))
    for short, padded in zip(encoder({"regions": inputs}), encoder({"regions": more}), strict=True):
        visible = numpy(short.visible)
        received = numpy(padded.values)[:, :6][visible]
        np.testing.assert_allclose(received, numpy(short.values)[visible], atol=1e-5)
        assert not numpy(padded.visible)[:, 6:].any()


def test_each_modality_is_a_memory():
    encoder = BranchEncoder(16, {"audio": 7, "tags": 5}, dropout=0.0)
    encoder.build()
    inputs = example_inputs(encoder, 2)
    assert encoder.input_keys == ("audio", "tags")
    audio, tags = encoder(inputs)
    assert audio.values.shape == tags.values.shape == (2, 5, 16)
    np.testing.assert_array_equal(numpy(tags.visible), (inputs["tags"] != 0).any(axis=-1))
    other = encoder({**inputs, "tags": 2 * inputs["tags"]})
    np.testing.assert_array_equal(numpy(other[0].values), numpy(audio.values))


@pytest.mark.parametrize("modalities", [{}, {"audio": 0}, {"audio": "many"}])
def test_modalities_without_a_width_are_refused(modalities):
    with pytest.raises(ValueError, match="Received: modalities="):
        BranchEncoder(16, modalities)
