"""What OpenTelemetry is told of, by programs that export to a receiver over HTTP."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

HEAD = """
import asyncio, os, sys, threading, time
import cloaca
from opentelemetry import baggage, context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

provider = TracerProvider(resource=Resource({"service.name": "test"}))
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(os.environ["RECEIVER"])))
names = []

class Sent(SpanProcessor):
    def on_end(self, span):
        names.append(span.name)

provider.add_span_processor(Sent())
trace.set_tracer_provider(provider)

def wait_sent(name):
    while name not in names:
        time.sleep(0.001)

tracer = trace.get_tracer("program")

def inner(name, **attributes):
    with tracer.start_as_current_span(name, attributes={k: str(v) for k, v in attributes.items()}):
        pass
"""


class Span(NamedTuple):
    name: str
    kind: int
    trace: bytes
    id: bytes
    parent: bytes
    links: list[tuple[bytes, bytes]]
    attributes: dict[str, Any]
    failed: bool
    events: list[dict[str, Any]]


class Received:
    """The spans that came so far."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.url = ""

    def __getitem__(self, name: str) -> Span:
        (found,) = self.all(name)
        return found

    def all(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


def values(found: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in found}


@pytest.fixture
def received() -> Iterator[Received]:
    got = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = ExportTraceServiceRequest()
            request.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        got.spans.append(
                            Span(
                                span.name,
                                span.kind,
                                span.trace_id,
                                span.span_id,
                                span.parent_span_id,
                                [(link.trace_id, link.span_id) for link in span.links],
                                values(span.attributes),
                                span.status.code == 2,
                                [values(event.attributes) for event in span.events],
                            )
                        )
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    got.url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    yield got
    server.shutdown()
    thread.join()
    server.server_close()


def played(folder: Path, received: Received, code: str, exit_code: int = 0, head: str = HEAD) -> str:
    (folder / "app.py").write_text(head + code)
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=folder,
        env={"RECEIVER": received.url, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == exit_code, done.stderr
    return done.stdout


def test_a_run_is_the_child_of_who_asked_for_it_and_each_attempt_of_its_run(
    received: Received, tmp_path: Path
) -> None:
    code = """
with cloaca.WorkflowBuilder("ingest"):
    @cloaca.task(on_success=lambda task, context: inner("told"))
    def read(context):
        inner("reading", tenant=baggage.get_baggage("tenant"))

    @cloaca.task(dependencies=[read], retry_attempts=2, retry_delay_ms=1)
    def price(context, handle):
        inner(f"pricing-{handle.attempt}", tenant=baggage.get_baggage("tenant"))
        if handle.attempt == 1:
            raise ValueError("no price")

with cloaca.DefaultRunner(":memory:") as runner:
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    with tracer.start_as_current_span("request"):
        runner.execute("ingest")
    context.detach(token)
    wait_sent("process ingest")
"""
    played(tmp_path, received, code)
    request, send, process = received["request"], received["send ingest"], received["process ingest"]
    assert (send.parent, process.parent) == (request.id, send.id)
    assert (send.kind, process.kind) == (4, 5), "a producer and a consumer"
    assert send.attributes["messaging.system"] == "cloaca"
    assert send.attributes["messaging.destination.name"] == "ingest"
    assert process.attributes["messaging.message.id"] == send.attributes["messaging.message.id"]
    assert process.attributes["cloaca.run.id"] == process.attributes["messaging.message.id"]
    assert send.attributes["cloaca.run.id"] == process.attributes["cloaca.run.id"]
    assert process.attributes["cloaca.run.status"] == "Completed"
    read, (first, second) = received["read"], received.all("price")
    assert read.parent == first.parent == process.id
    assert received["reading"].parent == read.id
    assert received["pricing-1"].parent == first.id
    assert {span.trace for span in (request, send, process, read, first)} == {request.trace}
    # A retry may come much later: it is a trace of its own, which knows where it comes from.
    assert second.parent == b""
    assert second.links == [(send.trace, send.id), (process.trace, process.id)]
    assert received["pricing-2"].parent == second.id
    for name in ("reading", "pricing-1", "pricing-2"):
        assert received[name].attributes == {"tenant": "acme"}
    assert (first.failed, second.failed, process.failed) == (True, False, False)
    assert (first.attributes["error.type"], first.attributes["cloaca.attempt"]) == ("ValueError", 1)
    assert first.events[0]["exception.message"] == "ValueError: no price"
    callback = received["read on_success"]
    assert (callback.parent, received["told"].parent) == (process.id, callback.id)


def test_the_span_is_current_in_bodies_on_a_loop_and_in_another_process(
    received: Received, tmp_path: Path
) -> None:
    code = """
barrier = None

with cloaca.WorkflowBuilder("side"):
    @cloaca.task(on_success=lambda task, context: inner("told aside"))
    async def first(context):
        await asyncio.sleep(0)
        inner("in first")
        await asyncio.to_thread(inner, "in a thread of first")

    @cloaca.task()
    async def second(context):
        await asyncio.sleep(0)
        inner("in second")

    def late():
        async def rest():
            inner("in adopted")
        return rest()

    @cloaca.task()
    def adopted(context):
        return late()

def far(context):
    inner("in far", pid=os.getpid() != int(context["pid"]), tenant=baggage.get_baggage("tenant"))

with cloaca.WorkflowBuilder("apart"):
    cloaca.task(id="far", executor="cpu")(far)

if __name__ == "__main__":
    with cloaca.DefaultRunner(":memory:", executors={"cpu": cloaca.ProcessExecutor(1)}) as runner:
        runner.execute("side").raise_for_failure()
        token = context.attach(baggage.set_baggage("tenant", "acme"))
        runner.execute("apart", {"pid": os.getpid()}).raise_for_failure()
        context.detach(token)
"""
    played(tmp_path, received, code)
    for body in ("first", "second", "adopted", "far"):
        assert received[f"in {body}"].parent == received[body].id, body
        assert received[body].attributes["cloaca.outcome"] == "Completed"
    assert received["in a thread of first"].parent == received["first"].id
    assert received["told aside"].parent == received["first on_success"].id
    assert received["in far"].attributes == {"pid": "True", "tenant": "acme"}


def test_each_call_for_an_end_of_a_run_has_a_trace_of_its_own(received: Received, tmp_path: Path) -> None:
    code = """
calls = []

def book(run):
    inner(f"booking-{len(calls)}")
    calls.append(run["id"])
    if len(calls) == 1:
        raise ValueError("not now")

with cloaca.WorkflowBuilder("order").on_success(book):
    @cloaca.task()
    def ship(context): pass

with cloaca.DefaultRunner(":memory:") as runner:
    runner.execute("order")
    while len(calls) < 2:
        time.sleep(0.01)
    print(calls[0], runner.get_run(calls[0])["trace_id"])
"""
    run, trace = played(tmp_path, received, code).split()
    first, second = received.all("order on_success")
    assert [first.failed, second.failed] == [True, False]
    assert first.trace != second.trace
    send = received["send order"]
    assert [span.links for span in (first, second)] == [[(send.trace, send.id)]] * 2
    assert trace == send.trace.hex()
    for number, span in ((0, first), (1, second)):
        assert (span.parent, received[f"booking-{number}"].parent) == (b"", span.id)
        assert span.attributes["cloaca.run.id"] == run
        assert span.attributes["cloaca.attempt"] == number + 1


POOL = """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    def made():
        return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def close():
        pass
"""
DASK = """
    import dask
    from distributed import Client, LocalCluster

    dask.config.set({"distributed.scheduler.allowed-failures": 0})
    cluster = LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=os.getcwd()
    )
    client = Client(cluster)
    made = client.get_executor

    def close():
        client.close()
        cluster.close()
"""


@pytest.mark.parametrize("place", [POOL, DASK], ids=["pool", "dask"])
def test_the_span_is_current_in_bodies_in_a_process_pool_and_on_a_dask_worker(
    place: str, received: Received, tmp_path: Path
) -> None:
    if place == DASK:
        pytest.importorskip("distributed")
    code = f"""
def far(context):
    inner("in far", pid=os.getpid() != int(context["pid"]), tenant=baggage.get_baggage("tenant"))

with cloaca.WorkflowBuilder("apart"):
    cloaca.task(id="far", executor="cpu")(far)

if __name__ == "__main__":
{place}
    with cloaca.DefaultRunner(":memory:", executors={{"cpu": made}}) as runner:
        token = context.attach(baggage.set_baggage("tenant", "acme"))
        runner.execute("apart", {{"pid": os.getpid()}}).raise_for_failure()
        context.detach(token)
    close()
"""
    played(tmp_path, received, code)
    assert received["in far"].parent == received["far"].id
    assert received["in far"].attributes == {"pid": "True", "tenant": "acme"}


def test_a_poll_leaves_a_span_if_it_fires_or_fails(received: Received, tmp_path: Path) -> None:
    code = """
from cloaca.testing import Runner

with cloaca.WorkflowBuilder("ingest"):
    @cloaca.task()
    def only(context):
        inner("in only")

polls = []

@cloaca.trigger(workflow="ingest", poll_interval="1s")
def inbox():
    polls.append(0)
    return [cloaca.TriggerResult.fire({"n": n}) for n in (1, 2)] if len(polls) == 3 else False

@cloaca.trigger(workflow="ingest", poll_interval="10s")
def broken():
    raise OSError("the password is swordfish")

@cloaca.trigger(workflow="ingest", poll_interval="1s")
def quiet():
    return cloaca.TriggerResult.skip("nothing there")

with Runner(raise_errors=False) as runner:
    runner.advance("10s")
"""
    played(tmp_path, received, code)
    poll, send = received["poll inbox"], received["send ingest"]
    assert (poll.parent, send.parent) == (b"", poll.id)
    assert poll.attributes == {"cloaca.trigger": "inbox", "cloaca.fires": 2, "cloaca.started": 2}
    assert send.attributes["messaging.batch.message_count"] == 2
    runs = received.all("process ingest")
    assert [run.parent for run in runs] == [send.id, send.id]
    assert len(received.all("in only")) == 2
    failed = received["poll broken"]
    assert (failed.failed, failed.attributes["error.type"], failed.events) == (True, "OSError", [])
    assert received.all("poll quiet") == []


def test_the_call_of_an_on_run_trigger_is_linked_to_who_asked_for_the_run_that_ended(
    received: Received, tmp_path: Path
) -> None:
    code = """
with cloaca.WorkflowBuilder("order"):
    @cloaca.task()
    def ship(context): pass

with cloaca.WorkflowBuilder("bill"):
    @cloaca.task()
    def book(context): pass

@cloaca.trigger(workflow="bill", on_run="order")
def ended(run):
    return cloaca.TriggerResult.fire(cloaca.Context({"order": run["id"]}))

with cloaca.DefaultRunner(":memory:") as runner:
    order = runner.submit("order").id
    while not (bills := runner.list_runs("bill", status="Completed")):
        time.sleep(0.01)
    print(order)
"""
    order = played(tmp_path, received, code).strip()
    poll, send = received["poll ended"], received["send order"]
    assert (poll.parent, poll.links) == (b"", [(send.trace, send.id)])
    assert poll.attributes["cloaca.run.id"] == order
    assert received["send bill"].parent == poll.id, "from whose trace the way leads to the run that followed"


def test_a_poll_whose_fires_start_nothing_leaves_no_span(received: Received, tmp_path: Path) -> None:
    code = """
from cloaca.testing import Runner

def declared(name, fires, **terms):
    with cloaca.WorkflowBuilder(name, **terms.pop("limits", {})):
        @cloaca.task()
        def only(context): pass
    cloaca.trigger(workflow=name, poll_interval="1s", name=name, **terms)(fires)

fire = cloaca.TriggerResult.fire
declared("keyed", lambda: fire({}, run_key="always"))
declared("partly", lambda: [fire({"n": n}, run_key=str(min(n, 2))) for n in (1, 2, 3)])
declared("limited", lambda: fire({"n": 1}), limits={"rate_limit": cloaca.RateLimit(1, per="1h")})
declared("unkeyed", lambda: fire({}), limits={"concurrency": cloaca.Concurrency(1, key="tenant")})
cloaca.trigger(workflow="nowhere", poll_interval="1s", name="nowhere")(lambda: True)
@cloaca.trigger(workflow="keyed", poll_interval="1s", overlap="skip", name="overlaps")
def overlaps():
    return fire({}, delay="1h")

with Runner(raise_errors=False) as runner:
    runner.advance("4s")
    assert runner.stats()["fires"] >= 20, runner.stats()
    for row in runner.ticks("keyed"):
        print(row["outcome"], row["count"])
"""
    print(played(tmp_path, received, code))
    for name, fires, started in (("keyed", 1, 1), ("partly", 3, 2), ("limited", 1, 1), ("overlaps", 1, 1)):
        told = {"cloaca.trigger": name, "cloaca.fires": fires, "cloaca.started": started}
        assert received[f"poll {name}"].attributes == told
    assert len(received.all("send partly")) == len(received.all("send limited")) == 1
    assert received["send partly"].attributes["messaging.batch.message_count"] == 2
    assert received.all("send unkeyed") == received.all("send nowhere") == []
    assert {(span.failed, span.attributes["error.type"]) for span in received.all("poll unkeyed")} == {
        (True, "refused")
    }


def test_what_a_tick_by_hand_starts_is_traced_with_its_trigger(received: Received, tmp_path: Path) -> None:
    code = """
from cloaca.testing import Runner

with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def only(context): pass

@cloaca.trigger(workflow="w", cron="0 4 * * *")
def nightly(tick):
    inner("deciding", trigger=cloaca.current_run().trigger)
    return True

@cloaca.trigger(workflow="w", poll_interval="1h")
def inbox():
    return True

with Runner("2026-01-01T00:00:00Z") as runner:
    with tracer.start_as_current_span("by hand"):
        runner.tick("nightly")
    runner.run_until_idle()
    runner.tick("inbox")
    runner.run_until_idle()
"""
    played(tmp_path, received, code)
    assert received["deciding"].attributes == {"trigger": "nightly"}
    of_cron, of_poll = received.all("send w")
    assert of_cron.parent == received["by hand"].id
    assert [span.attributes["cloaca.trigger"] for span in (of_cron, of_poll)] == ["nightly", "inbox"]
    assert [span.parent for span in received.all("process w")] == [of_cron.id, of_poll.id]


def test_what_was_put_off_or_taken_over_is_linked_to_who_asked_for_it(
    received: Received, tmp_path: Path
) -> None:
    declared = """
with cloaca.WorkflowBuilder("slow"):
    @cloaca.task()
    def hang(context, handle):
        inner(f"attempt {handle.attempt}")
        if handle.attempt == 1:
            os._exit(7)

    @cloaca.task(dependencies=[hang])
    def after(context):
        inner("in after")

with cloaca.WorkflowBuilder("later"):
    @cloaca.task()
    def wait(context):
        inner("in wait")

"""
    client = """
with cloaca.DefaultRunner("runs.db", work=False) as client:
    client.submit("{}", delay={})
"""
    runner = """
with cloaca.DefaultRunner("runs.db") as runner:
    for row in runner.list_runs():
        runner.run(row["id"]).result()
"""
    played(tmp_path, received, declared + client.format("later", "'1ms'"))
    played(tmp_path, received, declared + runner)
    played(tmp_path, received, declared + client.format("slow", None))
    played(tmp_path, received, declared + runner, exit_code=7)
    played(tmp_path, received, declared + runner)
    late, wait = received["send later"], received["process later"]
    assert (wait.parent, wait.links) == (b"", [(late.trace, late.id)]), "what waits for its time is put off"
    assert received["wait"].parent == wait.id
    send = received["send slow"]
    (process,) = received.all("process slow")
    # The first runner died with its spans; the first attempt was the producer's all the same.
    assert received["attempt 1"].trace == send.trace
    assert (process.parent, process.links) == (b"", [(send.trace, send.id)])
    hang = received["hang"]
    assert (hang.parent, hang.attributes["cloaca.attempt"]) == (b"", 2)
    assert hang.links == [(send.trace, send.id), (process.trace, process.id)]
    assert received["after"].parent == process.id


def test_what_is_hidden_stands_in_no_span(received: Received, tmp_path: Path) -> None:
    code = """
with cloaca.WorkflowBuilder("login"):
    @cloaca.task(retry_attempts=1)
    def enter(context):
        raise PermissionError("refused for " + context["token"])

with cloaca.DefaultRunner(":memory:", redact=["token"]) as runner:
    print(runner.execute("login", {"token": "swordfish"}).status)
    wait_sent("process login")
"""
    assert played(tmp_path, received, code) == "Failed\n"
    enter, process = received["enter"], received["process login"]
    assert (enter.failed, process.failed, process.attributes["cloaca.run.status"]) == (True, True, "Failed")
    assert "refused for" in enter.events[0]["exception.message"]
    assert "swordfish" not in repr(received.spans)


def test_what_is_still_open_ends_with_its_runner(received: Received, tmp_path: Path) -> None:
    code = """
gate, over = threading.Event(), threading.Event()

with cloaca.WorkflowBuilder("held"):
    @cloaca.task()
    def hold(context, handle):
        gate.set()
        over.wait()

with cloaca.DefaultRunner("runs.db") as runner:
    runner.submit("held")
    gate.wait()
    runner.shutdown(0)
over.set()
"""
    played(tmp_path, received, code)
    assert received["hold"].attributes["cloaca.outcome"] == "Interrupted"
    assert received["process held"].attributes["cloaca.run.status"] == "Left"


def test_a_tracer_that_wants_to_exit_ends_no_worker(received: Received, tmp_path: Path) -> None:
    code = """
from opentelemetry.sdk.trace import Span

def exits(self, *_, **__):
    raise SystemExit("no more")

Span.add_event = Span.set_status = exits

with cloaca.WorkflowBuilder("w"):
    @cloaca.task(retry_attempts=2, retry_delay_ms=1)
    def only(context):
        raise ValueError("fails")

with cloaca.DefaultRunner(":memory:") as runner:
    print(runner.execute("w", timeout=60).status)
"""
    assert played(tmp_path, received, code) == "Failed\n"


def test_a_tracer_that_raises_and_an_exporter_that_hangs_hold_up_nothing(
    received: Received, tmp_path: Path
) -> None:
    code = """
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

class Hangs(SpanExporter):
    def export(self, spans):
        hangs.wait()
    def force_flush(self, timeout_millis=0):
        return True

class Raises(Sampler):
    def should_sample(self, *_, **__):
        if sys.argv[0] and raises:
            raise RuntimeError("no sampling today")
        from opentelemetry.sdk.trace.sampling import Decision, SamplingResult
        return SamplingResult(Decision.RECORD_AND_SAMPLE)
    def get_description(self):
        return "raises"

from opentelemetry import baggage
from opentelemetry.context import attach
hangs, raises, seen = threading.Event(), [], []
provider.sampler = Raises()
provider.add_span_processor(BatchSpanProcessor(Hangs(), schedule_delay_millis=1))

with cloaca.WorkflowBuilder("w"):
    @cloaca.task(on_success=lambda task, context: None)
    def only(context):
        seen.append(baggage.get_baggage("who"))

    @cloaca.task()
    async def other(context): pass

count = [0]

@cloaca.trigger(workflow="w", poll_interval="10ms")
def fires():
    count[0] += 1
    return count[0] < 3

with cloaca.DefaultRunner(":memory:") as runner:
    for _ in range(3):
        runner.execute("w").raise_for_failure()
    raises.append(1)
    attach(baggage.set_baggage("who", "ann"))
    for _ in range(3):
        runner.execute("w").raise_for_failure()
    print(seen[-3:])
    while count[0] < 4 or runner.stats()["runs_unfinished"]:
        pass
    print(runner.stats()["runs_completed"] >= 7)
    hangs.set()
"""
    assert played(tmp_path, received, code) == "['ann', 'ann', 'ann']\nTrue\n"


def test_an_exporter_that_hangs_as_a_run_ends_holds_up_neither_polls_nor_a_shutdown(
    received: Received, tmp_path: Path
) -> None:
    code = """
from opentelemetry.sdk.trace.export import SpanExporter

hangs, failed, polls, stuck = threading.Event(), threading.Event(), [0], threading.Event()

class Hangs(SpanExporter):
    def export(self, spans):
        if spans[0].name == "process w":
            hangs.set()
            threading.Event().wait()

provider.add_span_processor(SimpleSpanProcessor(Hangs()))

with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def only(context): pass

@cloaca.trigger(workflow="w", poll_interval="1ms")
def often():
    polls[0] += 1
    return False

# More bodies than threads poll at first: another one is hired.
for number in range(6):
    cloaca.trigger(workflow="w", poll_interval="1ms", name=f"slow-{number}")(lambda: stuck.wait(60) and False)

@cloaca.trigger(
    workflow="w", poll_interval="1ms", on_poll_failed=lambda *_: failed.set(), on_error=cloaca.Backoff("1ms")
)
def broken():
    if hangs.is_set():
        raise OSError("the share is gone")
    return False

with cloaca.DefaultRunner(":memory:") as runner:
    runner.execute("w").raise_for_failure()
    print(hangs.wait(60), failed.wait(60))
    before = polls[0]
    while polls[0] < before + 100:
        time.sleep(0.001)
    stuck.set()
    runner.shutdown(2)
print("over")
"""
    assert played(tmp_path, received, code) == "True True\nover\n"


def test_an_exporter_that_hangs_as_a_callback_ends_holds_up_neither_its_end_nor_others(
    received: Received, tmp_path: Path
) -> None:
    code = """
from opentelemetry.sdk.trace.export import SpanExporter

class Hangs(SpanExporter):
    def export(self, spans):
        if "on_success" in spans[0].name:
            threading.Event().wait()

provider.add_span_processor(SimpleSpanProcessor(Hangs()))

with cloaca.WorkflowBuilder("w").on_success(lambda run: None):
    @cloaca.task(on_success=lambda *_: None)
    def only(context): pass

with cloaca.DefaultRunner(":memory:") as runner:
    runs = [runner.submit("w") for _ in range(20)]
    for run in runs:
        run.result(60)
    while any(runner.get_run(run.id)["last_callback"] is None for run in runs):
        time.sleep(0.001)
    print({runner.get_run(run.id)["last_callback"]["outcome"] for run in runs})
    runner.shutdown(2)
"""
    assert played(tmp_path, received, code) == "{'told'}\n"


def test_without_a_provider_nothing_of_it_is_imported(received: Received, tmp_path: Path) -> None:
    code = """
import sys, cloaca

with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def only(context): pass

@cloaca.trigger(workflow="w", poll_interval="1ms")
def fires(): return True

with cloaca.DefaultRunner(":memory:") as runner:
    runner.execute("w")
    while runner.stats()["fires"] == 0:
        pass
    print([name for name in sys.modules if name.startswith("opentelemetry")])
    from opentelemetry import trace
    runner.execute("w")
    print("cloaca.telemetry.spans" in sys.modules)
"""
    assert played(tmp_path, received, code, head="") == "[]\nFalse\n"
    assert received.spans == []


def test_what_is_thrown_into_the_thread_that_ends_spans_ends_it_not(
    received: Received, tmp_path: Path
) -> None:
    code = """
import ctypes
with cloaca.WorkflowBuilder("w"):
    cloaca.task(id="t")(lambda context: None)
with cloaca.DefaultRunner(":memory:") as runner:
    runner.execute("w")
    # One that is about to begin is listed, and has no number yet.
    while not (found := [of.ident for of in threading.enumerate() if of.name == "cloaca-spans" and of.ident]):
        time.sleep(0.001)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(found[0]), ctypes.py_object(SystemExit))
    for _ in range(20):
        runner.execute("w")
    deadline = time.monotonic() + 30
    while len(names) < 21 and time.monotonic() < deadline:
        time.sleep(0.001)
    print(len(names) >= 21)
"""
    assert played(tmp_path, received, code) == "True\n"
