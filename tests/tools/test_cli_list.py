"""`effcap list` shows every variant and preset, without TensorFlow, in any terminal."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.cli_process import environment

from effcap import list_presets, list_variants
from effcap.config import load_hparams
from effcap.tools.cli import main


@pytest.mark.parametrize("columns", (40, 80, 120))
def test_all_presets_and_variants_are_listed_and_fit(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in (*list_presets(), *list_variants()):
        assert name in text
    words = " ".join(text.split())
    for name in list_variants():
        described = load_hparams(name).get("description", "")
        assert described.split()[0] in words
        assert columns < 80 or f"{load_hparams(name)['decoder']['layers']} ×" in words
    assert max(len(line.rstrip()) for line in text.splitlines()) <= max(columns, 60)


def test_listing_needs_no_tensorflow():
    code = (
        "import sys; from effcap.tools.cli import main; main(['list']);"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment())
    assert ran.returncode == 0, ran.stderr
