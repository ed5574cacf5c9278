//! What runners say of themselves as they live. Invariant: it is bounded by its time, whoever wrote it and by whatever clock.

use cloaca_core::key::Epoch;
use cloaca_core::port::{MINUTES_KEPT_US, Minute, Sign};
use cloaca_core::time::Wall;

use super::db::{Db, named_params};
use super::fault::Failure;
use super::value::signed;

/// What lies further ahead than this was written by a clock that was wrong.
const AHEAD_US: i64 = 3600 * 1_000_000;

/// Keeps what a sign of life says.
pub fn give(db: &Db, epoch: Epoch, at: Wall, sign: &Sign) -> Result<(), Failure> {
    if let Some(minute) = &sign.minute {
        put(db, epoch, at, minute)?;
        forget(db, at)?;
    }
    let Some(long) = &sign.long else { return Ok(()) };
    // Index schedules_in_body.
    const BACK: &str = "
        UPDATE schedules SET in_body_since = NULL WHERE in_body_since IS NOT NULL AND owner = :epoch";
    const LONG: &str = "UPDATE schedules SET in_body_since = :since WHERE row = :row AND owner = :epoch";
    db.prepare_cached(BACK)?.execute(named_params! { ":epoch": epoch.0 })?;
    for (row, since) in long {
        let params = named_params! { ":row": row.0, ":epoch": epoch.0, ":since": since.0 };
        db.prepare_cached(LONG)?.execute(params)?;
    }
    Ok(())
}

fn put(db: &Db, epoch: Epoch, at: Wall, minute: &Minute) -> Result<(), Failure> {
    const SQL: &str = "
        INSERT INTO minutes (ended_at, owner, polls, fires, errors, started, completed, failed, cancelled)
        VALUES (:at, :owner, :polls, :fires, :errors, :started, :completed, :failed, :cancelled)
        ON CONFLICT (ended_at, owner) DO UPDATE SET (polls, fires, errors, started, completed, failed, cancelled) =
            (excluded.polls, excluded.fires, excluded.errors, excluded.started, excluded.completed, excluded.failed, excluded.cancelled)";
    db.prepare_cached(SQL)?.execute(named_params! {
        ":at": at.0,
        ":owner": epoch.0,
        ":polls": signed(minute.polls),
        ":fires": signed(minute.fires),
        ":errors": signed(minute.errors),
        ":started": signed(minute.started),
        ":completed": signed(minute.completed),
        ":failed": signed(minute.failed),
        ":cancelled": signed(minute.cancelled),
    })?;
    Ok(())
}

/// By the key of the table, once a minute a runner.
fn forget(db: &Db, at: Wall) -> Result<(), Failure> {
    const OLD: &str = "DELETE FROM minutes WHERE ended_at < :before";
    const AHEAD: &str = "DELETE FROM minutes WHERE ended_at > :behind";
    db.prepare_cached(OLD)?.execute(named_params! { ":before": at.0.saturating_sub(MINUTES_KEPT_US) })?;
    db.prepare_cached(AHEAD)?.execute(named_params! { ":behind": at.0.saturating_add(AHEAD_US) })?;
    Ok(())
}
