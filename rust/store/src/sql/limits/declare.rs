//! What limits are in force. Invariant: the lanes of a workflow are those of the limits that are in force.

use cloaca_core::key::RunRow;
use cloaca_core::limit::Limits;

use super::super::db::{self, Db, OptionalExtension as _, named_params};
use super::super::dialect::by_index;
use super::super::fault::Failure;
use super::super::run::line::place;
use super::{HELD, Seat, mark, put_seat, stand};

/// Whether any workflow has limits.
pub fn is_any(db: &Db) -> Result<bool, Failure> {
    Ok(db.prepare_cached("SELECT 1 FROM limited LIMIT 1")?.exists([])?)
}

/// What limits a workflow. What this version does not understand limits nothing here: whoever declared it is newer.
pub fn in_force(db: &Db, workflow: &str) -> Result<Option<Limits>, Failure> {
    Ok(text_of(db, workflow)?.and_then(|text| Limits::from_json(&text).ok()))
}

fn text_of(db: &Db, workflow: &str) -> Result<Option<String>, Failure> {
    const SQL: &str = "SELECT limits FROM limited WHERE workflow = :workflow";
    let found = db.prepare_cached(SQL)?.query_row(named_params! { ":workflow": workflow }, |row| row.get(0));
    Ok(found.optional()?)
}

/// Those of these workflows, which somebody declares or has declared.
pub fn renew_all(db: &Db, names: &[String]) -> Result<(), Failure> {
    const DECLARED: &str = "SELECT 1 FROM workflows WHERE limits IS NOT NULL LIMIT 1";
    if !is_any(db)? && !db.prepare_cached(DECLARED)?.exists([])? {
        return Ok(());
    }
    names.iter().try_for_each(|name| renew(db, name))
}

/// What the runner declares that came last is in force. While none does, it stays as it was.
fn renew(db: &Db, workflow: &str) -> Result<(), Failure> {
    const NEWEST: &str = "SELECT limits FROM workflows WHERE name = :workflow ORDER BY owner DESC LIMIT 1";
    let newest = db
        .prepare_cached(NEWEST)?
        .query_row(named_params! { ":workflow": workflow }, |row| row.get::<_, Option<String>>(0));
    match newest.optional()? {
        Some(limits) if limits != text_of(db, workflow)? => put(db, workflow, limits.as_deref()),
        _ => Ok(()),
    }
}

/// From here on these are in force, and whatever is not over of that workflow stands by them.
pub fn put(db: &Db, workflow: &str, limits: Option<&str>) -> Result<(), Failure> {
    const PUT: &str = "
        INSERT INTO limited (workflow, limits) VALUES (:workflow, :limits)
        ON CONFLICT (workflow) DO UPDATE SET limits = excluded.limits";
    const DELETE: &str = "DELETE FROM limited WHERE workflow = :workflow";
    match limits {
        Some(limits) => {
            db.prepare_cached(PUT)?.execute(named_params! { ":workflow": workflow, ":limits": limits })?
        }
        None => db.prepare_cached(DELETE)?.execute(named_params! { ":workflow": workflow })?,
    };
    stand_anew(db, workflow)
}

/// An unfinished run, with how it stood.
struct Standing {
    row: RunRow,
    context: String,
    priority: i64,
    not_before: Option<i64>,
    /// Somebody has it, or it has begun.
    is_begun: bool,
    party: i64,
    schedule: Option<i64>,
}

/// Each unfinished run of a workflow stands by what is in force now: what is in hand or has begun sits, whatever that makes of a limit.
fn stand_anew(db: &Db, workflow: &str) -> Result<(), Failure> {
    const FREE: &str = "
        UPDATE runs SET limited = FALSE, not_before = CASE WHEN not_before < :held THEN not_before END WHERE row = :row";
    const SEAT: &str = "DELETE FROM seats WHERE run = :row";
    // What is left are seats of runs whose bodies still run; they are counted by their keys.
    const LANES: &str = "DELETE FROM lanes WHERE workflow = :workflow AND NOT EXISTS (SELECT 1 FROM seats WHERE lane = lanes.row)";
    const KEYS: &str = "
        DELETE FROM keys WHERE workflow = :workflow AND stamp IS NULL
            AND NOT EXISTS (SELECT 1 FROM lanes WHERE keys.row IN (lanes.seat, lanes.pace))";
    let limits = in_force(db, workflow)?;
    let counts = limits.as_ref().filter(|limits| limits.concurrency.is_some() || limits.throttle.is_some());
    let standings = standings(db, workflow)?;
    for run in &standings {
        db.prepare_cached(SEAT)?.execute(named_params! { ":row": run.row.0 })?;
        db.prepare_cached(FREE)?.execute(named_params! { ":row": run.row.0, ":held": HELD.0 })?;
    }
    db.prepare_cached(LANES)?.execute(named_params! { ":workflow": workflow })?;
    db.prepare_cached(KEYS)?.execute(named_params! { ":workflow": workflow })?;
    let Some(limits) = counts else { return Ok(()) };
    for run in &standings {
        // One that has no such key stands with the others that have none: it was asked for before it needed one.
        let keys = limits.keys_of(&run.context).unwrap_or_default();
        let is_delayed = run.not_before.is_some_and(|due| due < HELD.0);
        let stand = match limits.holds() {
            true if run.is_begun => stand::SITS,
            true if is_delayed => stand::DELAYED,
            true => stand::WAITS,
            false => stand::SITS,
        };
        mark(db, run.row, stand == stand::WAITS)?;
        let (priority, party, schedule) = (run.priority, run.party, run.schedule);
        put_seat(db, &Seat { run: run.row.0, keys: &keys, workflow, priority, stand, party, schedule })?;
    }
    Ok(())
}

fn standings(db: &Db, workflow: &str) -> Result<Vec<Standing>, Failure> {
    const SQL: &str = concat!("
        SELECT runs.row, context, runs.priority, not_before,
            owner IS NOT NULL OR started_at IS NOT NULL OR EXISTS (SELECT 1 FROM tasks WHERE tasks.run = runs.row),
            coalesce(party, runs.row), CASE WHEN waits THEN runs.schedule END
        FROM runs", by_index!("runs_unfinished"), " LEFT JOIN seats ON seats.run = runs.row
        WHERE completed_at IS NULL AND workflow = :workflow ORDER BY ", place!("runs."));
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map(named_params! { ":workflow": workflow }, |row| {
        Ok(Standing {
            row: RunRow(row.get(0)?),
            context: row.get(1)?,
            priority: row.get(2)?,
            not_before: row.get(3)?,
            is_begun: row.get(4)?,
            party: row.get(5)?,
            schedule: row.get(6)?,
        })
    })?;
    Ok(rows.collect::<db::Result<_>>()?)
}
