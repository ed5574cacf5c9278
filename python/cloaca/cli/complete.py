"""What makes a shell complete a line. Invariant: a name that a shell would read as more than a word is left
out: what is stored must not be carried out by a key press."""

from __future__ import annotations

import contextlib
import os

from .command import SHARED, Command, Option
from .commands import COMMANDS, named
from .main import OK
from .show import Show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable

FOUND_MAX = 200
"""So many are offered."""
RUNS_MAX = 50
_SAFE = "_-.@%+/"

SCRIPTS = {
    "bash": """\
_cloaca() {
    local IFS=$'\\n'
    COMPREPLY=($(cloaca complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _cloaca cloaca
""",
    "zsh": """\
_cloaca() {
    local -a found
    found=(${(f)"$(cloaca complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    (( $#found )) && compadd -- $found || _files
}
compdef _cloaca cloaca
""",
    "fish": """\
complete -c cloaca -a '(cloaca complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
""",
}


def completion(arguments: Namespace, show: Show) -> int:
    """Prints a shell's part."""
    show.out.write(SCRIPTS[arguments.shell])
    return OK


def complete(arguments: Namespace, show: Show) -> int:
    """Prints what the last word may become."""
    words = arguments.words or [""]
    for word in _found(words[:-1], words[-1]):
        show.line(word)
    return OK


def _found(before: list[str], prefix: str) -> list[str]:
    command = named(before[0]) if before else None
    if not before:
        return [each.name for each in COMMANDS if not each.is_hidden and each.name.startswith(prefix)]
    if command is None:
        return []
    options = {option.name: option for option in (*command.options, *SHARED)}
    last = options.get(before[-1])
    if last is not None and last.metavar is not None and not last.is_argument:
        return _values(last, before, prefix)
    if prefix.startswith("-"):
        return [name for name in options if name.startswith("--") and name.startswith(prefix)]
    argument = _argument(command, before, options)
    return [] if argument is None else _values(argument, before, prefix)


def _argument(command: Command, before: list[str], options: dict[str, Option]) -> Option | None:
    """The argument that the word stands for, after those that stand before it."""
    given, at = 0, 1
    while at < len(before):
        option = options.get(before[at])
        at += 2 if option is not None and option.metavar is not None else 1
        given += option is None
    arguments = [option for option in command.options if option.is_argument]
    if not arguments:
        return None
    place = min(given, len(arguments) - 1)
    return arguments[place] if given == place or arguments[place].many else None


def _values(option: Option, before: list[str], prefix: str) -> list[str]:
    if option.choices:
        return [choice for choice in option.choices if choice.startswith(prefix)]
    if option.completes in ("none", "file"):
        return []
    found: list[str] = []
    # Whatever is wrong: a line that cannot be completed is no reason to print anything into it.
    with contextlib.suppress(Exception):
        found = list(_stored(option.completes, before, prefix))
    return [name for name in found if name.startswith(prefix) and _is_safe(name)][:FOUND_MAX]


def _stored(kind: str, before: list[str], prefix: str) -> Iterable[str]:
    from .. import reading
    from ..reading.store import names
    from .where import database

    given = before[before.index("--database") + 1] if "--database" in before[:-1] else None
    with (
        open(os.devnull, "w") as nothing,
        contextlib.redirect_stderr(nothing),
        reading.Reader(database(given)) as reader,
    ):
        if kind == "trigger":
            return names(reader)
        if kind == "workflow":
            return reader.native.workflows("", FOUND_MAX)
        if prefix:
            return reader.native.run_ids(prefix, FOUND_MAX)
        return [found.id for found in reading.runs(reader, limit=RUNS_MAX)]


def _is_safe(name: str) -> bool:
    return not name.startswith("-") and all(letter.isalnum() or letter in _SAFE for letter in name)
