"""`Listed`: a list of rows that a notebook shows as a table, and that becomes one. Decides nothing."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Literal, SupportsIndex, TypeVar, overload

    from .types import LogRow

    _Row = TypeVar("_Row")


class Listed(list["_Row"]):
    """What a listing gives: a list of dicts, as any other.

    In a notebook the last line of a cell shows it as a table; `as_dataframe` makes one of pandas or polars.

    Attributes:
        of (str): the name in `cloaca.types` of what its dicts are.
    """

    __slots__ = ("of",)

    of: str

    def __init__(self, rows: Iterable[_Row] = (), of: str = "") -> None:
        super().__init__(rows)
        self.of = of

    def as_dataframe(self, library: Literal["pandas", "polars"] | None = None) -> Any:
        """The same as a `DataFrame`, a column for each key, also if nothing was listed.

        Times are timezone-aware, in UTC, to the microsecond; contexts, cursors and lists are objects, left as
        they are; numbers, texts and truth values have the library's types, and what is `None` is missing.

        Args:
            library (str | None): `"pandas"` or `"polars"`; if none is named, pandas, or polars where only
                that is installed.

        Raises:
            ImportError: it is not installed; the message says what to install.
            ArgumentError: (a `ValueError`) it is another library.
        """
        from .dataframe import of

        rows: Any = self
        return of(rows, self.of, library)

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, at: SupportsIndex) -> _Row: ...
        @overload
        def __getitem__(self, at: slice) -> Listed[_Row]: ...

    def __getitem__(self, at: SupportsIndex | slice) -> _Row | Listed[_Row]:
        found: Any = super().__getitem__(at)
        return Listed(found, self.of) if isinstance(at, slice) else found

    def copy(self) -> Listed[_Row]:
        """The same, again."""
        return self[:]

    def _repr_html_(self) -> str:
        from ._notebook import table

        rows: Any = self
        return table(rows)


class Logs(Listed["LogRow"]):
    """Lines that a run's bodies logged, as `DefaultRunner.logs` gives them.

    Attributes:
        left_out (int): so many older lines of the run are not kept any more.
    """

    __slots__ = ("left_out",)

    left_out: int

    def __init__(self, rows: Iterable[LogRow] = (), of: str = "LogRow", *, left_out: int = 0) -> None:
        super().__init__(rows, of)
        self.left_out = left_out
