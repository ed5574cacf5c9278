"""`python -m cloaca` is the command `cloaca`."""

import sys

from .cli import main

sys.exit(main())
