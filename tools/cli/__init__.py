"""The command line `effcap`, one module per command. May use all packages.

Arguments are parsed without importing Keras or TensorFlow, which take seconds to import.
"""

from effcap.tools.cli.main import main

__all__ = ["main"]
