//! Rows of crons. Invariant: a declared cron's name, and the workflow, expression and zone of a cron that was registered by hand, stand in
//! at most one row.

use cloaca_core::port::{CronMove, NewCron, Schedule};
use cloaca_core::time::Wall;
use rusqlite::{Connection, Row, named_params};
use uuid::Uuid;

use crate::sqlite::fault::Failure;
use crate::sqlite::schedule::{columns, one};
use crate::sqlite::value::micros;

/// Saves a cron's next and last moments, unless it was changed since they were decided.
pub fn move_cron(db: &Connection, step: &CronMove) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE schedules SET next_at = :next_at, last_at = coalesce(:last_at, last_at)
        WHERE row = :row AND kind = 'cron' AND updated_at = :seen";
    let params = named_params! {
        ":row": step.row,
        ":seen": step.seen.0,
        ":next_at": micros(step.next_at),
        ":last_at": micros(step.last_at),
    };
    db.prepare_cached(SQL)?.execute(params)?;
    Ok(())
}

/// The cron that a call registers or a program declares, made if there is none.
pub fn put_cron(db: &Connection, cron: &NewCron<'_>) -> Result<Schedule, Failure> {
    const TO_DATA: &str = "UPDATE schedules SET name = '', declared_as = NULL WHERE row = :row";
    let same = same_cron(db, cron.workflow, cron.expression, cron.timezone)?;
    if !cron.name.is_empty() {
        return declare_cron(db, cron, same.filter(|same| same.name.is_empty()));
    }
    match same {
        // What is registered by hand stays, whatever programs declare.
        Some(same) if same.declared => {
            db.prepare_cached(TO_DATA)?.execute(named_params! { ":row": same.row })?;
            Ok(Schedule { name: String::new(), declared: false, ..same })
        }
        Some(same) => Ok(same),
        None => insert_cron(db, cron, None),
    }
}

/// The cron of a name, as it is declared now; `data` is the one that was registered by hand with the same three.
fn declare_cron(db: &Connection, cron: &NewCron<'_>, data: Option<Schedule>) -> Result<Schedule, Failure> {
    // Index schedules_cron_name.
    const NAMED: &str = "
        SELECT row, declared_as, workflow IS :workflow AND expression IS :expression AND timezone IS :timezone
        FROM schedules WHERE kind = 'cron' AND name = :name AND name <> '' ORDER BY row";
    const FORGET: &str =
        "DELETE FROM schedules WHERE kind = 'cron' AND name = :name AND name <> '' AND row <> :keep";
    const ADOPT: &str = "UPDATE schedules SET declared_as = :declared_as WHERE row = :row";
    const CHANGE: &str = "
        UPDATE schedules SET workflow = :workflow, expression = :expression, timezone = :timezone, next_at = :next_at,
            declared_as = :declared_as, updated_at = max(:at, updated_at + 1)
        WHERE row = :row";
    let forget =
        |keep: i64| db.prepare_cached(FORGET)?.execute(named_params! { ":name": cron.name, ":keep": keep });
    if let Some(data) = data {
        forget(data.row)?;
        return Ok(data);
    }
    let declared_as = format!("{}\n{}\n{}", cron.workflow, cron.expression, cron.timezone);
    let params = named_params! {
        ":name": cron.name, ":workflow": cron.workflow, ":expression": cron.expression, ":timezone": cron.timezone,
    };
    let read =
        |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, bool>(2)?));
    let named: Vec<(i64, Option<String>, bool)> =
        db.prepare_cached(NAMED)?.query_map(params, read)?.collect::<rusqlite::Result<_>>()?;
    // Release 0.1.0 left one for each expression that a name ever had.
    let known = named.iter().find(|(_, before, _)| before.is_some());
    let known = known.or_else(|| named.iter().find(|(_, _, is_same)| *is_same)).or(named.last());
    let Some((row, before, is_same)) = known else { return insert_cron(db, cron, Some(&declared_as)) };
    forget(*row)?;
    match before {
        Some(before) if *before == declared_as => {}
        None if *is_same => {
            db.prepare_cached(ADOPT)?.execute(named_params! { ":row": row, ":declared_as": declared_as })?;
        }
        _ => {
            db.prepare_cached(CHANGE)?.execute(named_params! {
                ":row": row,
                ":workflow": cron.workflow,
                ":expression": cron.expression,
                ":timezone": cron.timezone,
                ":next_at": micros(cron.next_at),
                ":declared_as": declared_as,
                ":at": cron.at.0,
            })?;
        }
    }
    Ok(cron_in(db, *row)?.expect("a row found in this transaction is there"))
}

fn insert_cron(db: &Connection, cron: &NewCron<'_>, declared_as: Option<&str>) -> Result<Schedule, Failure> {
    const SQL: &str = "
        INSERT INTO schedules
            (id, kind, name, workflow, expression, timezone, next_at, enabled, created_at, updated_at, declared_as)
        VALUES (:id, 'cron', :name, :workflow, :expression, :timezone, :next_at, 1, :at, :at, :declared_as)";
    db.prepare_cached(SQL)?.execute(named_params! {
        ":id": cron.id.to_string(),
        ":name": cron.name,
        ":workflow": cron.workflow,
        ":expression": cron.expression,
        ":timezone": cron.timezone,
        ":next_at": micros(cron.next_at),
        ":at": cron.at.0,
        ":declared_as": declared_as,
    })?;
    Ok(cron_in(db, db.last_insert_rowid())?.expect("a row inserted in this transaction is there"))
}

fn cron_in(db: &Connection, row: i64) -> Result<Option<Schedule>, Failure> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM schedules WHERE row = :row");
    one(db, SQL, named_params! { ":row": row })
}

/// The one that was registered by hand, if there are several.
fn same_cron(
    db: &Connection,
    workflow: &str,
    expression: &str,
    timezone: &str,
) -> Result<Option<Schedule>, Failure> {
    // Index schedules_cron.
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM schedules
        WHERE kind = 'cron' AND workflow = :workflow AND expression = :expression AND timezone = :timezone
        ORDER BY name, row LIMIT 1"
    );
    let params = named_params! { ":workflow": workflow, ":expression": expression, ":timezone": timezone };
    one(db, SQL, params)
}

/// Replaces a cron's expression and zone; false if there is no such cron.
pub fn update_cron(
    db: &Connection,
    id: Uuid,
    expression: &str,
    timezone: &str,
    next_at: Option<Wall>,
    at: Wall,
) -> Result<bool, Failure> {
    const SQL: &str = "
        UPDATE schedules
        SET expression = :expression, timezone = :timezone, next_at = :next_at, updated_at = max(:at, updated_at + 1)
        WHERE id = :id AND kind = 'cron'";
    let Some(schedule) = cron(db, id)? else { return Ok(false) };
    if let Some(other) =
        same_cron(db, &schedule.workflow, expression, timezone)?.filter(|other| other.id != id)
    {
        return Err(Failure::Refused(format!(
            "workflow '{}' already has a cron '{expression}' in '{timezone}': {}; change or delete that one",
            schedule.workflow, other.id
        )));
    }
    let changed = db.prepare_cached(SQL)?.execute(named_params! {
        ":id": id.to_string(),
        ":expression": expression,
        ":timezone": timezone,
        ":next_at": micros(next_at),
        ":at": at.0,
    })?;
    Ok(changed == 1)
}

/// Deletes a cron and keeps its runs; false if there is no such cron.
pub fn delete_cron(db: &Connection, id: Uuid) -> Result<bool, Failure> {
    const SQL: &str = "DELETE FROM schedules WHERE id = :id AND kind = 'cron'";
    Ok(db.prepare_cached(SQL)?.execute(named_params! { ":id": id.to_string() })? == 1)
}

/// The cron with that id.
pub fn cron(db: &Connection, id: Uuid) -> Result<Option<Schedule>, Failure> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM schedules WHERE kind = 'cron' AND id = :id");
    one(db, SQL, named_params! { ":id": id.to_string() })
}
