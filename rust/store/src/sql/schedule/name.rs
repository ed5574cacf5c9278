//! Names of schedules that no program declares any more. Invariant: a name goes, or becomes another, only while no living owner serves it.

use cloaca_core::key::{Epoch, ScheduleKey};
use cloaca_core::port::{Forgotten, Origin, Renamed};
use uuid::Uuid;

use super::super::db::{self, Db, named_params};
use super::super::fault::Failure;
use super::super::{audit, end, owner};
use super::{cron, version};

/// What has a name: its trigger, and its crons but for those that a call registered.
struct Named {
    rows: Vec<ScheduleKey>,
    /// A living owner other than the one that asks that polls it, decides a moment of it, or declares it.
    by: Option<Epoch>,
}

fn named(db: &Db, epoch: Epoch, name: &str) -> Result<Named, Failure> {
    // Indices schedules_trigger, schedules_cron_name.
    const FOUND: &str = "
        SELECT row, owner FROM schedules WHERE kind = 'trigger' AND name = :name
        UNION ALL SELECT row, owner FROM schedules WHERE kind = 'cron' AND name = :name AND name <> '' AND NOT registered";
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
    let by = living_of(db, others.filter(|&owner| owner != epoch))?;
    Ok(Named { rows: found.into_iter().map(|(row, _)| row).collect(), by })
}

/// The first of them that lives.
fn living_of(db: &Db, owners: impl IntoIterator<Item = Epoch>) -> Result<Option<Epoch>, Failure> {
    for owner in owners {
        if owner::is_living(db, owner)? {
            return Ok(Some(owner));
        }
    }
    Ok(None)
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
    if !rows.is_empty() {
        audit::note(db, "forget", name)?;
    }
    Ok(Forgotten::Gone(rows))
}

/// Deletes a cron and keeps its runs, unless it is a declaration's that a living owner declares: that runs by what it declared, and would
/// miss its row.
pub fn delete_cron(db: &Db, id: Uuid) -> Result<Forgotten, Failure> {
    const SQL: &str = "DELETE FROM schedules WHERE row = :row";
    let Some(cron) = cron(db, id)? else { return Ok(Forgotten::Gone(Vec::new())) };
    if cron.origin == Origin::Declared
        && let Some(by) = living_of(db, version::declarers(db, &cron.name)?)?
    {
        return Ok(Forgotten::Polled { by });
    }
    db.prepare_cached(SQL)?.execute(named_params! { ":row": cron.row.0 })?;
    Ok(Forgotten::Gone(vec![cron.row]))
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
        audit::note(db, "rename", from)?;
        audit::note(db, "rename", to)?;
    }
    Ok(Renamed::Done(rows))
}
