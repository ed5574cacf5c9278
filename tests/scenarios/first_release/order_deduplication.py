"""Deduplication: a trigger reports an open order at every poll, and the order is shipped once.

While a run that was fired with an equal context is unfinished, further fires are dropped.

Run it: python examples/order_deduplication.py
"""

import sys
import threading
from collections import Counter

import cloaca

ORDERS = ["A-1001", "A-1002", "A-1003"]
REPORTS_MIN = 3

reports: Counter[str] = Counter()
shipped: list[str] = []
changed = threading.Condition()

with cloaca.WorkflowBuilder("ship_order") as builder:
    builder.description("Packs an order and hands it to the carrier")

    @cloaca.task()
    def pack(context: cloaca.Context) -> None:
        """Take so long that the trigger reports the same order several times meanwhile."""
        with changed:
            changed.wait_for(lambda: reports[context["order"]] >= REPORTS_MIN, timeout=10)

    @cloaca.task(dependencies=[pack])
    def ship(context: cloaca.Context) -> None:
        """Ship the order."""
        order = context["order"]
        with changed:
            # Deduplication ends with the run: a poll that looked just before this line may report the order
            # once more after it. So this step, like every one that must not happen twice, asks first.
            if order in shipped:
                return
            shipped.append(order)
            print(f"shipped {order}", flush=True)
            changed.notify_all()


@cloaca.trigger(workflow="ship_order", poll_interval="10ms", allow_concurrent=False)
def open_orders() -> cloaca.TriggerResult:
    """Report the oldest order that is still open."""
    with changed:
        still_open = [order for order in ORDERS if order not in shipped]
        if not still_open:
            return cloaca.TriggerResult.skip()
        reports[still_open[0]] += 1
        changed.notify_all()
    return cloaca.TriggerResult.fire(cloaca.Context({"order": still_open[0]}))


def main() -> int:
    """Serve until every order is shipped."""
    with cloaca.DefaultRunner(":memory:"), changed:
        in_time = changed.wait_for(lambda: len(shipped) == len(ORDERS), timeout=30)
    for order in ORDERS:
        enough = f"at least {REPORTS_MIN}" if reports[order] >= REPORTS_MIN else f"only {reports[order]}"
        print(f"{order}: reported {enough} times, shipped {shipped.count(order)} time")
    return 0 if in_time else 1


if __name__ == "__main__":
    sys.exit(main())
