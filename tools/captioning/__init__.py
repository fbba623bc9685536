"""Captions photos, region features, playlists and shards. May use all below `tools`."""
