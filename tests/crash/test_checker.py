"""The checker finds what it is there to find: true evidence passes, and each way of spoiling it is complained
about by name."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import items
import pytest
from checker import ALWAYS, AT_REST, SINCE, Database, Evidence, complaints
from lives import Stage
from witness import Line, Testimony, Witness

Tamper = Callable[["Draft"], None]


class Draft:
    """Evidence that can be changed."""

    def __init__(self, evidence: Evidence, before: Evidence | None = None) -> None:
        self.before = before
        self.lines = list(evidence.lines)
        self.last_item = evidence.last_item
        self.tables: dict[str, Any] = {
            name: copy.deepcopy(getattr(evidence.database, name)) for name in Database.__dataclass_fields__
        }

    def __getattr__(self, table: str) -> list[dict[str, Any]]:
        return self.tables[table]

    def evidence(self) -> Evidence:
        return Evidence(self.lines, Database(**self.tables), self.last_item)

    def only(self, kind: str, **facts: Any) -> list[Line]:
        return [
            line
            for line in self.lines
            if line.kind == kind and all(line.get(name) == value for name, value in facts.items())
        ]

    def drop(self, kind: str, **facts: Any) -> None:
        gone = {id(line) for line in self.only(kind, **facts)}
        assert gone, (kind, facts)
        self.lines = [line for line in self.lines if id(line) not in gone]

    def change(self, line: Line, mono: int | None = None, **facts: Any) -> None:
        place = next(place for place, other in enumerate(self.lines) if other is line)
        self.lines[place] = replace(line, mono=mono or line.mono, facts=line.facts | facts)

    def add(self, like: Line, mono: int, **facts: Any) -> None:
        self.lines.append(replace(like, mono=mono, facts=like.facts | facts))

    def trigger(self, name: str) -> dict[str, Any]:
        return next(row for row in self.schedules if row["name"] == name)

    def run(self, item: int) -> dict[str, Any]:
        return next(row for row in self.runs if json.loads(row["context"]).get("item") == item)

    def task(self, item: int, name: str) -> dict[str, Any]:
        row = self.run(item)["row"]
        return next(task for task in self.tasks if (task["run"], task["name"]) == (row, name))

    def beats(self) -> list[dict[str, Any]]:
        """Runs of the second trigger with one context, of which there are most."""
        runs = [run for run in self.runs if run["workflow"] == "beat"]
        ((most, _),) = Counter(run["context_hash"] for run in runs).most_common(1)
        return [run for run in runs if run["context_hash"] == most]

    def turns(self) -> list[dict[str, Any]]:
        """Runs of the second trigger, which take turns."""
        return sorted((run for run in self.runs if run["workflow"] == "beat"), key=lambda run: run["row"])

    def done_before(self) -> int:
        """An item that was done at the earlier moment already."""
        assert self.before is not None
        runs = self.before.database.runs_by(items.INBOX)
        return next(json.loads(run["context"])["item"] for run in runs if run["status"] == "Completed")

    def end(self) -> int:
        return max(line.mono for line in self.lines) + 1

    def set_cursor(self, item: int) -> None:
        self.trigger(items.INBOX)["cursor"] = json.dumps({"item": item, "offset": 0})


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evidence, Evidence]:
    """Two moments of a file: after a kill, and when all is done."""
    with Stage(tmp_path_factory.mktemp("story") / "stage") as stage:
        stage.feed(20)
        life = stage.start("--pace", "0.2")
        # Of four beats, which come in three kinds, two are equal.
        for task, count in (("store", 4), ("strike", 4)):
            stage.until(
                lambda task=task, count=count: (
                    sum(line["task"] == task for line in life.lines("success")) >= count
                )
            )
        life.kill()
        before = stage.look()
        stage.feed(20)
        stage.finish()
        return before, stage.look()


def test_true_evidence_passes(story: tuple[Evidence, Evidence]) -> None:
    before, after = story
    assert complaints(ALWAYS, before) == []
    assert complaints((*ALWAYS, *AT_REST), after) == []
    assert complaints(SINCE, before, after) == []
    assert [line.kind for line in before.lines].count("killed") == 1
    assert any(run["completed_at"] is None for run in before.database.runs), "the kill interrupted nothing"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path / "stage") as stage:
        yield stage


ITEM = 6
"""Flaky, neither broken nor passed over."""
BROKEN = 5
REOPENED = {"task": items.REOPENED, "run": "reopened", "attempt": 1}


def drop_run(draft: Draft) -> None:
    draft.runs.remove(draft.run(ITEM))


def orphan_key(draft: Draft) -> None:
    draft.run_keys[0]["run"] = "nobody"


def second_run_of_a_key(draft: Draft) -> None:
    draft.runs.append(draft.run(ITEM) | {"row": 10**6, "id": "another"})


def lost_key(draft: Draft) -> None:
    del draft.run_keys[3]


def unsound(draft: Draft) -> None:
    draft.tables["integrity"] = ["row 3 missing from index runs_hash"]


def cursor_behind(draft: Draft) -> None:
    draft.set_cursor(39)


def cursor_far_behind(draft: Draft) -> None:
    draft.set_cursor(1)


def unseen_pass(draft: Draft) -> None:
    draft.drop("pass", item=7)


def passed_over_but_run(draft: Draft) -> None:
    run = draft.run(ITEM)
    draft.runs.append(run | {"row": 10**6, "id": "another", "run_key": None, "context": '{"item":7}'})


def twins(draft: Draft) -> None:
    draft.beats()[0]["completed_at"] = None


def overlapping_twins(draft: Draft) -> None:
    one, other = draft.beats()[:2]
    other["started_at"] = one["completed_at"] - 1


def unfinished_beat(draft: Draft) -> None:
    draft.turns()[0]["completed_at"] = None


def early_beat(draft: Draft) -> None:
    one, other = draft.turns()[:2]
    other["started_at"] = one["completed_at"] - 1


def unkept_dependency(draft: Draft) -> None:
    draft.tables["tasks"].remove(draft.task(ITEM, "fetch"))


def unkept_success(draft: Draft) -> None:
    draft.task(ITEM, "index")["status"] = "Running"


def unkept_run(draft: Draft) -> None:
    draft.runs.remove(draft.run(40))
    draft.set_cursor(39)


def run_of_another(draft: Draft) -> None:
    draft.run(ITEM)["context"] = '{"item":1}'


def bodiless_success(draft: Draft) -> None:
    draft.drop("end", item=ITEM, task="store")


def success_of_a_failed_attempt(draft: Draft) -> None:
    draft.task(ITEM, "parse")["attempt"] = 1


def repeated_success(draft: Draft) -> None:
    start = draft.only("start", item=ITEM, task="store")[-1]
    draft.add(start, draft.end(), attempt=start["attempt"] + 1)


def repeated_dependency(draft: Draft) -> None:
    start = draft.only("start", item=ITEM, task="fetch")[-1]
    end = draft.only("end", item=ITEM, task="fetch")[-1]
    draft.add(start, draft.end(), attempt=start["attempt"] + 1)
    draft.add(end, draft.end(), attempt=start["attempt"] + 1)
    draft.task(ITEM, "fetch")["attempt"] = start["attempt"] + 1


def same_number_twice(draft: Draft) -> None:
    start = draft.only("start", item=ITEM, task="store")[-1]
    draft.add(start, start.mono + 1)


def overlapping_attempts(draft: Draft) -> None:
    starts = draft.only("start", item=ITEM, task="parse")
    first_end = draft.only("end", item=ITEM, task="parse")[0]
    draft.change(first_end, mono=starts[1].mono + 1)


def attempt_beside_an_endless_one(draft: Draft) -> None:
    """The first attempt's body never returned, and its process lived on and closed in good order."""
    first = draft.only("start", item=ITEM, task="parse")[0]
    draft.drop("end", item=ITEM, task="parse", attempt=first["attempt"])
    draft.lines.append(replace(first, kind="close", mono=draft.end(), facts={}))


def overlapping_attempts_of_a_reopened_run(draft: Draft) -> None:
    """Both have the number 1, as a run that is opened again counts anew."""
    start = draft.only("start", item=ITEM, task="parse")[0]
    end = draft.only("end", item=ITEM, task="parse")[0]
    middle = (start.mono + end.mono) // 2
    for pid, mono in ((start.pid, start.mono), (1, middle)):
        draft.lines.append(replace(start, pid=pid, mono=mono, facts=start.facts | REOPENED))
    for pid, mono in ((start.pid, end.mono), (1, end.mono + 1)):
        draft.lines.append(replace(end, pid=pid, mono=mono, facts=end.facts | REOPENED))


def attempts_of_a_reopened_run_in_turn(draft: Draft) -> None:
    start = draft.only("start", item=ITEM, task="parse")[0]
    end = draft.only("end", item=ITEM, task="parse")[0]
    for turn in range(3):
        later = turn * (end.mono - start.mono + 1)
        draft.lines.append(replace(start, mono=start.mono + later, facts=start.facts | REOPENED))
        draft.lines.append(replace(end, mono=end.mono + later, facts=end.facts | REOPENED))


def overlapping_polls(draft: Draft) -> None:
    poll = draft.only("poll", trigger=items.INBOX)[-1]
    draft.add(poll, poll.mono + 1)


def overlapping_polls_of_another_process(draft: Draft) -> None:
    poll = draft.only("poll", trigger=items.BEAT)[-1]
    draft.lines.append(replace(poll, pid=1, mono=poll.mono + 1))


def stale_cursor(draft: Draft) -> None:
    last = draft.only("poll", trigger=items.INBOX)[-1]
    draft.change(last, cursor=last["cursor"] - 1)


def cursor_from_nowhere(draft: Draft) -> None:
    last = draft.only("poll", trigger=items.INBOX)[-1]
    draft.change(last, cursor=41)


def cursor_unmoved_in_life(draft: Draft) -> None:
    second = draft.only("poll", trigger=items.INBOX)[1]
    assert second["cursor"] > 0
    draft.change(second, cursor=0)


def lost_cursor(draft: Draft) -> None:
    draft.set_cursor(30)


def untold_success(draft: Draft) -> None:
    draft.drop("success", item=ITEM, task="store")


def untold_failure(draft: Draft) -> None:
    draft.drop("failure", item=BROKEN)


def late_callback(draft: Draft) -> None:
    for line in draft.only("success", item=ITEM, task="parse"):
        draft.change(line, mono=draft.end())


def invented_polls(draft: Draft) -> None:
    draft.ticks[0]["count"] += len(draft.only("poll"))


def uncounted_polls(draft: Draft) -> None:
    """All that the kill may have lost, and one more."""
    for name in (items.INBOX, items.BEAT):
        row = draft.trigger(name)["row"]
        ticks = [tick for tick in draft.ticks if tick["schedule"] == row]
        killed = {line.pid for line in draft.only("killed")}
        kept = sum(line.pid not in killed for line in draft.only("polled", trigger=name))
        ticks[0]["count"] -= sum(tick["count"] for tick in ticks) - kept


def shared_epoch(draft: Draft) -> None:
    draft.owners.pop()


def unknown_epoch(draft: Draft) -> None:
    draft.runs[0]["owner"] = 99


def told_otherwise(draft: Draft) -> None:
    (line,) = draft.only("tell", of_run=draft.run(ITEM)["id"])[-1:]
    draft.change(line, status="Failed")


def told_of_no_run(draft: Draft) -> None:
    (line,) = draft.only("tell", of_run=draft.run(ITEM)["id"])[-1:]
    draft.change(line, of_run="nobody's")


def told_twice(draft: Draft) -> None:
    (line,) = draft.only("tell", of_run=draft.run(ITEM)["id"])[-1:]
    draft.add(line, line.mono + 1)


SPOILT: dict[str, list[Tamper]] = {
    "the_file_is_sound": [unsound, orphan_key, drop_run],
    "a_tick_is_whole": [drop_run, cursor_behind, cursor_far_behind, unseen_pass, passed_over_but_run],
    "a_run_key_starts_one_run": [second_run_of_a_key, lost_key],
    "equal_runs_do_not_overlap": [twins, overlapping_twins],
    "beats_take_turns": [unfinished_beat, early_beat],
    "what_a_body_saw_was_kept": [unkept_dependency, unkept_success, unkept_run, run_of_another],
    "a_success_has_a_body": [bodiless_success, success_of_a_failed_attempt],
    "a_success_is_not_repeated": [repeated_success, repeated_dependency],
    "an_attempt_has_a_number_of_its_own": [same_number_twice],
    "attempts_do_not_overlap": [
        overlapping_attempts,
        attempt_beside_an_endless_one,
        overlapping_attempts_of_a_reopened_run,
    ],
    "polls_do_not_overlap": [overlapping_polls, overlapping_polls_of_another_process],
    "a_poll_sees_the_last_cursor": [stale_cursor, cursor_from_nowhere, cursor_unmoved_in_life, lost_cursor],
    "a_final_outcome_was_told": [untold_success, untold_failure, late_callback],
    "polls_are_counted": [invented_polls, uncounted_polls],
    "an_epoch_has_one_owner": [shared_epoch, unknown_epoch],
    "a_callback_sees_what_is_kept": [told_otherwise, told_of_no_run],
    "an_end_is_told_again_only_after_a_death": [told_twice],
}


def unfinished_run(draft: Draft) -> None:
    draft.run(ITEM)["completed_at"] = None


def unfinished_task(draft: Draft) -> None:
    draft.task(ITEM, "store")["status"] = "Running"


def more_in_the_source(draft: Draft) -> None:
    draft.last_item += 1


def wrong_result(draft: Draft) -> None:
    draft.run(ITEM)["final_context"] = json.dumps(items.result_of(ITEM, draft.run(ITEM)["id"]) | {"size": 0})


def wrong_failure(draft: Draft) -> None:
    draft.run(ITEM)["status"] = "Failed"


def wrong_success(draft: Draft) -> None:
    draft.run(BROKEN)["status"] = "Completed"


def failed_beat(draft: Draft) -> None:
    draft.beats()[0]["status"] = "Failed"


def ghost(draft: Draft) -> None:
    draft.owners[0]["left_at"] = None


def untold_end(draft: Draft) -> None:
    draft.drop("told", of_run=draft.run(ITEM)["id"])


def end_in_the_outbox(draft: Draft) -> None:
    draft.ends.append({"run": draft.run(ITEM)["row"], "number": 1})


SPOILT_AT_REST: dict[str, list[Tamper]] = {
    "no_run_is_unfinished": [unfinished_run, unfinished_task],
    "the_source_is_served": [more_in_the_source],
    "outcomes_are_right": [wrong_result, wrong_failure, wrong_success, failed_beat],
    "everybody_has_left": [ghost],
    "every_end_was_told": [untold_end, end_in_the_outbox],
}


def another_end(draft: Draft) -> None:
    draft.run(draft.done_before())["final_context"] = "{}"


def another_success(draft: Draft) -> None:
    draft.task(draft.done_before(), "fetch")["attempt"] += 1


def cursor_back(draft: Draft) -> None:
    draft.set_cursor(1)


def forgotten_key(draft: Draft) -> None:
    draft.run_keys.clear()


def begun_again(draft: Draft) -> None:
    draft.add(draft.only("start", item=draft.done_before(), task="fetch")[-1], draft.end())


def epoch_given_again(draft: Draft) -> None:
    draft.owners[-1]["epoch"] = -1


def owner_not_kept(draft: Draft) -> None:
    draft.tables["owners"] = draft.owners[:1]
    draft.tables["taken_at"] = draft.end()


def told_again(draft: Draft) -> None:
    assert draft.before is not None
    # Whether the kill left some to be told is a matter of chance.
    draft.before = replace(draft.before, database=replace(draft.before.database, ends=[]))
    run = draft.run(draft.done_before())
    line = draft.only("tell", of_run=run["id"])[0]
    draft.add(line, draft.end())


SPOILT_SINCE: dict[str, list[Tamper]] = {
    "what_was_final_stays": [another_end, another_success, cursor_back, forgotten_key],
    "what_was_done_is_not_begun": [begun_again],
    "owners_are_only_added": [epoch_given_again, owner_not_kept],
    "what_was_told_is_not_told_again": [told_again],
}


def cases(spoilt: dict[str, list[Tamper]]) -> list[Any]:
    return [
        pytest.param(rule, tamper, id=f"{rule}-{tamper.__name__}")
        for rule, tampers in spoilt.items()
        for tamper in tampers
    ]


def named(found: list[str]) -> set[str]:
    return {text.split(":")[0] for text in found}


@pytest.mark.parametrize(("rule", "tamper"), cases(SPOILT))
def test_a_breach_of_what_always_holds_is_found(
    story: tuple[Evidence, Evidence], rule: str, tamper: Tamper
) -> None:
    draft = Draft(story[1])
    tamper(draft)
    assert rule in named(complaints(ALWAYS, draft.evidence()))


def test_attempts_of_one_number_in_turn_are_no_overlap(story: tuple[Evidence, Evidence]) -> None:
    draft = Draft(story[1])
    attempts_of_a_reopened_run_in_turn(draft)
    assert "attempts_do_not_overlap" not in named(complaints(ALWAYS, draft.evidence()))


@pytest.mark.parametrize(("rule", "tamper"), cases(SPOILT_AT_REST))
def test_a_breach_of_what_holds_at_rest_is_found(
    story: tuple[Evidence, Evidence], rule: str, tamper: Tamper
) -> None:
    draft = Draft(story[1])
    tamper(draft)
    assert rule in named(complaints(AT_REST, draft.evidence()))


@pytest.mark.parametrize(("rule", "tamper"), cases(SPOILT_SINCE))
def test_a_change_of_what_was_final_is_found(
    story: tuple[Evidence, Evidence], rule: str, tamper: Tamper
) -> None:
    draft = Draft(story[1], story[0])
    tamper(draft)
    assert draft.before is not None
    assert rule in named(complaints(SINCE, draft.before, draft.evidence()))


def test_every_rule_has_a_way_of_being_broken() -> None:
    for rules, spoilt in ((ALWAYS, SPOILT), (AT_REST, SPOILT_AT_REST), (SINCE, SPOILT_SINCE)):
        assert {rule.__name__ for rule in rules} == set(spoilt)


def test_a_damaged_file_is_found(stage: Stage) -> None:
    stage.feed(5)
    stage.finish()
    assert Database.read(stage.database).integrity == ["ok"]
    # The cells of the table of tasks are listed where their keys do not belong. All of them, because the last
    # one may be what a change has left behind.
    stage.database.write_bytes(stage.database.read_bytes().replace(b"fetch", b"zetch"))
    assert Database.read(stage.database).integrity != ["ok"]


def test_a_file_that_is_set_back_to_an_earlier_state_is_found(stage: Stage) -> None:
    """As if the commits since then had never reached the disk."""
    stage.feed(20)
    life = stage.start()
    stage.until(lambda: sum(line["task"] == "store" for line in life.lines("success")) > 3)
    life.kill()
    assert stage.check() == []
    early = {suffix: Path(f"{stage.database}{suffix}").read_bytes() for suffix in ("", "-wal")}
    stage.feed(20)
    life = stage.start()
    stage.until(lambda: sum(line["task"] == "store" for line in life.lines("success")) > 8)
    life.kill()
    assert stage.check() == []
    for suffix, data in early.items():
        Path(f"{stage.database}{suffix}").write_bytes(data)
    found = named(stage.check())
    assert {"what_was_final_stays", "what_a_body_saw_was_kept", "a_poll_sees_the_last_cursor"} <= found
    stage.finish()
    assert {"a_success_is_not_repeated", "an_attempt_has_a_number_of_its_own"} & named(stage.check_at_rest())


def test_looking_at_the_file_leaves_its_log_as_it_was(stage: Stage) -> None:
    stage.feed(5)
    life = stage.start()
    life.until("success")
    life.kill()
    before = [Path(f"{stage.database}{suffix}").read_bytes() for suffix in ("", "-wal")]
    assert len(before[1]) > 0
    stage.look()
    assert [Path(f"{stage.database}{suffix}").read_bytes() for suffix in ("", "-wal")] == before


def test_a_testimony_is_read_as_it_grows(tmp_path: Path) -> None:
    witness, testimony = Witness(tmp_path / "witness"), Testimony(tmp_path / "witness")
    witness.note("start", task="fetch", item=1)
    assert [line["task"] for line in testimony.read()] == ["fetch"]
    with (tmp_path / "witness").open("a") as half:
        half.write('{"kind":"end","pid":1,')
    assert len(testimony.read()) == 1, "half a line is not read"
    with (tmp_path / "witness").open("a") as half:
        half.write('"mono":1,"wall":1}\n')
    assert testimony.read()[-1] == Line("end", 1, 1, 1)
    with (tmp_path / "witness").open("a") as half:
        half.write("nonsense\n")
    with pytest.raises(ValueError, match="Expecting value"):
        testimony.read()
