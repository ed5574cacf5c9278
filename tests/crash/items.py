"""What the items of the source are, and what becomes of each. Shared by the program that is killed and the
checker of what it left."""

PASSED_OVER = 7
"""Every such item is looked at and left out on purpose."""
FLAKY = 3
"""At every such item the first attempt to parse it fails."""
BROKEN = 11
"""Every such item, counted from `BROKEN_FROM`, can never be parsed."""
BROKEN_FROM = 5

AT_ONCE_MAX = 5
"""So many items of the source one poll takes."""
ATTEMPTS_MAX = 3
"""So often a task is tried, those attempts not counted that its process died in."""

INBOX = "inbox"
"""The trigger that follows the source with a cursor and fires each item under a run key."""
BEAT = "beat"
"""The trigger without a cursor, whose fires are told apart by their contexts alone."""

WATCH = "watch"
"""The trigger that never fires."""

DEPENDENCIES = {
    "fetch": (),
    "parse": ("fetch",),
    "index": ("fetch",),
    "store": ("parse", "index"),
    "stamp": (),
    "strike": ("stamp",),
    "errand": (),
}
"""The tasks of all workflows, which share no name, and what each waits for."""
REOPENED = "errand"
"""The workflow whose runs may be opened again once they are final."""
ITEM_TASKS = ("fetch", "parse", "index", "store")


def is_passed_over(item: int) -> bool:
    """Whether the trigger leaves the item out, which the witness records."""
    return item % PASSED_OVER == 0


def is_flaky(item: int) -> bool:
    """Whether parsing the item fails at the first attempt."""
    return item % FLAKY == 0


def is_broken(item: int) -> bool:
    """Whether parsing the item always fails, and its run with it."""
    return item % BROKEN == BROKEN_FROM


def result_of(item: int, run: str) -> dict[str, object]:
    """The final context of the run of an item that can be parsed."""
    return {
        "run": run,
        "item": item,
        "size": item * 2,
        "words": item + 1,
        "pages": [item],
        "total": 4 * item + 1,
    }
