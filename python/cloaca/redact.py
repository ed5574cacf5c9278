"""`redact=`: which values listings, logs and messages hide. Decided here and nowhere else; each door asks.

Bodies, `final_context` of results and the store see the values as they are. Invariant: whatever goes wrong
here hides more, never less, and costs a store that hides nothing one look a call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

from . import context as contexts
from .context import DEPTH_MAX, Context, decode_value
from .errors import ArgumentError, ArgumentTypeError, excerpt, typed
from .hidden import MASK, NO_SECRETS, WITHHOLDING, Secrets, gather
from .keyed import OF_KEY, Keyed
from .kind import is_a, name_of
from .name import is_text
from .plain import ABOUT, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._cloaca import Reader, Store
    from .task_handle import TaskHandle
    from .types import RunDetails, TickAnswer

    Hiding = Callable[[tuple[str | int, ...], Any], Any]
    """A program's own: a path of keys and places, and the value there, to what is shown in its place."""

FOREIGN = {MASK: "by a function of another process; unmasked=True shows it"}
"""What stands in the place of a context that only another process knows how to show."""
KEY_CHARS_MAX = 1000


class Asked:
    """What a program gave as `redact=`."""

    __slots__ = ("function", "keys")

    def __init__(self, keys: list[str], function: Hiding | None) -> None:
        self.keys = keys
        self.function = function


NOTHING_ASKED = Asked([], None)


def checked(redact: object) -> Asked:
    """What `redact=` asks for.

    Raises:
        ArgumentTypeError: (a `TypeError`) it is neither a list of texts nor a function.
        ArgumentError: (a `ValueError`) a key that no context can have, or that is longer than 1000.
    """
    if redact is None:
        return NOTHING_ASKED
    if isinstance(redact, str | bytes | Mapping) or not (callable(redact) or isinstance(redact, Iterable)):
        raise ArgumentTypeError(
            f"redact is {excerpt(redact)}; it must be a list of keys, such as ['password'], or a function of"
            " a key path and a value"
        )
    if callable(redact):
        return Asked([], redact)
    keys: list[str] = []
    for key in redact:
        if not isinstance(key, str):
            raise ArgumentTypeError(f"redact holds {excerpt(key)}, {typed(key)}; each must be a key")
        if not is_text(key) or len(key) > KEY_CHARS_MAX:
            raise ArgumentError(
                f"redact holds {excerpt(key)}; a key has at most {KEY_CHARS_MAX} characters and no lone"
                " surrogates"
            )
        keys.append(str(key))
    return Asked(keys, None)


def folded(key: str) -> str:
    """What keys are compared by: `Password` is `password`, however its letters are written in Unicode."""
    if key.isascii():
        return key.lower()
    import unicodedata

    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", key).casefold())


class Mask:
    """What is hidden, by keys and functions; `is_foreign` if a function of another process decides, too."""

    __slots__ = ("functions", "is_foreign", "keys")

    def __init__(self, keys: frozenset[str], functions: tuple[Hiding, ...], is_foreign: bool) -> None:
        self.keys = keys
        self.functions = functions
        self.is_foreign = is_foreign

    def context(self, text: str) -> Any:
        """A context or cursor as it is shown, from its JSON text."""
        return self.told(decode_value(text))

    def told(self, value: Any) -> Any:
        """The same of a value that is decoded already; it is left as it is."""
        return dict(FOREIGN) if self.is_foreign and value is not None else self.shown(value)

    def shown(self, value: Any) -> Any:
        """The same by the keys and functions that are known here alone."""
        return self._shown(value, ())

    def _shown(self, value: Any, path: tuple[str | int, ...]) -> Any:
        if len(path) > DEPTH_MAX:
            return MASK
        if isinstance(value, dict):
            return {key: self._item(key, item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._asked(item, (*path, place)) for place, item in enumerate(value)]
        return value

    def _item(self, key: object, item: Any, path: tuple[str | int, ...]) -> Any:
        if isinstance(key, str) and folded(key) in self.keys:
            return MASK
        return self._asked(item, path)

    def _asked(self, item: Any, path: tuple[str | int, ...]) -> Any:
        for function in self.functions:
            shown = _call(function, path, item)
            if shown is not item:
                return shown
        return self._shown(item, path)

    def secrets(self, values: Iterable[Any]) -> Secrets:
        """The values in these contexts that texts must not tell."""
        try:
            found: dict[str, None] = {}
            for value in values:
                self._gather(value, (), found)
            return Secrets(found)
        except Exception:
            # A body may go on changing what it left behind.
            return WITHHOLDING

    def _gather(self, value: Any, path: tuple[str | int, ...], found: dict[str, None]) -> None:
        if self.is_foreign or len(path) > DEPTH_MAX:
            return gather(value, found)
        items: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, dict):
            items = list(value.items())
        elif isinstance(value, list | tuple):
            items = enumerate(value)
        for key, item in items:
            if isinstance(key, str) and folded(key) in self.keys:
                gather(item, found)
                continue
            here = (*path, key)
            if any(_call(function, here, item) is not item for function in self.functions):
                gather(item, found)
            else:
                self._gather(item, here, found)
        return None


def _call(function: Hiding, path: tuple[str | int, ...], item: Any) -> Any:
    try:
        shown = function(path, item)
        if shown is item:
            return item
        # What JSON doesn't know cannot be shown by who shows JSON.
        return Context({"": shown})[""]
    except BaseException as raised:
        # Ctrl-C comes to the main thread alone, and is not the function's. What else is raised, to end its
        # thread say, hides the value: whoever asks here has something to finish.
        if is_a(raised, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        return MASK


_keys: set[str] = set()
"""What any store that was opened in this process hides: its `repr`s hide it until the process ends."""
_functions: dict[int, Hiding] = {}
"""What runners at work were given."""


def _show_reprs() -> None:
    mask = Mask(frozenset(_keys), tuple(_functions.values()), False)
    contexts.shown = mask.shown if _keys or _functions else None


def hide_tick(answer: TickAnswer, mask: Mask | None, kept: Secrets) -> TickAnswer:
    """A poll's answer without what is hidden; `kept` is what texts about its trigger must not tell."""
    if mask is None:
        return answer
    secrets = mask.secrets([fire["context"] for fire in answer["fires"]] + [answer["cursor"]])
    answer["reason"] = kept.hide_maybe(secrets.hide_maybe(answer["reason"]))
    for fire in answer["fires"]:
        fire["context"] = mask.told(fire["context"])
        if "gate" in fire:
            fire["gate"]["reason"] = kept.hide_maybe(secrets.hide_maybe(fire["gate"]["reason"]))
    answer["cursor"] = mask.told(answer["cursor"])
    return answer


def at_hand(given: str, left: Context, handle: TaskHandle | None) -> Callable[[], Iterator[Any]]:
    """Gives what a body has had at hand: what it was given, what it makes of that, and its checkpoint."""

    def known() -> Iterator[Any]:
        yield from (decode_value(given), left._data)
        if handle is not None:
            yield handle.checkpointed

    return known


class Looker:
    """What a store keeps to be hidden, for who looks at it."""

    def __init__(self, store: Store | Reader, function: Hiding | None = None) -> None:
        self._read = store
        self._kept: tuple[list[str], bool] | None = None
        self._function = function
        self._mask: Mask | None = None

    def mask(self, unmasked: bool = False) -> Mask | None:
        """What is hidden now, whoever asked for it; `None` if nothing is."""
        if unmasked:
            return None
        try:
            kept = self._read.redacted()
        except Exception:
            # Shut down, say: what was known last goes on.
            kept = self._kept
        if kept is None and self._function is None:
            self._kept = self._mask = None
        elif self._mask is None or kept != self._kept:
            # Here, and not amidst a body's end: to import at a fork leaves the child half a module.
            import traceback  # noqa: F401
            import urllib.parse  # noqa: F401

            keys, by_function = kept or ([], False)
            functions = () if self._function is None else (self._function,)
            folds = frozenset(folded(key) for key in keys)
            self._mask = Mask(folds, functions, by_function and self._function is None)
            self._kept = kept
            if not folds <= _keys:
                _keys.update(folds)
                _show_reprs()
        return self._mask

    def of_run(self, mask: Mask | None, run_id: str) -> Secrets:
        """What texts about a run must not tell."""
        return NO_SECRETS if mask is None else self._of(mask, lambda: self._read.contexts_of_run(run_id))

    def of_trigger(self, mask: Mask | None, name: str) -> Secrets:
        """What texts about a trigger must not tell, from its cursor and its newest run."""
        return NO_SECRETS if mask is None else self._of(mask, lambda: self._read.contexts_of_trigger(name))

    def keyed(self, mask: Mask | None) -> Keyed | None:
        """What may be shown of the values of limits' keys; `None` if all of it."""
        if mask is None:
            return None
        return Keyed(mask, getattr(self._read, "look", self._read.query))

    def of_told(self, mask: Mask | None, run: RunDetails) -> Secrets:
        """What no text must tell of a run whose end a function was told of, in whole."""
        if mask is None:
            return NO_SECRETS
        try:
            kept = map(decode_value, self._read.contexts_of_run(run["id"]))
            secrets = mask.secrets([run["context"], run["final_context"], *kept])
            return self._with_keys(mask, secrets)
        except Exception:
            return WITHHOLDING

    def _of(self, mask: Mask, read: Callable[[], list[str]]) -> Secrets:
        try:
            return self._with_keys(mask, mask.secrets(map(decode_value, read())))
        except Exception:
            return WITHHOLDING

    def _with_keys(self, mask: Mask, secrets: Secrets) -> Secrets:
        keyed = self.keyed(mask)
        return secrets if keyed is None or secrets is WITHHOLDING else secrets.and_keys(keyed.hide)


class Redactor(Looker):
    """What one runner hides: what its store keeps to be hidden, and a function of its own."""

    def __init__(self, store: Store, asked: Asked) -> None:
        super().__init__(store, asked.function)
        self._store = store
        self._ask_for(asked)
        if asked.function is not None:
            _functions[id(self)] = asked.function
            _show_reprs()
        self.mask()

    def _ask_for(self, asked: Asked) -> None:
        if asked is NOTHING_ASKED:
            return
        kept, by_function = self._store.redacted() or ([], False)
        known = {folded(key) for key in kept}
        news = [key for key in asked.keys if folded(key) not in known]
        if news or (asked.function is not None and not by_function):
            self._store.redact(news, asked.function is not None)

    def close(self) -> None:
        """The runner's own function is asked no more."""
        if _functions.pop(id(self), None) is not None:
            _show_reprs()

    def keys(self) -> list[str]:
        """The keys that the store keeps to be hidden."""
        kept = self._store.redacted()
        return [] if kept is None else kept[0]

    def take_back(self, key: str | None) -> bool:
        """Hides the values of a key no more, or of none; whether it did."""
        keys = self.keys() if key is None else [own for own in self.keys() if folded(own) == folded(key)]
        taken = sum(self._store.unredact(own) for own in keys) if key is not None else self._store.unredact()
        _keys.difference_update(map(folded, keys))
        self.mask()
        _show_reprs()
        return taken > 0

    def of_result(self, run_id: str, final: str) -> Secrets:
        """What the error of a run must not tell, also once the store is closed."""
        mask = self.mask()
        if mask is None:
            return NO_SECRETS
        secrets = self.of_run(mask, run_id)
        return secrets if secrets is not WITHHOLDING else mask.secrets([decode_value(final)])

    def known(self) -> Mask | None:
        """The same as `mask`, by the last look at the store: for who must not wait for that."""
        return self._mask

    def told_by_body(
        self, began_with: Callable[[], str | None], known: Iterable[Any], *, looks: bool = True
    ) -> Secrets:
        """Of what a body had at hand, what a door may not find later: only what its run began with stays on
        record. What other tasks left goes as the run is retried, a checkpoint with the end of its task. Who
        doesn't look goes by what is `known`.
        """
        mask = self.mask() if looks else self.known()
        if mask is None:
            return NO_SECRETS
        began = began_with()
        return mask.secrets(known).without(mask.secrets([] if began is None else [decode_value(began)]))

    def shown_of_body(self, known: Iterable[Any]) -> Secrets:
        """The same for what leaves this process at once: what the run began with, too."""
        mask = self.mask()
        return NO_SECRETS if mask is None else mask.secrets(known)

    def told_by_callback(self, run: RunDetails) -> Secrets:
        """Of what a callback of a run's end is told, what no door may find later, once it is retried."""
        mask = self.mask()
        return self.of_told(mask, run).without(NO_SECRETS if mask is None else mask.secrets([run["context"]]))

    def say(
        self,
        log: str,
        level: int,
        text: str,
        *values: object,
        raised: BaseException | None = None,
        about: Mapping[str, object] = ABOUT,
        values_of: Callable[[], Iterable[Any]] | None = None,
        told: RunDetails | None = None,
    ) -> None:
        """Logs, as `plain.say` does, without what is to be hidden.

        Args:
            values_of: gives the contexts that it is about; without, those that are kept of its run or trigger
                are looked at.
            told: a run of whose end its trigger was told.
        """
        secrets = NO_SECRETS
        if about.get("cloaca_run") or about.get("cloaca_trigger") or values_of is not None:
            secrets = self._about(about, values_of)
        elif any(isinstance(value, str) and OF_KEY in value for value in values):
            mask = self.mask()
            secrets = NO_SECRETS if mask is None else self._with_keys(mask, NO_SECRETS)
        if told is not None:
            secrets = secrets.with_those(self.of_told(self.mask(), told))
        if secrets is NO_SECRETS:
            return say(log, level, text, *values, raised=raised, about=about)
        shown = [secrets.hide(value) if isinstance(value, str) else value for value in values]
        if raised is None:
            return say(log, level, text, *shown, about=about)
        whole = _whole(raised)
        hidden = secrets.hide(whole)
        if hidden == whole:
            return say(log, level, text, *shown, raised=raised, about=about)
        return say(log, level, text, *shown, about=about, trace=hidden)

    def _about(self, about: Mapping[str, object], values_of: Callable[[], Iterable[Any]] | None) -> Secrets:
        mask = self.mask()
        if mask is None:
            return NO_SECRETS
        if values_of is not None:
            return mask.secrets(values_of())
        run, trigger = about.get("cloaca_run"), about.get("cloaca_trigger")
        return self.of_run(mask, str(run)) if run else self.of_trigger(mask, str(trigger))


def _whole(raised: BaseException) -> str:
    import traceback

    try:
        return "".join(traceback.format_exception(type(raised), raised, raised.__traceback__)).rstrip("\n")
    except BaseException:
        # An exception with a `__str__` or `__cause__` of its own may raise anything.
        return name_of(type(raised))
