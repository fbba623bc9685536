"""Readers and datasets of captioned photos, regions, playlists and shards."""
