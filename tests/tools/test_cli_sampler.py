"""Tests of the commands' sampler: that of the preset, unless an option is given."""

from __future__ import annotations

import json
import re

import keras
import pytest

from effcap.captioner import Captioner
from effcap.samplers import Greedy
from effcap.tools import caption_folder
from effcap.tools.cli import main
from effcap.tools.cli.options import option_flag
from helpers.captioners import randomize, tiny_hparams
from helpers.data_maker import make_photos, write_csv

pytestmark = pytest.mark.usefixtures("eager")  # faster for a few photos

SAMPLER = Greedy(max_new_tokens=3, min_new_tokens=3)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sampler")
    write_csv(folder / "photos.csv", make_photos(folder / "photos", 2))
    keras.utils.set_random_seed(0)
    captioner = randomize(Captioner.from_hparams(tiny_hparams(), tokenizer))
    captioner.sampler = SAMPLER
    captioner.save_to_preset(folder / "preset")
    return folder


def recorded(folder, *options) -> dict:
    """Returns the sampler in the record of `effcap evaluate`."""
    command = ["evaluate", "--csv", folder / "photos.csv", "--images", folder / "photos"]
    command += ["--model", folder / "preset", "--json", folder / "scores.json", *options]
    assert main([str(word) for word in command]) == 0
    return json.loads((folder / "scores.json").read_text())


def test_photos_are_captioned_with_the_sampler_of_the_preset(folder, capsys):
    command = ["caption", str(folder / "photos"), "--model", str(folder / "preset")]
    expected = caption_folder(folder / "photos", folder / "preset", SAMPLER)
    assert main(command) == 0
    output = capsys.readouterr().out
    assert all(captions[0].text in output for _, captions in expected.captions)
    assert expected.captions[0][1][0].tokens != ()


def test_evaluation_records_the_sampler_of_the_preset(folder):
    sampler = recorded(folder)["sampler"]
    assert sampler["name"] == "greedy" and sampler["max_new_tokens"] == 3


def test_an_option_changes_the_sampler_of_the_preset_if_it_has_it(folder):
    changed = recorded(folder, option_flag("max_new_tokens"), 4)["sampler"]
    limits = {"max_new_tokens": 4, "min_new_tokens": 3}
    assert changed["name"] == "greedy" and limits.items() <= changed.items()
    other = recorded(folder, option_flag("num_beams"), 2, "--max-new-tokens", 4)["sampler"]
    assert other == {"name": "beam", "num_beams": 2, "max_new_tokens": 4}


def test_words_are_included_and_excluded(folder, capsys, tmp_path):
    command = ["caption", str(folder / "photos" / "0.jpg"), "--model", str(folder / "preset")]
    command += ["--num-beams", "2", "--max-new-tokens", "6", "--include", "dog|cat"]
    assert main([*command, "--exclude", "a", "--out", str(tmp_path / "a.json")]) == 0
    (entry,) = json.loads((tmp_path / "a.json").read_text())
    words = re.findall(r"\w+", entry["caption"].lower())
    assert {"dog", "cat"} & set(words) and "a" not in words
    assert "lack words" not in capsys.readouterr().err
    assert main([*command, "--include", "children play on the beach"]) == 0
    error = capsys.readouterr().err
    assert "without" in error and "children play on the beach: " in error
    assert "1 of 1 captions lack words of --include" in error
