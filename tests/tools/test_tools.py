"""Tests of the public names of effcap.tools, and of what its commands load and compile."""

from __future__ import annotations

import importlib
import json
import sys

import keras
import pytest

from effcap import tools
from effcap.samplers import Greedy
from effcap.tools import Sidecars, caption_folder
from effcap.tools.cli.terminal import without_packages
from helpers.captioners import count_traces
from helpers.data_maker import make_photos, make_randomized_captioner

NAMES = {
    "CardOptions",
    "EmbeddedCaptions",
    "FeatureSources",
    "PlaylistReferences",
    "ServeOptions",
    "Sidecars",
    "XmpSidecars",
    "caption_folder",
    "caption_into_shards",
    "caption_playlists",
    "caption_regions",
    "caption_shards",
    "compare_runs",
    "convert_clipcap",
    "download_gpt2",
    "evaluate",
    "evaluate_playlists",
    "gpt2_hparams",
    "index_shards",
    "list_settings",
    "load_gpt2",
    "model_card",
    "published_captioner",
    "push_to_hub",
    "read_references",
    "serve",
    "write_feature_arrays",
    "write_features",
    "write_page",
    "write_playlist_features",
    "write_report",
    "write_shards",
}


def test_every_public_name_can_be_imported():
    assert set(dir(tools)) == NAMES
    for name in tools.__all__:
        assert callable(getattr(tools, name))
    with pytest.raises(AttributeError, match="no_such_name"):
        tools.no_such_name  # noqa: B018


@pytest.mark.slow
def test_photos_in_batches_are_captioned_by_one_trace(tmp_path, monkeypatch):
    """Also the last batch, which is smaller, and photos that a notebook captions afterwards."""
    make_photos(tmp_path, 11)
    (tmp_path / "2b.jpg").write_bytes(b"no photo")
    paths = [*sorted(tmp_path.glob("*[0-9].jpg"))]
    captioner, traces = make_randomized_captioner(), count_traces(monkeypatch)
    sampler = Greedy(max_new_tokens=4)
    results = caption_folder(tmp_path, captioner, sampler, batch_size=4, writer=Sidecars())
    assert captioner.generate(paths, sampler, batch_size=4) == [
        path.with_suffix(".txt").read_text().removesuffix("\n") for path in paths
    ]
    assert [len(results.captions), len(results.skipped)] == [11, 1]
    assert len(traces) == 1 or keras.backend.backend() == "torch"


def test_hidden_packages_look_uninstalled_for_a_while(monkeypatch):
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    with without_packages(["wave", "json"]):
        with pytest.raises(ImportError):
            importlib.import_module("wave")
        assert importlib.import_module("json") is json  # was imported before
    assert importlib.import_module("wave").__name__ == "wave"
