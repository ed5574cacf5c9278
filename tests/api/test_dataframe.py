"""`as_dataframe`: what is listed as a table of pandas or polars, with its types."""

from __future__ import annotations

import copy
import io
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import cloaca
from cloaca import types

WAIT = 30.0
LIBRARIES = ["pandas", "polars"]


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[cloaca.DefaultRunner]:
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=1)
        def t(context: cloaca.Context) -> None:
            if context["n"] == 2:
                raise ValueError("two")

    @cloaca.trigger(workflow="w", poll_interval="1h")
    def polled() -> bool:
        raise OSError("gone")

    @cloaca.trigger(workflow="w", cron="0 3 * * *")
    def nightly() -> None: ...

    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        for n in (1, 2, 3):
            runner.execute("w", {"n": n, "of": [None, {"a": 1}, "ä\x00"]}, timeout=WAIT)
        runner.tick("polled")
        yield runner


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_runs_are_a_table_of_pandas(runner: cloaca.DefaultRunner) -> None:
    pandas = pytest.importorskip("pandas")
    runs = runner.list_runs()
    table = runs.as_dataframe("pandas")
    assert isinstance(table, pandas.DataFrame)
    assert sorted(table.columns) == sorted(runs[0])
    assert list(table["id"]) == [run["id"] for run in runs]
    assert [value.to_pydatetime() for value in table["created_at"]] == [at(run["created_at"]) for run in runs]
    assert str(table["created_at"].dtype) == "datetime64[us, UTC]"
    assert (table["completed_at"] - table["created_at"]).min() > pandas.Timedelta(0)
    assert table["cancel_requested"].dtype == bool
    # Objects, which nothing has unfolded.
    assert table["context"][0] == {"n": 3, "of": [None, {"a": 1}, "ä\x00"]}
    assert list(table[table["status"] == "Failed"]["error_type"]) == ["ValueError"]
    assert table["trigger_name"].isna().all()
    assert type(runs.as_dataframe()) is pandas.DataFrame, "which comes first"


def test_runs_are_a_table_of_polars(runner: cloaca.DefaultRunner) -> None:
    polars = pytest.importorskip("polars")
    runs = runner.list_runs()
    table = runs.as_dataframe("polars")
    assert isinstance(table, polars.DataFrame)
    assert sorted(table.columns) == sorted(runs[0])
    assert table["id"].to_list() == [run["id"] for run in runs]
    assert table["created_at"].to_list() == [at(run["created_at"]) for run in runs]
    assert table.schema["created_at"] == polars.Datetime("us", "UTC")
    assert table.schema["trigger_name"] == polars.String, "though nothing stands in it"
    assert table.schema["cancel_requested"] == polars.Boolean
    # Text, as polars has no type for what may have any shape that anything could write.
    assert json.loads(table["context"][0]) == {"n": 3, "of": [None, {"a": 1}, "ä\x00"]}
    table.write_json(io.BytesIO())
    assert not [each for each in table.schema.values() if each == polars.Object]
    assert table.filter(polars.col("status") == "Failed")["error_type"].to_list() == ["ValueError"]


LISTINGS = {
    "runs": (types.RunRow, lambda r: r.list_runs()),
    "bare runs": (types.RunSummary, lambda r: r.list_runs(contexts=False)),
    "ticks": (types.TickRow, lambda r: r.ticks("polled")),
    "triggers": (types.TriggerScheduleRow, lambda r: r.list_trigger_schedules()),
    "crons": (types.CronScheduleRow, lambda r: r.list_cron_schedules()),
    "runners": (types.RunnerRow, lambda r: r.list_runners()),
    "audit": (types.AuditRow, lambda r: r.audit()),
    "logs": (types.LogRow, lambda r: r.logs(r.list_runs()[0]["id"])),
    "fired": (types.TriggerExecutionRow, lambda r: r.get_trigger_execution_history("polled")),
    "fired by nobody": (types.TriggerExecutionRow, lambda r: r.get_trigger_execution_history("nobody")),
    "moments": (types.CronExecutionRow, lambda r: r.get_cron_execution_history("nightly")),
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", LISTINGS)
def test_every_listing_has_its_columns_and_types_however_empty(
    runner: cloaca.DefaultRunner, name: str, library: str
) -> None:
    pytest.importorskip(library)
    row, listed = LISTINGS[name]
    found = listed(runner)
    table, empty = found.as_dataframe(library), type(found)([], found.of).as_dataframe(library)
    assert len(table) == len(found)
    assert list(empty.columns) == list(table.columns) == list(get_type_hints(row))
    types_of = [[str(each) for each in one.dtypes] for one in (table, empty)]
    assert types_of[0] == types_of[1]
    times = [at for at, column in enumerate(table.columns) if column.endswith(("_at", "_since", "_time"))]
    assert all("UTC" in types_of[0][at] for at in times)
    # Whatever is a time's text is a time.
    assert not [
        value
        for column in table.columns
        for value in list(table[column])
        if isinstance(value, str) and value[:4] == str(datetime.now(UTC).year) and value.endswith("Z")
    ]


@pytest.mark.parametrize("library", LIBRARIES)
def test_times_at_the_ends_and_odd_contexts_fit(library: str) -> None:
    pytest.importorskip(library)
    same = {"who": "ä\x00", "door": "cli", "place": None, "what": "retry", "about": ""}
    rows: list[Any] = [
        {"at": "0001-01-01T00:00:00.000000Z", **same, "many": 2**62},
        {"at": "9999-12-31T23:59:59.999999Z", **same, "many": 0},
    ]
    table = cloaca.Listed(rows, "AuditRow").as_dataframe(library)
    assert [(each.year, each.microsecond) for each in table["at"]] == [(1, 0), (9999, 999999)]
    assert list(table["many"]) == [2**62, 0]


def test_what_is_listed_stays_a_list(runner: cloaca.DefaultRunner) -> None:
    runs = runner.list_runs()
    assert runs == list(runs)
    for copied in (copy.copy(runs), copy.deepcopy(runs), pickle.loads(pickle.dumps(runs)), runs[:]):
        assert copied == runs
    assert type(runs[1:]) is type(runs)
    assert isinstance(runs[0], dict)


def test_another_library_is_refused(runner: cloaca.DefaultRunner) -> None:
    for odd in ("panda", "arrow", 3, ""):
        with pytest.raises(ValueError, match=r"library is .*; it must be 'pandas', 'polars' or None"):
            runner.list_runs().as_dataframe(odd)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("missing", "asked", "told"),
    [
        (["pandas", "polars"], "None", "pip install pandas, or pip install polars"),
        (["pandas"], "None", "polars.DataFrame"),
        (["polars"], "None", "pandas.DataFrame"),
        (["polars"], "'polars'", "as_dataframe('polars') needs polars; pip install polars"),
    ],
)
def test_what_is_installed_is_taken_or_named(missing: list[str], asked: str, told: str) -> None:
    for name in LIBRARIES:
        if name not in missing:
            pytest.importorskip(name)
    code = f"""
import sys
for name in {missing!r}:
    sys.modules[name] = None
import cloaca
assert not [name for name in ("pandas", "polars") if sys.modules.get(name)]
try:
    found = type(cloaca.Listed([], "RunRow").as_dataframe({asked}))
    print(found.__module__.split(".")[0] + "." + found.__name__)
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told in done.stdout
