//! Names of schedules that no program declares any more. Invariant: a name goes, or becomes another, only while no living owner serves it.

use cloaca_core::key::{Epoch, ScheduleKey};
use cloaca_core::port::{Forgotten, Renamed};

use super::super::db::{self, Db, named_params};
use super::super::fault::Failure;
use super::super::{end, owner};
use super::version;

/// What has a name: its trigger, and its crons but for those that a call registered.
struct Named {
    rows: Vec<ScheduleKey>,
    /// A living owner other than the one that asks that polls it, or declares it.
    by: Option<Epoch>,
}

fn named(db: &Db, epoch: Epoch, name: &str) -> Result<Named, Failure> {
    // Indices schedules_trigger, schedules_cron_name.
    const FOUND: &str = "
        SELECT row, owner FROM schedules WHERE kind = 'trigger' AND name = :name
        UNION ALL SELECT row, NULL FROM schedules WHERE kind = 'cron' AND name = :name AND name <> '' AND NOT registered";
    let mut statement = db.prepare_cached(FOUND)?;
    let found = statement.query_map(named_params! { ":name": name }, |row| {
        Ok((ScheduleKey(row.get(0)?), row.get::<_, Option<i64>>(1)?.map(Epoch)))
    })?;
    let found: Vec<(ScheduleKey, Option<Epoch>)> = found.collect::<db::Result<_>>()?;
    let standing_by = match found.is_empty() {
        true => Vec::new(),
        false => version::declarers(db, name)?,
    };
    let others = found.iter().filter_map(|&(_, owner)| owner).chain(standing_by);
    let mut by = None;
    for other in others.filter(|&owner| owner != epoch) {
        if owner::is_living(db, other)? {
            by = Some(other);
            break;
        }
    }
    Ok(Named { rows: found.into_iter().map(|(row, _)| row).collect(), by })
}

/// Deletes the trigger and the crons of a name with what hangs on them, but for their runs, unless a living owner other than `epoch` polls it.
pub fn forget(db: &Db, epoch: Epoch, name: &str) -> Result<Forgotten, Failure> {
    // Index ticks_schedule, and primary keys.
    const GONE: [&str; 3] = [
        "DELETE FROM ticks WHERE schedule = :row",
        "DELETE FROM run_keys WHERE schedule = :row",
        "DELETE FROM schedules WHERE row = :row",
    ];
    let Named { rows, by } = named(db, epoch, name)?;
    if let Some(by) = by {
        return Ok(Forgotten::Polled { by });
    }
    version::forget(db, name)?;
    for row in &rows {
        end::forget(db, *row)?;
        for sql in GONE {
            db.prepare_cached(sql)?.execute(named_params! { ":row": row.0 })?;
        }
    }
    Ok(Forgotten::Gone(rows))
}

/// Gives the trigger and the crons of a name another one, with all that hangs on them, unless a living owner other than `epoch` polls it, or
/// something has the other name.
pub fn rename(db: &Db, epoch: Epoch, from: &str, to: &str) -> Result<Renamed, Failure> {
    // Indices schedules_trigger, schedules_cron_name.
    const TAKEN: &str = "
        SELECT 1 FROM schedules WHERE kind = 'trigger' AND name = :name
        UNION ALL SELECT 1 FROM schedules WHERE kind = 'cron' AND name = :name AND name <> ''";
    // A step of the cron that was decided under its old name is not kept.
    const RENAME: &str = "UPDATE schedules SET name = :name, updated_at = updated_at + 1 WHERE row = :row";
    let Named { rows, by } = named(db, epoch, from)?;
    if let Some(by) = by {
        return Ok(Renamed::Polled { by });
    }
    if !rows.is_empty() && db.prepare_cached(TAKEN)?.exists(named_params! { ":name": to })? {
        return Ok(Renamed::Taken);
    }
    for row in &rows {
        db.prepare_cached(RENAME)?.execute(named_params! { ":row": row.0, ":name": to })?;
    }
    if !rows.is_empty() {
        version::rename(db, from, to)?;
    }
    Ok(Renamed::Done(rows))
}
