//! How attempts ended. Invariant: of each task the first few are kept and the last ones, whatever came between, and how many that were.

use std::collections::HashMap;
use std::sync::Arc;

use cloaca_core::key::{Epoch, RunRow};
use cloaca_core::port::{Maker, RunChange, TRIES_FIRST_MAX, TRIES_LAST_MAX, TaskRecord, Try};

use super::super::db::{self, Db, Row, named_params};
use super::super::dialect::BOUND_TRIES;
use super::super::fault::Failure;
use super::super::value::{count_at, micros, signed, try_outcome_at, wall_at, wall_maybe_at};

/// Keeps the attempts that ended since the last record of a task. Most tasks complete at once, and have none.
pub fn put(db: &Db, change: &RunChange, task: &TaskRecord) -> Result<(), Failure> {
    for known in &task.tries {
        keep(db, change.run, &task.name, known, owner_of(known.maker, change.epoch))?;
    }
    Ok(())
}

/// Keeps one of them.
pub fn keep(db: &Db, run: RunRow, task: &str, known: &Try, owner: Option<Epoch>) -> Result<(), Failure> {
    const PUT: &str = "
        INSERT INTO tries (run, task, nth, attempt, outcome, owner, started_at, ended_at, error_type, error, traceback)
        VALUES (:run, :task, coalesce((SELECT nth FROM tries WHERE run = :run AND task = :task ORDER BY row DESC LIMIT 1), 0) + 1,
            :attempt, :outcome, :owner, :started_at, :ended_at, :error_type, :error, :traceback)";
    // Index tries_task, which ends in the row.
    db.prepare_cached(PUT)?.execute(named_params! {
        ":run": run.0,
        ":task": task,
        ":attempt": known.attempt,
        ":outcome": known.outcome.name(),
        ":owner": owner.map(|epoch| epoch.0),
        ":started_at": micros(known.started_at),
        ":ended_at": known.ended_at.0,
        ":error_type": known.error_type.as_deref(),
        ":error": known.error,
        ":traceback": known.traceback,
    })?;
    db.prepare_cached(BOUND_TRIES)?.execute(named_params! {
        ":run": run.0,
        ":task": task,
        ":last": signed(TRIES_LAST_MAX as u64),
        ":first": signed(TRIES_FIRST_MAX as u64),
    })?;
    Ok(())
}

/// What is kept of a run's attempts.
pub struct Told {
    /// By task, oldest first.
    pub tries: HashMap<Arc<str>, Vec<Try>>,
    /// How many of which tasks were kept once, and are not any more.
    pub left_out: Vec<(Arc<str>, u64)>,
}

/// All that is kept of a run's attempts.
pub fn of_run(db: &Db, run: RunRow) -> Result<Told, Failure> {
    // Index tries_task.
    const SQL: &str = "
        SELECT task, attempt, outcome, owner, started_at, ended_at, error_type, error, traceback, nth
        FROM tries WHERE run = :run ORDER BY task, row";
    let mut statement = db.prepare_cached(SQL)?;
    let params = named_params! { ":run": run.0 };
    let rows = statement.query_map(params, |row| Ok((row.get(0)?, try_of(row)?, count_at(row, 9)?)))?;
    let mut tries: HashMap<Arc<str>, Vec<Try>> = HashMap::new();
    let mut left_out: Vec<(Arc<str>, u64)> = Vec::new();
    for row in rows {
        let (task, known, nth) = row?;
        let known_before = tries.entry(Arc::clone(&task)).or_default();
        known_before.push(known);
        let missing = nth.saturating_sub(known_before.len() as u64);
        match left_out.last_mut().filter(|(name, _)| *name == task) {
            Some((_, count)) => *count = missing,
            None if missing > 0 => left_out.push((task, missing)),
            None => {}
        }
    }
    Ok(Told { tries, left_out })
}

/// Forgets them with their run.
pub fn forget(db: &Db, run: RunRow) -> Result<(), Failure> {
    const SQL: &str = "DELETE FROM tries WHERE run = :run";
    db.prepare_cached(SQL)?.execute(named_params! { ":run": run.0 })?;
    Ok(())
}

fn owner_of(maker: Maker, writer: Epoch) -> Option<Epoch> {
    match maker {
        Maker::Writer => Some(writer),
        Maker::Owner(owner) => Some(owner),
        Maker::Unknown => None,
    }
}

fn try_of(row: &Row) -> db::Result<Try> {
    Ok(Try {
        attempt: row.get(1)?,
        outcome: try_outcome_at(row, 2)?,
        maker: row.get::<_, Option<i64>>(3)?.map_or(Maker::Unknown, |owner| Maker::Owner(Epoch(owner))),
        started_at: wall_maybe_at(row, 4)?,
        ended_at: wall_at(row, 5)?,
        error_type: row.get(6)?,
        error: row.get(7)?,
        traceback: row.get(8)?,
    })
}
