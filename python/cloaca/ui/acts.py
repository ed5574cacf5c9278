"""What the page changes. Each is one method of the runner, by a word and what it is about.

Invariant: who comes here may act; what is wrong with a wish, the runner says.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

from ..audit import acting
from ..errors import ArgumentError, excerpt
from ..reading import MissingError
from ..reading import runs as list_runs
from . import contexts, show
from .screens import Ask, Screen
from .screens.runs import COUNTED, counted, wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

    from .source import Source


def act(ask: Ask, form: Mapping[str, str], who: str, place: str | None) -> Screen | str | None:
    """Does what a form says, in the name of who sent it. What they are to see now: a screen, the view of that
    name, or with `None` again what they saw.

    Raises:
        ArgumentError: (a `ValueError`) there is no such act.
        CloacaError, LookupError: the runner refuses it.
    """
    # Quoted, because a browser changes ends of lines in a form.
    word, _, about = form.get("do", "").partition(" ")
    if word == "preview":
        return _preview(ask, unquote(about))
    with acting(who, "page", place):
        return _changed(ask, form, word, unquote(about), who)


def _preview(ask: Ask, name: str) -> Screen:
    values = {
        "root": ask.root,
        "name": name,
        "answer": ask.source.preview(name),
        "contexts": contexts.shown,
    }
    return Screen(f"Preview of {show.line(name, 60)}", "preview.html", values, nav="triggers", is_live=False)


def _changed(ask: Ask, form: Mapping[str, str], word: str, about: str, who: str) -> Screen | str | None:
    source = ask.source
    if word == "retry":
        source.acting.retry(about)
    elif word == "again":
        return show.link("", "/run", id=source.again(about))
    elif word == "cancel":
        source.acting.cancel(about)
    elif word in ("enable", "disable"):
        source.switch(about, word == "enable")
    elif word == "pause":
        source.pause(about, f"{show.line(who)}, by the page")
    elif word == "resume":
        if not source.acting.resume(workflow=about):
            raise MissingError(f"workflow {excerpt(about)} is not paused")
    elif word == "poll":
        source.acting._ask_poll(about)
    elif word == "skip":
        _skip(source, *about.split(" ", 1))
    elif word in ("tell", "skip-callback"):
        acts = source.acting.tell_soon if word == "tell" else source.acting.skip_callback
        if not acts(about):
            raise MissingError(f"no callback of run {excerpt(about)} waits any more")
    elif word == "tell-all":
        return _tell_all(ask)
    elif word in ("retry-all", "cancel-all"):
        return _many(ask, word.removesuffix("-all"), form.get("really") == word)
    else:
        raise ArgumentError(f"{excerpt(word)} is nothing that this page does")
    return None


def _skip(source: Source, run_id: str, name: str = "") -> None:
    """Of the run that was shown: meanwhile another one may be the next."""
    if source.acting.skip_end(name, run_id) is None:
        raise MissingError(f"no end of run {excerpt(run_id)} waits for trigger {excerpt(name)} any more")


def _tell_all(ask: Ask) -> Screen:
    """Has the callbacks of all that the list shows be called now."""
    listed = Ask(ask.source, ask.root, "/runs", _query(ask.path), ask.level)
    found = list_runs(ask.reader, **wanted(listed), limit=COUNTED)
    told = sum(ask.source.acting.tell_soon(each.id) for each in found)
    return Screen.saying("Done", f"{show.count(told, 'callback')} called now.", 200, ask)


def _many(ask: Ask, word: str, is_sure: bool) -> Screen | None:
    """All that the list shows, once it was said how many those are."""
    listed = Ask(ask.source, ask.root, "/runs", _query(ask.path), ask.level)
    if not is_sure:
        values = {
            "root": ask.root,
            "word": word,
            "number": show.count(counted(listed), "run"),
            "asked": {name: value for name, value in listed.query.items() if value},
            "back": ask.path,
        }
        return Screen(f"{word.capitalize()} them?", "confirm.html", values, nav="runs", is_live=False)
    meant = wanted(listed)
    del meant["untold"]
    runner = ask.source.acting
    done = runner.retry_many(**meant) if word == "retry" else runner.cancel_many(**meant)
    verb = "opened again" if word == "retry" else "asked to end"
    return Screen.saying("Done", f"{show.count(len(done), 'run', 10**9)} {verb}.", 200, ask)


def _query(view: str) -> dict[str, str]:
    parts: SplitResult = urlsplit(view)
    return dict(parse_qsl(parts.query, max_num_fields=30))
