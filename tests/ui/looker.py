"""A program to look at, and somebody who looks."""

import re
import threading
from html import unescape
from typing import Any

from starlette.testclient import TestClient

import cloaca

HERE = ("127.0.0.1", 50000)
BASE = "http://127.0.0.1:8720"
WAIT = 30.0


def declare(gate: threading.Event) -> None:
    """A workflow that fails for bad files, one that waits for the gate, triggers and a cron."""
    with cloaca.WorkflowBuilder("ingest"):

        @cloaca.task()
        def read(context: cloaca.Context) -> None:
            context["lines"] = 3

        @cloaca.task(dependencies=[read], retry_attempts=2, retry_delay_ms=1, retry_jitter=False)
        def price(context: cloaca.Context) -> None:
            if context.get("file") == "bad":
                raise ValueError(f"no price for article {context.get('n', 0)}")
            if context.get("error"):
                raise ValueError(context["error"])

        @cloaca.task(dependencies=[price])
        def store(context: cloaca.Context) -> None:
            context["stored"] = True

    with cloaca.WorkflowBuilder("slow"):

        @cloaca.task()
        def hold(context: cloaca.Context) -> None:
            gate.wait(WAIT)

        @cloaca.task(dependencies=[hold])
        def after(context: cloaca.Context) -> None:
            pass

    @cloaca.trigger(workflow="ingest", poll_interval="1h")
    def inbox(tick: cloaca.Tick) -> Any:
        return [
            cloaca.TriggerResult.fire({"file": name}, run_key=name, cursor=name)
            for name in ("a.csv", "b.csv")
        ]

    @cloaca.trigger(workflow="ingest", poll_interval="1h")
    def share() -> Any:
        raise OSError("the share is gone")

    @cloaca.trigger(workflow="ingest", cron="30 3 * * *", timezone="Europe/Berlin")
    def nightly() -> None:
        pass


class Asking:
    """Who asks the page for something, with the cookies of a browser."""

    def __init__(self, app: Any, base: str = BASE, client: tuple[str, int] = HERE, **settings: Any) -> None:
        self.client = TestClient(app, base_url=base, client=client, follow_redirects=False, **settings)

    @classmethod
    def by(cls, client: Any) -> "Asking":
        """Who asks a page of another process, by this client of HTTP."""
        asking = cls(None)
        asking.client = client
        return asking

    def get(self, path: str, **more: Any) -> Any:
        """What a GET answers."""
        return self.client.get(path, **more)

    def text(self, path: str) -> str:
        """What is to be read there, without its marks."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        main = answer.text.partition("<main")[2].partition("</main>")[0]
        return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", f"<{main}")))

    def token(self) -> str:
        """What a form of the page carries, to be known as one of it."""
        found = re.search(r'name="form_token" value="([^"]+)"', self.get("/").text)
        return found[1] if found else ""

    def post(self, do: str, *, back: str = "/", token: str | None = None, **more: Any) -> Any:
        """What an act answers."""
        token = self.token() if token is None else token
        headers = {"Origin": str(self.client.base_url).rstrip("/"), **more.pop("headers", {})}
        form = {"do": do, "back": back, "form_token": token, **more.pop("form", {})}
        return self.client.post("/act", data=form, headers=headers, **more)


def failed(runner: cloaca.DefaultRunner, many: int = 1) -> list[str]:
    """The ids of runs that have failed."""
    runs = runner.submit_many("ingest", [{"file": "bad", "n": n} for n in range(many)])
    return [run.id for run in runs if run.result(WAIT).status == "Failed"]
