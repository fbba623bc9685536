"""METEOR and SPICE say what they need."""

from __future__ import annotations

import shutil
import sys

import pytest

from effcap.metrics import MetricUnavailable, meteor, spice

CAPTIONS, REFERENCES = [["a", "dog", "runs"], []], [[["a", "dog", "is", "running"]], [["a", "cat"]]]


def java() -> None:
    pytest.importorskip("pycocoevalcap", reason="needs the extra metrics")
    if shutil.which("java") is None:
        pytest.skip("needs Java")


def test_without_java_it_is_said(monkeypatch):
    pytest.importorskip("pycocoevalcap", reason="needs the extra metrics")
    monkeypatch.setenv("PATH", "/nowhere")
    for metric, name in ((meteor, "METEOR"), (spice, "SPICE")):
        with pytest.raises(MetricUnavailable, match=f"Expected Java for {name}: install a JRE"):
            metric(CAPTIONS, REFERENCES)


def test_without_pycocoevalcap_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    for metric in (meteor, spice):
        with pytest.raises(MetricUnavailable, match=r"pip install 'effcap\[metrics\]'"):
            metric(CAPTIONS, REFERENCES)


def test_without_its_jars_spice_says_what_to_fetch(monkeypatch):
    java()
    import pycocoevalcap.spice.spice as module

    def fails():
        raise OSError("no network")

    monkeypatch.setattr(module, "get_stanford_models", fails)
    with pytest.raises(MetricUnavailable, match="corenlp-3.6.0-models.jar in .*no network"):
        spice(CAPTIONS, REFERENCES)


@pytest.mark.slow  # Java takes its time to start
def test_meteor_is_higher_for_better_captions():
    java()
    score, scores = meteor(CAPTIONS, REFERENCES)
    assert scores.shape == (2,) and scores[0] > 0.2 and scores[1] == 0
    assert meteor([["a", "dog", "is", "running"]], REFERENCES[:1])[0] == pytest.approx(1)
    assert 0 < score < scores[0]
