"""Tests of the public names of effcap.tools."""

from __future__ import annotations

import pytest

from effcap import tools

NAMES = {
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
    "published_captioner",
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
