"""What other modules have, of those that somebody has imported.

Decides nothing. Invariant: it imports nothing, and what another thread has only begun to import is not there.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def found(module: str, name: str) -> Any:
    """What a module calls so; `None` while nobody has imported it."""
    return getattr(sys.modules.get(module), name, None)
