"""Reads a command line, and words the help. Invariant: what is wrong with a line is one sentence with a way
out, and a name that is not known comes with near ones."""

from __future__ import annotations

from argparse import ArgumentParser, HelpFormatter, Namespace
from typing import NoReturn

from ..errors import CloacaError, excerpt
from ..near import hint
from .command import DATABASE, SHARED, Command, Option
from .commands import COMMANDS, named

OPENING = "cloaca shows what a store holds, and serves a program.\n"
WIDTH = 100


class UsageError(CloacaError):
    """A line that cannot be meant; its text says what to write instead."""


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parse(words: list[str]) -> tuple[Command, Namespace] | str:
    """The command and its arguments; or a text to print, if that was asked for.

    Raises:
        UsageError: the line is wrong.
    """
    leading, rest = split(words)
    if not rest:
        if (unknown := [word for word in leading if word not in ("--version", "--help", "-h")]) and words:
            raise UsageError(f"{excerpt(unknown[0])} stands without a command; `cloaca help` lists them")
        return _version() if "--version" in leading else overview()
    name, words = rest[0], leading + rest[1:]
    if name == "help":
        asked = [word for word in words if not word.startswith("-")]
        return describe(_command(asked[-1])) if asked else overview()
    command = _command(name)
    if command.name == "complete":
        return command, Namespace(words=words, database=None, json=False, utc=False)
    if "--help" in words or "-h" in words:
        return describe(command)
    return command, _arguments(command, words)


def _command(name: str) -> Command:
    command = named(name)
    if command is None:
        known = [each.name for each in COMMANDS if not each.is_hidden]
        raise UsageError(f"there is no command {excerpt(name)}{hint(name, 'commands', known)}")
    return command


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """What stands before the command, and the rest."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] == DATABASE.name else 1
    return words[:at], words[at:]


def _arguments(command: Command, words: list[str]) -> Namespace:
    parser = _Parser(
        prog=f"cloaca {command.name}", add_help=False, allow_abbrev=False, formatter_class=_formatter
    )
    for option in (*command.options, *SHARED):
        _add(parser, option)
    known = [option.name for option in (*command.options, *SHARED) if not option.is_argument]
    for word in words:
        if word == "--":
            break
        name = word.split("=", 1)[0]
        if name.startswith("--") and name not in known:
            raise UsageError(
                f"cloaca {command.name} has no option {excerpt(name)}{hint(name, 'options', known)}"
            )
    try:
        found = parser.parse_args(words)
    except UsageError as error:
        raise UsageError(f"cloaca {command.name}: {error}; `cloaca help {command.name}` says more") from None
    _refuse_empty(command, found)
    return found


def _refuse_empty(command: Command, found: Namespace) -> None:
    """What is empty was to be filled by a variable that nobody set: not given at all is something else."""
    for option in (*command.options, *SHARED):
        value = getattr(found, option.name.removeprefix("--").replace("-", "_"), None)
        if not option.takes_empty and (value == "" or (isinstance(value, list) and "" in value)):
            shown = option.name if option.name.startswith("-") else option.name.upper()
            raise UsageError(f"cloaca {command.name}: {shown} is empty; name what is meant, or leave it out")


def _formatter(prog: str) -> HelpFormatter:
    # Each argument that is added makes one; without a width that would import `shutil`, and whatever packs.
    return HelpFormatter(prog, width=WIDTH)


def _add(parser: ArgumentParser, option: Option) -> None:
    choices = option.choices or None
    if option.is_argument:
        nargs = ("*" if option.optional else "+") if option.many else ("?" if option.optional else None)
        parser.add_argument(option.name, nargs=nargs, metavar=option.metavar, choices=choices)
    elif option.metavar is None:
        parser.add_argument(option.name, action="store_true")
    else:
        kind = int if isinstance(option.default, int) else str
        parser.add_argument(
            option.name, metavar=option.metavar, default=option.default, type=kind, choices=choices
        )


def _version() -> str:
    from .. import __version__

    return f"cloaca {__version__}\n"


def overview() -> str:
    """The help of the whole."""
    shown = [command for command in COMMANDS if not command.is_hidden]
    lines = [OPENING, "usage: cloaca COMMAND [OPTION...]", ""]
    lines += [f"  {command.name:<11} {command.about}" for command in shown]
    lines += ["", "every command takes:", *_described(SHARED)]
    lines += [
        "",
        "`cloaca help COMMAND` says more. Exit codes: 0, 1 failed, 2 usage, 3 store, 4 not found.",
        "",
    ]
    return "\n".join(lines)


def describe(command: Command) -> str:
    """The help of one command."""
    arguments = [option for option in command.options if option.is_argument]
    others = [option for option in command.options if not option.is_argument]
    words = [f"usage: cloaca {command.name}", *(option.usage for option in arguments)]
    lines = [" ".join([*words, *(["[OPTION...]"] if others else [])]), "", command.about]
    lines += command.more.splitlines()
    if command.options:
        lines += ["", *_described((*arguments, *others))]
    lines += ["", "every command takes:", *_described(SHARED), "", f"example: {command.example}", ""]
    return "\n".join(lines)


def _described(options: tuple[Option, ...]) -> list[str]:
    lines = []
    for option in options:
        name = option.usage.strip("[]") if option.is_argument else option.usage
        about = option.about
        if option.choices and option.choices[0] not in about:
            about += f": {', '.join(option.choices)}"
        if option.default not in (None, "{}", "text", 1):
            about += f"; {option.default} if not given"
        lines.append(f"  {name:<18} {about}")
    return lines
