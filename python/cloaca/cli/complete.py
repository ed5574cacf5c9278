"""What makes a shell complete a line. Invariant: a name that a shell would read as more than a word is left
out: what is stored must not be carried out by a key press."""

from __future__ import annotations

import contextlib
import os

from .command import DATABASE, SHARED, Command, Option
from .commands import COMMANDS, named
from .main import OK
from .parse import split
from .show import Show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable

FOUND_MAX = 200
"""So many are offered."""
RUNS_MAX = 50
_SAFE = "_-.@%+/:="

# bash takes words apart at = and :, and puts in place of the last part alone.
SCRIPTS = {
    "bash": """\
_cloaca() {
    local IFS=$'\\n' line=$COMP_LINE part last='' cut='' words=()
    for part in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if [[ -z $last || $line == [[:space:]]* ]]; then
            words+=("$part") cut=''
        else
            cut=${words[${#words[@]}-1]} words[${#words[@]}-1]+=$part
        fi
        line=${line#*"$part"} last=1
    done
    [[ $part == [=:] ]] && cut+=$part
    COMPREPLY=($(cloaca complete "${words[@]:1}" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$cut"}")
}
complete -o default -F _cloaca cloaca
""",
    "zsh": """\
_cloaca() {
    local -a found
    found=(${(f)"$(cloaca complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    (( $#found )) && compadd -- $found || { compset -P '--*='; _files }
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
    leading, rest = split(before)
    # What stands before the command is read as if it stood behind it.
    before = leading + rest[1:]
    if rest and rest[0] == "help":
        return [] if rest[1:] else _commands(prefix)
    command = named(rest[0]) if rest else None
    if rest and command is None:
        return []
    options = {option.name: option for option in (*(command.options if command else ()), *SHARED)}
    is_open = "--" not in before
    if is_open and before and _takes(options.get(before[-1])):
        return _values(options[before[-1]], before, options, prefix)
    name, mark, begun = prefix.partition("=")
    if is_open and mark and _takes(options.get(name)):
        return [f"{name}={value}" for value in _values(options[name], before, options, begun)]
    if is_open and prefix.startswith("-"):
        return [name for name in options if name.startswith("--") and name.startswith(prefix)]
    if command is None:
        return _commands(prefix)
    argument = _argument(command, _read(before, options)[1])
    return [] if argument is None else _values(argument, before, options, prefix)


def _commands(prefix: str) -> list[str]:
    return [each.name for each in COMMANDS if not each.is_hidden and each.name.startswith(prefix)]


def _takes(option: Option | None) -> bool:
    """Whether it is an option with a value."""
    return option is not None and option.metavar is not None and not option.is_argument


def _read(before: list[str], options: dict[str, Option]) -> tuple[dict[str, str], list[str]]:
    """The values of the options that stand before a word, and the arguments."""
    values: dict[str, str] = {}
    arguments: list[str] = []
    words = iter(before)
    for word in words:
        name, mark, value = word.partition("=")
        if word == "--":
            arguments += words
        elif not word.startswith("-"):
            arguments.append(word)
        elif _takes(options.get(name)):
            values[name] = value if mark else next(words, "")
    return values, arguments


def _argument(command: Command, given: list[str]) -> Option | None:
    """The argument that the word stands for, after those that stand before it."""
    arguments = [option for option in command.options if option.is_argument]
    if not arguments:
        return None
    place = min(len(given), len(arguments) - 1)
    return arguments[place] if len(given) == place or arguments[place].many else None


def _values(option: Option, before: list[str], options: dict[str, Option], prefix: str) -> list[str]:
    if option.choices:
        return [choice for choice in option.choices if choice.startswith(prefix)]
    if option.completes in ("none", "file"):
        return []
    found: list[str] = []
    # Whatever is wrong: a line that cannot be completed is no reason to print anything into it.
    with contextlib.suppress(Exception):
        given = _read(before, options)[0].get(DATABASE.name)
        found = list(_stored(option.completes, given, prefix))
    return [name for name in found if name.startswith(prefix) and _is_safe(name)][:FOUND_MAX]


def _stored(kind: str, given: str | None, prefix: str) -> Iterable[str]:
    from .. import reading
    from ..reading.store import names
    from ..reading.workflows import workflow_names
    from .where import database

    with (
        open(os.devnull, "w") as nothing,
        contextlib.redirect_stderr(nothing),
        reading.Reader(database(given)) as reader,
    ):
        if kind == "trigger":
            return names(reader)
        if kind == "workflow":
            return reader.native.workflows("", FOUND_MAX)
        if kind == "limit":
            return [found.name for found in reading.limits(reader)]
        if kind == "any":
            # Runs only once one is begun: before that they would hide the names.
            begun = reader.native.run_ids(prefix, FOUND_MAX) if prefix else []
            return [*dict.fromkeys([*names(reader), *workflow_names(reader)]), *begun]
        if prefix:
            return reader.native.run_ids(prefix, FOUND_MAX)
        return [found.id for found in reading.runs(reader, limit=RUNS_MAX)]


def _is_safe(name: str) -> bool:
    # zsh looks for a command behind a leading =.
    return not name.startswith(("-", "=")) and all(letter.isalnum() or letter in _SAFE for letter in name)
