"""Who may see the page, who may change something, and what a browser may do with it."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2 as httpx
import postgres
import pytest
from looker import BASE, HERE, WAIT, Asking, declare, failed
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.testclient import TestClient

import cloaca
import cloaca.ui
from cloaca.ui.safety import TokenAccess


@pytest.mark.parametrize(
    ("client", "host", "headers", "status"),
    [
        ("127.0.0.1", "127.0.0.1:8720", {}, 200),
        ("127.0.0.1", "localhost", {}, 200),
        ("::1", "[::1]:8720", {}, 200),
        ("127.0.0.1", "evil.example", {}, 403),
        ("127.0.0.1", "127.0.0.1.evil.example", {}, 403),
        ("127.0.0.1", "localhost@evil.example:80", {}, 403),
        ("127.0.0.1", "user@localhost", {}, 403),
        ("127.0.0.1", "127.0.0.1:8720.evil.example", {}, 403),
        ("127.0.0.1", "[", {}, 403),
        ("127.0.0.1", "", {}, 403),
        ("10.0.0.7", "127.0.0.1:8720", {}, 403),
        ("127.0.0.1", "127.0.0.1:8720", {"X-Forwarded-For": "10.0.0.7"}, 403),
        ("127.0.0.1", "127.0.0.1:8720", {"Forwarded": "for=10.0.0.7"}, 403),
        ("127.0.0.1", "127.0.0.1:8720", {"X-Forwarded-Proto": "https"}, 403),
        ("127.0.0.1", "127.0.0.1:8720", {"CF-Connecting-IP": "10.0.0.7"}, 403),
        ("127.0.0.1", "127.0.0.1:8720", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("127.0.0.1", "127.0.0.1:8720", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
    ],
)
def test_without_access_only_this_machine_is_answered(
    runner: cloaca.DefaultRunner, client: str, host: str, headers: dict[str, str], status: int
) -> None:
    page = Asking(cloaca.ui.app(runner), client=(client, 1))
    for path in ("/", "/runs", "/live?view=/"):
        if status == 200 and path.startswith("/live"):
            continue
        answer = page.get(path, headers={"Host": host, **headers})
        assert answer.status_code == status, path
        assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "header",
    [
        "Ali-CDN-Real-IP",
        "Akamai-Origin-Hop",
        "CDN-Loop",
        "CF-Ray",
        "Client-IP",
        "Cf-Access-Authenticated-User-Email",
        "Fastly-SSL",
        "Fly-Region",
        "Incap-Client-IP",
        "Remote-User",
        "Tailscale-User-Login",
        "True-Client-IP",
        "Via",
        "WL-Proxy-Client-IP",
        "X-ARR-LOG-ID",
        "X-ARR-SSL",
        "X-Amz-Cf-Id",
        "X-Amzn-Trace-Id",
        "X-Appengine-User-Ip",
        "X-Azure-ClientIP",
        "X-Azure-Ref",
        "X-Azure-SocketIP",
        "X-ClientIP",
        "X-Cloud-Trace-Context",
        "X-Cluster-Client-IP",
        "X-Envoy-Internal",
        "X-Goog-IAP-JWT-Assertion",
        "X-NF-Client-Connection-IP",
        "X-Original-URL",
        "X-Originating-IP",
        "X-Proxy-User",
        "X-ProxyUser-Ip",
        "X-Real-IP",
        "X-Real-Port",
        "X-Remote-Addr",
        "X-Remote-IP",
        "X-Remote-User",
        "X-Rewrite-URL",
        "X-SSL-Client-DN",
        "X-Sucuri-ClientIP",
        "X-Varnish",
        "X-Vercel-Id",
    ],
)
def test_whom_a_proxy_asks_for_is_nobody_of_this_machine(runner: cloaca.DefaultRunner, header: str) -> None:
    page = Asking(cloaca.ui.app(runner))
    assert page.get("/runs", headers={header: "10.0.0.7"}).status_code == 403


BROWSERS = {
    "Accept": "text/html",
    "Accept-Encoding": "gzip, br",
    "Accept-Language": "de",
    "Cache-Control": "no-cache",
    "DNT": "1",
    "Downlink": "10",
    "If-None-Match": '"a"',
    "Last-Event-ID": "a",
    "Pragma": "no-cache",
    "Priority": "u=0, i",
    "RTT": "50",
    "Referer": f"{BASE}/",
    "Save-Data": "on",
    "Sec-CH-UA": "a",
    "Sec-CH-UA-Platform": "Linux",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "same-origin",
    "Sec-GPC": "1",
    "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "Upgrade-Insecure-Requests": "1",
    "User-Agent": "a",
    "Viewport-Width": "800",
    "X-Client-Data": "a",
    "X-Request-ID": "a",
    "X-Requested-With": "a",
}
"""What browsers and programs on this machine send of themselves."""


def test_what_a_browser_sends_of_itself_is_no_proxys(page: Asking) -> None:
    assert page.get("/runs", headers=BROWSERS).status_code == 200


def test_every_answer_bounds_what_a_browser_does_with_it(page: Asking) -> None:
    for path in ("/", "/nowhere", "/static/page.css", "/static/nothing"):
        headers = page.get(path).headers
        policy = headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
    text = page.get("/").text
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=|javascript:", text)


def test_an_act_needs_the_forms_token(page: Asking, runner: cloaca.DefaultRunner) -> None:
    (bad,) = failed(runner)
    page.get("/")
    for token in ("", "x" * 43, "ä" * 43):
        assert page.post(f"retry {bad}", token=token).status_code == 403
    stranger = Asking(page.client.app)
    assert stranger.post(f"retry {bad}", token="A" * 43).status_code == 403
    assert runner.get_run(bad)["status"] == "Failed"


def outdated(page: Asking, **form: str) -> Any:
    """What a form of a tab gets whose browser was started anew, or whose cookies were cleared."""
    token = page.token()
    page.client.cookies.clear()
    return page.post("disable inbox", token=token, **form)


def test_an_outdated_form_leads_back_to_what_was_looked_at_and_a_new_one(
    page: Asking, runner: cloaca.DefaultRunner
) -> None:
    answer = outdated(page, back="/trigger?name=inbox")
    assert answer.status_code == 403
    assert "Nothing was changed" in answer.text
    assert '<a href="/trigger?name=inbox">Back</a>' in answer.text
    row = runner.get_trigger_schedule("inbox")
    assert row is not None
    assert row["enabled"] is True
    found = re.search(r'name="form_token" value="([^"]+)"', answer.text)
    assert found is not None
    assert page.post("disable inbox", token=found[1]).status_code == 303
    assert 'href="/"' in outdated(page, back="https://evil.example/").text


def test_an_outdated_form_is_not_answered_with_what_one_may_not_see(runner: cloaca.DefaultRunner) -> None:
    levels = ["view"]
    page = Asking(cloaca.ui.app(runner, access=lambda request: levels[0]))
    page.get("/")
    answer = page.post("disable inbox", token="x" * 43)
    assert (answer.status_code, "form_token" in answer.text) == (403, False)
    levels[0] = "none"
    assert page.post("disable inbox", token="x" * 43).text.count("You may not see this page.") == 1


class Host:
    """A host at which a page is served by several, each with a token, one of which answers."""

    def __init__(self, runner: cloaca.DefaultRunner, *tokens: str) -> None:
        self._pages = [cloaca.ui.app(runner, access=TokenAccess(token)) for token in tokens]
        self.answers = 0

    async def __call__(self, *call: Any) -> None:
        await self._pages[self.answers](*call)


def test_a_form_counts_at_each_process_of_a_page_and_after_a_start_anew(
    runner: cloaca.DefaultRunner,
) -> None:
    host = Host(runner, "s3cret", "s3cret")
    page = Asking(host)
    page.get("/?token=s3cret")
    token = page.token()
    host.answers = 1
    assert page.post("disable inbox", token=token).status_code == 303


def test_who_is_not_let_in_any_more_is_told_that_nothing_was_changed(runner: cloaca.DefaultRunner) -> None:
    host = Host(runner, "before", "after")
    page = Asking(host)
    page.get("/?token=before")
    token = page.token()
    host.answers = 1
    answer = page.post("disable inbox", token=token)
    assert (answer.status_code, "Nothing was changed" in answer.text) == (401, True)
    assert "Nothing was changed" not in page.get("/").text
    # As of two ports of one host: who has entered one page stays there while entering the other.
    page.get("/?token=after")
    assert page.get("/").status_code == 200
    host.answers = 0
    assert page.get("/").status_code == 200


def test_an_outdated_form_for_the_token_is_shown_anew(runner: cloaca.DefaultRunner) -> None:
    page = Asking(cloaca.ui.app(runner, access=TokenAccess("s3cret")))
    form = {"token": "s3cret", "form_token": "x" * 43}
    answer = page.client.post("/login", data=form, headers={"Origin": BASE})
    assert (answer.status_code, "here is a new one" in answer.text) == (403, True)
    found = re.search(r'name="form_token" value="([^"]+)"', answer.text)
    assert found is not None
    form["form_token"] = found[1]
    assert page.client.post("/login", data=form, headers={"Origin": BASE}).status_code == 303


def test_what_was_refused_leads_back_to_what_was_looked_at(page: Asking) -> None:
    answer = page.post("enable nobody", back="/triggers")
    assert (answer.status_code, '<a href="/triggers">Back</a>' in answer.text) == (409, True)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": ""},
        {"Origin": BASE, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_an_act_of_another_origin_is_refused(
    page: Asking, runner: cloaca.DefaultRunner, headers: dict[str, str]
) -> None:
    (bad,) = failed(runner)
    assert page.post(f"retry {bad}", headers=headers).status_code == 403
    assert runner.get_run(bad)["status"] == "Failed"


def test_nothing_is_changed_by_looking(page: Asking, runner: cloaca.DefaultRunner) -> None:
    (bad,) = failed(runner)
    assert page.get(f"/act?do=retry+{bad}").status_code == 404
    assert page.client.put("/act").status_code == 405
    assert page.client.post("/runs", headers={"Origin": BASE}).status_code == 405
    assert runner.get_run(bad)["status"] == "Failed"


def test_a_form_that_is_none_of_ours_is_refused(page: Asking) -> None:
    post = page.client.post
    assert post("/act", json={"do": "x"}, headers={"Origin": BASE}).status_code == 415
    assert post("/act", data={"do": "x" * 100_000}, headers={"Origin": BASE}).status_code == 413
    many = "&".join(f"a{n}=1" for n in range(1000))
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Origin": BASE}
    assert post("/act", content=many, headers=kind).status_code == 400
    assert post("/act", content=b"\xff\xfe=1", headers=kind).status_code in (400, 403)


def test_access_decides(runner: cloaca.DefaultRunner) -> None:
    (bad,) = failed(runner)

    async def access(request: Request) -> Any:
        return request.headers.get("x-level", "none")

    page = Asking(
        cloaca.ui.app(runner, access=access), base="https://runs.example.org", client=("10.0.0.7", 1)
    )
    assert page.get("/").status_code == 403
    assert page.get("/", headers={"X-Level": "nonsense"}).status_code == 403
    seen = page.get(f"/run?id={bad}", headers={"X-Level": "view"})
    assert seen.status_code == 200
    assert "Retry from" not in seen.text
    form = re.search(r'form_token" value="([^"]+)"', page.get("/", headers={"X-Level": "act"}).text)
    assert form is not None
    done = page.post(f"retry {bad}", token=form[1], headers={"X-Level": "view"})
    assert done.status_code == 403
    done = page.post(f"retry {bad}", token=form[1], headers={"X-Level": "act"}, back="/runs")
    assert (done.status_code, done.headers["location"]) == (303, "/runs")
    assert "Secure" in page.get("/", headers={"X-Level": "act"}).headers["set-cookie"]


def test_the_hosts_own_refusal_passes_through(runner: cloaca.DefaultRunner) -> None:
    def access(request: Request) -> Any:
        raise HTTPException(401)

    with pytest.raises(HTTPException):
        Asking(cloaca.ui.app(runner, access=access)).get("/")


def test_named_hosts_are_the_only_ones(runner: cloaca.DefaultRunner) -> None:
    app = cloaca.ui.app(runner, access=lambda request: "act", hosts=["Runs.example.org"])
    assert Asking(app, base="https://runs.example.org").get("/").status_code == 200
    assert Asking(app, base="https://evil.example").get("/").status_code == 421
    # A proxy that puts its own name in place of it.
    app = cloaca.ui.app(runner, access=lambda request: "act", hosts=["127.0.0.1:8720", "runs.example.org"])
    (bad,) = failed(runner)
    page = Asking(app)
    assert page.post(f"retry {bad}", headers={"Origin": "https://runs.example.org"}).status_code == 303


def test_a_token_lets_in(runner: cloaca.DefaultRunner) -> None:
    page = Asking(cloaca.ui.app(runner, access=TokenAccess("s3cret")), client=("10.0.0.7", 1))
    for path in ("/", "/runs", "/live?view=/"):
        assert page.get(path).status_code == 401
    assert page.get("/?token=wrong").status_code == 403
    assert "s3cret" not in page.get("/").text
    let_in = page.get("/runs?token=s3cret&status=Failed")
    assert (let_in.status_code, let_in.headers["location"]) == (303, "/runs?status=Failed")
    assert "s3cret" not in let_in.headers["set-cookie"]
    assert page.get("/").status_code == 200

    typed = Asking(page.client.app, client=("10.0.0.7", 1))
    form = re.search(r'form_token" value="([^"]+)"', typed.get("/").text)
    assert form is not None
    for token, status in (("wrong", 403), ("s3cret", 303)):
        data = {"form_token": form[1], "token": token}
        assert typed.client.post("/login", data=data, headers={"Origin": BASE}).status_code == status
    assert typed.get("/").status_code == 200

    bearer = Asking(page.client.app, client=("10.0.0.7", 1))
    assert bearer.get("/", headers={"Authorization": "Bearer s3cret"}).status_code == 200
    assert bearer.get("/", headers={"Authorization": "Bearer wrong"}).status_code == 401


@pytest.mark.parametrize("token", ["s3cret", "Schlüssel", "voilà", "鍵"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_token_of_any_letters_is_borne(runner: cloaca.DefaultRunner, token: str, encoding: str) -> None:
    page = Asking(cloaca.ui.app(runner, access=TokenAccess(token)), client=("10.0.0.7", 1))
    sent = token.encode(encoding, "ignore")
    status = 200 if sent.decode(encoding) == token else 401
    assert page.client.get("/", headers={b"Authorization": b"Bearer " + sent}).status_code == status
    assert page.client.get("/", headers={b"Authorization": b"Bearer \xff"}).status_code == 401


def test_back_leads_nowhere_else(page: Asking, runner: cloaca.DefaultRunner) -> None:
    for back in (
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/\n/[",
        "\t//evil.example",
    ):
        (bad,) = failed(runner)
        done = page.post(f"retry {bad}", back=back)
        assert (done.status_code, done.headers["location"]) == (303, "/"), back
        runner.run(bad).result(WAIT)


@pytest.mark.parametrize("path", ["/act", "/login"])
@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://]", "http://\u2100.example"])
def test_an_origin_that_is_none_is_refused(runner: cloaca.DefaultRunner, path: str, origin: str) -> None:
    page = Asking(cloaca.ui.app(runner, access=TokenAccess("a long secret")))
    page.client.headers["authorization"] = "Bearer a long secret"
    answer = page.client.post(path, data={"do": "retry x"}, headers={"origin": origin.encode()})
    assert answer.status_code == 403
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize("host", ["[", "[::1", "a:b", "a:99999", "\u2100"])
def test_a_host_that_is_none_gets_an_answer(runner: cloaca.DefaultRunner, host: str) -> None:
    for access in (None, TokenAccess("a long secret")):
        page = Asking(cloaca.ui.app(runner, access=access))
        for path in ("/", "/login", "/runs", "/?token=wrong"):
            answer = page.client.get(path, headers={"host": host.encode()})
            assert answer.status_code in (401, 403), (path, answer.status_code)
            assert "content-security-policy" in answer.headers


def test_a_link_with_a_token_leads_nowhere_else(runner: cloaca.DefaultRunner) -> None:
    page = Asking(cloaca.ui.app(runner, access=TokenAccess("a long secret")))
    answer = page.client.get("http://127.0.0.1:8720//evil.example/x?token=a+long+secret")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_another_host_needs_a_token(tmp_path: Path) -> None:
    with cloaca.DefaultRunner(tmp_path / "runs.db"):
        command = [sys.executable, "-m", "cloaca.ui", str(tmp_path / "runs.db"), "--host", "0.0.0.0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--token" in done.stderr


def test_the_command_serves_until_a_signal(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with cloaca.DefaultRunner(tmp_path / "runs.db"):
        command = [sys.executable, "-m", "cloaca.ui", str(tmp_path / "runs.db"), "--port", str(port)]
        environment = os.environ | {"CLOACA_UI_TOKEN": "a long secret"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == f"http://127.0.0.1:{port}/?token=…\n"
                held = httpx.HTTPTransport(retries=50)
                bearer = {"Authorization": "Bearer a long secret"}
                with httpx.Client(transport=held, timeout=WAIT, headers=bearer) as client:
                    base = f"http://127.0.0.1:{port}"
                    assert "read only" in client.get(base).text
                    assert client.get(base, headers={"Authorization": ""}).status_code == 401
                    with client.stream("GET", f"{base}/live?view=/") as stream:
                        parts = stream.iter_bytes()
                        while b"event: main" not in next(parts):
                            pass
                        process.send_signal(signal.SIGTERM)
                        for _ in parts:
                            pass
                process.wait(WAIT)
            finally:
                process.kill()


def test_a_short_token_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cloaca.ui", str(tmp_path / "runs.db"), "--token", "1234"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "guessed" in done.stderr


@pytest.mark.parametrize("view", ["//evil", "//[", "runs", "", "http://evil/", "/runs?" + "a=1&" * 100])
def test_a_view_that_is_none_is_refused(page: Asking, view: str) -> None:
    assert page.get("/live", params={"view": view}).status_code == 400


OLD = Path(__file__).parents[2] / "rust/store/tests/fixtures/0001.db"


@contextmanager
def waiting(url: str, *words: str) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """A page that waits for a store, its port, and what it has said of that."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cloaca.ui", url, "--port", str(port), *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stderr is not None
            yield process, port, process.stderr.readline()
        finally:
            process.kill()


def shows(process: subprocess.Popen[str], port: int) -> str:
    """What the page shows once it serves."""
    assert process.stdout is not None
    assert process.stdout.readline() == f"http://127.0.0.1:{port}/\n"
    with httpx.Client(transport=httpx.HTTPTransport(retries=50), timeout=WAIT) as client:
        return client.get(f"http://127.0.0.1:{port}/").text


@pytest.mark.parametrize("words", [(), ("--act",)], ids=["it reads", "it acts"])
@pytest.mark.parametrize("there", [False, True], ids=["no file", "an empty file"])
def test_a_page_that_is_begun_before_its_workers_waits_for_the_store(
    tmp_path: Path, there: bool, words: tuple[str, ...]
) -> None:
    path = tmp_path / "runs.db"
    if there:
        path.touch()
    with waiting(str(path), *words) as (process, port, said):
        assert said == (
            f"cloaca: the page waits for store {path}: nobody has made it yet; the first runner that serves"
            " it does\n"
        )
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), WAIT)
        with cloaca.DefaultRunner(path):
            assert "<title>" in shows(process, port)


def test_a_schema_that_goes_under_the_page_is_told_of_with_what_to_do(
    postgres_server: postgres.Server,
) -> None:
    with postgres_server.database() as name:
        url = postgres_server.url(name)
        cloaca.DefaultRunner(url, paused=True).shutdown(0.0)
        with TestClient(cloaca.ui.app(url), base_url=BASE, client=HERE) as client:
            assert client.get("/").status_code == 200
            postgres_server.sql("DROP SCHEMA cloaca CASCADE", name)
            for _ in range(2):
                told = client.get("/")
                assert told.status_code == 503
                assert "holds nothing of cloaca; name one that a runner has made" in told.text
                assert "SQLSTATE" not in told.text
            cloaca.DefaultRunner(url, paused=True).shutdown(0.0)
            assert client.get("/").status_code == 200


def test_a_page_waits_for_the_schema_of_a_store_on_a_server(postgres_url: str) -> None:
    with waiting(postgres_url) as (process, port, said):
        assert "nobody has made it yet" in said
        with cloaca.DefaultRunner(postgres_url):
            assert "<title>" in shows(process, port)


@pytest.fixture
def down() -> Iterator[postgres.Server]:
    """A server of its own that was made, and is stopped."""
    # Whoever runs it may be another user than who tests, and a path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="cloaca-") as folder:
        os.chmod(folder, 0o755)
        server = postgres.Server(Path(folder) / "server")
        try:
            server.start()
        except postgres.Missing as missing:
            pytest.skip(str(missing))
        server.stop("fast")
        try:
            yield server
        finally:
            server.remove()


def url_of(server: postgres.Server, **parts: str) -> str:
    """By loopback, as in a compose file."""
    password = parts.get("password", quote(postgres.PASSWORD, safe=""))
    host = parts.get("host", "127.0.0.1")
    return f"postgresql://postgres:{password}@{host}:{server.port}/postgres"


def test_a_page_waits_for_a_server_that_is_not_up_yet(down: postgres.Server) -> None:
    with waiting(url := url_of(down)) as (process, port, said):
        assert "the page waits for store postgres at 127.0.0.1" in said
        assert "cannot be reached" in said
        assert postgres.PASSWORD not in said
        down.resume()
        with cloaca.DefaultRunner(url):
            assert "<title>" in shows(process, port)


def test_a_page_waits_for_a_host_whose_name_is_not_known_yet(down: postgres.Server) -> None:
    with waiting(url_of(down, host="nowhere.invalid")) as (process, _, said):
        assert "there is no host 'nowhere.invalid'" in said
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_server_that_does_not_take_the_password_is_not_waited_for(down: postgres.Server) -> None:
    down.resume()
    command = [sys.executable, "-m", "cloaca.ui", url_of(down, password="wrong")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "does not take the password" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_page_waits_until_a_store_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    path.write_bytes(OLD.read_bytes())
    with waiting(str(path)) as (process, port, said):
        assert "it has schema version 1, and this cloaca reads version 2" in said
        with cloaca.DefaultRunner(path):
            assert "<title>" in shows(process, port)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_page_that_waits(tmp_path: Path, number: signal.Signals) -> None:
    with waiting(str(tmp_path / "runs.db")) as (process, _, _):
        process.send_signal(number)
        assert process.wait(WAIT) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (a)")


def newer(path: Path) -> None:
    cloaca.DefaultRunner(path).shutdown()
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA user_version = 999')"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def no_database(path: Path) -> None:
    path.write_text("dear diary")


@pytest.mark.parametrize("made", [foreign, newer, no_database])
def test_a_store_that_waiting_does_not_mend_is_refused_at_once(
    tmp_path: Path, made: Callable[[Path], None]
) -> None:
    made(tmp_path / "runs.db")
    refused(tmp_path / "runs.db")


def test_a_store_in_a_folder_that_is_missing_is_refused_at_once(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere" / "runs.db")


def refused(path: Path) -> None:
    command = [sys.executable, "-m", "cloaca.ui", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "runs.db" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


@contextmanager
def acting(path: Path) -> Iterator[Asking]:
    """Who asks a page of a process of its own that acts."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cloaca.ui", str(path), "--port", str(port), "--act"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            base = process.stdout.readline().strip().rstrip("/")
            with httpx.Client(
                transport=httpx.HTTPTransport(retries=50), timeout=WAIT, base_url=base
            ) as client:
                yield Asking.by(client)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT) == 0


def removed(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


@pytest.mark.skipif(os.name != "posix", reason="a file in use is not removed elsewhere")
def test_a_page_that_acts_goes_on_with_the_store_that_was_put_in_the_place_of_its_own(tmp_path: Path) -> None:
    path, copies = tmp_path / "runs.db", [tmp_path / "a.db", tmp_path / "b.db"]
    declare(threading.Event())
    with cloaca.DefaultRunner(path) as runner:
        (bad,) = failed(runner)
        for copy in copies:
            runner.export(copy)
    with acting(path) as page:
        assert page.post("disable inbox").status_code == 303
        metrics = page.get("/metrics").text
        assert "cloaca_store_healthy" in metrics
        assert "cloaca_runs_started" not in metrics, "what the page's own client counts is of no interest"
        removed(path)
        os.replace(copies[0], path)
        with cloaca.DefaultRunner(path) as runner:
            assert page.post("disable share").status_code == 303
            row = runner.get_trigger_schedule("share")
            assert row is not None
            assert row["enabled"] is False
            assert page.post(f"retry {bad}").status_code == 303
            runner.run(bad).result(WAIT)
            assert [each["what"] for each in runner.audit()] == ["retry", "disable"]
            seen = page.get("/system").text
            assert "read only" not in seen
            assert f"<td>{bad}</td>" in seen
            assert "cloaca_store_healthy 1" in page.get("/metrics").text
        removed(path)
        gone = page.post("disable share")
        assert gone.status_code == 409
        assert "runs.db" in gone.text
        assert not path.exists()
        os.replace(copies[1], path)
        with cloaca.DefaultRunner(path):
            back = page.post("enable share")
            assert back.status_code == 303, back.text
