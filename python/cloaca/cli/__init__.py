"""The command line: it shows what `cloaca.reading` tells, and asks for changes. Decides nothing about runs.

Reading order: `commands` says which commands there are, `parse` reads a line by that, `where` which store is
meant, `show` how things look; the commands themselves stand in files by what they do, and are imported when
they are called.
"""

from .main import main

__all__ = ["main"]
