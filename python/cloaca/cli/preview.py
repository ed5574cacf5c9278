"""The command that says what a poll would come to."""

from __future__ import annotations

import contextlib
import os
import sys

from .. import _cloaca, check, reading
from ..errors import excerpt
from ..terminal import clean
from .main import FAILED, OK
from .parse import UsageError
from .program import imported, split
from .show import Show, Word, as_json, aside
from .where import NothingFound, database, program, tell_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator
    from typing import Any, NoReturn

    from ..reading import Reader
    from ..types import FireRow, TickAnswer

WOULD = {
    "run": "would start",
    "queue": "would wait",
    "deduplicate": "would be dropped",
    "refuse_key": "would be dropped",
    "drop": "would be dropped",
    "hold_back": "would be held back",
    "fail": "would fail",
}


def preview(arguments: Namespace, show: Show) -> int:
    """What a poll would come to."""
    app = program(arguments.app)
    if app is None:
        raise UsageError("only the program knows its triggers; give --app MODULE, or [tool.cloaca] app")
    with contextlib.ExitStack() as stack:
        reader = _opened(arguments, show, stack)
        tell_program(arguments.database)
        imported(split(app)[0])
        # What the function prints is no answer of ours.
        with contextlib.redirect_stdout(sys.stderr), _telling(arguments.name, stack):
            answer = reading.preview(reader, arguments.name)
    if show.as_json:
        show.record("preview", {"trigger_name": arguments.name, **answer})
    elif show.is_for_people:
        _for_people(show, arguments.name, answer)
    else:
        _values(show, arguments.name, answer)
    fails = answer["outcome"] == "error" or any(fire["gate"]["verdict"] == "fail" for fire in answer["fires"])
    return FAILED if fails else OK


@contextlib.contextmanager
def _telling(name: str, stack: contextlib.ExitStack) -> Iterator[None]:
    """Has a function that ends its process told of: a runner would be gone by it."""
    leaves, process = os._exit, os.getpid()

    def leave(status: int) -> NoReturn:
        if os.getpid() != process:
            leaves(status)
        aside(f"cloaca: the function of trigger {excerpt(name)} ends its process, by os._exit({status})\n")
        stack.close()
        leaves(FAILED)

    os._exit = leave
    try:
        yield
    finally:
        os._exit = leaves


def _opened(arguments: Namespace, show: Show, stack: contextlib.ExitStack) -> Reader:
    """The store; before the first start of its program an empty one, as the first poll would find it."""
    from ..reading.absent import UNMADE, lacks

    try:
        url = check.url(database(arguments.database))
        if lacks(url) != UNMADE:
            return stack.enter_context(reading.Reader(url))
        missing = f"store {excerpt(_cloaca.name_of(url))} is not made yet"
    except NothingFound:
        missing = "there is no store in this folder yet, and none is named"
    from tempfile import TemporaryDirectory

    show.note(f"{missing}: this is what a first poll would come to")
    path = os.path.join(stack.enter_context(TemporaryDirectory(prefix="cloaca-")), "empty.db")
    _cloaca.Client.open(path).close()
    return stack.enter_context(reading.Reader(path))


def _values(show: Show, name: str, answer: TickAnswer) -> None:
    show.values(["poll", name, answer["outcome"], None, None, answer["reason"]])
    for fire in answer["fires"]:
        gate = fire["gate"]
        show.values(
            ["fire", gate["verdict"], gate["run"], fire["run_key"], gate["reason"], as_json(fire["context"])]
        )
    if answer["cursor"] is not None:
        show.values(["cursor", None, None, None, None, as_json(answer["cursor"])])


def _for_people(show: Show, name: str, answer: TickAnswer) -> None:
    reason = "" if answer["reason"] is None else f"  {clean(answer['reason'])}"
    show.line(f"{clean(name)}  {show.word(answer['outcome'])}{reason}")
    if answer["fires"]:
        columns = ("FATE", "RUN", "KEY", "WHY", "CONTEXT")
        show.table("fire", columns, [(fire, _cells(fire)) for fire in answer["fires"]])
    if answer["cursor"] is not None:
        show.line(f"  {show.styled('cursor then', 'dim')} {clean(as_json(answer['cursor']))}")


def _cells(fire: FireRow) -> list[Any]:
    gate = fire["gate"]
    return [
        Word(WOULD[gate["verdict"]]),
        gate["run"],
        fire["run_key"],
        gate["reason"],
        as_json(fire["context"]),
    ]
