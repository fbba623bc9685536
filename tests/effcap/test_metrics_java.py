"""METEOR and SPICE: scores, and errors about missing requirements."""

from __future__ import annotations

import shutil
import sys

import pytest

from effcap.metrics import MetricUnavailable, meteor, spice

CAPTIONS, REFERENCES = [["a", "dog", "runs"], []], [[["a", "dog", "is", "running"]], [["a", "cat"]]]


def require_java() -> None:
    """Skips the test without pycocoevalcap or Java."""
    pytest.importorskip("pycocoevalcap", reason="requires the extra metrics")
    if shutil.which("java") is None:
        pytest.skip("requires Java")


def test_missing_java_raises_with_instructions(monkeypatch):
    pytest.importorskip("pycocoevalcap", reason="requires the extra metrics")
    monkeypatch.setenv("PATH", "/nowhere")
    for metric, name in ((meteor, "METEOR"), (spice, "SPICE")):
        with pytest.raises(MetricUnavailable, match=f"{name} requires Java: install a JRE"):
            metric(CAPTIONS, REFERENCES)


def test_missing_pycocoevalcap_raises_import_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    for metric in (meteor, spice):
        with pytest.raises(ImportError, match=r"pip install 'effcap\[metrics\]'"):
            metric(CAPTIONS, REFERENCES)


def test_missing_spice_jars_raise_with_their_address(monkeypatch):
    require_java()
    import pycocoevalcap.spice.spice as module

    def raise_error():
        raise OSError("no network")

    monkeypatch.setattr(module, "get_stanford_models", raise_error)
    with pytest.raises(MetricUnavailable, match="corenlp-3.6.0-models.jar in .*no network"):
        spice(CAPTIONS, REFERENCES)


@pytest.mark.slow  # Java takes seconds to start
def test_meteor_is_higher_for_better_captions():
    require_java()
    score, scores = meteor(CAPTIONS, REFERENCES)
    assert scores.shape == (2,) and scores[0] > 0.2 and scores[1] == 0
    assert meteor([["a", "dog", "is", "running"]], REFERENCES[:1])[0] == pytest.approx(1)
    assert 0 < score < scores[0]
