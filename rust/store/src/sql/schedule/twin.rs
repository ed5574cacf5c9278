//! A name that is polled and a cron's one after the other has a row as each. Invariant: where it has come to stands in the row that was
//! served last; the other one is `stale`, and takes that over before it is served again.

use cloaca_core::key::{Epoch, ScheduleKey};
use cloaca_core::time::Wall;

use super::super::db::{Db, OptionalExtension as _, named_params};
use super::super::dialect::for_update;
use super::super::fault::Failure;
use super::super::value::wall_maybe_at;

/// The other rows of the name of a schedule, `:row`. What a call registered is by itself.
macro_rules! twins {
    () => {
        "SELECT twin.row FROM schedules AS own
            JOIN schedules AS twin ON twin.kind = 'cron' AND twin.name <> '' AND twin.name = own.name
            WHERE own.row = :row AND own.kind = 'trigger' AND NOT twin.registered
        UNION ALL SELECT twin.row FROM schedules AS own
            JOIN schedules AS twin ON twin.kind = 'trigger' AND twin.name = own.name
            WHERE own.row = :row AND own.kind = 'cron' AND own.name <> '' AND NOT own.registered"
    };
}
pub(crate) use twins;

/// Whether that would switch a schedule, or what its name was while it was a cron, or polled; to switch on what fails ends its count, too.
pub fn would_switch(db: &Db, row: ScheduleKey, enabled: bool, cause: Option<&str>) -> Result<bool, Failure> {
    // Primary key; indices schedules_trigger, schedules_cron_name.
    const SQL: &str = concat!(
        "SELECT 1 FROM schedules
        WHERE row = :row AND (enabled <> :enabled OR disabled_cause IS DISTINCT FROM :cause OR :enabled AND failures > 0)
            OR enabled <> :enabled AND row IN (",
        twins!(),
        ")"
    );
    let cause = cause.filter(|_| !enabled);
    let params = named_params! { ":row": row.0, ":enabled": enabled, ":cause": cause };
    Ok(db.prepare_cached(SQL)?.exists(params)?)
}

/// The other row of a name, and whose it is: who polls it, or decides a moment of it.
#[derive(Clone, Copy)]
pub struct Twin {
    pub row: ScheduleKey,
    pub owner: Option<Epoch>,
}

/// What was polled under the name of a cron that a program declares.
pub fn polled(db: &Db, cron: ScheduleKey) -> Result<Option<Twin>, Failure> {
    // Primary key; index schedules_trigger.
    const SQL: &str = concat!(
        "SELECT row, owner FROM schedules
        WHERE kind = 'trigger' AND name = (SELECT cron.name FROM schedules AS cron
            WHERE cron.row = :row AND cron.kind = 'cron' AND cron.declared_as IS NOT NULL AND NOT cron.registered)",
        for_update!()
    );
    let params = named_params! { ":row": cron.0 };
    let read = db.prepare_cached(SQL)?.query_row(params, |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(read.optional()?.map(twin))
}

/// The cron that a program declares, or declared, under a name.
pub fn cron(db: &Db, name: &str) -> Result<Option<Twin>, Failure> {
    // Index schedules_cron_name.
    const SQL: &str = concat!(
        "SELECT row, owner FROM schedules
        WHERE kind = 'cron' AND name = :name AND name <> '' AND declared_as IS NOT NULL AND NOT registered",
        for_update!()
    );
    let params = named_params! { ":name": name };
    let read = db.prepare_cached(SQL)?.query_row(params, |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(read.optional()?.map(twin))
}

fn twin((row, owner): (i64, Option<i64>)) -> Twin {
    Twin { row: ScheduleKey(row), owner: owner.map(Epoch) }
}

/// A cursor, and when a run was fired last.
pub type Reached = (Option<String>, Option<Wall>);

/// A schedule is served from now on, and goes on where its twin has come to, if that was served after it: with its cursor, and when that
/// fired last.
pub fn follow(db: &Db, row: ScheduleKey, twin: Twin) -> Result<Option<Reached>, Failure> {
    const FOLLOW: &str = "
        UPDATE schedules SET cursor = twin.cursor, last_fired_at = twin.last_fired_at, stale = FALSE
        FROM schedules AS twin
        WHERE twin.row = :twin AND schedules.row = :row AND schedules.stale
        RETURNING schedules.cursor, schedules.last_fired_at";
    let params = named_params! { ":row": row.0, ":twin": twin.row.0 };
    let moved = db.prepare_cached(FOLLOW)?.query_row(params, |row| Ok((row.get(0)?, wall_maybe_at(row, 1)?)));
    let stand = moved.optional()?;
    if stand.is_some() {
        grow_stale(db, twin.row)?;
    }
    Ok(stand)
}

/// Where that name has come to stands in its other row from now on.
pub fn grow_stale(db: &Db, row: ScheduleKey) -> Result<(), Failure> {
    const SQL: &str = "UPDATE schedules SET stale = TRUE WHERE row = :row";
    db.prepare_cached(SQL)?.execute(named_params! { ":row": row.0 })?;
    Ok(())
}
