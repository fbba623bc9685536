"""Playlists with captions and features into batches: PlayNTell's data."""
