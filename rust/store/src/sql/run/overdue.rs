//! Bodies that nobody waits for and that still run. Invariant: each is on record until it has ended or its owner is gone, and while it is,
//! its run is not opened again.

use cloaca_core::key::{Epoch, RunRow};
use cloaca_core::port::{Body, Overdue};

use super::super::db::{self, Db, OptionalExtension as _, named_params};
use super::super::dialect::PUT_OVERDUE;
use super::super::fault::Failure;
use super::super::limits;
use super::super::value::wall_at;

/// Notes that a body still runs; false if its run is another owner's.
pub fn put(db: &Db, body: &Body) -> Result<bool, Failure> {
    let written = db.prepare_cached(PUT_OVERDUE)?.execute(named_params! {
        ":run": body.run.0,
        ":task": &*body.task,
        ":attempt": body.attempt,
        ":epoch": body.epoch.0,
        ":at": body.at.0,
    })?;
    Ok(written > 0)
}

/// It has ended.
pub fn ended(db: &Db, body: &Body) -> Result<(), Failure> {
    const SQL: &str = "
        DELETE FROM overdue WHERE run = :run AND task = :task AND attempt = :attempt AND owner = :epoch";
    db.prepare_cached(SQL)?.execute(named_params! {
        ":run": body.run.0,
        ":task": &*body.task,
        ":attempt": body.attempt,
        ":epoch": body.epoch.0,
    })?;
    Ok(())
}

/// Those of one run whose owners live, oldest first.
pub fn of_run(db: &Db, run: RunRow) -> Result<Vec<Overdue>, Failure> {
    // By the key of the table.
    const SQL: &str = "
        SELECT task, attempt, owner, since FROM overdue
        WHERE run = :run AND owner IN (SELECT epoch FROM owners WHERE left_at IS NULL) ORDER BY since, task";
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map(named_params! { ":run": run.0 }, |row| {
        Ok(Overdue {
            task: row.get(0)?,
            attempt: row.get(1)?,
            owner: Epoch(row.get(2)?),
            since: wall_at(row, 3)?,
        })
    })?;
    Ok(rows.collect::<db::Result<_>>()?)
}

/// Refuses to open a run again of which a body still runs.
pub fn refuse(db: &Db, run: RunRow, is_dead: impl Fn(Epoch) -> bool) -> Result<(), Failure> {
    let mut found = of_run(db, run)?.into_iter().filter(|body| !is_dead(body.owner));
    let Some(Overdue { task, attempt, since, .. }) = found.next() else { return Ok(()) };
    Err(Failure::Refused(format!(
        "the body of its task '{task}' still runs: attempt {attempt} was given up at {}, and another one must not begin \
         beside it; retry the run once that has ended or its process is gone",
        since.rfc3339()
    )))
}

/// An owner leaves: those of its process pass to what is left of it, and without that are gone.
pub fn hand_on(db: &Db, epoch: Epoch, remnant: Option<Epoch>) -> Result<(), Failure> {
    const PASS: &str = "UPDATE overdue SET owner = :remnant WHERE owner = :epoch";
    const RUNS: &str = "SELECT DISTINCT run FROM overdue WHERE owner = :epoch";
    const FORGET: &str = "DELETE FROM overdue WHERE owner = :epoch";
    // Most owners leave none, and the table is empty.
    const ANY: &str = "SELECT 1 FROM overdue LIMIT 1";
    if db.prepare_cached(ANY)?.query_row([], |_| Ok(())).optional()?.is_none() {
        return Ok(());
    }
    match remnant {
        Some(_) => db
            .prepare_cached(PASS)?
            .execute(named_params! { ":epoch": epoch.0, ":remnant": remnant.map(|epoch| epoch.0) })?,
        None => {
            let mut runs = db.prepare_cached(RUNS)?;
            let runs = runs.query_map(named_params! { ":epoch": epoch.0 }, |row| row.get(0).map(RunRow))?;
            let runs = runs.collect::<db::Result<Vec<RunRow>>>()?;
            let forgotten = db.prepare_cached(FORGET)?.execute(named_params! { ":epoch": epoch.0 })?;
            runs.into_iter().try_for_each(|run| limits::over_if_final(db, run))?;
            forgotten
        }
    };
    Ok(())
}
