"""Values that nest as deep as is allowed, on threads with the smallest stack that Python gives."""

import subprocess
import sys
import textwrap

import pytest

SECONDS_MAX = 120.0

PRELUDE = """
    import sys, threading
    # The json module of Python 3.12 overruns the smallest one by itself.
    threading.stack_size((32 if sys.version_info < (3, 12) else 64) * 1024)
    import cloaca
    from cloaca.testing import Runner

    def deep(levels):
        value = 1
        for _ in range(levels - 1):
            value = {"k": value}
        return {"k": value}

    def on_a_small_stack(work):
        failures = []

        def guarded():
            try:
                work()
            except BaseException as raised:
                failures.append(raised)

        thread = threading.Thread(target=guarded)
        thread.start()
        thread.join()
        assert not failures, failures
"""

PROGRAMS = {
    "tasks, joins and rules": """
        with cloaca.WorkflowBuilder("w"):
            @cloaca.task()
            def root(context): context["root"] = deep(199)
            @cloaca.task(dependencies=[root])
            def left(context): context["left"] = deep(199)
            @cloaca.task(dependencies=[root])
            def right(context): context["right"] = 1
            @cloaca.task(dependencies=[left, right], trigger_rules=cloaca.context_value("right", "==", 1))
            def last(context): context["last"] = [context["left"]["k"]["k"]]
        with cloaca.DefaultRunner(":memory:") as runner:
            result = runner.execute("w", deep(200))
            assert result.status == "Completed", result
            assert set(result.final_context) == {"k", "root", "left", "right", "last"}
        """,
    "fires and cursors": """
        with cloaca.WorkflowBuilder("w"):
            @cloaca.task()
            def only(context): pass
        @cloaca.trigger(workflow="w", poll_interval="1m")
        def inbox(tick):
            tick.cursor = deep(200)
            return cloaca.TriggerResult.fire(deep(200))
        with Runner() as runner:
            runner.advance("1m")
            assert [run["status"] for run in runner.list_runs()] == ["Completed"]
        """,
    "rules as deep as they may be": """
        def rule():
            rule = cloaca.context_value("x", "==", deep(19))
            for _ in range(48):
                rule = cloaca.none_of(rule)
            return rule

        def work():
            with cloaca.WorkflowBuilder("w"):
                @cloaca.task()
                def first(context): context["x"] = deep(19)
                @cloaca.task(dependencies=[first], trigger_rules=rule())
                def second(context): context["second"] = True
            with cloaca.DefaultRunner(":memory:") as runner:
                assert "second" in runner.execute("w").final_context

        on_a_small_stack(work)
        """,
    "listings and copies": """
        with cloaca.WorkflowBuilder("w"):
            @cloaca.task()
            def only(context): context["x"] = deep(199)

        def work():
            with cloaca.DefaultRunner(":memory:") as runner:
                run = runner.submit("w", deep(200))
                assert run.result(60).status == "Completed"
                # By their texts: Python's own == of such values needs more than this stack.
                text = cloaca.Context(deep(200)).to_json()
                assert cloaca.Context(runner.list_runs()[0]["context"]).to_json() == text
                final = cloaca.Context(runner.get_run(run.id)["final_context"])
                assert final.copy().to_json().startswith(text[:-1])
                assert cloaca.Context.from_json(text).to_json() == text

        on_a_small_stack(work)
        """,
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_what_nests_deep_ends_no_process(program: str) -> None:
    text = textwrap.dedent(PRELUDE) + textwrap.dedent(program)
    ended = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
    assert ended.returncode == 0, ended.stderr
