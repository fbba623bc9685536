"""Tests of effcap.conversion.backbone_weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from effcap.conversion.backbone_weights import check_backbone_weights, load_backbone_weights


@pytest.fixture
def loaded(monkeypatch) -> list:
    """Returns the list of the paths that `load_imagenet` is called with."""
    paths: list = []
    monkeypatch.setattr(
        "effcap.weights.imagenet.load_imagenet", lambda backbone, path: paths.append(path)
    )
    return paths


def test_the_default_for_a_named_network_is_imagenet(loaded):
    for weights in (None, "imagenet", "none", "file.h5"):
        load_backbone_weights(SimpleNamespace(network="efficientnet_b0", net=None), weights)
    assert loaded == [None, None, "file.h5"]


def test_the_default_for_a_keras_model_is_none(loaded):
    load_backbone_weights(SimpleNamespace(network=object(), net=None), None)
    assert loaded == []


def test_an_encoder_without_backbone_takes_no_weights(loaded):
    for weights in (None, "none"):
        load_backbone_weights(None, weights)
    with pytest.raises(ValueError, match="no backbone.*Received: backbone_weights='imagenet'"):
        load_backbone_weights(None, "imagenet")
    assert loaded == []


def test_weights_must_be_a_keyword_or_a_file(tmp_path):
    (tmp_path / "file.h5").touch()
    for weights in (None, "imagenet", "none", str(tmp_path / "file.h5")):
        check_backbone_weights(weights)
    with pytest.raises(FileNotFoundError, match="Received: 'no.h5'"):
        check_backbone_weights("no.h5")
