//! Which changes people made, by the page or the command line. Invariant: who changes something in a person's name notes it in the same
//! transaction; what was so already is no change, and what the program does by itself is not noted.

use std::sync::atomic::Ordering;

use cloaca_core::audit::current;
use cloaca_core::key::ScheduleKey;

use super::db::{Db, OptionalExtension as _, named_params};
use super::dialect::now_us;
use super::fault::Failure;

/// So many changes are kept, the newest.
const KEPT: i64 = 100_000;

/// Notes one change, if somebody makes it.
pub fn note(db: &Db, what: &str, about: &str) -> Result<(), Failure> {
    note_many(db, what, about, 1)
}

/// The same of a change of so many things at once; a step that goes on with the last one's adds to that.
pub fn note_many(db: &Db, what: &str, about: &str, many: u64) -> Result<(), Failure> {
    // The trait hands in no clock, so the database's tells when.
    const ADD: &str = "
        UPDATE audit SET many = many + :many
        WHERE row = (SELECT max(row) FROM audit) AND :what = 'prune'
            AND who = :who AND door = :door AND place IS NOT DISTINCT FROM :place AND what = :what AND about = :about";
    const NOTE: &str = concat!(
        "INSERT INTO audit (at, who, door, place, what, about, many) VALUES (",
        now_us!(),
        ", :who, :door, :place, :what, :about, :many)"
    );
    const FORGET: &str = "DELETE FROM audit WHERE row <= (SELECT max(row) FROM audit) - :kept";
    let Some(by) = current() else { return Ok(()) };
    let many = i64::try_from(many).unwrap_or(i64::MAX);
    let params = named_params! {
        ":who": by.who, ":door": by.door, ":place": by.place, ":what": what, ":about": about, ":many": many
    };
    if db.prepare_cached(ADD)?.execute(params)? == 0 {
        db.prepare_cached(NOTE)?.execute(params)?;
        db.prepare_cached(FORGET)?.execute(named_params! { ":kept": KEPT })?;
    }
    by.has_changed.store(true, Ordering::Release);
    Ok(())
}

/// Notes a change of a schedule, by its name or, if it has none, its id.
pub fn note_schedule(db: &Db, what: &str, row: ScheduleKey) -> Result<(), Failure> {
    const NAME: &str =
        "SELECT CASE WHEN name = '' THEN CAST(id AS TEXT) ELSE name END FROM schedules WHERE row = :row";
    if current().is_none() {
        return Ok(());
    }
    let name: Option<String> =
        db.prepare_cached(NAME)?.query_row(named_params! { ":row": row.0 }, |row| row.get(0)).optional()?;
    note(db, what, &name.unwrap_or_default())
}
