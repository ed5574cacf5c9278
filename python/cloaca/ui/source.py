"""What the page shows: a store that is read, and the runner on which the page is mounted, if it is.

Invariant: nothing changes but by a method of that runner.
"""

from __future__ import annotations

import os
import threading
from contextlib import closing, suppress

from .. import _cloaca, check, rows
from .._runs import over_already
from ..errors import (
    ArgumentError,
    CloacaError,
    RunnerError,
    StoreError,
    UrlError,
    WorkflowError,
    _AwayError,
    excerpt,
)
from ..plain import describe
from ..reading import MissingError, Reader, find_run
from ..runner import DefaultRunner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..types import TickAnswer

CANNOT_ACT = (
    "this page only reads: nothing can be changed from it; mount it on the program's runner,"
    " cloaca.ui.app(runner), or use the command line"
)


class Source:
    """A store and perhaps its runner.

    Raises:
        ArgumentError: (a `ValueError`) the runner's store is in memory.
        UrlError: (a `ValueError`) the URL means memory.
    """

    def __init__(self, runner_or_url: DefaultRunner | str | os.PathLike[Any]) -> None:
        self._runner = runner_or_url if isinstance(runner_or_url, DefaultRunner) else None
        if isinstance(runner_or_url, DefaultRunner):
            path = runner_or_url._engine.path
            self._url = runner_or_url._url if path is None else os.fspath(path)
            if path is None and not check.on_server(self._url):
                raise ArgumentError("this runner's store is in memory, where only it looks; give it a file")
        else:
            self._url = check.url(runner_or_url)
            if ":memory:" in self._url and not check.on_server(self._url):
                raise UrlError(f"{excerpt(self._url)} is memory, where only its runner can look; give a file")
        self._lock = threading.Lock()
        self._opened: tuple[object, Reader] | None = None
        self._opens = False
        self._opening = threading.Lock()
        self._client: tuple[object, DefaultRunner] | None = None

    @property
    def name(self) -> str:
        """What messages call the store: its URL, or of one on a server its database and host."""
        return check.store_name(self._url)

    @property
    def reader(self) -> Reader:
        """The store, opened when it is first looked at, in this process.

        Raises:
            StoreError: (a `RuntimeError`) there is none, or it is of another version.
        """
        with self._lock:
            if self._opened is not None and self._opened[0] != _file_of(self._opened[1]):
                self._opened = None
            if self._opened is None:
                reader = Reader(self._url)
                self._opened = (_file_of(reader), reader)
            return self._opened[1]

    def close(self) -> None:
        """Closes the store; the next look opens it again."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened[1].close()

    def lack(self, error: StoreError) -> str:
        """Why it could not be read. Of a schema that is gone from its server opening it says more than a look
        does that had it open; of a file it is looked before each look whether it is still the same."""
        if check.on_server(self._url) and not isinstance(error, _AwayError):
            try:
                Reader(self._url).close()
            except StoreError as now:
                return str(now)
        return str(error)

    def open_client(self) -> None:
        """Has what is changed be changed by a client of the page's own.

        Raises:
            StoreError: (a `RuntimeError`) it cannot be opened.
        """
        self._opens = True
        self._newest()

    def close_client(self) -> None:
        """Closes it, if there is one; nothing is changed any more."""
        with self._opening:
            self._opens = False
            self._leave()

    @property
    def runner(self) -> DefaultRunner | None:
        """The runner on which the page is mounted, or the page's own client."""
        client = self._client
        return self._runner if client is None else client[1]

    @property
    def mounted(self) -> DefaultRunner | None:
        """The runner on which the page is mounted."""
        return self._runner

    @property
    def can_act(self) -> bool:
        """Whether there is a runner to change something by."""
        return self._opens or (self._runner is not None and not self._runner._closed)

    @property
    def acting(self) -> DefaultRunner:
        """The runner.

        Raises:
            RunnerError: (a `RuntimeError`) there is none.
            StoreError: (a `RuntimeError`) it would be the page's own client, and there is no store.
        """
        if self._opens:
            return self._newest()
        if self._runner is None:
            raise RunnerError(CANNOT_ACT)
        return self._runner

    def _newest(self) -> DefaultRunner:
        """The page's own client: anew where it has stopped, or another file was put in the place of its own,
        as a copy that is restored."""
        file = _file_of(self.reader)  # where there is no store, none is to be made
        with self._opening:
            if self._client is not None and (self._client[0] != file or self._client[1]._has_stopped()):
                self._leave()
            if self._client is None:
                self._client = (file, DefaultRunner(self._url, work=False, name="page"))
            return self._client[1]

    def _leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            # What is wrong with it was said when it stopped.
            with suppress(CloacaError):
                client[1].shutdown()

    def switch(self, name: str, enabled: bool) -> None:
        """Switches a trigger or a cron, by its name or, if it has none, its id."""
        runner = self.acting
        if runner.get_trigger_schedule(name) is None and runner._cron_of(name) is None and is_id(name):
            runner.set_cron_schedule_enabled(name, enabled)
        else:
            runner.set_trigger_enabled(name, enabled)

    def pause(self, by: str, *, workflow: str | None = None, limit: str | None = None) -> None:
        """Holds up the runs of a workflow that have not begun, or attempts under a limit, until somebody
        resumes that."""
        self.acting._pause(None, by, workflow, limit, None)

    def resume(self, *, workflow: str | None = None, limit: str | None = None) -> None:
        """Ends such a pause.

        Raises:
            MissingError: (a `LookupError`) there is none.
        """
        if not self.acting.resume(workflow=workflow, limit=limit):
            what = f"limit {excerpt(limit)}" if workflow is None else f"workflow {excerpt(workflow)}"
            raise MissingError(f"{what} is not paused")

    def resume_key(self, since: str, workflow: str, key: str) -> None:
        """Ends the pause that a value of a workflow's key has had since then. What is hidden of the value is
        told by nobody, so the time is what it is known by.

        Raises:
            MissingError: (a `LookupError`) there is none any more.
        """
        keyed = self.reader.keyed()
        for row in self.reader.native.pauses():
            value = row["key"]
            if (row["kind"], row["name"], row["since"]) != ("workflow", workflow, since) or value is None:
                continue
            shown = value if keyed is None else keyed.shown(workflow, value)
            if shown == key and self.acting.resume(workflow=workflow, key=value):
                return
        raise MissingError(f"key {excerpt(key)} of workflow {excerpt(workflow)} is not paused any more")

    def cancel(self, run_id: str) -> None:
        """Asks for a run's end.

        Raises:
            WorkflowError: (a `ValueError`) there is no such run, or it is over.
        """
        if not self.acting._cancel(run_id):
            raise WorkflowError(over_already(run_id))

    def again(self, run_id: str) -> str:
        """Starts a run of the same workflow with the same first context; its id."""
        self.acting._open()
        native = self.reader.native
        row = native.run(find_run(self.reader, run_id))
        version = None if row is None else native.version(row["workflow_name"])
        if row is None or version is None:  # it was pruned between the two looks
            raise MissingError(f"run {excerpt(run_id)} not found; it was there a moment ago")
        # As nobody's: what a runner starts itself, its pump keeps, and not in the name of who asks here.
        with closing(_cloaca.Client.open(self._url)) as client:
            return str(client.submit(row["workflow_name"], version, row["context"], again=row["id"])[0])

    def preview(self, name: str) -> TickAnswer:
        """What a poll would come to, now, without what the runner hides."""
        try:
            return self.acting.tick(name, dry_run=True)
        except Exception:
            raise
        except BaseException as raised:
            # For who calls it in a program of his own it ends that; the page tells of it as of any error.
            return rows.tick(([], None, "", describe(raised), None))

    def polled_since(self, names: list[str]) -> dict[str, str]:
        """Which of these triggers are being polled by the page's own runner, and since when."""
        runner = self.runner
        if not self.can_act or runner is None:
            return {}
        found = {}
        for name in names:
            standing = (runner._engine.polls.standing(name) or {}).get("standing")
            if standing is not None and standing["in_body"] and standing["polled_since"]:
                found[name] = standing["polled_since"]
        return found


def _file_of(reader: Reader) -> object:
    """The file behind it, which another may replace, in this process, which may be a fork's child."""
    return os.getpid(), reader.found()


def is_id(text: str) -> bool:
    """Whether it has the form of an id."""
    return len(text) == 36 and text.count("-") == 4 and all(c in "0123456789abcdefABCDEF-" for c in text)
