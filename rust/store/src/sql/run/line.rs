//! Runs that were opened again while others have of their line. Invariant: such a run is nobody's until none of its line is in another hand, and while
//! somebody who could have it polls its trigger it becomes only his: then one memory decides who stands before whom.

use cloaca_core::admit::Overlap;
use cloaca_core::key::{Epoch, RunRow, ScheduleKey};
use cloaca_core::port::TickChange;
use uuid::Uuid;

use super::super::db::{Db, OptionalExtension as _, named_params};
use super::super::dialect::{by_index, is_guarded, is_unguarded};
use super::super::fault::Failure;
use super::super::value::id_at;

/// Another living owner than `:epoch` polls the trigger of a run, and declares its workflow. Primary keys.
macro_rules! polled_by_another {
    () => {
        "EXISTS (SELECT 1 FROM schedules
            JOIN owners ON owners.epoch = schedules.owner AND owners.left_at IS NULL
            JOIN workflows ON workflows.name = runs.workflow AND workflows.owner = schedules.owner
            WHERE schedules.row = runs.schedule AND schedules.owner <> :epoch)"
    };
}
pub(super) use polled_by_another;

/// One of a run's line is in another hand than that of `:epoch`, of those for which `$which` holds. What a cron's overlap has decided has no hash.
macro_rules! others_have {
    ($which:literal) => {
        concat!(
            "(EXISTS (SELECT 1 FROM runs AS other",
            by_index!("runs_hash"),
            " WHERE other.schedule = runs.schedule AND ",
            is_guarded!("other"),
            " AND other.completed_at IS NULL AND other.owner <> :epoch AND other.row <> runs.row",
            $which,
            ")
            OR EXISTS (SELECT 1 FROM runs AS other",
            by_index!("runs_unguarded"),
            " WHERE other.schedule = runs.schedule AND ",
            is_unguarded!("other"),
            " AND other.context_hash IS NOT NULL AND other.completed_at IS NULL AND other.owner <> :epoch AND other.row <> runs.row",
            $which,
            ")
            OR runs.context_hash IS NULL AND EXISTS (SELECT 1 FROM runs AS other",
            by_index!("runs_schedule"),
            " WHERE other.schedule = runs.schedule AND other.completed_at IS NULL AND other.owner <> :epoch AND other.row <> runs.row",
            $which,
            "))"
        )
    };
}
pub(super) use others_have;

/// A run of its line was opened again, and is nobody's yet.
macro_rules! stands_apart {
    () => {
        concat!(
            "EXISTS (SELECT 1 FROM runs AS again", by_index!("runs_apart"), "
            WHERE again.schedule = runs.schedule AND again.apart IS NOT NULL AND again.completed_at IS NULL AND again.row <> runs.row)"
        )
    };
}
pub(super) use stands_apart;

/// As far as its line goes, a run that is nobody's may be handed to `:epoch`. Beside one that stands apart, others leave the line to who polls; and of
/// those that were opened again, which stand before all of their line, all are in one hand.
macro_rules! may_be_handed_out {
    () => {
        concat!(
            "(runs.apart IS NULL OR NOT ",
            polled_by_another!(),
            ")
            AND (NOT runs.waits OR runs.reopened = 0 OR NOT ",
            others_have!(" AND (runs.apart IS NOT NULL OR other.reopened > 0)"),
            ")
            AND (NOT runs.waits OR runs.apart IS NOT NULL OR NOT ",
            stands_apart!(),
            " OR NOT ",
            polled_by_another!(),
            ")"
        )
    };
}
pub(super) use may_be_handed_out;

/// Whether a final run that `epoch` opens again becomes nobody's.
pub fn parts(db: &Db, epoch: Epoch, row: RunRow) -> Result<bool, Failure> {
    const SQL: &str = concat!(
        "SELECT 1 FROM runs WHERE row = :row AND waits AND schedule IS NOT NULL AND (",
        polled_by_another!(),
        " OR ",
        others_have!(""),
        " OR ",
        stands_apart!(),
        ")"
    );
    Ok(db.prepare_cached(SQL)?.exists(named_params! { ":row": row.0, ":epoch": epoch.0 })?)
}

/// A run that was to be apart waits for something else.
pub fn join(db: &Db, row: RunRow) -> Result<(), Failure> {
    const SQL: &str = "UPDATE runs SET apart = NULL WHERE row = :row";
    db.prepare_cached(SQL)?.execute(named_params! { ":row": row.0 })?;
    Ok(())
}

/// Whether any run is.
pub fn is_any_apart(db: &Db) -> Result<bool, Failure> {
    const SQL: &str = concat!(
        "SELECT 1 FROM runs",
        by_index!("runs_apart"),
        " WHERE apart IS NOT NULL AND completed_at IS NULL LIMIT 1"
    );
    Ok(db.prepare_cached(SQL)?.exists([])?)
}

/// One of the trigger of a tick that is, if its policy asks what is unfinished.
pub fn apart(db: &Db, tick: &TickChange) -> Result<Option<Uuid>, Failure> {
    const SQL: &str = concat!(
        "SELECT id FROM runs",
        by_index!("runs_apart"),
        " WHERE schedule = :schedule AND apart IS NOT NULL AND completed_at IS NULL LIMIT 1"
    );
    if tick.fires.is_empty() || !matches!(tick.overlap, Overlap::Skip | Overlap::BufferOne) {
        return Ok(None);
    }
    let params = named_params! { ":schedule": tick.schedule.0 };
    Ok(db.prepare_cached(SQL)?.query_row(params, |row| id_at(row, 0)).optional()?)
}

/// Whether that one leaves no place for a fire of its trigger.
pub fn is_full(db: &Db, schedule: ScheduleKey, overlap: Overlap) -> Result<bool, Failure> {
    const SQL: &str = concat!(
        "SELECT count(*) > 1 FROM (
            SELECT 1 AS one FROM runs AS other",
        by_index!("runs_hash"),
        " WHERE other.schedule = :schedule AND ",
        is_guarded!("other"),
        " AND other.completed_at IS NULL
            UNION ALL SELECT 1 FROM runs AS other",
        by_index!("runs_unguarded"),
        " WHERE other.schedule = :schedule AND ",
        is_unguarded!("other"),
        " AND other.context_hash IS NOT NULL AND other.completed_at IS NULL LIMIT 2) AS line"
    );
    match overlap {
        Overlap::BufferOne => {
            let params = named_params! { ":schedule": schedule.0 };
            Ok(db.prepare_cached(SQL)?.query_row(params, |row| row.get(0))?)
        }
        overlap => Ok(overlap == Overlap::Skip),
    }
}
