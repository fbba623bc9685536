"""Helpers for files, progress bars and lazy imports, on the standard library and rich."""
