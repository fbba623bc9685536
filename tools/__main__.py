"""Runs the command line: `python -m effcap.tools`."""

import sys

from effcap.tools.cli import main

sys.exit(main())
