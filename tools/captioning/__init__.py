"""Captioning at scale: folders of photos, regions, playlists, shards. Each is one library call."""
