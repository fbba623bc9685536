"""Attention of captioners: a map over the photo for each word of a caption, and its pictures."""
