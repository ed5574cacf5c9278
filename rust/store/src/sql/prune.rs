//! Forgets what is older than somebody wants to keep. Invariant: nothing that decides about the future goes: no unfinished run,
//! no run key whose time is not over, no cursor. What was found by reading is looked at once more when it is deleted.

use std::collections::{BTreeMap, BTreeSet};

use cloaca_core::fate;
use cloaca_core::key::{Epoch, RunRow, ScheduleKey};
use cloaca_core::port::{Found, Old, Spared};
use cloaca_core::time::Wall;

use super::audit;
use super::db::{self, Db, OptionalExtension as _, Row, ToParam, named_params};
use super::dialect::{ABOUT_PRUNE, LAST_SIGN};
use super::fault::Failure;
use super::run::tries;
use super::value::{count_at, signed};
use super::{end, graph, history, logged};

/// Whether a run was started by hand with a run key that is in use: who comes with it once more gets that run.
macro_rules! is_keyed {
    ($run:literal) => {
        concat!(
            "(",
            $run,
            ".schedule IS NULL AND ",
            $run,
            ".run_key IS NOT NULL AND EXISTS (
            SELECT 1 FROM run_keys AS taken
            WHERE taken.schedule = 0
                AND taken.key = length(",
            $run,
            ".workflow) || ':' || ",
            $run,
            ".workflow || ",
            $run,
            ".run_key
                AND taken.run = ",
            $run,
            ".id AND (taken.expires_at IS NULL OR taken.expires_at > :now)))"
        )
    };
}

/// Whether a body of the run still runs, of which nothing may begin beside it, or somebody is still to be told of its end. A callback that nobody
/// declares, and that has been due for as long, is not waited for: who declares it would have called it, or put it off. A trigger that has been
/// off, or served by nobody, or has asked for something else, for as long is not waited for.
macro_rules! is_overdue {
    ($run:literal) => {
        concat!(
            "(EXISTS (SELECT 1 FROM overdue WHERE overdue.run = ", $run, ".row)
            OR EXISTS (
                SELECT 1 FROM ends WHERE ends.run = ", $run, ".row AND listener = 0
                    AND (ends.owner IS NOT NULL OR ends.due_at >= :before OR EXISTS (
                        SELECT 1 FROM workflows WHERE name = ends.workflow AND (tells & ends.outcome) <> 0)))
            OR EXISTS (
                SELECT 1 FROM ends JOIN schedules ON schedules.row = ends.listener
                JOIN listeners AS heard ON heard.workflow = ends.workflow AND heard.listener = ends.listener
                LEFT JOIN owners ON owners.epoch = schedules.owner
                WHERE ends.run = ", $run, ".row
                    AND ((heard.wanted & ends.outcome) <> 0 OR coalesce(heard.unwanted_since, :before) >= :before)
                    AND coalesce(schedules.disabled_at, :before) >= :before
                    AND (schedules.free_since >= :before OR owners.epoch IS NOT NULL AND coalesce(owners.left_at, :before) >= :before)))"
        )
    };
}

/// Whether nothing of a run itself keeps it; one that it started and that goes on does.
macro_rules! may_go {
    ($run:literal) => {
        concat!(
            "(",
            $run,
            ".completed_at IS NOT NULL AND ",
            $run,
            ".completed_at < :before AND NOT ",
            is_keyed!($run),
            " AND NOT ",
            is_overdue!($run),
            "
            AND NOT EXISTS (SELECT 1 FROM runs AS child WHERE child.parent = ",
            $run,
            ".id AND child.completed_at IS NULL))"
        )
    };
}

/// Which runs go, in three statements alike: what is foretold is what is found and deleted. With a run stays what it started, and what that started: an
/// attempt that it makes once it is opened again asks for those.
macro_rules! is_old {
    () => {
        concat!(
            "completed_at < :before AND ",
            may_go!("runs"),
            " AND (runs.parent IS NULL OR NOT EXISTS (
                WITH RECURSIVE above(id) AS (
                    SELECT runs.parent
                    UNION SELECT upper.parent FROM runs AS upper JOIN above ON upper.id = above.id
                        WHERE upper.parent IS NOT NULL)
                SELECT 1 FROM runs AS own JOIN above ON own.id = above.id WHERE NOT ",
            may_go!("own"),
            "))"
        )
    };
}

/// How many runs would go if all that ended before `before` were to, counted to `limit`. May walk all of them.
pub fn count(db: &Db, before: Wall, now: Wall, limit: u64) -> Result<u64, Failure> {
    // Index runs_completed.
    const SQL: &str =
        concat!("SELECT count(*) FROM (SELECT 1 FROM runs WHERE ", is_old!(), " LIMIT :limit) AS old");
    let params = named_params! { ":before": before.0, ":now": now.0, ":limit": signed(limit) };
    Ok(db.prepare_cached(SQL)?.query_row(params, |row| count_at(row, 0))?)
}

/// At most `limit` of each kind. May walk all of `ticks`, so that it needs a connection where it is in nobody's way.
pub fn find(db: &Db, old: &Old, limit: u64) -> Result<Found, Failure> {
    // Index runs_completed.
    const RUNS: &str =
        concat!("SELECT row FROM runs WHERE ", is_old!(), " ORDER BY completed_at DESC LIMIT :limit");
    // Index run_keys_expiry.
    const KEYS: &str = "SELECT schedule, key FROM run_keys WHERE expires_at <= :now LIMIT :limit";
    // No index: it would cost each poll that is written down.
    const TICKS: &str = "SELECT row FROM ticks WHERE last_at < :before LIMIT :limit";
    // Index ticks_schedule alone.
    const LONG: &str = "SELECT schedule FROM ticks GROUP BY schedule HAVING count(*) > :max";
    const TOO_MANY: &str = "
        SELECT row FROM ticks WHERE schedule = :schedule AND last_at >= :before
        ORDER BY row DESC LIMIT :limit OFFSET :max";
    let limit = signed(limit);
    let mut found = Found::default();
    if let Some(before) = old.runs_before {
        let params = named_params! { ":before": before.0, ":now": old.now.0, ":limit": limit };
        found.runs = all(db, RUNS, params, |row| row.get(0).map(RunRow))?;
    }
    found.keys = all(db, KEYS, named_params! { ":now": old.now.0, ":limit": limit }, |row| {
        Ok((ScheduleKey(row.get(0)?), row.get(1)?))
    })?;
    let before = old.ticks_before.0;
    found.ticks = all(db, TICKS, named_params! { ":before": before, ":limit": limit }, |row| row.get(0))?;
    let max = signed(old.ticks_max);
    let long: Vec<i64> = all(db, LONG, named_params! { ":max": max }, |row| row.get(0))?;
    for schedule in long {
        let left = limit - found.ticks.len() as i64;
        if left <= 0 {
            break;
        }
        let params = named_params! { ":schedule": schedule, ":before": before, ":limit": left, ":max": max };
        found.ticks.extend(all::<i64>(db, TOO_MANY, params, |row| row.get(0))?);
    }
    Ok(found)
}

/// Deletes what is still as `old` says; returns how much that was.
pub fn run(db: &Db, old: &Old, found: &Found) -> Result<u64, Failure> {
    const RUN: &str = concat!("DELETE FROM runs WHERE row = :row AND ", is_old!(), " RETURNING workflow");
    const TASKS: &str = "DELETE FROM tasks WHERE run = :row";
    // Index ends_run.
    const ENDS: &str = "DELETE FROM ends WHERE run = :row RETURNING listener";
    const TICK: &str = "DELETE FROM ticks WHERE row = :row";
    const KEY: &str = "DELETE FROM run_keys WHERE schedule = :schedule AND key = :key AND expires_at <= :now";
    let (mut gone, mut workflows, mut untold) = (0, BTreeSet::new(), BTreeMap::new());
    let (mut run, mut tasks) = (db.prepare_cached(RUN)?, db.prepare_cached(TASKS)?);
    for row in &found.runs {
        // Somebody may have opened it again.
        let before = old.runs_before.map(|before| before.0);
        let params = named_params! { ":row": row.0, ":before": before, ":now": old.now.0 };
        if let Some(workflow) = run.query_row(params, |row| row.get::<_, String>(0)).optional()? {
            workflows.insert(workflow);
            tasks.execute(named_params! { ":row": row.0 })?;
            for listener in all::<i64>(db, ENDS, named_params! { ":row": row.0 }, |row| row.get(0))? {
                *untold.entry(listener).or_insert(0) += 1;
            }
            tries::forget(db, *row)?;
            logged::forget(db, *row)?;
            gone += 1;
        }
    }
    workflows.iter().try_for_each(|workflow| graph::forget(db, workflow))?;
    old.runs_before.map_or(Ok(()), |before| end::forget_unwanted(db, before))?;
    // Those of callbacks are of no trigger.
    let untold = untold.into_iter().filter(|&(listener, _)| listener != 0);
    let untold: Vec<_> =
        untold.map(|(listener, count)| fate::gone(ScheduleKey(listener), count, old.now)).collect();
    history::append(db, &untold)?;
    let mut tick = db.prepare_cached(TICK)?;
    for row in &found.ticks {
        gone += tick.execute(named_params! { ":row": row })?;
    }
    let mut expired = db.prepare_cached(KEY)?;
    for (schedule, key) in &found.keys {
        gone += expired.execute(named_params! { ":schedule": schedule.0, ":key": key, ":now": old.now.0 })?;
    }
    if gone > 0 {
        audit::note_many(db, "prune", &about(db, old)?, gone as u64)?;
    }
    Ok(gone as u64)
}

fn about(db: &Db, old: &Old) -> Result<String, Failure> {
    let at = old.runs_before.map(|before| before.0);
    Ok(db.prepare_cached(ABOUT_PRUNE)?.query_row(named_params! { ":at": at }, |row| row.get(0))?)
}

/// What the file knows of the time, for the owner `epoch`.
pub fn spared(db: &Db, epoch: Epoch) -> Result<Spared, Failure> {
    const UNTIL: &str = "SELECT value FROM meta WHERE name = 'spared_until'";
    // Primary keys. Of a start with a wrong clock only the start itself would be a sign.
    let until: Option<i64> = db.prepare_cached(UNTIL)?.query_row([], |row| row.get(0)).optional()?;
    let sign: i64 =
        db.prepare_cached(LAST_SIGN)?.query_row(named_params! { ":epoch": epoch.0 }, |row| row.get(0))?;
    Ok(Spared { until: until.map(Wall), last_sign: (sign > 0).then_some(Wall(sign)) })
}

/// Notes that nothing is to be forgotten before `until`.
pub fn spare(db: &Db, until: Wall) -> Result<(), Failure> {
    const SQL: &str = "
        INSERT INTO meta (name, value) VALUES ('spared_until', :until)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    db.prepare_cached(SQL)?.execute(named_params! { ":until": until.0 })?;
    Ok(())
}

fn all<T>(
    db: &Db,
    sql: &str,
    params: &[(&str, &dyn ToParam)],
    read: impl FnMut(&Row) -> db::Result<T>,
) -> Result<Vec<T>, Failure> {
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(params, read)?;
    Ok(rows.collect::<db::Result<_>>()?)
}
