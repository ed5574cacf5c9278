"""Bodies of tasks that run in processes of their own."""

from __future__ import annotations

import time
from pathlib import Path

import cloaca

FOR_EVER = 3600.0


def lasts_at_first(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
    """Its first attempt runs until it is stopped, and leaves word that it was told."""
    if handle.attempt > 1:
        return
    folder = Path(context["folder"])
    (folder / "begun").touch()
    try:
        time.sleep(FOR_EVER)
    finally:
        (folder / f"told {handle.cancelled}").touch()
