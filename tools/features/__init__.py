"""Writes features of photos and playlists for training. May use all below `tools`."""
