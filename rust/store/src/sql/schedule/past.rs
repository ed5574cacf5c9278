//! What is over of crons, in their rows. Invariant: it only grows, whoever decides a moment and however old what that one read is.

use cloaca_core::key::ScheduleKey;
use cloaca_core::past::{Passage, Past};
use cloaca_core::time::Wall;

use super::super::db::{Db, named_params};
use super::super::fault::Failure;
use super::super::value::past_at;

/// Moments of a cron are over.
pub fn pass(db: &Db, row: ScheduleKey, passage: Passage) -> Result<(), Failure> {
    grow(db, row, |past| past.pass(passage))
}

/// Another expression or zone holds of a cron from that time on.
pub fn change(db: &Db, row: ScheduleKey, at: Wall) -> Result<(), Failure> {
    grow(db, row, |past| past.change(at))
}

fn grow(db: &Db, row: ScheduleKey, step: impl FnOnce(&mut Past)) -> Result<(), Failure> {
    // Primary key. The row is this transaction's: it has been changed in it.
    const READ: &str = "SELECT decided FROM schedules WHERE row = :row";
    const WRITE: &str = "UPDATE schedules SET decided = :decided WHERE row = :row";
    let mut past =
        db.prepare_cached(READ)?.query_row(named_params! { ":row": row.0 }, |row| past_at(row, 0))?;
    step(&mut past);
    db.prepare_cached(WRITE)?.execute(named_params! { ":row": row.0, ":decided": past.text() })?;
    Ok(())
}
