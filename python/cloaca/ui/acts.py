"""What the page changes. Each is one method of the runner, by a word and what it is about.

Invariant: who comes here may act; what is wrong with a wish, the runner says.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from .. import filters
from ..audit import acting
from ..errors import ArgumentError, excerpt
from ..reading import MissingError
from ..reading import runs as list_runs
from . import contexts, show
from .screens import Ask, Screen
from .screens.runs import COUNTED, FILTERS, wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

    from .source import Source


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a form.

    Attributes:
        seen (Screen | str | None): what who sent it is to see now: a screen, the view of that name, or with
            `None` again what they saw.
        note (str): what was changed, in a line; empty if nothing was.
    """

    seen: Screen | str | None
    note: str = ""


def act(ask: Ask, form: Mapping[str, str], who: str, place: str | None) -> Done:
    """Does what a form says, in the name of who sent it.

    Raises:
        ArgumentError: (a `ValueError`) there is no such act.
        CloacaError, LookupError: the runner refuses it.
    """
    # Quoted, because a browser changes ends of lines in a form.
    word, _, about = form.get("do", "").partition(" ")
    if word == "preview":
        return Done(_preview(ask, unquote(about)))
    with acting(who, "page", place) as acted:
        done = _changed(ask, form, word, unquote(about), who)
    # What was so already is no change.
    return done if acted.has_changed else Done(done.seen)


def _preview(ask: Ask, name: str) -> Screen:
    values = {
        "root": ask.root,
        "name": name,
        "answer": ask.source.preview(name),
        "contexts": contexts.shown,
    }
    return Screen(f"Preview of {show.line(name, 60)}", "preview.html", values, nav="triggers", is_live=False)


def _changed(ask: Ask, form: Mapping[str, str], word: str, about: str, who: str) -> Done:
    source, seen = ask.source, None
    if word == "retry":
        source.acting.retry(about)
    elif word == "again":
        seen = show.link("", "/run", id=source.again(about))
    elif word == "cancel":
        source.cancel(about)
    elif word in ("enable", "disable"):
        source.switch(about, word == "enable")
    elif word == "pause":
        source.pause(_by(who), workflow=about)
    elif word == "resume":
        source.resume(workflow=about)
    elif word == "resume-key":
        _resume_key(source, about)
    elif word == "pause-limit":
        source.pause(_by(who), limit=about)
    elif word == "resume-limit":
        source.resume(limit=about)
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
    return Done(seen, form.get("do", ""))


def _by(who: str) -> str:
    return f"{show.line(who)}, by the page"


def _resume_key(source: Source, about: str) -> None:
    """About that pause which was shown: since when, the workflow, and what is shown of the key's value."""
    since, _, rest = about.partition(" ")
    workflow, _, key = rest.partition(" ")
    source.resume_key(since, unquote(workflow), unquote(key))


def _skip(source: Source, run_id: str, name: str = "") -> None:
    """Of the run that was shown: meanwhile another one may be the next."""
    if source.acting.skip_end(name, run_id) is None:
        raise MissingError(f"no end of run {excerpt(run_id)} waits for trigger {excerpt(name)} any more")


def _tell_all(ask: Ask) -> Done:
    """Has the callbacks of all that match be called now."""
    asked, after, told = wanted(_listed(ask)), None, 0
    while True:
        page = list_runs(ask.reader, **asked, after=after, limit=COUNTED)
        told += sum(ask.source.acting.tell_soon(each.id) for each in page)
        if (after := page.after) is None:
            break
    number = show.count(told, "callback", 10**9)
    seen = Screen.saying("Done", f"{number} called now.", 200, ask, ask.root + ask.path)
    return Done(seen, f"tell-all of {number}" if told else "")


def _many(ask: Ask, word: str, is_sure: bool) -> Done:
    """All that match, on whichever page of the list, once it was said how many those are."""
    listed = _listed(ask)
    for name in ("q", "untold"):
        if listed.value(name) is not None:
            raise ArgumentError(f"what {name} finds is not changed all at once; leave it out")
    meant = filters.wanted(**wanted(listed))
    runner = ask.source.acting
    left_out: list[object] = []
    if not is_sure:
        if word == "retry":
            found, left_out = runner._to_retry(meant, COUNTED)
        else:
            found = runner._to_cancel(meant, COUNTED)
        return Done(_question(listed, ask.path, word, len(found), _left_out(left_out)))
    if word == "retry":
        done, left_out = runner._retried(meant)
    else:
        done = runner._cancelled(meant)
    number = show.count(len(done), "run", 10**9)
    text = f"{number} {'opened again' if word == 'retry' else 'asked to end'}.{_left_out(left_out)}"
    by = ", ".join(f"{name} {value}" for name, value in _asked(listed).items())
    seen = Screen.saying("Done", text, 200, ask, ask.root + ask.path)
    return Done(seen, f"{word}-all of {number}: {by}" if done else "")


def _question(listed: Ask, back: str, word: str, number: int, left_out: str) -> Screen:
    if not number:
        done = "retried" if word == "retry" else "cancelled"
        text = f"No run that matches can be {done}.{left_out}"
        return Screen.saying("Nothing to do", text, 200, listed, listed.root + back)
    values = {
        "root": listed.root,
        "word": word,
        "number": show.count(number, "run"),
        "asked": _asked(listed),
        "left_out": left_out,
        "back": back,
    }
    return Screen(f"{word.capitalize()} them?", "confirm.html", values, nav="runs", is_live=False)


def _left_out(left_out: list[object]) -> str:
    return f" {show.count(len(left_out), '')} left out, the first because {left_out[0]}." if left_out else ""


def _listed(ask: Ask) -> Ask:
    """The list on which it was asked for."""
    return Ask(ask.source, ask.root, "/runs", _query(ask.path), ask.level)


def _asked(listed: Ask) -> dict[str, str]:
    """By what that list is filtered; the page of it is no filter."""
    return {name: value for name in FILTERS if (value := listed.value(name))}


def _query(view: str) -> dict[str, str]:
    parts: SplitResult = urlsplit(view)
    return dict(parse_qsl(parts.query, max_num_fields=30))
