"""--engine and --precision: wrong combinations are errors before anything is loaded."""

from __future__ import annotations

import sys

import pytest

from helpers.cli_errors import fails

PHOTO = "res/photos/cat.jpg"


@pytest.mark.parametrize(
    "words, message",
    [
        (["--precision", "int8"], "Expected a precision of the engine keras"),
        (["--engine", "openvino", "--prefix-words"], "--prefix-words requires --engine keras"),
        (["--engine", "openvino", "--attention", "a.png"], "--attention requires --engine keras"),
    ],
)
def test_options_that_an_engine_does_not_have_are_refused(words, message, capsys):
    assert message in fails(["caption", PHOTO, *words], capsys)


@pytest.mark.parametrize("package", ["openvino", "scipy"])
def test_a_missing_engine_is_named_with_its_installation(package, capsys, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("effcap.tools.cli.sampling.start_keras", lambda: pytest.fail("too late"))
    message = fails(["caption", PHOTO, "--engine", "openvino"], capsys)
    assert "pip install 'effcap[openvino]'" in message and f"missing: {package}" in message
