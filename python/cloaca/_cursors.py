"""What a runner says and does about cursors, beside the polls that move them.

Decides nothing: the store refuses what a poll decided by a cursor that was set since.
"""

from __future__ import annotations

from . import check
from .chosen import name_of_one
from .context import DEPTH_MAX, checked_value, decode_value, encode_value, fitting
from .errors import TriggerError, excerpt
from .near import says_keywords
from .plain import INFO, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .declarations import Declarations
    from .redact import Redactor
    from .types import TriggerRef

_log = "cloaca"

# Index schedules_trigger. Where a name has come to that was polled and is a cron's now, or the other way
# round, stands in the row that was served last.
POLLED = "SELECT 1 AS counts FROM schedules WHERE kind = 'trigger' AND name = ?1 AND NOT stale"


class Cursors:
    """The part of a runner that is about cursors."""

    if TYPE_CHECKING:
        _declarations: Declarations
        _redactor: Redactor

        def _open(self) -> Any: ...
        def _unknown_trigger(self, name: str) -> str: ...

    def cursor(self, trigger_name: TriggerRef, *, unmasked: bool = False) -> Any:
        """The cursor that the store keeps of a trigger, polled or a cron, whoever polls it; `None` if it has
        none. With `unmasked` also what `redact=` hides.

        Raises:
            TriggerError: (a `ValueError`) no such trigger is kept.
        """
        mask = self._redactor.mask(check.flag(unmasked, "unmasked"))
        (text,) = self._kept(name_of_one(trigger_name))
        if text is None:
            return None
        return decode_value(text) if mask is None else mask.context(text)

    @says_keywords("set_cursor()")
    def set_cursor(self, trigger_name: TriggerRef, value: Any) -> None:
        """Sets a trigger's cursor, from any program that has opened the store, also a paused runner, and
        whoever polls it.

        The next poll sees it. A poll that is in flight looked at the old one: what it answers counts for
        nothing, its fires and its cursor, and it is polled again. Of a cron whose function is deciding a
        moment the moment counts, and the cursor stays as it was set. One line in the log tells of it.

        Args:
            trigger_name (str | Callable): its name or its function.
            value (Any): a JSON value; `None` is what a trigger finds at first.

        Raises:
            TriggerError: (a `ValueError`) no such trigger is kept.
            ContextTypeError: (a `TypeError`) JSON does not know the value.
            ContextError: (a `ValueError`) JSON cannot hold it, or it has more than `context_bytes_max` bytes.
        """
        name = name_of_one(trigger_name)
        engine = self._open()
        text = encode_value(checked_value(value, "cursor", DEPTH_MAX))
        fitting(engine.context_bytes_max, text, "the cursor")
        (before,) = self._kept(name)
        kept = None if text == "null" else text
        if not engine.schedules.set_cursor(name, self._is_cron(name), kept):
            raise TriggerError(self._unknown_trigger(name))
        self._tell(name, before, kept)

    def reset_cursor(self, trigger_name: TriggerRef) -> None:
        """Takes a trigger's cursor away, so that it begins as if it had never been polled: `set_cursor` to
        `None`. Its run keys stay, and what they refuse is not fired again; `forget` deletes those, too.

        Raises:
            TriggerError: (a `ValueError`) no such trigger is kept.
        """
        self.set_cursor(trigger_name, None)

    def _kept(self, name: str) -> tuple[str | None]:
        kept: tuple[str | None] | None = self._open().schedules.cursor(name, self._is_cron(name))
        if kept is None:
            raise TriggerError(self._unknown_trigger(name))
        return kept

    def _is_cron(self, name: str) -> bool:
        """Whether the name is a cron's now: it may have been polled before, or the other way round."""
        if self._declarations.has_cron(name) or self._declarations.has_polled(name):
            return self._declarations.has_cron(name)
        engine = self._open()
        return not engine.store.query(POLLED, [name]) and engine.schedules.cursor(name, True) is not None

    def _tell(self, name: str, before: str | None, after: str | None) -> None:
        mask = self._redactor.mask()
        shown = [
            "none" if text is None else excerpt(decode_value(text) if mask is None else mask.context(text))
            for text in (before, after)
        ]
        text, about = "trigger '%s': its cursor was set by a call, from %s to %s", {"cloaca_trigger": name}
        say(_log, INFO, text, name, *shown, about=about)
