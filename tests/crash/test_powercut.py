"""The power goes: of what the program wrote, all that it had synced is there, and anything of the rest.

A recorder that is preloaded into the program writes down its writes, syncs and truncations of the database
and its log, and between them the lines of the witness. A power cut is any place in that record: writes before
the file's last sync are on the disk, of each later one any of its sectors may be. What the witness had seen
by then must be in the database: that is what `durability="full"` says.

Not modelled: a disk that confirms a sync and forgets nevertheless, and the loss of a directory's entry of a
file just made.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from checker import (
    ALWAYS,
    AT_REST,
    Database,
    Evidence,
    a_poll_sees_the_last_cursor,
    a_run_key_starts_one_run,
    a_tick_is_whole,
    beats_take_turns,
    complaints,
    equal_runs_do_not_overlap,
    the_file_is_sound,
    what_a_body_saw_was_kept,
)
from lives import HERE, Stage
from witness import Line, line_of

SEED = int(os.environ.get("CLOACA_SEED", str(time.time_ns() % 10**9)))
CUTS = int(os.environ.get("CLOACA_CUTS", "40"))
"""So many places of a record are tried, each with other losses."""
SECTOR = 512
ITEMS = 100
HEAD = struct.Struct("<ccqq")
CONSISTENT = (
    the_file_is_sound,
    a_tick_is_whole,
    a_run_key_starts_one_run,
    equal_runs_do_not_overlap,
    beats_take_turns,
)
"""What holds of any state that ever was committed."""


@dataclass(frozen=True)
class Act:
    """One call that the program made."""

    what: str
    file: str
    offset: int
    length: int
    data: bytes


def acts_of(path: Path) -> list[Act]:
    """What the recorder wrote down."""
    record, acts, place = path.read_bytes(), [], 0
    while place < len(record):
        what, file, offset, length = HEAD.unpack_from(record, place)
        place += HEAD.size
        data = record[place : place + length] if what == b"w" else b""
        place += len(data)
        acts.append(Act(what.decode(), file.decode(), offset, length, data))
    return acts


@dataclass
class Disk:
    """One file: what is certainly on the disk, and what may be."""

    certain: bytearray = field(default_factory=bytearray)
    pending: list[Act] = field(default_factory=list)

    def do(self, act: Act) -> None:
        if act.what != "s":
            self.pending.append(act)
            return
        for earlier in self.pending:
            apply(self.certain, earlier)
        self.pending = []

    def after_a_cut(self, chance: random.Random) -> bytes:
        """What may be there when the power is back."""
        found = bytearray(self.certain)
        share = chance.choice([0.0, 0.5, 0.9, 1.0])
        for act in self.pending:
            if act.what != "w":
                if chance.random() < share:
                    apply(found, act)
                continue
            end = act.offset + act.length
            bounds = [act.offset, *range(act.offset // SECTOR * SECTOR + SECTOR, end, SECTOR), end]
            for start, stop in pairwise(bounds):
                if chance.random() < share:
                    data = act.data[start - act.offset : stop - act.offset]
                    apply(found, Act("w", act.file, start, stop - start, data))
        return bytes(found)


def apply(content: bytearray, act: Act) -> None:
    """Changes a file's content as the call did."""
    if act.what == "w":
        content.extend(bytes(max(0, act.offset - len(content))))
        content[act.offset : act.offset + act.length] = act.data
    elif act.what == "t":
        content.extend(bytes(max(0, act.length - len(content))))
        del content[act.length :]
    else:
        content.clear()


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library to preload."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler here")
    library = tmp_path_factory.mktemp("recorder") / "recorder.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "recorder.c", "-ldl"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"the recorder cannot be built here: {made.stderr}")
    return library


def recorded(stage: Stage, recorder: Path, durability: str) -> list[Act]:
    """All that a whole life of the program does."""
    record = stage.folder / "record"
    names = {"RECORD_DATABASE": stage.database, "RECORD_WITNESS": stage.witness, "RECORD_TO": record}
    env = os.environ | {name: str(path) for name, path in names.items()} | {"LD_PRELOAD": str(recorder)}
    stage.feed(ITEMS)
    options = ("--goal", ITEMS, "--pace", 0, "--durability", durability)
    stage.start(*options, env=env).end()
    return acts_of(record)


@dataclass
class Cut:
    """What is there after the power went at some place."""

    place: int
    lines: list[Line]
    stage: Stage

    def evidence(self) -> Evidence:
        database = Database.read(self.stage.database, self.lines[-1].mono if self.lines else 0)
        return Evidence(self.lines, database, self.stage.last_item)


def cuts_of(acts: list[Act], folder: Path, chance: random.Random) -> Iterator[Cut]:
    """The same program's files, cut off at many places."""
    files = {"d": Disk(), "l": Disk()}
    lines: list[Line] = []
    places = sorted(chance.sample(range(len(acts)), min(CUTS, len(acts))))
    for place, act in enumerate(acts):
        if act.file == "w":
            lines.append(line_of(act.data))
        else:
            files[act.file].do(act)
        if place in places:
            stage = Stage(folder / f"cut-{place}")
            stage.feed(ITEMS)
            stage.database.write_bytes(files["d"].after_a_cut(chance))
            if log := files["l"].after_a_cut(chance):
                Path(f"{stage.database}-wal").write_bytes(log)
            stage.witness.write_text("".join(line.text() for line in lines))
            yield Cut(place, list(lines), stage)


def test_nothing_that_was_acted_upon_is_lost_with_the_power(tmp_path: Path, recorder: Path) -> None:
    chance = random.Random(SEED)
    with Stage(tmp_path / "whole") as stage:
        acts = recorded(stage, recorder, "full")
        assert stage.check_at_rest() == []
    assert sum(act.file == "d" and act.what == "s" for act in acts) >= 2, "no checkpoint to be cut"
    for number, cut in enumerate(cuts_of(acts, tmp_path, chance)):
        told = f"CLOACA_SEED={SEED}, cut {cut.place} of {len(acts)} in {cut.stage.folder}"
        assert complaints(ALWAYS, cut.evidence()) == [], told
        if number % max(1, CUTS // 5) == 0:
            with cut.stage as stage:
                stage.finish()
                assert stage.check_at_rest() == [], told
        shutil.rmtree(cut.stage.folder)


def test_with_normal_durability_only_the_last_moments_are_lost_with_the_power(
    tmp_path: Path, recorder: Path
) -> None:
    chance = random.Random(SEED)
    with Stage(tmp_path / "whole") as stage:
        acts = recorded(stage, recorder, "normal")
    lost = 0
    for number, cut in enumerate(cuts_of(acts, tmp_path, chance)):
        told = f"CLOACA_SEED={SEED}, cut {cut.place} of {len(acts)} in {cut.stage.folder}"
        assert complaints(CONSISTENT, cut.evidence()) == [], told
        lost += bool(complaints((what_a_body_saw_was_kept, a_poll_sees_the_last_cursor), cut.evidence()))
        if number % max(1, CUTS // 3) == 0:
            with cut.stage as stage:
                stage.finish()
                assert complaints((*CONSISTENT, *AT_REST), stage.look()) == [], told
        shutil.rmtree(cut.stage.folder)
    assert lost > 0, "a cut that loses nothing shows nothing of the other test either"


def test_a_torn_log_is_cut_back_to_a_state_that_once_was(tmp_path: Path) -> None:
    """Sectors of the log are zeroed, filled with something else, or missing, as no disk that obeys a sync
    would do."""
    chance = random.Random(SEED)
    with Stage(tmp_path / "whole") as stage:
        stage.feed(30)
        life = stage.start("--pace", 0.001)
        stage.until(lambda: sum(line["task"] == "store" for line in life.lines("success")) > 15)
        life.kill()
        whole = Path(f"{stage.database}-wal").read_bytes()
        for number in range(24):
            told = f"CLOACA_SEED={SEED}, tear {number}"
            torn = Stage(tmp_path / f"torn-{number}")
            torn.feed(30)
            shutil.copyfile(stage.database, torn.database)
            Path(f"{torn.database}-wal").write_bytes(tear(whole, chance))
            shutil.copyfile(stage.witness, torn.witness)
            assert complaints(CONSISTENT, torn.look()) == [], told
            if number % 8 == 0:
                with torn:
                    torn.finish()
                    assert complaints((*CONSISTENT, *AT_REST), torn.look()) == [], told


def tear(log: bytes, chance: random.Random) -> bytes:
    """The log with its end missing or some of its sectors spoilt."""
    if chance.random() < 0.5:
        return log[: chance.randrange(len(log))]
    torn = bytearray(log)
    for _ in range(chance.randrange(1, 8)):
        place = chance.randrange(len(log)) // SECTOR * SECTOR
        junk = bytes(SECTOR) if chance.random() < 0.5 else chance.randbytes(SECTOR)
        torn[place : place + SECTOR] = junk
    return bytes(torn[: len(log)])
