"""What is known of a program before it is imported, which acts, as a runner that it makes makes a store:
whether there is one, and whether anything in it is called so.

Invariant: what is refused here, Python would not find either; where only Python can tell, nothing is refused.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import NamespaceLoader

from ..errors import excerpt
from .parse import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from symtable import SymbolTable

_FINDS = ("__path__", "modules", "meta_path")
"""A package that has one of these in its source may hold modules that stand nowhere in its folder."""
_NAMES = {"__dict__", "__getattr__", "eval", "exec", "globals", "locals", "modules", "setattr", "vars"}
"""A module that mentions one of these may have names that it assigns nowhere."""


class Unknown(Exception):
    """Only who imports it knows."""


def refuse_missing(module: str, name: str | None = None) -> None:
    """Says that there is no such program, or nothing of that name in it, as far as that is known.

    Raises:
        UsageError: there is none.
    """
    try:
        source = _source(module)
        if name is not None and not name.startswith("__") and not _has(source, name):
            raise UsageError(
                f"{module} has no runner {excerpt(name)}: nothing there is called so; name a DefaultRunner,"
                " or a function that makes one or serves by itself"
            )
    except Unknown:
        pass


def is_path(module: str) -> bool:
    """Whether that names a file, not a module."""
    return module.endswith(".py") or os.sep in module


def _source(module: str) -> str:
    """The file of a program."""
    if is_path(module):
        if not os.path.isfile(module):
            raise UsageError(f"there is no file {excerpt(module)}; name the program's module or file")
        return module
    if (folder := os.getcwd()) not in sys.path:
        sys.path.insert(0, folder)
    names, within = module.split("."), None
    for number in range(1, len(names) + 1):
        name = ".".join(names[:number])
        if name in sys.modules:
            raise Unknown
        spec = _spec(name, within)
        if spec is None:
            raise UsageError(
                f"there is no module {excerpt(module)} here; name the program's module or file, such as"
                " app.py"
            )
        if number == len(names):
            return _file(spec)
        within = list(spec.submodule_search_locations or ())
        if not isinstance(spec.loader, NamespaceLoader | None) and any(
            each in _text(_file(spec)) for each in _FINDS
        ):
            raise Unknown
    raise AssertionError("a module has a name")


def _spec(name: str, within: Sequence[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        try:
            found = finder.find_spec(name, within)
        except Exception as error:
            raise Unknown from error
        if found is not None:
            return found
    return None


def _file(spec: ModuleSpec) -> str:
    if not spec.has_location or spec.origin is None:
        raise Unknown
    return spec.origin


def _text(path: str) -> str:
    import tokenize

    try:
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, SyntaxError, ValueError) as error:
        raise Unknown from error


def _has(path: str, name: str) -> bool:
    """Whether something in a module's source is called so."""
    import ast
    import symtable

    text = _text(path)
    try:
        tree, table = ast.parse(text), symtable.symtable(text, path, "exec")
    except (SyntaxError, ValueError, RecursionError) as error:
        raise Unknown from error
    if not _NAMES.isdisjoint(_mentioned(tree)):
        raise Unknown
    return any(_binds(each, name) for each in _tables(table))


def _mentioned(tree: ast.AST) -> Iterator[str]:
    import ast

    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.alias) and node.name == "*":
            raise Unknown


def _tables(table: SymbolTable) -> Iterator[SymbolTable]:
    tables = [table]
    for each in tables:
        yield each
        tables += each.get_children()


def _binds(table: SymbolTable, name: str) -> bool:
    try:
        symbol = table.lookup(name)
    except KeyError:
        return False
    is_here = table.get_type() == "module" or symbol.is_declared_global()
    return is_here and (symbol.is_assigned() or symbol.is_imported())
