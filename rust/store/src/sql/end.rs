//! Ends of runs that callbacks and triggers are to be told of. They are written down by a trigger of the database, so that no statement can end a run
//! without it.
//! Invariant: one owner has an end in hand at a time, and only that one says what came of it.
//! Longer than a room should be: who writes an end down and who has it in hand keep the same columns.

use std::collections::BTreeSet;

use cloaca_core::fate;
use cloaca_core::grid::Wait;
use cloaca_core::key::{EndKey, Epoch, RunRow, ScheduleKey};
use cloaca_core::port::{
    AsItWas, Call, CallFate, End, Ending, LastCall, OnRun, Outcomes, RunStatus, Settled, Skipped, Told,
    Unwanted,
};
use cloaca_core::time::Wall;
use uuid::Uuid;

use super::db::{self, Db, OptionalExtension as _, Row, named_params};
use super::dialect::{for_update, heed_listeners, listed, names_of, now, pause_after_death, skip_locked};
use super::fault::Failure;
use super::history;
use super::value::{id_at, signed, wall_at, wall_maybe_at};

/// That a callback is not to be told of it any more: its run has been opened again since.
macro_rules! is_past {
    () => {
        "listener = 0 AND number <= (SELECT reopened FROM runs WHERE runs.row = ends.run)"
    };
}

/// What stands with a run of an end that is settled: what its last failed call raised, then the fate.
macro_rules! settled {
    ($error:literal, $fate:expr) => {
        concat!(
            "told_outcome = ends.outcome, told_calls = ends.tries, told_error = ",
            $error,
            ", told_as = ",
            $fate
        )
    };
}

/// Ends of a workflow that waited for a callback which nobody declares any more.
macro_rules! unwanted {
    () => {
        "ends.listener = 0 AND ends.workflow = :name AND ends.owner IS NULL AND EXISTS (
            SELECT 1 FROM listeners
            WHERE listeners.workflow = :name AND listeners.listener = 0 AND (listeners.outcomes & ends.outcome) = 0)"
    };
}

/// What the callbacks of a workflow are to be told of from now on: all that those want who declare it. What nobody wants any more is still written
/// down: who wanted it may only be away, while another program serves the workflow that knows no callbacks. While nobody declares it, it stays as
/// it was. Where no clock is handed in the store's own tells when. `anew` says that somebody has come to declare it: since when it is unwanted
/// counts from then on, or who starts first after a night would find it long unwanted.
pub fn renew_all(db: &Db, names: &[String], at: Option<Wall>, anew: bool) -> Result<(), Failure> {
    const ANY: &str = "
        SELECT 1 WHERE EXISTS (SELECT 1 FROM listeners WHERE listener = 0)
            OR EXISTS (SELECT 1 FROM workflows WHERE tells <> 0)";
    match db.prepare_cached(ANY)?.exists([])? {
        true => renew(db, names, at, anew),
        false => Ok(()),
    }
}

/// The same, also where nobody is told anything.
fn renew(db: &Db, names: &[String], at: Option<Wall>, anew: bool) -> Result<(), Failure> {
    const PUT: &str = concat!(
        "
        INSERT INTO listeners (workflow, listener, outcomes, wanted)
        SELECT name, 0, max(tells & 1) | max(tells & 2) | max(tells & 4), max(tells & 1) | max(tells & 2) | max(tells & 4)
        FROM workflows WHERE name = :name GROUP BY name
        ON CONFLICT (workflow, listener) DO UPDATE SET outcomes = listeners.outcomes | excluded.outcomes, wanted = excluded.wanted,
            unwanted_since = CASE WHEN (listeners.outcomes | excluded.outcomes) <> excluded.outcomes
                THEN coalesce(CASE WHEN :anew THEN NULL ELSE listeners.unwanted_since END, :at, ",
        now!(),
        ") END"
    );
    for name in names {
        let params = named_params! { ":name": name, ":at": at.map(|at| at.0), ":anew": anew };
        db.prepare_cached(PUT)?.execute(params)?;
        db.prepare_cached(NOTHING)?.execute(named_params! { ":name": name })?;
    }
    heed_listeners(db)
}

/// Callbacks of a workflow that want nothing, and wanted nothing lately.
const NOTHING: &str = "DELETE FROM listeners WHERE workflow = :name AND listener = 0 AND outcomes = 0 AND unwanted_since IS NULL";

/// That somebody declares the workflow, and nobody wants all that is written down of it.
macro_rules! is_unwanted {
    () => {
        "listener = 0 AND unwanted_since IS NOT NULL AND EXISTS (SELECT 1 FROM workflows WHERE name = listeners.workflow)"
    };
}

/// The workflows with callbacks that nobody declares, though somebody declares the workflow.
pub fn unwanted(db: &Db) -> Result<Vec<Unwanted>, Failure> {
    // Walks all listeners, of which there are few.
    const SQL: &str = concat!("SELECT workflow, unwanted_since FROM listeners WHERE ", is_unwanted!());
    let mut statement = db.prepare_cached(SQL)?;
    let found =
        statement.query_map([], |row| Ok(Unwanted { workflow: row.get(0)?, since: wall_at(row, 1)? }))?;
    Ok(found.collect::<db::Result<_>>()?)
}

/// Those of these that are so still, and since the same time, are told of no more, and what waited for them is told to nobody: of each how many ends
/// that was.
pub fn drop_unwanted(db: &Db, unwanted: &[Unwanted], at: Wall) -> Result<Vec<(String, u64)>, Failure> {
    const LESS: &str = concat!(
        "UPDATE listeners SET outcomes = wanted, unwanted_since = NULL WHERE workflow = :name AND unwanted_since = :since AND ",
        is_unwanted!()
    );
    // Index ends_due.
    const KEEP: &str = concat!(
        "UPDATE runs SET ",
        settled!("ends.error", "'dropped', told_at = :at"),
        " FROM ends WHERE runs.row = ends.run AND ",
        unwanted!()
    );
    const WITHDRAW: &str = concat!("DELETE FROM ends WHERE ", unwanted!());
    let mut withdrawn = Vec::new();
    for Unwanted { workflow: name, since } in unwanted {
        let params = named_params! { ":name": name, ":since": since.0 };
        if db.prepare_cached(LESS)?.execute(params)? == 0 {
            continue;
        }
        db.prepare_cached(KEEP)?.execute(named_params! { ":name": name, ":at": at.0 })?;
        let many = db.prepare_cached(WITHDRAW)?.execute(named_params! { ":name": name })?;
        db.prepare_cached(NOTHING)?.execute(named_params! { ":name": name })?;
        if many > 0 {
            withdrawn.push((name.clone(), many as u64));
        }
    }
    heed_listeners(db)?;
    Ok(withdrawn)
}

/// The workflows of which `epoch` is to tell ends to callbacks.
pub fn told_by(db: &Db, epoch: Epoch) -> Result<Vec<String>, Failure> {
    let mut statement =
        db.prepare_cached("SELECT name FROM workflows WHERE owner = :epoch AND tells <> 0")?;
    let names = statement.query_map(named_params! { ":epoch": epoch.0 }, |row| row.get(0))?;
    Ok(names.collect::<db::Result<_>>()?)
}

/// The ends of which `:epoch` is to tell, and nobody has one in hand.
macro_rules! waiting {
    () => {
        "FROM workflows JOIN ends ON ends.workflow = workflows.name
        WHERE workflows.owner = :epoch AND (workflows.tells & outcome) <> 0 AND listener = 0 AND ends.owner IS NULL"
    };
}

/// And not of a workflow of which as many are told as may be at once.
macro_rules! not_full {
    () => {
        concat!(" AND workflows.name NOT IN ", names_of!(":full"))
    };
}

/// What stands with an end whose last call came to nothing as its process ended: it may be what ended that.
const DIED: &str = "the process that called it ended";

/// That `:epoch` is calling one already beside which this one is not called: one of its workflow, or any if it is the second time for one of the two.
/// Mostly it was none of them that ended the process, and one that hangs holds up its workflow alone. One that did end it leaves all others behind at
/// the second time. One that hangs does not count for longer than a call leaves its place to another.
macro_rules! one_that_died_is_called {
    () => {
        "EXISTS (
            SELECT 1 FROM ends AS other
            WHERE other.owner = :epoch AND other.error = :died AND other.begun_at > :at - 60000000
                AND (other.workflow = ends.workflow OR other.tries > 2 OR ends.tries > 1))"
    };
}

/// That it waits since a clock was ahead: for longer from now than it was to wait at all. Machines' clocks differ, so that of who put it off, and is to
/// tell of it still, only that one says so: whose clock is behind would cut each wait of one whose clock is ahead, which then finds it over.
macro_rules! is_ahead {
    () => {
        "(due_at - pause_us > :at AND (ends.put_off_by = :epoch OR NOT EXISTS (
            SELECT 1 FROM workflows AS other
            WHERE other.name = ends.workflow AND other.owner = ends.put_off_by AND (other.tells & ends.outcome) <> 0)))"
    };
}

/// When the next end is due of which `epoch` is to tell. One that was written down, or put off, while the clock was ahead is due at once, so that
/// who takes what is due has it wait no longer than it was to.
pub fn next(db: &Db, epoch: Epoch, at: Wall, full: &[String]) -> Result<Option<Wall>, Failure> {
    // Index ends_due.
    const SQL: &str = concat!(
        "SELECT min(CASE WHEN ",
        is_ahead!(),
        " THEN :at ELSE due_at END) ",
        waiting!(),
        not_full!(),
        " AND (ends.error IS DISTINCT FROM :died OR NOT ",
        one_that_died_is_called!(),
        ")"
    );
    let params = named_params! { ":epoch": epoch.0, ":at": at.0, ":died": DIED, ":full": listed(full) };
    let due = db.prepare_cached(SQL)?.query_row(params, |row| row.get::<_, Option<i64>>(0))?;
    Ok(due.map(Wall))
}

/// What of an end is told to who takes it, of those that are due and for which this holds.
macro_rules! take {
    ($and:expr) => {
        concat!(
            "
            UPDATE ends SET owner = :epoch, tries = tries + 1, begun_at = :at
            WHERE row IN (
                SELECT ends.row ",
            waiting!(),
            not_full!(),
            " AND due_at <= :at AND ",
            $and,
            "
                ORDER BY due_at, ends.row LIMIT :limit",
            skip_locked!("ends"),
            ")
            RETURNING row, (SELECT id FROM runs WHERE runs.row = ends.run), workflow, number, outcome, tries,
                (SELECT completed_at FROM runs WHERE runs.row = ends.run)"
        )
    };
}

/// Hands at most `limit` of those that are due to `epoch`. Of those whose last call ended with its process one at a time of each workflow, and
/// from the second time on of all: one of them may end the next one as well, and whatever is called beside it.
pub fn take(db: &Db, epoch: Epoch, at: Wall, limit: u64, full: &[String]) -> Result<Vec<End>, Failure> {
    const CUT_AHEAD: &str = concat!(
        "UPDATE ends SET due_at = :at + pause_us, put_off_by = :epoch WHERE row IN (SELECT ends.row ",
        waiting!(),
        " AND ",
        is_ahead!(),
        skip_locked!("ends"),
        ")"
    );
    const SQL: &str = take!("ends.error IS DISTINCT FROM :died");
    const ONE: &str = take!(concat!("ends.error = :died AND NOT ", one_that_died_is_called!()));
    db.prepare_cached(CUT_AHEAD)?.execute(named_params! { ":epoch": epoch.0, ":at": at.0 })?;
    let mut taken: Vec<End> = Vec::new();
    for (sql, many) in [(SQL, limit), (ONE, 1)] {
        let room = limit.saturating_sub(taken.len() as u64).min(many);
        let mut statement = db.prepare_cached(sql)?;
        let params = named_params! {
            ":epoch": epoch.0, ":at": at.0, ":limit": signed(room), ":died": DIED, ":full": listed(full)
        };
        let rows = statement.query_map(params, end_of_row)?;
        taken.extend(rows.collect::<db::Result<Vec<End>>>()?);
    }
    taken.sort_by_key(|end| end.key);
    Ok(taken)
}

fn end_of_row(row: &Row) -> db::Result<End> {
    Ok(End {
        key: EndKey(row.get(0)?),
        run: id_at(row, 1)?,
        workflow: row.get(2)?,
        number: row.get(3)?,
        status: status_of(row.get(4)?),
        tries: row.get(5)?,
        ended_at: wall_maybe_at(row, 6)?,
    })
}

fn status_of(outcome: i64) -> RunStatus {
    Outcomes::from_bits(outcome).only().unwrap_or(RunStatus::Cancelled)
}

/// It has been told, or never will be.
pub fn told(db: &Db, epoch: Epoch, end: EndKey, settled: &Settled, at: Wall) -> Result<(), Failure> {
    const KEEP: &str = concat!(
        "UPDATE runs SET ",
        settled!(
            "CASE WHEN :fate = 'told' THEN NULL ELSE coalesce(:error, ends.error) END",
            ":fate, told_at = :at"
        ),
        " FROM ends WHERE ends.row = :row AND ends.owner = :epoch AND runs.row = ends.run"
    );
    const SQL: &str = "DELETE FROM ends WHERE row = :row AND owner = :epoch";
    if let Some(fate) = settled.fate() {
        db.prepare_cached(KEEP)?.execute(named_params! {
            ":fate": fate.name(),
            ":error": settled.error(),
            ":at": at.0,
            ":row": end.0,
            ":epoch": epoch.0,
        })?;
    }
    db.prepare_cached(SQL)?.execute(named_params! { ":row": end.0, ":epoch": epoch.0 })?;
    Ok(())
}

/// It was not told, as who took it has no callback for it any more: it waits for whoever has.
pub fn give_back(db: &Db, epoch: Epoch, end: EndKey, wait: Wait) -> Result<(), Failure> {
    const DROP: &str = concat!("DELETE FROM ends WHERE row = :row AND owner = :epoch AND ", is_past!());
    const SQL: &str = "
        UPDATE ends SET owner = NULL, begun_at = NULL, tries = tries - 1, due_at = :due, pause_us = :pause, put_off_by = NULL
        WHERE row = :row AND owner = :epoch RETURNING workflow";
    db.prepare_cached(DROP)?.execute(named_params! { ":row": end.0, ":epoch": epoch.0 })?;
    let mut statement = db.prepare_cached(SQL)?;
    let params = named_params! {
        ":row": end.0,
        ":epoch": epoch.0,
        ":due": wait.not_before.0,
        ":pause": wait.span_us,
    };
    let names = statement.query_map(params, |row| row.get(0))?;
    let names = names.collect::<db::Result<Vec<String>>>()?;
    renew(db, &names, Some(Wall(wait.not_before.0.saturating_sub(wait.span_us))), false)
}

/// The end of a run that waits for its callback, as a condition.
macro_rules! waits_for_call {
    () => {
        "ends.run = :run AND ends.listener = 0 AND ends.owner IS NULL"
    };
}

/// Whether the end of a run that waits for its callback is not due yet.
pub fn waits_longer(db: &Db, run: RunRow, at: Wall) -> Result<bool, Failure> {
    // Index ends_run.
    const SQL: &str = concat!("SELECT 1 FROM ends WHERE due_at > :at AND ", waits_for_call!());
    Ok(db.prepare_cached(SQL)?.exists(named_params! { ":run": run.0, ":at": at.0 })?)
}

/// The end of a run that waits for its callback is due; false if there is none.
pub fn call_soon(db: &Db, run: RunRow, at: Wall) -> Result<bool, Failure> {
    // Index ends_run.
    const SQL: &str =
        concat!("UPDATE ends SET due_at = :at, pause_us = 0, put_off_by = NULL WHERE ", waits_for_call!());
    Ok(db.prepare_cached(SQL)?.execute(named_params! { ":run": run.0, ":at": at.0 })? > 0)
}

/// The end of a run that waits for its callback is not told; false if there is none.
pub fn skip_call(db: &Db, run: RunRow, at: Wall) -> Result<bool, Failure> {
    // Index ends_run.
    const KEEP: &str = concat!(
        "UPDATE runs SET ",
        settled!("ends.error", "'skipped', told_at = :at"),
        " FROM ends WHERE runs.row = ends.run AND ",
        waits_for_call!()
    );
    const SQL: &str = concat!("DELETE FROM ends WHERE ", waits_for_call!());
    db.prepare_cached(KEEP)?.execute(named_params! { ":run": run.0, ":at": at.0 })?;
    Ok(db.prepare_cached(SQL)?.execute(named_params! { ":run": run.0 })? > 0)
}

/// What became of the last end of a run that a callback was to be told of.
pub fn last_of_run(db: &Db, run: RunRow) -> Result<Option<LastCall>, Failure> {
    const SQL: &str = "SELECT told_outcome, told_as, told_calls, told_at, told_error FROM runs WHERE row = :run AND told_at IS NOT NULL";
    let last = db.prepare_cached(SQL)?.query_row(named_params! { ":run": run.0 }, |row| {
        Ok(LastCall {
            status: status_of(row.get(0)?),
            fate: CallFate::from_name(&row.get::<_, String>(1)?).unwrap_or(CallFate::Told),
            tries: row.get(2)?,
            at: wall_at(row, 3)?,
            error: row.get(4)?,
        })
    });
    Ok(last.optional()?)
}

/// It is to be told again after `wait`, unless its run was opened again meanwhile: that end would be told in its place.
pub fn put_off(db: &Db, epoch: Epoch, end: EndKey, wait: Wait, error: &str) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE ends SET owner = NULL, begun_at = NULL, due_at = :due, pause_us = :pause, error = :error, put_off_by = :epoch
        WHERE row = :row AND owner = :epoch";
    const DROP: &str = concat!("DELETE FROM ends WHERE row = :row AND owner = :epoch AND ", is_past!());
    db.prepare_cached(DROP)?.execute(named_params! { ":row": end.0, ":epoch": epoch.0 })?;
    db.prepare_cached(SQL)?.execute(named_params! {
        ":row": end.0,
        ":epoch": epoch.0,
        ":due": wait.not_before.0,
        ":pause": wait.span_us,
        ":error": error,
    })?;
    Ok(())
}

/// An owner leaves or is gone: what it has in hand is anybody's, as far as it is to be told again, but for what is `kept`, which passes to `remnant`.
pub fn hand_on(db: &Db, epoch: Epoch, kept: &[EndKey], remnant: Option<Epoch>) -> Result<(), Failure> {
    const PASS: &str = "UPDATE ends SET owner = :remnant WHERE row = :row AND owner = :epoch";
    // Index ends_owner.
    const DROP: &str = concat!("DELETE FROM ends WHERE owner = :epoch AND ", is_past!());
    const FREE: &str = concat!(
        "UPDATE ends SET due_at = CASE WHEN tries > 1 THEN begun_at + ",
        pause_after_death!(),
        " ELSE due_at END, pause_us = CASE WHEN tries > 1 THEN ",
        pause_after_death!(),
        " ELSE pause_us END, owner = NULL, begun_at = NULL, error = :died, put_off_by = NULL WHERE owner = :epoch"
    );
    if let Some(remnant) = remnant {
        for end in kept {
            db.prepare_cached(PASS)?
                .execute(named_params! { ":row": end.0, ":epoch": epoch.0, ":remnant": remnant.0 })?;
        }
    }
    db.prepare_cached(DROP)?.execute(named_params! { ":epoch": epoch.0 })?;
    db.prepare_cached(FREE)?.execute(named_params! { ":epoch": epoch.0, ":died": DIED })?;
    Ok(())
}

/// A run is opened again: its callbacks hear nothing of the ends before, unless they are being told.
pub fn withdraw(db: &Db, run: RunRow) -> Result<(), Failure> {
    // Index ends_run.
    const SQL: &str = "DELETE FROM ends WHERE run = :run AND listener = 0 AND owner IS NULL";
    db.prepare_cached(SQL)?.execute(named_params! { ":run": run.0 })?;
    Ok(())
}

/// Of which ends of a run its callbacks are still to be told.
pub fn of_run(db: &Db, run: RunRow) -> Result<Vec<Call>, Failure> {
    // Index ends_run.
    const SQL: &str = "
        SELECT outcome, tries, due_at, error, owner, begun_at FROM ends
        WHERE run = :run AND listener = 0 ORDER BY number";
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map(named_params! { ":run": run.0 }, |row| {
        let owner = row.get::<_, Option<i64>>(4)?.map(Epoch);
        Ok(Call {
            status: status_of(row.get(0)?),
            tries: row.get(1)?,
            due_at: wall_at(row, 2)?,
            error: row.get(3)?,
            begun: owner.zip(wall_maybe_at(row, 5)?),
        })
    })?;
    Ok(rows.collect::<db::Result<_>>()?)
}

/// What is read of an end that a trigger is to be told of.
macro_rules! ending {
    ($from:expr) => {
        concat!(
            "SELECT ends.row, ends.listener, runs.id, number, outcome, ends.due_at, depth, number <= reopened, ends.context, cause ",
            $from
        )
    };
}

fn ending_of_row(row: &Row) -> db::Result<Ending> {
    let is_kept: bool = row.get(7)?;
    let kept = AsItWas { context: row.get(8)?, error: row.get(9)? };
    Ok(Ending {
        key: EndKey(row.get(0)?),
        listener: ScheduleKey(row.get(1)?),
        run: id_at(row, 2)?,
        number: row.get(3)?,
        status: status_of(row.get(4)?),
        ended_at: wall_at(row, 5)?,
        depth: row.get(6)?,
        kept: is_kept.then_some(kept),
    })
}

/// The first end in each state that a trigger asks for. What it was asked for before and is not now waits beside it, however much that is.
macro_rules! firsts {
    ($and:literal) => {
        ending!(concat!(
            "FROM listeners AS heard
                JOIN (SELECT 1 AS state UNION ALL SELECT 2 UNION ALL SELECT 4) AS states ON (heard.wanted & state) <> 0
                JOIN schedules ON schedules.row = heard.listener
                JOIN ends ON ends.row = (
                    SELECT min(first.row) FROM ends AS first
                    WHERE first.listener = heard.listener AND first.listener <> 0
                        AND first.workflow = heard.workflow AND first.outcome = state)
                JOIN runs ON runs.row = ends.run
            WHERE heard.listener <> 0 AND ",
            $and,
            " ORDER BY ends.row"
        ))
    };
}

/// Of each trigger of `epoch` that is switched on, the first end that it is to be told of.
pub fn endings(db: &Db, epoch: Epoch) -> Result<Vec<Ending>, Failure> {
    // Indices listeners_listener, ends_listener.
    const SQL: &str = firsts!("schedules.owner = :epoch AND schedules.enabled");
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map(named_params! { ":epoch": epoch.0 }, ending_of_row)?;
    let mut found = rows.collect::<db::Result<Vec<Ending>>>()?;
    let mut heard = BTreeSet::new();
    found.retain(|ending| heard.insert(ending.listener.0));
    Ok(found)
}

/// That end, if its trigger is still to be told of it.
pub fn ending(db: &Db, end: EndKey) -> Result<Option<Ending>, Failure> {
    const SQL: &str = ending!(
        "FROM ends JOIN runs ON runs.row = ends.run
            JOIN listeners AS heard ON heard.workflow = ends.workflow AND heard.listener = ends.listener
        WHERE ends.row = :end AND ends.listener <> 0 AND (wanted & outcome) <> 0"
    );
    Ok(db.prepare_cached(SQL)?.query_row(named_params! { ":end": end.0 }, ending_of_row).optional()?)
}

/// The first end that a trigger is to be told of.
pub fn ending_of(db: &Db, listener: ScheduleKey) -> Result<Option<Ending>, Failure> {
    // Index ends_listener.
    const SQL: &str = firsts!("heard.listener = :listener");
    let params = named_params! { ":listener": listener.0 };
    Ok(db.prepare_cached(SQL)?.query_row(params, ending_of_row).optional()?)
}

/// Whether a trigger is still to be told of the end that a tick of it is about.
pub fn is_untold(db: &Db, listener: ScheduleKey, end: EndKey) -> Result<bool, Failure> {
    const SQL: &str = concat!("SELECT 1 FROM ends WHERE row = :row AND listener = :listener", for_update!());
    let params = named_params! { ":row": end.0, ":listener": listener.0 };
    Ok(db.prepare_cached(SQL)?.exists(params)?)
}

/// Whether a trigger is told of ends, instead of being polled.
pub fn is_told(db: &Db, listener: ScheduleKey) -> Result<bool, Failure> {
    // Index listeners_listener.
    const SQL: &str = "SELECT 1 FROM listeners WHERE listener = :listener AND listener <> 0 AND wanted <> 0";
    Ok(db.prepare_cached(SQL)?.exists(named_params! { ":listener": listener.0 })?)
}

/// A trigger is not told of its first end, or the first one of a run. If that is the one which it is told of next, then what its calls came to so far
/// counts no more, and what a call under way comes to neither.
pub fn skip(db: &Db, listener: ScheduleKey, run: Option<Uuid>, at: Wall) -> Result<Option<Skipped>, Failure> {
    // Index ends_run.
    const OF_RUN: &str = ending!(
        "FROM runs JOIN ends ON ends.run = runs.row AND ends.listener = :listener
            JOIN listeners AS heard ON heard.workflow = ends.workflow AND heard.listener = ends.listener
        WHERE runs.id = :run AND ends.listener <> 0 AND (wanted & outcome) <> 0 ORDER BY ends.row LIMIT 1"
    );
    const GONE: &str = "DELETE FROM ends WHERE row = :row AND listener = :listener";
    const ANEW: &str = "
        UPDATE schedules SET cursor_set = cursor_set + 1, failures = 0, not_before = NULL, wait_us = NULL, called_by = NULL
        WHERE row = :listener";
    const NOW: &str = "SELECT cursor, cursor_set FROM schedules WHERE row = :listener";
    let next = ending_of(db, listener)?;
    let found = match run {
        None => next.clone(),
        Some(run) => {
            let params = named_params! { ":listener": listener.0, ":run": run.to_string() };
            db.prepare_cached(OF_RUN)?.query_row(params, ending_of_row).optional()?
        }
    };
    let Some(end) = found else { return Ok(None) };
    let params = named_params! { ":row": end.key.0, ":listener": listener.0 };
    if db.prepare_cached(GONE)?.execute(params)? == 0 {
        // It has been told meanwhile: what comes after it is not what was meant.
        return Ok(None);
    }
    let params = named_params! { ":listener": listener.0 };
    if next.is_some_and(|next| next.key == end.key) {
        db.prepare_cached(ANEW)?.execute(params)?;
        history::append(db, &[fate::skipped(listener, end.run, at)])?;
    }
    let (cursor, cursor_set) =
        db.prepare_cached(NOW)?.query_row(params, |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Some(Skipped { run: end.run, number: end.number, status: end.status, cursor, cursor_set }))
}

/// A trigger has been told of an end, by which these runs have come to be.
pub fn heard(db: &Db, told: Told, runs: impl Iterator<Item = RunRow>) -> Result<(), Failure> {
    const GONE: &str = "DELETE FROM ends WHERE row = :row";
    const OF_IT: &str = "
        UPDATE runs SET depth = :depth,
            parent = CASE WHEN given THEN parent ELSE (SELECT ended.id FROM ends JOIN runs AS ended ON ended.row = ends.run WHERE ends.row = :end) END
        WHERE row = :row";
    for run in runs {
        let params = named_params! { ":row": run.0, ":depth": told.depth, ":end": told.end.0 };
        db.prepare_cached(OF_IT)?.execute(params)?;
    }
    db.prepare_cached(GONE)?.execute(named_params! { ":row": told.end.0 })?;
    Ok(())
}

/// From now on a trigger is to be told of these ends, and of no others. What was asked for before is still written down for it: a declaration may
/// come back, and is told then of what it missed.
pub fn listen(db: &Db, trigger: ScheduleKey, on_run: Option<&OnRun>, at: Wall) -> Result<(), Failure> {
    // Index listeners_listener.
    const KNOWN: &str =
        "SELECT workflow, wanted FROM listeners WHERE listener = :listener AND listener <> 0 AND wanted <> 0";
    const UNWANT: &str = "
        UPDATE listeners SET wanted = 0, unwanted_since = coalesce(unwanted_since, :at)
        WHERE listener = :listener AND listener <> 0 AND wanted <> 0";
    const WANT: &str = "
        INSERT INTO listeners (workflow, listener, outcomes, wanted) VALUES (:workflow, :listener, :outcomes, :outcomes)
        ON CONFLICT (workflow, listener) DO UPDATE SET outcomes = listeners.outcomes | excluded.outcomes, wanted = excluded.wanted,
            unwanted_since = CASE
                WHEN (listeners.outcomes | excluded.outcomes) <> excluded.outcomes THEN coalesce(listeners.unwanted_since, :at) END";
    let listener = trigger.0;
    let known = db.prepare_cached(KNOWN)?.query_row(named_params! { ":listener": listener }, |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    });
    let known = known.optional()?;
    let wanted = on_run.map(|on_run| (on_run.workflow.to_string(), on_run.outcomes.bits()));
    if known == wanted {
        return Ok(());
    }
    db.prepare_cached(UNWANT)?.execute(named_params! { ":listener": listener, ":at": at.0 })?;
    if let Some((workflow, outcomes)) = &wanted {
        let params = named_params! {
            ":workflow": workflow,
            ":listener": listener,
            ":outcomes": outcomes,
            ":at": at.0,
        };
        db.prepare_cached(WANT)?.execute(params)?;
    }
    heed_listeners(db)
}

/// A trigger is told nothing any more.
pub fn forget(db: &Db, trigger: ScheduleKey) -> Result<(), Failure> {
    // Indices listeners_listener, ends_listener.
    const GONE: [&str; 2] = [
        "DELETE FROM listeners WHERE listener = :listener AND listener <> 0",
        "DELETE FROM ends WHERE listener = :listener AND listener <> 0",
    ];
    for sql in GONE {
        db.prepare_cached(sql)?.execute(named_params! { ":listener": trigger.0 })?;
    }
    heed_listeners(db)
}

/// What has not been asked for since `before` is not written down any more.
pub fn forget_unwanted(db: &Db, before: Wall) -> Result<(), Failure> {
    // Both walk all listeners, of which there are few.
    const LESS: &str = "
        UPDATE listeners SET outcomes = wanted, unwanted_since = NULL WHERE listener <> 0 AND unwanted_since < :before";
    const GONE: &str = "DELETE FROM listeners WHERE listener <> 0 AND outcomes = 0";
    if db.prepare_cached(LESS)?.execute(named_params! { ":before": before.0 })? > 0 {
        db.prepare_cached(GONE)?.execute([])?;
        heed_listeners(db)?;
    }
    Ok(())
}

/// Whether any trigger is told of ends.
pub fn is_any_heard(db: &Db) -> Result<bool, Failure> {
    // Index listeners_listener.
    const SQL: &str = "SELECT 1 FROM listeners WHERE listener <> 0 LIMIT 1";
    Ok(db.prepare_cached(SQL)?.exists([])?)
}

/// A run is about to be opened again: what it is now stands with its ends, for the triggers that are still to be told of them.
pub fn keep(db: &Db, run: RunRow) -> Result<(), Failure> {
    // Index ends_run.
    const SQL: &str = "
        UPDATE ends SET context = runs.final_context, cause = runs.error FROM runs
        WHERE runs.row = :run AND ends.run = :run AND number = reopened + 1 AND listener <> 0";
    db.prepare_cached(SQL)?.execute(named_params! { ":run": run.0 })?;
    Ok(())
}
