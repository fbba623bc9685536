"""Captioners as graphs of other runtimes, with a runner beside them. May use engines and below."""
