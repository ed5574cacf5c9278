"""A small program with a feed, retries, an approval and a cron."""

import cloaca

FEED = [{"id": 1, "title": "a"}, {"id": 2, "title": "b"}]
SENT = []
FLAKY = {"fails": 0}
APPROVED = set()

with cloaca.WorkflowBuilder("publish"):

    @cloaca.task()
    def render(context):
        context["html"] = f"<h1>{context['title']}</h1>"

    @cloaca.task(dependencies=[render])
    def send(context):
        SENT.append(context["html"])


with cloaca.WorkflowBuilder("flaky"):

    @cloaca.task(retry_attempts=3, retry_delay_ms=1000)
    def call(context):
        if FLAKY["fails"]:
            FLAKY["fails"] -= 1
            raise ConnectionError("nope")
        context["ok"] = True


with cloaca.WorkflowBuilder("approval"):

    @cloaca.task()
    def ask(context, handle):
        handle.defer_until(lambda: context["id"] in APPROVED, poll_interval_ms=1000)
        context["approved"] = True


with cloaca.WorkflowBuilder("report"):

    @cloaca.task()
    def write(context):
        context["day"] = context["scheduled_time"][:10]


@cloaca.trigger(workflow="publish", poll_interval="1m")
def feed(tick):
    for item in FEED:
        if item["id"] > (tick.cursor or 0):
            yield cloaca.TriggerResult.fire({"title": item["title"]}, cursor=item["id"])


@cloaca.trigger(workflow="flaky", poll_interval="1h", poll_at_start=True)
def once(tick):
    if tick.cursor:
        return cloaca.TriggerResult.skip("done")
    tick.cursor = True
    return True


@cloaca.trigger(workflow="report", cron="0 6 * * *")
def daily():
    pass
