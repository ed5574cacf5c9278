"""The tutorial program: a workflow with callbacks, run by hand, and a trigger that fires on each fifth call.

Run it: python examples/event_triggers_demo.py
"""

from datetime import datetime

import cloaca


def on_task_success(task_id: str, context: cloaca.Context) -> None:
    """Report a task that completed."""
    print(f"  [SUCCESS] Task '{task_id}' completed")


def on_task_failure(task_id: str, error: str, context: cloaca.Context) -> None:
    """Report a task that failed for good."""
    print(f"  [FAILURE] Task '{task_id}' failed: {error}")


with cloaca.WorkflowBuilder("file_processor") as builder:
    builder.description("Process incoming files with monitoring")

    @cloaca.task(id="validate_file", on_success=on_task_success, on_failure=on_task_failure)
    def validate_file(context: cloaca.Context) -> cloaca.Context:
        """Check an incoming file."""
        print(f"  Validating file: {context.get('filename', 'unknown')}")
        context.set("validated", True)
        return context

    @cloaca.task(
        id="process_file",
        dependencies=["validate_file"],
        on_success=on_task_success,
        on_failure=on_task_failure,
    )
    def process_file(context: cloaca.Context) -> cloaca.Context:
        """Process the checked file."""
        print(f"  Processing file: {context.get('filename', 'unknown')}")
        context.set("processed_at", datetime.now().isoformat())
        return context


calls = 0


@cloaca.trigger(workflow="file_processor", name="file_watcher", poll_interval="2s", allow_concurrent=False)
def file_watcher() -> cloaca.TriggerResult:
    """Pretend to find a new file on each fifth call."""
    global calls
    calls += 1
    if calls % 5 == 0:
        filename = f"data_{datetime.now():%H%M%S}.csv"
        print(f"  [TRIGGER] Found new file: {filename}")
        return cloaca.TriggerResult.fire(cloaca.Context({"filename": filename}))
    return cloaca.TriggerResult.skip()


def main() -> None:
    """Run the workflow by hand, then call the trigger as the plain function that it still is."""
    print("Event Triggers and Task Callbacks Demo")
    print("=" * 50)

    runner = cloaca.DefaultRunner(":memory:")

    print("\nManual execution with callbacks:")
    print("-" * 40)
    result = runner.execute("file_processor", cloaca.Context({"filename": "report_2024.csv"}))
    print("-" * 40)
    print(f"Workflow status: {result.status}")

    print("\nSimulating trigger polls:")
    print("-" * 40)
    for number in range(1, 8):
        answer = file_watcher()
        if answer.is_fire_result():
            print(f"  Poll {number}: FIRE - workflow will execute")
        else:
            print(f"  Poll {number}: SKIP - waiting...")

    runner.shutdown()
    print("\nDemo complete!")


if __name__ == "__main__":
    main()
