"""Tests of the default sampler that is read from the settings of transformers."""

from __future__ import annotations

import json

import pytest

from effcap.samplers import Beam, Greedy, Nucleus
from effcap.samplers.registry import from_config
from effcap.weights.generation_defaults import default_sampler, read_generation_settings

LIMITS = {"min_new_tokens": 0, "no_repeat_ngram_size": 3}


def sampler_of(settings: dict, max_text_length: int = 100):
    config, notes = default_sampler(settings, max_text_length)
    return from_config(config), notes


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({}, Greedy(max_new_tokens=19, **LIMITS)),
        ({"max_length": 16, "num_beams": 4}, Beam(num_beams=4, length_penalty=1.0,
            max_new_tokens=15, **LIMITS)),  # the start token counts
        ({"max_length": 30, "max_new_tokens": 9}, Greedy(max_new_tokens=9, **LIMITS)),
        ({"min_length": 5, "no_repeat_ngram_size": 2, "repetition_penalty": 1.5},
            Greedy(max_new_tokens=19, min_new_tokens=4, no_repeat_ngram_size=2,
            repetition_penalty=1.5)),
        ({"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5, "length_penalty": 0.6},
            Beam(num_beams=4, num_beam_groups=2, diversity_penalty=0.5, length_penalty=0.6,
            max_new_tokens=19, **LIMITS)),
        ({"suppress_tokens": [5, 3]}, Greedy(max_new_tokens=19, suppress_tokens=(3, 5), **LIMITS)),
    ],
)  # fmt: skip
def test_settings_become_fields_of_a_sampler(settings, expected):
    assert sampler_of(settings)[0] == expected


def test_sampling_takes_the_filters_of_transformers():
    sampler, _ = sampler_of({"do_sample": True, "top_p": 0.9, "temperature": 0.7})
    assert isinstance(sampler, Nucleus)
    assert (sampler.top_p, sampler.top_k, sampler.temperature) == (0.9, 50, 0.7)


def test_captions_are_not_longer_than_the_decoder():
    sampler, _ = sampler_of({"max_length": 50, "min_length": 40}, 12)
    assert (sampler.max_new_tokens, sampler.min_new_tokens) == (12, 12)


def test_the_message_names_what_has_no_counterpart():
    _, notes = sampler_of({"num_beams": 2, "do_sample": True, "typical_p": 0.5})
    assert notes == [
        "settings of generation that have no counterpart: typical_p=0.5, do_sample=True"
    ]
    assert sampler_of({"num_beams": 2})[1] == []


def test_the_first_source_that_differs_from_a_default_applies(tmp_path):
    text = {"max_length": 20, "num_beams": 5, "length_penalty": 0.5, "no_repeat_ngram_size": 0}
    top = {"max_length": 30, "num_beams": None}
    assert read_generation_settings(tmp_path, [top, text]) == {
        "max_length": 30,
        "num_beams": 5,
        "length_penalty": 0.5,
    }
    (tmp_path / "generation_config.json").write_text(json.dumps({"num_beams": 3, "top_k": 50}))
    assert read_generation_settings(tmp_path, [top, text])["num_beams"] == 3
    (tmp_path / "generation_config.json").write_text("[]")
    with pytest.raises(ValueError, match="JSON object"):
        read_generation_settings(tmp_path, [])
