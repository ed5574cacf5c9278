"""What is measured, against what, and what is to be reached. The figures to reach are those of the design.

A workload is a script of `python/` with its options; every contestant runs it in processes of its own. A row
of the table is one figure of one contestant, mostly cloaca's, with the bounds that it should keep.
"""

from dataclasses import dataclass, field

Options = dict[str, object]


@dataclass(frozen=True)
class Workload:
    """One script with its options, some replaced by `quick`; `peers` need an environment of their own."""

    name: str
    script: str
    options: Options
    quick: Options = field(default_factory=dict)
    contestants: tuple[str, ...] = ("cloaca",)
    peers: tuple[str, ...] = ()
    repeats: int = 3
    is_long: bool = False


@dataclass(frozen=True)
class Bound:
    """At least or at most so much, or so many times another's figure.

    The other is a `contestant` of the same workload, or `workload/contestant/figure`.
    """

    limit: float
    against: str = ""
    is_least: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table. `needs_all`: each bound counts; otherwise one is enough."""

    title: str
    workload: str
    figure: str
    unit: str
    bounds: tuple[Bound, ...] = ()
    of: str = "cloaca"
    needs_all: bool = True


def least(limit: float, against: str = "") -> Bound:
    """At least so much."""
    return Bound(limit, against, is_least=True)


def most(limit: float, against: str = "") -> Bound:
    """At most so much."""
    return Bound(limit, against)


SHARES = ("one", "two", "four", "one-8", "two-8", "four-8", "late", "idle", "killed")


def _polls(
    triggers: int, interval_ms: float, contestants: tuple[str, ...], peers: tuple[str, ...] = ()
) -> Workload:
    name = f"polls-{triggers}x{interval_ms:g}ms"
    options: Options = {"triggers": triggers, "interval-ms": interval_ms, "seconds": 3}
    quick: Options = {"triggers": min(triggers, 200), "seconds": 0.2}
    return Workload(name, "polls", options, quick, contestants, peers)


def _lateness(
    triggers: int, interval_ms: float, seconds: float, busy: int, resolution_ms: float = 0.05
) -> Workload:
    is_coarse = resolution_ms > 0.05
    name = f"late-{triggers}x{interval_ms:g}ms" + ("-busy" if busy else "") + ("-coarse" if is_coarse else "")
    options: Options = {
        "triggers": triggers,
        "interval-ms": interval_ms,
        "seconds": seconds,
        "busy": busy,
        "resolution-ms": resolution_ms,
    }
    quick: Options = {"triggers": min(triggers, 50), "seconds": 0.2}
    return Workload(
        name, "lateness", options, quick, ("cloaca",) if is_coarse else ("cloaca", "heapq", "call_later")
    )


def _run_latency(tasks: int, durability: str) -> Workload:
    name = f"run-{tasks}-{durability}"
    options: Options = {"tasks": tasks, "durability": durability, "runs": 2000}
    return Workload(name, "run_latency", options, {"runs": 50}, ("cloaca", "floor"))


def _restart(runs: int) -> Workload:
    name = "restart" if runs == 10_000 else f"restart-{runs}"
    return Workload(name, "restart", {"runs": runs}, {"runs": 100})


def _cost(size: int) -> Workload:
    return Workload(f"cost-{size}", "cost_by_size", {"size": size}, {"size": 200})


def _joins(layers: int, width: int) -> Workload:
    options: Options = {"layers": layers, "width": width}
    return Workload(f"joins-{layers}x{width}", "joins", options, {"layers": 4, "width": 4})


SIZES = (1_000, 10_000, 100_000)
LOOPS = ("cloaca", "floor", "heapq", "call_later")
WORKLOADS = [
    _polls(100, 1, ("cloaca", "heapq", "call_later")),
    _polls(1_000, 1, ("cloaca", "heapq", "call_later")),
    _polls(10_000, 1, LOOPS, peers=("uvloop", "apscheduler")),
    _polls(100_000, 1, LOOPS),
    _polls(40_000, 10, ("cloaca",)),
    _polls(40_000, 1, ("cloaca",)),
    _lateness(10_000, 100, 10, busy=0),
    _lateness(10_000, 100, 10, busy=0, resolution_ms=1),
    _lateness(1_000, 10, 5, busy=0),
    _lateness(100, 1, 5, busy=0),
    Workload(
        "late-processes",
        "lateness",
        {"triggers": 10_000, "interval-ms": 100, "seconds": 10, "busy": 0, "resolution-ms": 0.05},
        {"triggers": 50, "seconds": 0.2},
        ("cloaca", "processes", "nice", "heapq-hogs"),
    ),
    _lateness(10_000, 100, 10, busy=1),
    _lateness(1_000, 10, 5, busy=1),
    _lateness(100, 1, 5, busy=1),
    Workload(
        "million",
        "million",
        {"triggers": 1_000_000, "interval-s": 60, "seconds": 30},
        {"triggers": 500, "interval-s": 0.5, "seconds": 0.5},
        repeats=1,
        is_long=True,
    ),
    Workload(
        "idle",
        "idle",
        {"triggers": 1_000, "interval-s": 60, "seconds": 20},
        {"triggers": 100, "interval-s": 0.5, "seconds": 0.5},
        contestants=("cloaca", "heapq", "call_later"),
        peers=("apscheduler",),
        repeats=1,
    ),
    Workload(
        "idle-clients",
        "idle_clients",
        {"clients": 150, "seconds": 10},
        {"clients": 5, "seconds": 0.5},
        repeats=1,
    ),
    _run_latency(1, "full"),
    _run_latency(3, "full"),
    _run_latency(1, "normal"),
    _run_latency(3, "normal"),
    Workload(
        "exporter",
        "exporter",
        {"tasks": 3, "durability": "full", "runs": 6_000},
        {"runs": 50},
        contestants=("traced",),
    ),
    Workload("untraced", "untraced", {"submits": 20_000}, {"submits": 50}, contestants=("submits",)),
    Workload(
        "runs",
        "run_throughput",
        {"runs": 25_600},
        {"runs": 200},
        contestants=("cloaca", "submit", "submit_many", "floor"),
    ),
    Workload("async-sleepers", "async_tasks", {"runs": 10_000}, {"runs": 50}, contestants=("sleepers",)),
    Workload("async-runs", "async_tasks", {"runs": 20_000}, {"runs": 100}, contestants=("async", "sync")),
    Workload(
        "async-execute",
        "async_tasks",
        {"runs": 2_000},
        {"runs": 50},
        contestants=("execute", "await-execute", "await-execute-sync"),
    ),
    Workload(
        "async-heartbeat",
        "async_tasks",
        {"runs": 5_000},
        {"runs": 100},
        contestants=("heartbeat", "heartbeat-floor"),
    ),
    Workload(
        "async-processes",
        "executors",
        {"runs": 2_000},
        {"runs": 50},
        contestants=("process",),
    ),
    Workload("advance", "advance", {"days": 30}, {"days": 1}, contestants=("skip", "cursor", "fire")),
    Workload("runs-peers", "run_throughput", {"runs": 1_280}, contestants=(), peers=("huey", "dbos")),
    Workload(
        "fire", "fire_latency", {"per-second": 1_000, "seconds": 5}, {"per-second": 100, "seconds": 0.3}
    ),
    Workload("client", "client_latency", {"runs": 300}, {"runs": 5}),
    Workload("share", "share", {"runs": 40_000}, {"runs": 400}, contestants=SHARES),
    Workload("postgres-runs", "server", {"runs": 20_000}, {"runs": 200}, contestants=("cloaca", "floor")),
    Workload("postgres-between", "server", {"runs": 300}, {"runs": 5}, contestants=("between",)),
    Workload("postgres-share", "server", {"runs": 20_000}, {"runs": 200}, contestants=("one", "two", "four")),
    Workload("postgres-killed", "server", {"runs": 1_000}, {"runs": 1_000}, contestants=("killed",)),
    Workload("postgres-idle", "server", {"runs": 0}, {"runs": 0}, contestants=("idle",), repeats=1),
    Workload("postgres-held", "server", {"runs": 60_000}, {"runs": 2_000}, contestants=("held",), repeats=1),
    Workload(
        "limits", "limits", {"runs": 10_000}, {"runs": 100}, contestants=("plain", "seats", "paced", "behind")
    ),
    Workload(
        "limits-million",
        "limits",
        {"runs": 1_000_000},
        {"runs": 100},
        ("plain", "seats"),
        repeats=1,
        is_long=True,
    ),
    Workload(
        "beside", "beside", {"runs": 1_000_000}, {"runs": 1_000}, ("empty", "full"), repeats=1, is_long=True
    ),
    Workload("spread", "spread", {"triggers": 10_000}, {"triggers": 4_000}),
    *(_restart(runs) for runs in SIZES),
    *(_cost(size) for size in SIZES),
    _joins(20, 20),
    _joins(30, 30),
    Workload("page", "page", {"runs": 100_000, "rounds": 40}, {"runs": 500, "rounds": 2}),
    Workload(
        "page-million",
        "page",
        {"runs": 1_000_000, "rounds": 40},
        {"runs": 2_000, "rounds": 2},
        repeats=1,
        is_long=True,
    ),
    Workload("paint", "paint", {"tasks": 200, "rounds": 20}, {"tasks": 20, "rounds": 2}, repeats=1),
    Workload(
        "footprint",
        "footprint",
        {"times": 20, "wheels": "dist"},
        {"times": 1},
        contestants=("cloaca", "asyncio"),
        peers=("apscheduler", "huey", "dbos"),
        repeats=1,
    ),
    Workload(
        "hash",
        "hashes",
        {"seconds": 1},
        {"seconds": 0.05},
        contestants=("json_sha256",),
        peers=("orjson_xxh3", "orjson_blake3"),
    ),
]


def _late_rows(
    triggers: int, interval_ms: float, suffix: str = "", note: str = "", **bounds: tuple[Bound, ...]
) -> list[Row]:
    workload = f"late-{triggers}x{interval_ms:g}ms{suffix}"
    what = f"{triggers:,} triggers every {interval_ms:g} ms{note}"
    rows = [
        Row(f"{what}: late by, p50", workload, "p50_ms", "ms", bounds.get("p50", ())),
        Row(f"{what}: late by, p99", workload, "p99_ms", "ms", bounds.get("p99", ())),
        Row(f"{what}: late by, p99.9", workload, "p999_ms", "ms"),
        Row(f"{what}: late by, worst", workload, "max_ms", "ms"),
        Row(f"{what}: polls lost", workload, "lost", "", bounds.get("lost", ())),
        Row(f"{what}: share of a core", workload, "core", "", bounds.get("core", ())),
    ]
    if suffix == "-busy":
        rows.append(Row(f"{what}: its speed kept", workload, "main_kept", "", bounds.get("main", ())))
    return rows


def _run_rows(tasks: int, durability: str, *bounds: Bound) -> Row:
    what = "one task" if tasks == 1 else f"{tasks} tasks in a row"
    title = f"a run of {what}, one run after another, `{durability}`"
    return Row(title, f"run-{tasks}-{durability}", "p50_us", "µs", bounds)


def _traced_rows(what: str, way: str) -> list[Row]:
    title = f"a run of 3 tasks in a row, `full`, traced by an exporter that {what}"
    bounds = () if way == "well" else (most(1.01, "exporter/traced/well_p99_us"),)
    return [
        Row(f"{title}, p50", "exporter", f"{way}_p50_us", "µs", of="traced"),
        Row(f"{title}, p99", "exporter", f"{way}_p99_us", "µs", bounds, of="traced"),
    ]


def _cost_rows(title: str, figure: str, *bounds: Bound) -> list[Row]:
    return [Row(title.format(f"{size:,}"), f"cost-{size}", figure, "ms", bounds) for size in SIZES]


def _rust_rows(title: str, figure: str, sizes: tuple[int, ...]) -> list[Row]:
    return [Row(title.format(f"{size:,}"), "rust", f"{figure}/{size}", "ns") for size in sizes]


BUSY = {"p99": (most(6.0),), "main": (least(0.33),)}
BUSY_ROWS = ("-busy", ", main thread busy")
BESIDE = "10,000 triggers every 100 ms, beside four tasks in a `ProcessExecutor"
ROWS = [
    Row("100 triggers every ms: polls a second", "polls-100x1ms", "per_second", "/s"),
    Row("100 triggers every ms: share of a core", "polls-100x1ms", "core", ""),
    Row("1,000 triggers every ms: polls a second", "polls-1000x1ms", "per_second", "/s"),
    Row("1,000 triggers every ms: share of a core", "polls-1000x1ms", "core", ""),
    Row(
        "10,000 triggers, always due: polls a second",
        "polls-10000x1ms",
        "per_second",
        "/s",
        (least(0.5, "floor"), least(5, "heapq"), least(10, "call_later")),
    ),
    Row("100,000 triggers, always due: polls a second", "polls-100000x1ms", "per_second", "/s"),
    Row(
        "overload, 40,000 triggers every ms instead of every 10 ms: polls a second",
        "polls-40000x1ms",
        "per_second",
        "/s",
        (least(0.9, "polls-40000x10ms/cloaca/per_second"),),
    ),
    *_late_rows(10_000, 100, p50=(most(0.06),), p99=(most(0.15),), lost=(most(0),), core=(most(0.35),)),
    *_late_rows(
        10_000,
        100,
        "-coarse",
        ', `timer_resolution="1ms"`',
        p99=(most(1.1),),
        lost=(most(0),),
        core=(most(0.1),),
    ),
    *_late_rows(1_000, 10),
    *_late_rows(100, 1),
    Row(f"{BESIDE}()`: late by, p99", "late-processes", "p99_ms", "ms", (most(0.5),), of="processes"),
    Row(f"{BESIDE}(nice=10)`: late by, p99", "late-processes", "p99_ms", "ms", (most(0.5),), of="nice"),
    Row("the same without those tasks: late by, p99", "late-processes", "p99_ms", "ms"),
    Row(
        "a loop over `heapq` beside four such processes: late by, p99",
        "late-processes",
        "p99_ms",
        "ms",
        of="heapq-hogs",
    ),
    *_late_rows(10_000, 100, *BUSY_ROWS, **BUSY),
    *_late_rows(1_000, 10, *BUSY_ROWS, **BUSY),
    *_late_rows(100, 1, *BUSY_ROWS, **BUSY),
    Row("a million triggers every 60 s: registered in", "million", "register_s", "s", (most(5),)),
    Row("a million triggers every 60 s: memory each", "million", "bytes_each", "B", (most(1024),)),
    Row("a million triggers every 60 s: late by, mean", "million", "late_mean_ms", "ms", (most(0.06),)),
    Row("idle, 1,000 triggers every 60 s: share of a core", "idle", "core_percent", "%", (most(0.2),)),
    Row("150 idle clients on one store: share of a core", "idle-clients", "core_percent", "%", (most(5),)),
    _run_rows(1, "full", most(1.5, "floor")),
    _run_rows(3, "full"),
    _run_rows(1, "normal"),
    _run_rows(3, "normal"),
    *_traced_rows("takes its spans", "well"),
    *_traced_rows("hangs", "hangs"),
    *_traced_rows("raises", "raises"),
    Row(
        "untraced: looks whether it is traced, of a quiet poll",
        "untraced",
        "looks_a_poll",
        "",
        (most(0),),
        of="submits",
    ),
    Row("untraced: such a look, of a submit", "untraced", "look_us", "µs", (most(1),), of="submits"),
    Row("untraced: a submit, p50", "untraced", "submit_p50_us", "µs", of="submits"),
    Row("untraced: a submit that does not look, p50", "untraced", "bare_p50_us", "µs", of="submits"),
    Row(
        "one-task runs a second, 64 threads in `execute`, `full`",
        "runs",
        "per_second",
        "/s",
        (least(40_000), least(0.4, "floor")),
        needs_all=False,
    ),
    Row(
        "one-task runs a second, 64 threads in `submit`, `full`",
        "runs",
        "per_second",
        "/s",
        (least(40_000), least(0.4, "floor")),
        of="submit",
        needs_all=False,
    ),
    Row(
        "one-task runs a second, `submit_many` of 1,000 at a time, `full`",
        "runs",
        "per_second",
        "/s",
        (least(40_000), least(0.4, "floor")),
        of="submit_many",
        needs_all=False,
    ),
    Row(
        "`testing.Runner.advance`, 30 days of one minute, plain skips",
        "advance",
        "took_s",
        "s",
        (most(1),),
        "skip",
    ),
    Row(
        "`testing.Runner.advance`, 30 days of one minute, a cursor each",
        "advance",
        "took_s",
        "s",
        of="cursor",
    ),
    Row("`testing.Runner.advance`, 30 days of one minute, a run each", "advance", "took_s", "s", of="fire"),
    Row(
        "10,000 async tasks that sleep for 1 s, together",
        "async-sleepers",
        "all_s",
        "s",
        (most(2.5),),
        of="sleepers",
    ),
    Row("their threads", "async-sleepers", "threads", "", (most(12),), of="sleepers"),
    Row("their memory, each", "async-sleepers", "bytes_each", "bytes", (most(8192),), of="sleepers"),
    Row("one-task runs, async", "async-runs", "per_second", "runs/s", (least(0.8, "sync"),), of="async"),
    Row("one-task runs, on threads", "async-runs", "per_second", "runs/s", of="sync"),
    Row("`execute`, one after another", "async-execute", "each_ms", "ms", of="execute"),
    Row(
        "`await execute_async`, async task",
        "async-execute",
        "each_ms",
        "ms",
        (most(1.3, "execute"),),
        of="await-execute",
    ),
    Row("`await execute_async`, task on a thread", "async-execute", "each_ms", "ms", of="await-execute-sync"),
    Row(
        "a heartbeat on the loop, 1,000 runs a second: late by p99",
        "async-heartbeat",
        "p99_ms",
        "ms",
        (most(2),),
        of="heartbeat",
    ),
    Row(
        "the same beside coroutines that only compute, for as long as those runs do",
        "async-heartbeat",
        "p99_ms",
        "ms",
        of="heartbeat-floor",
    ),
    Row(
        "a task in a `ProcessExecutor`: takes longer than on a thread by, p50",
        "async-processes",
        "more_ms",
        "ms",
        (most(1.0),),
        of="process",
    ),
    Row("from a fire to its first task, 1,000 fires a second, p50", "fire", "p50_ms", "ms"),
    Row("from a fire to its first task, 1,000 fires a second, p99", "fire", "p99_ms", "ms", (most(2),)),
    Row(
        "from a submit in one process to the first task in another, p50",
        "client",
        "began_p50_ms",
        "ms",
        (most(3),),
    ),
    Row("from a submit in one process to the first task in another, p99", "client", "began_p99_ms", "ms"),
    Row("`execute` in one process of a task in another, p50", "client", "known_p50_ms", "ms"),
    Row("one process drains what a client submitted: runs a second", "share", "per_second", "/s", of="one"),
    Row("two do: runs a second", "share", "per_second", "/s", (least(1, "one"),), of="two"),
    Row("four do, on two cores: runs a second", "share", "per_second", "/s", (least(1, "one"),), of="four"),
    Row("one does, with claims of 8: runs a second", "share", "per_second", "/s", of="one-8"),
    Row(
        "two do, with claims of 8: runs a second",
        "share",
        "per_second",
        "/s",
        (least(0.8, "one-8"),),
        of="two-8",
    ),
    Row(
        "four do, with claims of 8: runs a second",
        "share",
        "per_second",
        "/s",
        (least(0.8, "one-8"),),
        of="four-8",
    ),
    Row("a permit idle beside a backlog, p99", "share", "idle_p99_ms", "ms", (most(100),), of="idle"),
    Row("a permit idle beside a backlog, at most", "share", "idle_max_ms", "ms", (most(500),), of="idle"),
    Row(
        "killed with 1,000 runs in hand: the first begins in another process after",
        "share",
        "taken_ms",
        "ms",
        (most(500),),
        of="killed",
    ),
    Row("two do: the larger share, in smaller ones", "share", "largest_share", "", (most(2),), of="two"),
    Row("four do: the largest share, in smallest ones", "share", "largest_share", "", (most(2),), of="four"),
    Row(
        "one that comes to a backlog in another's hands begins after",
        "share",
        "helps_ms",
        "ms",
        (most(100),),
        of="late",
    ),
    Row(
        "PostgreSQL: one-task runs a second, drained by who submits them",
        "postgres-runs",
        "per_second",
        "/s",
        (least(0.35, "floor"),),
    ),
    Row(
        "PostgreSQL: a lone run, beside two bare commits",
        "postgres-runs",
        "lone_p50_ms",
        "ms",
        (most(1.5, "floor"),),
    ),
    Row(
        "PostgreSQL: from a submit in one process to the first task in another, p50",
        "postgres-between",
        "p50_ms",
        "ms",
        (most(3),),
        of="between",
    ),
    Row(
        "PostgreSQL: from a submit in one process to the first task in another, p99",
        "postgres-between",
        "p99_ms",
        "ms",
        (most(20),),
        of="between",
    ),
    Row(
        "PostgreSQL: one process drains what a client submitted",
        "postgres-share",
        "per_second",
        "/s",
        of="one",
    ),
    Row(
        "PostgreSQL: two do, on two cores",
        "postgres-share",
        "per_second",
        "/s",
        (least(1.2, "one"),),
        of="two",
    ),
    Row(
        "PostgreSQL: four do, on two cores",
        "postgres-share",
        "per_second",
        "/s",
        (least(1.2, "one"),),
        of="four",
    ),
    Row(
        "PostgreSQL: killed with 1,000 runs in hand: the first of them begins in another process after",
        "postgres-killed",
        "taken_ms",
        "ms",
        (most(1000),),
        of="killed",
    ),
    Row(
        "PostgreSQL: four idle runners: transactions a second, each",
        "postgres-idle",
        "transactions",
        "",
        (most(4),),
        of="idle",
    ),
    Row(
        "PostgreSQL: four idle runners: share of a core in the server",
        "postgres-idle",
        "share_percent",
        "%",
        (most(1),),
        of="idle",
    ),
    Row(
        "PostgreSQL: beside a snapshot that is held, after 60,000 runs: speed kept",
        "postgres-held",
        "kept",
        "",
        (least(0.8),),
        of="held",
    ),
    Row("10,000 runs wait, without limits: drained a second", "limits", "per_second", "/s", of="plain"),
    Row(
        "10,000 runs wait, two at once of each of 10,000 keys: drained a second",
        "limits",
        "per_second",
        "/s",
        (least(0.7, "plain"),),
        of="seats",
    ),
    Row(
        "10,000 runs wait, throttled by 10,000 keys: drained a second",
        "limits",
        "per_second",
        "/s",
        (least(0.7, "plain"),),
        of="paced",
    ),
    Row(
        "a key's first run behind 100,000 of another: begins after, p50",
        "limits",
        "p50_ms",
        "ms",
        (most(20),),
        of="behind",
    ),
    Row(
        "a key's first run behind 100,000 of another: begins after, p99",
        "limits",
        "p99_ms",
        "ms",
        of="behind",
    ),
    Row(
        "a million runs wait, without limits: drained a second",
        "limits-million",
        "per_second",
        "/s",
        of="plain",
    ),
    Row(
        "a million runs wait, two at once of each of 10,000 keys: drained a second",
        "limits-million",
        "per_second",
        "/s",
        (least(0.45, "plain"),),
        of="seats",
    ),
    Row(
        "beside a million final and a million delayed runs: claimed a second",
        "beside",
        "claimed_per_second",
        "/s",
        (least(1 / 1.2, "empty"),),
        of="full",
    ),
    Row("beside those: a poll that fires", "beside", "fire_ms", "ms", (most(1.2, "empty"),), of="full"),
    Row("beside those: `list_runs`", "beside", "list_ms", "ms", (most(1.5, "empty"),), of="full"),
    Row("beside those: `why` of a trigger", "beside", "why_ms", "ms", (most(1.5, "empty"),), of="full"),
    Row("beside those: `why_run`", "beside", "why_run_ms", "ms", (most(1.5, "empty"),), of="full"),
    Row(
        "10,000 triggers over four: each within 15 % of its share after the last join, after",
        "spread",
        "join_ms",
        "ms",
        (most(2000),),
    ),
    Row(
        "a trigger that changes hands is polled by nobody for at most",
        "spread",
        "free_ms",
        "ms",
        (most(1000),),
    ),
    Row("one of four is killed: its triggers are divided among the others after", "spread", "kill_ms", "ms"),
    Row(
        "killed with 10,000 unfinished runs: first task after", "restart", "first_task_ms", "ms", (most(100),)
    ),
    Row("killed with 1,000 unfinished runs: all in hand after", "restart-1000", "all_in_hand_ms", "ms"),
    Row("killed with 10,000 unfinished runs: all in hand after", "restart", "all_in_hand_ms", "ms"),
    Row("killed with 100,000 unfinished runs: all in hand after", "restart-100000", "all_in_hand_ms", "ms"),
    Row("20 layers of 20 crossing tasks: a run", "joins-20x20", "run_s", "s", (most(0.5),)),
    Row(
        "20 layers of 20 crossing tasks: a bystander stands still",
        "joins-20x20",
        "still_ms",
        "ms",
        (most(10),),
    ),
    Row("30 layers of 30 crossing tasks: a run", "joins-30x30", "run_s", "s", (most(1.5),)),
    Row(
        "30 layers of 30 crossing tasks: a bystander stands still",
        "joins-30x30",
        "still_ms",
        "ms",
        (most(10),),
    ),
    Row("the page beside 100,000 runs: its slowest screen, p95", "page", "page_ms", "ms", (most(50),)),
    Row("the page beside 100,000 runs: its first screen, p95", "page", "first_ms", "ms", (most(50),)),
    Row(
        "the page beside 100,000 runs: what the tab of a run is sent, p95",
        "page",
        "update_ms",
        "ms",
        (most(20),),
    ),
    Row(
        "the page beside 1,000,000 runs: its slowest screen, p95",
        "page-million",
        "page_ms",
        "ms",
        (most(50),),
    ),
    Row(
        "the page beside 1,000,000 runs: its slowest screen, of the processor, p95",
        "page-million",
        "page_cpu_ms",
        "ms",
    ),
    Row(
        "the page beside 1,000,000 runs: its first screen, p95", "page-million", "first_ms", "ms", (most(50),)
    ),
    Row(
        "the page beside 1,000,000 runs: what the tab of a run is sent, p95",
        "page-million",
        "update_ms",
        "ms",
        (most(20),),
    ),
    Row("a run of 200 tasks in Chromium: its first paint, p95", "paint", "paint_p95_ms", "ms", (most(300),)),
    *_cost_rows("`list_runs()` beside {} runs", "list_ms"),
    *_cost_rows("`list_runs(contexts=False)` beside {} runs", "list_bare_ms"),
    *_cost_rows("`list_runs` that finds none beside {} runs", "list_none_ms"),
    *_cost_rows("`get_run` beside {} runs", "get_run_ms"),
    *_cost_rows("a run of one task, `normal`, beside {} runs", "run_ms"),
    *_cost_rows("`why` beside {} triggers", "why_ms"),
    *_cost_rows("`tick` beside {} triggers", "tick_ms"),
    *_cost_rows("`list_trigger_schedules()` beside {} triggers", "list_triggers_ms"),
    *_cost_rows("`list_trigger_schedules(limit={0})` beside {0} triggers", "list_all_triggers_ms"),
    *_cost_rows("a trigger declared again beside {}", "declare_again_ms"),
    *_cost_rows("a start beside {} runs and as many triggers", "load_ms"),
    *_cost_rows("`retention`: a thousand of {} runs are gone after", "prune_ms"),
    *_cost_rows("`retention`: a lone run beside {} that go, the longest", "beside_prune_ms"),
    *_cost_rows("{} triggers declared again", "declare_all_again_ms"),
    *_rust_rows("crons read anew, {}", "load_crons", SIZES),
    *_rust_rows("a look at the clock beside {} crons, none due", "clock_beside_crons", SIZES),
    *_rust_rows("a look for what is too old beside {} runs, nothing found", "prune_nothing", SIZES),
    Row(
        "context hash, 5 keys",
        "rust",
        "hash/keys_5",
        "ns",
        (most(1 / 8, "hash/json_sha256/keys_5_ns"), most(2, "hash/orjson_xxh3/keys_5_ns")),
    ),
    Row("context hash, 100 keys", "rust", "hash/keys_100", "ns"),
    Row("context hash, 1 MB", "rust", "hash/megabyte", "ns", (most(1, "hash/orjson_blake3/megabyte_ns"),)),
    Row("context from text and its hash, 5 keys", "rust", "parse_and_hash/keys_5", "ns"),
    Row("context from text and its hash, 1 MB", "rust", "parse_and_hash/megabyte", "ns"),
    Row("timer wheel, a timer due and armed again, 10,000", "rust", "pop_and_arm/10000", "ns"),
    Row("timer wheel, a timer due and armed again, 1,000,000", "rust", "pop_and_arm/1000000", "ns"),
    Row("gate, a fire admitted and released, 1,000 unfinished", "rust", "admit_hold_release/1000", "ns"),
    Row("store, one run started and ended, `full`", "rust", "start_and_end/1", "ns"),
    Row("store, 100 runs started and ended, `full`", "rust", "start_and_end/100", "ns"),
    Row("store, 1,000 runs started and ended, `full`", "rust", "start_and_end/1000", "ns"),
    Row("`import cloaca`", "footprint", "import_ms", "ms", (most(30),)),
    Row("`cloaca ls`, from its start to its end", "footprint", "ls_ms", "ms", (most(150),)),
    Row("memory over bare Python, imported", "footprint", "memory_mib", "MiB"),
    Row("memory over bare Python, with a runner", "footprint", "runner_mib", "MiB"),
    Row("wheel", "footprint", "wheel_mb", "MB", (most(6),)),
]
