"""Tests of `effcap list`."""

from __future__ import annotations

import pytest

from effcap import list_presets, list_variants
from effcap.config import load_hparams, merge_hparams, parse_settings
from effcap.tools import list_settings
from effcap.tools.cli import main
from helpers.cli_errors import fails


@pytest.mark.parametrize("columns", (40, 80, 120))
def test_all_presets_and_variants_are_listed_and_fit(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in (*list_presets(), *list_variants()):
        assert name in text
    words = " ".join(text.split())
    for name in list_variants():
        description = load_hparams(name).get("description", "")
        assert description.split()[0] in "".join(words.split())  # may be broken at 40 columns
        assert columns < 80 or f"{load_hparams(name)['decoder']['num_layers']} ×" in words
    assert max(len(line.rstrip()) for line in text.splitlines()) <= max(columns, 60)


@pytest.mark.parametrize("model", (*list_variants(), *list_presets()))
def test_settings_of_a_model_are_documented_and_can_be_set(model):
    settings = list_settings(model)
    names = [setting.name for setting in settings]
    assert len(names) == len(set(names)) and all(setting.text for setting in settings)
    assert {"decoder.dropout", "training.patience", "scst.temperature"} <= set(names)
    assert "run.checkpoint_steps" in names
    hparams = {"encoder": {}, "decoder": {}, "training": {}}
    values = [s.assignment for s in settings if s.name.split(".")[0] in hparams]
    merged = merge_hparams(hparams, parse_settings(values))
    for setting in settings:
        section, *path = setting.name.split(".")
        if section in merged:
            value = merged[section]
            for key in path:
                value = value[key]
            expected = list(setting.value) if isinstance(setting.value, tuple) else setting.value
            assert value == expected


def test_settings_are_printed_with_their_values(capsys):
    assert main(["list", "visualgpt"]) == 0
    text = capsys.readouterr().out
    assert "decoder.fusion.tau=0.2" in text and "training.epochs=10" in text
    assert "Received: 'nothing'" in fails(["list", "nothing"], capsys)
