"""Scores captions against references, and writes reports. May use all below `tools`."""
