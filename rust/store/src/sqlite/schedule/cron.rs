//! Rows of crons. Invariant: a name of a cron that is declared or registered, and the workflow, expression and zone of one that was registered
//! without a name, stand in at most one row.

use cloaca_core::port::{CronMove, Moment, NewCron, Origin, Schedule, TriggerState};
use cloaca_core::time::Wall;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params};
use uuid::Uuid;

use crate::sqlite::fault::Failure;
use crate::sqlite::schedule::{columns, one};
use crate::sqlite::value::{micros, wall_maybe_at};

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

/// Whose a moment of a cron is, and what the cron starts; it is the asker's as far as nobody else holds it.
pub fn moment(db: &Connection, row: i64, seen: Wall, moment: Wall) -> Result<(Moment, String), Failure> {
    // Primary key; index runs_slot.
    const SQL: &str = "
        SELECT row, enabled, cursor, last_fired_at, owner, workflow, next_at, next_at > :moment
            OR EXISTS (SELECT 1 FROM runs WHERE schedule = :row AND scheduled_at = :moment)
        FROM schedules WHERE row = :row AND kind = 'cron' AND enabled AND updated_at = :seen";
    let read = |row: &Row<'_>| {
        if row.get::<_, Option<bool>>(7)?.unwrap_or(false) {
            return Ok((Moment::Over { next_at: wall_maybe_at(row, 6)? }, String::new()));
        }
        let state = TriggerState {
            row: row.get(0)?,
            enabled: row.get(1)?,
            cursor: row.get(2)?,
            last_fired_at: wall_maybe_at(row, 3)?,
            owner: row.get(4)?,
            others: Vec::new(),
            grid: None,
        };
        Ok((Moment::Yours(state), row.get(5)?))
    };
    let params = named_params! { ":row": row, ":seen": seen.0, ":moment": moment.0 };
    let found = db.prepare_cached(SQL)?.query_row(params, read).optional()?;
    Ok(found.unwrap_or((Moment::Changed, String::new())))
}

/// Notes who decides a cron's moment; nobody if none.
pub fn pass_moment(db: &Connection, row: i64, from: Option<i64>, to: Option<i64>) -> Result<(), Failure> {
    const SQL: &str =
        "UPDATE schedules SET owner = :to WHERE row = :row AND kind = 'cron' AND owner IS :from";
    db.prepare_cached(SQL)?.execute(named_params! { ":row": row, ":from": from, ":to": to })?;
    Ok(())
}

/// The cron that a call registers or a program declares, made if there is none.
pub fn put_cron(db: &Connection, cron: &NewCron<'_>) -> Result<Schedule, Failure> {
    let known = match cron.name.is_empty() {
        true => same_cron(db, cron.workflow, cron.expression, cron.timezone)?.map(|same| same.row),
        false => named_cron(db, cron)?,
    };
    let Some(row) = known else { return insert_cron(db, cron) };
    Ok(match cron_in(db, row)?.expect("a row found in this transaction is there") {
        // What is registered by a call stays as it is, whatever programs declare.
        known if known.origin == Origin::Registered && cron.origin != Origin::Registered => known,
        _ => {
            settle(db, row, cron)?;
            cron_in(db, row)?.expect("a row found in this transaction is there")
        }
    })
}

/// What was asked for by a name, for whoever asks for it again.
fn asked(cron: &NewCron<'_>) -> Option<String> {
    let asked = || format!("{}\n{}\n{}", cron.workflow, cron.expression, cron.timezone);
    (!cron.name.is_empty()).then(asked)
}

/// The row of a name, which has the three now that were asked for, unless they were asked for before; all others of that name are gone.
fn named_cron(db: &Connection, cron: &NewCron<'_>) -> Result<Option<i64>, Failure> {
    // Index schedules_cron_name. Release 0.1.0 left one for each expression that a name ever had.
    const NAMED: &str = "
        SELECT row, declared_as IS :asked OR (declared_as IS NULL AND workflow IS :workflow AND expression IS :expression
            AND timezone IS :timezone), registered
        FROM schedules WHERE kind = 'cron' AND name = :name AND name <> ''
        ORDER BY declared_as IS NULL, 2 DESC, row DESC LIMIT 1";
    const FORGET: &str =
        "DELETE FROM schedules WHERE kind = 'cron' AND name = :name AND name <> '' AND row <> :keep";
    const CHANGE: &str = "
        UPDATE schedules SET workflow = :workflow, expression = :expression, timezone = :timezone, next_at = :next_at,
            updated_at = max(:at, updated_at + 1)
        WHERE row = :row";
    let params = named_params! {
        ":name": cron.name,
        ":workflow": cron.workflow,
        ":expression": cron.expression,
        ":timezone": cron.timezone,
        ":asked": asked(cron),
    };
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?, row.get::<_, bool>(2)?));
    let mut statement = db.prepare_cached(NAMED)?;
    let Some((row, is_same, registered)) = statement.query_map(params, read)?.next().transpose()? else {
        return Ok(None);
    };
    db.prepare_cached(FORGET)?.execute(named_params! { ":name": cron.name, ":keep": row })?;
    if !is_same && (!registered || cron.origin == Origin::Registered) {
        db.prepare_cached(CHANGE)?.execute(named_params! {
            ":row": row,
            ":workflow": cron.workflow,
            ":expression": cron.expression,
            ":timezone": cron.timezone,
            ":next_at": micros(cron.next_at),
            ":at": cron.at.0,
        })?;
    }
    Ok(Some(row))
}

/// Notes whose a cron is and on which terms it runs. What is so already isn't written.
fn settle(db: &Connection, row: i64, cron: &NewCron<'_>) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE schedules SET declared_as = :asked, registered = :registered, context = :context, overlap = :overlap,
            catchup = :catchup
        WHERE row = :row AND (declared_as IS NOT :asked OR registered IS NOT :registered OR context IS NOT :context
            OR overlap IS NOT :overlap OR catchup IS NOT :catchup)";
    db.prepare_cached(SQL)?.execute(named_params! {
        ":row": row,
        ":asked": asked(cron),
        ":registered": cron.origin == Origin::Registered,
        ":context": cron.context,
        ":overlap": cron.overlap.name(),
        ":catchup": cron.catchup.name(),
    })?;
    Ok(())
}

fn insert_cron(db: &Connection, cron: &NewCron<'_>) -> Result<Schedule, Failure> {
    const SQL: &str = "
        INSERT INTO schedules
            (id, kind, name, workflow, expression, timezone, next_at, enabled, created_at, updated_at, declared_as, registered,
             context, overlap, catchup)
        VALUES (:id, 'cron', :name, :workflow, :expression, :timezone, :next_at, 1, :at, :at, :asked, :registered,
             :context, :overlap, :catchup)";
    db.prepare_cached(SQL)?.execute(named_params! {
        ":id": cron.id.to_string(),
        ":name": cron.name,
        ":workflow": cron.workflow,
        ":expression": cron.expression,
        ":timezone": cron.timezone,
        ":next_at": micros(cron.next_at),
        ":at": cron.at.0,
        ":asked": asked(cron),
        ":registered": cron.origin == Origin::Registered,
        ":context": cron.context,
        ":overlap": cron.overlap.name(),
        ":catchup": cron.catchup.name(),
    })?;
    Ok(cron_in(db, db.last_insert_rowid())?.expect("a row inserted in this transaction is there"))
}

fn cron_in(db: &Connection, row: i64) -> Result<Option<Schedule>, Failure> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM schedules WHERE row = :row");
    one(db, SQL, named_params! { ":row": row })
}

/// The one that was registered without a name: others are known by theirs, whatever they start and when.
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
        WHERE kind = 'cron' AND name = '' AND workflow = :workflow AND expression = :expression AND timezone = :timezone"
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
    if schedule.name.is_empty()
        && let Some(other) =
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

/// The cron of that name; of those that release 0.1.0 left the oldest.
pub fn cron_named(db: &Connection, name: &str) -> Result<Option<Schedule>, Failure> {
    // Index schedules_cron_name.
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM schedules WHERE kind = 'cron' AND name = :name AND name <> ''
        ORDER BY declared_as IS NULL, row LIMIT 1"
    );
    one(db, SQL, named_params! { ":name": name })
}
