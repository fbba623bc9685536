"""Files, progress bars, lazy imports. May use the standard library and rich alone."""
