"""Devices and processes that train one captioner together."""
