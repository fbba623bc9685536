"""The command line `effcap`.

Parsing needs nothing heavy: TensorFlow is imported by a command only when it starts its work.
"""

from effcap.tools.cli.main import main

__all__ = ["main"]
