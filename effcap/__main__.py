"""`python -m effcap` is `effcap`."""

import sys

from effcap.tools.cli import main

sys.exit(main())
