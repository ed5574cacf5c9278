"""`cloaca.testing.Runner(triggers=[…])` and the pytest fixture `cloaca_runner`."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import cloaca
import cloaca.testing

PYTEST_SECONDS_MAX = 60

installed = pytest.mark.skipif(
    not entry_points(group="pytest11", name="cloaca"),
    reason="the package is on the path only, where pytest finds no fixture of it",
)


def declare_two() -> tuple[Any, Any]:
    """Two triggers of one workflow."""
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(id="only")
        def only(context: cloaca.Context) -> None: ...

    @cloaca.trigger(name="one", workflow="w", poll_interval="10s", allow_concurrent=True)
    def first() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.fire({"by": "first"})

    @cloaca.trigger(name="two", workflow="w", poll_interval="10s", allow_concurrent=True)
    def second() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.fire({"by": "second"})

    return first, second


@pytest.mark.parametrize("by", ["function", "name"])
def test_a_runner_polls_only_the_triggers_that_it_is_given(by: str) -> None:
    first, _ = declare_two()
    with cloaca.testing.Runner(triggers=[first if by == "function" else "one"]) as runner:
        runner.advance("25s")
        assert {context["by"] for context in runner.fired("w")} == {"first"}
        with pytest.raises(ValueError, match="two"):
            runner.polls("two")
        with pytest.raises(ValueError, match="two"):
            runner.tick("two")
    with cloaca.testing.Runner() as runner:
        runner.advance("25s")
        assert {context["by"] for context in runner.fired("w")} == {"first", "second"}


def test_a_function_stands_for_each_trigger_that_it_is() -> None:
    first, _ = declare_two()
    cloaca.trigger(name="again", workflow="w", poll_interval="10s")(first)
    with cloaca.testing.Runner(triggers=[first]) as runner:
        runner.advance("25s")
        assert runner.polls("one") == runner.polls("again") >= 2


def test_a_runner_of_some_triggers_leaves_those_that_come_later_alone() -> None:
    first, _ = declare_two()
    with cloaca.testing.Runner(triggers=[first]) as runner:

        @cloaca.trigger(name="late", workflow="w", poll_interval="10s")
        def late() -> bool:
            raise AssertionError

        cloaca.trigger(name="one", workflow="w", poll_interval="5s")(first)
        runner.advance("25s")
        assert runner.polls("one") >= 4
        with pytest.raises(ValueError, match="late"):
            runner.polls("late")


def test_a_runner_of_no_triggers_polls_none_and_runs_workflows() -> None:
    declare_two()
    with cloaca.testing.Runner(triggers=[]) as runner:
        runner.advance("25s")
        assert runner.fired("w") == []
        assert runner.execute("w").status == "Completed"


def test_a_cron_that_is_not_among_the_triggers_does_not_run() -> None:
    first, _ = declare_two()

    @cloaca.trigger(name="nightly", workflow="w", cron="0 3 * * *")
    def nightly() -> None: ...

    with cloaca.testing.Runner(triggers=[first], raise_errors=True) as runner:
        runner.advance("2d")
        assert {context.get("by") for context in runner.fired("w")} == {"first"}
    with cloaca.testing.Runner(triggers=["nightly"]) as runner:
        runner.advance("2d")
        assert len(runner.fired("w")) == 2


def test_a_runner_says_nothing_of_triggers_that_it_leaves_alone(caplog: pytest.LogCaptureFixture) -> None:
    first, _ = declare_two()

    @cloaca.trigger(name="lost", workflow="nowhere")
    def lost() -> bool:
        return True

    with cloaca.testing.Runner(triggers=[first]):
        pass
    assert "nowhere" not in caplog.text


@pytest.mark.parametrize(
    ("triggers", "kind", "named"),
    [
        (["oen"], ValueError, "'oen', which is not declared; did you mean 'one'"),
        ([len], ValueError, "len, which is no trigger"),
        ([3], TypeError, "triggers holds 3"),
        ("one", TypeError, r"triggers is 'one'.*a list"),
    ],
)
def test_triggers_refuses(triggers: Any, kind: type[Exception], named: str) -> None:
    declare_two()
    with pytest.raises(kind, match=named):
        cloaca.testing.Runner(triggers=triggers)


def test_what_is_kept_stays_declared_where_all_else_is_isolated() -> None:
    first, _ = declare_two()
    with cloaca.testing.isolated(triggers=[first]), cloaca.testing.Runner() as runner:
        runner.advance("25s")
        assert {context["by"] for context in runner.fired("w")} == {"first"}


@pytest.mark.parametrize("call", ["polls", "fired", "execute"])
def test_who_asks_for_what_is_declared_outside_is_told_so(call: str) -> None:
    declare_two()
    with (
        cloaca.testing.isolated(),
        cloaca.testing.Runner() as runner,
        pytest.raises(ValueError, match=r"declared outside.*isolated\(triggers=\["),
    ):
        getattr(runner, call)("one" if call == "polls" else "w")


def test_fires_of_an_unknown_workflow_are_refused_with_a_near_name() -> None:
    declare_two()
    with (
        cloaca.testing.Runner(triggers=[]) as runner,
        pytest.raises(ValueError, match="no workflow 'ww'; did you mean 'w'"),
    ):
        runner.fired("ww")


def pytest_in(folder: Path, *options: str, **files: str) -> subprocess.CompletedProcess[str]:
    """What pytest says of these files, alone in a folder."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(dedent(text))
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-W",
            "error",
            "--strict-markers",
            *options,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PYTEST_SECONDS_MAX,
        check=False,
    )


@installed
def test_the_fixture_is_there_without_a_conftest(tmp_path: Path) -> None:
    done = pytest_in(
        tmp_path,
        test_mine="""
            import cloaca, pytest

            def declare(fails=False):
                with cloaca.WorkflowBuilder("w"):
                    @cloaca.task()
                    def only(context): ...

                @cloaca.trigger(name="mine", workflow="w", poll_interval="1m")
                def mine(tick):
                    if fails:
                        raise LookupError("feed")
                    return cloaca.TriggerResult.fire({"n": 1})

            def test_one(cloaca_runner):
                declare()
                cloaca_runner.advance("90s")
                assert [dict(context) for context in cloaca_runner.fired("w")] == [{"n": 1}]

            def test_two_sees_nothing_of_one(cloaca_runner):
                with pytest.raises(ValueError):
                    cloaca_runner.polls("mine")
                declare(fails=True)
                with pytest.raises(LookupError, match="feed"):
                    cloaca_runner.advance("90s")

            def test_a_failing_trigger_fails_the_test(cloaca_runner):
                declare(fails=True)
                cloaca_runner.advance("90s")
        """,
    )
    assert "2 passed" in done.stdout, done.stdout
    assert "1 failed" in done.stdout
    assert "LookupError: feed" in done.stdout


@installed
def test_the_fixture_polls_what_the_program_declares_if_it_is_marked(tmp_path: Path) -> None:
    done = pytest_in(
        tmp_path,
        program="""
            import cloaca

            with cloaca.WorkflowBuilder("w"):
                @cloaca.task()
                def only(context): ...

            @cloaca.trigger(workflow="w", poll_interval="1m")
            def mine():
                return cloaca.TriggerResult.fire({"n": 1})

            @cloaca.trigger(workflow="w", poll_interval="1m")
            def other():
                raise AssertionError
        """,
        test_mine="""
            import cloaca, program, pytest

            @pytest.mark.cloaca_runner(triggers=[program.mine], start="2026-03-01T00:00:00Z")
            def test_mine(cloaca_runner):
                assert cloaca_runner.now.startswith("2026-03-01")
                cloaca_runner.advance("90s")
                assert len(cloaca_runner.fired("w")) == 1

            def test_not_marked(cloaca_runner):
                with pytest.raises(ValueError, match="declared outside"):
                    cloaca_runner.polls("mine")

            @pytest.mark.cloaca_runner(triggers=["other"], raise_errors=False)
            def test_quiet(cloaca_runner):
                cloaca_runner.advance("90s")

            @pytest.mark.cloaca_runner(triggers=[], redact=["n"])
            def test_redacted(cloaca_runner):
                cloaca_runner.execute("w", {"n": "secret"})
                assert "secret" not in str(cloaca_runner.list_runs())

            @pytest.mark.cloaca_runner([program.mine])
            def test_without_a_name(cloaca_runner):
                cloaca_runner.advance("90s")
                assert len(cloaca_runner.fired("w")) == 1

            @pytest.mark.cloaca_runner(trigers=[])
            def test_misspelt(cloaca_runner): ...

            @pytest.mark.cloaca_runner([program.mine], triggers=["other"])
            def test_twice(cloaca_runner): ...

            @pytest.mark.cloaca_runner(program.mine, program.other)
            def test_no_list(cloaca_runner): ...
        """,
    )
    assert "5 passed, 3 errors" in done.stdout, done.stdout
    assert "did you mean 'triggers'?" in done.stdout
    assert done.stdout.count("takes only triggers without a name, and once") >= 2


@installed
def test_pytest_lists_the_fixture_and_the_marker(tmp_path: Path) -> None:
    (tmp_path / "test_none.py").write_text("")
    fixtures = pytest_in(tmp_path, "--fixtures").stdout
    assert "cloaca_runner" in fixtures
    assert "manual clock" in fixtures
    assert "@pytest.mark.cloaca_runner(" in pytest_in(tmp_path, "--markers").stdout


def test_nothing_needs_pytest_to_be_installed() -> None:
    program = "import sys; sys.modules['pytest'] = None; import cloaca, cloaca.testing"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PYTEST_SECONDS_MAX)
