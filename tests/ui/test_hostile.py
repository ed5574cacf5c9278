"""What strangers have put into the store is shown, and harmless."""

import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from looker import Asking

import cloaca
import cloaca.ui

SCRIPT = "</pre></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'><b onclick=x>"
HOSTILE = [
    SCRIPT,
    "\x1b[31mred\x1b[0m\x07\x08\x7f\x9b",
    "a\u202egnp.exe\u2066",
    "a\ufeff\u180e\ufff9b\ufffb\U000e0041",
    "{{ 7 * 7 }}{% raw %}",
    "line\r\ndata: forged\n\nevent: main",
    "x" * 1_000_000,
    "../../etc/passwd",
    "?a=b&c=d#e",
]
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0001-\U000e007f]"
)


def harmless(answer: Any) -> None:
    assert answer.status_code == 200, answer.text[:500]
    text = answer.text
    assert len(text) < 300_000
    assert not re.search(r"<script(?! src=\"/static/page\.js)", text)
    assert not re.search(r"<img|<b on", text)
    assert not _CONTROLS.search(text)
    assert "49" not in re.findall(r"49\{%", text)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_errors_keys_and_contexts_of_strangers(page: Asking, runner: cloaca.DefaultRunner, text: str) -> None:
    key = text[:200].replace("\x00", "")
    run = runner.submit("ingest", {"error": text, text[:100]: [text, {"deep": text}]}, run_key=key)
    assert run.result(30).status == "Failed"
    for path in (
        "/",
        "/runs",
        "/runs?status=Failed",
        f"/run?id={run.id}",
        "/workflow?name=ingest",
        "/workflows",
    ):
        harmless(page.get(path))
    found = page.get("/runs", params={"key": key})
    harmless(found)
    harmless(page.get("/runs", params={"q": text[:50]}))
    harmless(page.get("/runs", params={"q": text[:50], "status": "Failed"}))
    page.get(f"/run/context?id={run.id}&part=in")


@pytest.mark.parametrize("text", [each[:200] for each in HOSTILE], ids=range(len(HOSTILE)))
def test_names_and_reasons_of_strangers(tmp_path: Path, text: str) -> None:
    with cloaca.WorkflowBuilder(text):

        @cloaca.task(id=text, limits=[cloaca.Limit(text, concurrency=1)])
        def body(context: cloaca.Context) -> None:
            raise ValueError(text)

    @cloaca.trigger(workflow=text, name=text, poll_interval="1h")
    def poll() -> Any:
        return cloaca.TriggerResult.fire({text: text}, run_key=text)

    failing = f"{text[:150]}!"

    @cloaca.trigger(workflow=text, name=failing, poll_interval="1h")
    def fails() -> Any:
        raise OSError(text)

    with cloaca.DefaultRunner(tmp_path / "runs.db", name=text) as runner:
        page = Asking(cloaca.ui.app(runner))
        runner.tick(text)
        runner.tick(failing)
        (row,) = runner.list_runs()
        runner.run(row["id"]).result(30)
        paths = re.findall(r'href="(/(?:trigger|workflow|run)\?[^"]+)"', page.get("/runs").text)
        assert len(paths) >= 3
        paths += [f"/trigger?name={quote(failing)}", f"/trigger?name={quote(text)}"]
        for path in [
            "/",
            "/triggers",
            "/workflows",
            "/system",
            *(each.replace("&amp;", "&") for each in paths),
        ]:
            harmless(page.get(path))
        harmless(page.post(f"preview {quote(text, safe='')}"))
        assert page.post(f"disable {quote(text, safe='')}").status_code == 303
        assert page.get("/").status_code == 200
        page.client.close()


def test_a_large_run_is_shown_in_part(page: Asking, runner: cloaca.DefaultRunner) -> None:
    with cloaca.WorkflowBuilder("wide"):
        for number in range(700):

            @cloaca.task(id=f"t{number}")
            def body(context: cloaca.Context) -> None:
                pass

    run = runner.submit("wide")
    run.result(60)
    text = page.text(f"/run?id={run.id}")
    assert "and 200 more tasks" in text


@pytest.mark.parametrize(
    "name", ["workflow", "trigger", "key", "parent", "error", "since", "until", "status", "q"]
)
@pytest.mark.parametrize("text", [*HOSTILE[1:4], HOSTILE[5]], ids=range(4))
def test_a_filter_of_an_address_is_spelt_out_and_still_the_filter(page: Asking, name: str, text: str) -> None:
    answer = page.get("/runs", params={name: text})
    if answer.status_code == 200:
        harmless(answer)
    else:
        assert answer.status_code in (400, 404)
        assert not _CONTROLS.search(answer.text)
    if answer.status_code == 200 and name == "workflow":
        # What a browser would send again is what was asked for.
        (kept,) = re.findall(r'type="hidden" name="workflow" value="([^"]*)"', answer.text)
        assert unescape(kept) == unescape(_spelt(text))


def _spelt(text: str) -> str:
    return "".join(f"&#{ord(letter)};" for letter in text)
