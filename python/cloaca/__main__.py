"""`python -m cloaca` is the command `cloaca`."""

import sys

from .cli.main import begun

sys.exit(begun())
