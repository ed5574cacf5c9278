"""The tutorial program: a workflow with callbacks, run by hand, and a trigger that fires on each fifth call.

Run it: python examples/event_triggers_demo.py
"""

import itertools

import cloaca


def announce(task_id: str, context: cloaca.Context) -> None:
    """Say that a task completed."""
    print(f"[SUCCESS] Task '{task_id}' completed")


def complain(task_id: str, error: str, context: cloaca.Context) -> None:
    """Say that a task failed for good."""
    print(f"[FAILURE] Task '{task_id}': {error}")


with cloaca.WorkflowBuilder("file_processor") as workflow:
    workflow.description("Checks a file, then works on it")

    @cloaca.task(id="validate_file", on_success=announce, on_failure=complain)
    def validate_file(context: cloaca.Context) -> cloaca.Context:
        """Check that there is a file to work on."""
        print(f"checking {context['filename']}")
        context["valid"] = context["filename"].endswith(".csv")
        return context

    @cloaca.task(id="process_file", dependencies=[validate_file], on_success=announce, on_failure=complain)
    def process_file(context: cloaca.Context) -> cloaca.Context:
        """Work on the checked file."""
        print(f"working on {context['filename']}, valid: {context['valid']}")
        return context


calls = itertools.count(1)


@cloaca.trigger(workflow="file_processor", name="file_watcher", poll_interval="2s", allow_concurrent=False)
def file_watcher() -> cloaca.TriggerResult:
    """Find a new file on each fifth call."""
    call = next(calls)
    if call % 5:
        return cloaca.TriggerResult.skip()
    return cloaca.TriggerResult.fire(cloaca.Context({"filename": f"delivery-{call}.csv"}))


def main() -> None:
    """Run the workflow by hand, then call the trigger as the plain function that it still is."""
    runner = cloaca.DefaultRunner(":memory:")

    result = runner.execute("file_processor", cloaca.Context({"filename": "stock.csv"}))
    print(f"Workflow status: {result.status}")

    for number in range(1, 8):
        answer = file_watcher()
        print(f"call {number}: {'FIRE' if answer.is_fire_result() else 'SKIP'}")

    runner.shutdown()


if __name__ == "__main__":
    main()
