//! Writes how far a run has come. Invariant: only the owner writes, and only while the run is not final.

use cloaca_core::key::{Epoch, RunRow};
use cloaca_core::port::{RunChange, RunEnd, RunStatus, TaskRecord};
use cloaca_core::time::Wall;
use uuid::Uuid;

use super::super::db::{Db, OptionalExtension as _, ToParam, named_params};
use super::super::dialect::COUNT_ENDS;
use super::super::fault::Failure;
use super::super::limits;
use super::super::value::micros;
use super::{child, tries};

/// What came of a change that was applied.
#[derive(Debug, Default)]
pub struct Kept {
    /// If it ended a run that guards its hash: the number of that end.
    pub number: Option<i64>,
    /// If it cancelled one: its unfinished children, and theirs, that are to end with it.
    pub cancelled: Vec<Uuid>,
}

/// Applies `change`; none, with nothing written, if its epoch does not drive that run any more. If it ends one that guards its hash, that
/// end has the number `number`, or the next if there is none yet.
pub fn progress(db: &Db, change: &RunChange, number: Option<i64>) -> Result<Option<Kept>, Failure> {
    let kept = match &change.end {
        Some(end) => finish(db, change, end, number)?,
        None => go_on(db, change)?.then(Kept::default),
    };
    if kept.is_some() {
        for task in &change.tasks {
            put_task(db, change.run, task)?;
            tries::put(db, change, task)?;
        }
    }
    Ok(kept)
}

/// How many ends were counted.
pub fn ends(db: &Db) -> Result<i64, Failure> {
    const SQL: &str = "
        SELECT coalesce((SELECT value FROM meta WHERE name = 'ends'), (SELECT max(end_number) FROM runs), 0)";
    Ok(db.prepare_cached(SQL)?.query_row([], |row| row.get(0))?)
}

/// Notes that so many ends were counted.
pub fn count_ends(db: &Db, ends: i64) -> Result<(), Failure> {
    db.prepare_cached(COUNT_ENDS)?.execute(named_params! { ":ends": ends })?;
    Ok(())
}

/// Notes that a run has begun, if that is news; false if it is final or another's.
fn go_on(db: &Db, change: &RunChange) -> Result<bool, Failure> {
    let Some(has_begun) = begun(db, change)? else { return Ok(false) };
    if !has_begun && !change.tasks.is_empty() {
        begin(db, change)?;
    }
    Ok(true)
}

/// Whether the run has begun, since it was last opened; none if it is final or another's.
fn begun(db: &Db, change: &RunChange) -> Result<Option<bool>, Failure> {
    const SQL: &str = "
        SELECT status <> 'Pending' AND started_at IS NOT NULL AND lay_since IS NULL
        FROM runs WHERE row = :row AND owner = :epoch AND completed_at IS NULL";
    let params = named_params! { ":row": change.run.0, ":epoch": change.epoch.0 };
    Ok(db.prepare_cached(SQL)?.query_row(params, |row| row.get(0)).optional()?)
}

/// When the first of the tasks in `change` began; none if all of them were skipped.
fn started_at(change: &RunChange) -> Option<i64> {
    micros(change.tasks.iter().filter_map(|task| task.started_at).min())
}

fn begin(db: &Db, change: &RunChange) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE runs SET status = :status, started_at = coalesce(started_at, :started_at), timed_at = :started_at,
            lain_us = lain_us
                + CASE WHEN started_at IS NOT NULL AND :started_at > lay_since THEN :started_at - lay_since ELSE 0 END,
            lay_since = CASE WHEN :started_at IS NULL THEN lay_since END
        WHERE row = :row";
    db.prepare_cached(SQL)?.execute(named_params! {
        ":row": change.run.0,
        ":status": RunStatus::Running.name(),
        ":started_at": started_at(change),
    })?;
    Ok(())
}

/// Notes how much of a run's time is left to its owner.
pub fn timed(db: &Db, run: RunRow, epoch: Epoch, left_us: i64, at: Wall) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE runs SET timed_at = :at, time_left = :left_us
        WHERE row = :row AND owner = :epoch AND completed_at IS NULL";
    let params = named_params! { ":row": run.0, ":epoch": epoch.0, ":left_us": left_us, ":at": at.0 };
    db.prepare_cached(SQL)?.execute(params)?;
    Ok(())
}

/// None if the run is final or another's.
fn finish(db: &Db, change: &RunChange, end: &RunEnd, number: Option<i64>) -> Result<Option<Kept>, Failure> {
    const SQL: &str = "
        UPDATE runs SET
            status = :status,
            started_at = coalesce(started_at, :started_at),
            lain_us = lain_us
                + CASE WHEN started_at IS NOT NULL AND :started_at > lay_since THEN :started_at - lay_since ELSE 0 END,
            lay_since = CASE WHEN :started_at IS NULL THEN lay_since END,
            completed_at = :completed_at,
            final_context = :context,
            error = :error,
            end_number = :number
        WHERE row = :row";
    let Some((guards_hash, is_limited)) = guards_hash(db, change)? else { return Ok(None) };
    // Most runs guard nothing: what was counted is read for those that do.
    let number = match (guards_hash, number) {
        (false, _) => None,
        (true, Some(number)) => Some(number),
        (true, None) => Some(ends(db)? + 1),
    };
    db.prepare_cached(SQL)?.execute(named_params! {
        ":row": change.run.0,
        ":status": end.status.name(),
        ":started_at": started_at(change),
        ":completed_at": end.completed_at.0,
        ":context": &*end.context,
        ":error": end.error,
        ":number": number,
    })?;
    if end.status != RunStatus::Completed {
        put_error_type(db, change.run, end.error_type.as_deref().unwrap_or_default())?;
    }
    if is_limited {
        limits::over(db, change.run)?;
    }
    let cancelled = match end.status {
        RunStatus::Cancelled => child::cancel_of(db, change.epoch, change.run, end.completed_at)?,
        _ => Vec::new(),
    };
    Ok(Some(Kept { number, cancelled }))
}

/// By itself: a run that completes has none, and its indices are left alone.
fn put_error_type(db: &Db, run: RunRow, error_type: &str) -> Result<(), Failure> {
    const SQL: &str = "UPDATE runs SET error_type = :error_type WHERE row = :row";
    db.prepare_cached(SQL)?.execute(named_params! { ":row": run.0, ":error_type": error_type })?;
    Ok(())
}

/// Whether the run guards its hash, and whether limits count it; none if it is final or another's.
fn guards_hash(db: &Db, change: &RunChange) -> Result<Option<(bool, bool)>, Failure> {
    const SQL: &str = "
        SELECT unique_hash, limited FROM runs WHERE row = :row AND owner = :epoch AND completed_at IS NULL";
    let params = named_params! { ":row": change.run.0, ":epoch": change.epoch.0 };
    Ok(db.prepare_cached(SQL)?.query_row(params, |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

/// The statement that inserts a task's record, or replaces it in its place.
macro_rules! put_task {
    ($columns:literal, $values:literal, $changes:literal) => {
        concat!(
            "INSERT INTO tasks (run, name, position, status, attempt, started_at, completed_at, error, context, interrupted",
            $columns,
            ") VALUES (:run, :name, (SELECT coalesce(max(position) + 1, 0) FROM tasks WHERE run = :run), :status, :attempt,
                :started_at, :completed_at, :error, :context, :interrupted",
            $values,
            ") ON CONFLICT (run, name) DO UPDATE SET
                status = excluded.status,
                attempt = excluded.attempt,
                interrupted = excluded.interrupted,
                started_at = excluded.started_at,
                completed_at = excluded.completed_at,
                error = excluded.error,
                context = excluded.context",
            $changes
        )
    };
}

/// Inserts a task's record, or replaces it in its place. Most tasks wait for nothing and leave nothing for a next attempt, and each
/// parameter costs.
fn put_task(db: &Db, run: RunRow, task: &TaskRecord) -> Result<(), Failure> {
    const PLAIN: &str = put_task!(
        "",
        "",
        ", postponed = 0, not_before = NULL, wait_us = NULL, checkpoint = NULL, rests_since = NULL"
    );
    const WHOLE: &str = put_task!(
        ", postponed, not_before, wait_us, checkpoint, rests_since",
        ", :postponed, :not_before, :wait_us, :checkpoint, :rests_since",
        ", postponed = excluded.postponed, not_before = excluded.not_before, wait_us = excluded.wait_us,
                checkpoint = excluded.checkpoint, rests_since = excluded.rests_since"
    );
    let is_plain =
        task.postponed == 0 && task.wait.is_none() && task.checkpoint.is_none() && task.rests_since.is_none();
    let mut statement = db.prepare_cached(if is_plain { PLAIN } else { WHOLE })?;
    let plain: &[(&str, &dyn ToParam)] = named_params! {
        ":run": run.0,
        ":name": &*task.name,
        ":status": task.status.name(),
        ":attempt": task.attempt,
        ":interrupted": task.interrupted,
        ":started_at": micros(task.started_at),
        ":completed_at": micros(task.completed_at),
        ":error": task.error,
        ":context": task.context.as_deref(),
    };
    if is_plain {
        statement.execute(plain)?;
        return Ok(());
    }
    let more: &[(&str, &dyn ToParam)] = named_params! {
        ":postponed": task.postponed,
        ":not_before": micros(task.wait.map(|wait| wait.not_before)),
        ":wait_us": task.wait.map(|wait| wait.span_us),
        ":checkpoint": task.checkpoint.as_deref(),
        ":rests_since": micros(task.rests_since),
    };
    statement.execute(&*[plain, more].concat())?;
    Ok(())
}
