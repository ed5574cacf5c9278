//! Listings of runs. Invariant: no listing sorts; each walks an index, or the table, from its newest row.

use cloaca_core::port::{CronStats, Page, RunFilter, RunRow, RunStatus, TaskRecord};
use cloaca_core::time::Wall;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, named_params};
use uuid::Uuid;

use crate::sqlite::fault::Failure;
use crate::sqlite::run::tasks;
use crate::sqlite::schedule;
use crate::sqlite::value::{count_at, hash_at, id_at, run_status_at, signed, wall_at, wall_maybe_at};

/// Runs by a `FROM` item and a condition, in the columns that [`run_of`] reads; of the contexts those that are given.
macro_rules! select_runs {
    ($contexts:literal, $from:literal, $condition:literal) => {
        concat!(
            "SELECT r.row, r.id, r.workflow, r.status, nullif(s.name, ''), r.run_key, r.context_hash, r.scheduled_at,
                r.created_at, r.completed_at, r.error, r.started_at, ",
            $contexts,
            " FROM ",
            $from,
            " LEFT JOIN schedules AS s ON s.row = r.schedule WHERE ",
            $condition
        )
    };
}

/// A page of [`select_runs`], with the filter's conditions. What is not shown is not read: a context may fill thousands of pages.
macro_rules! page_of_runs {
    ($from:literal, $condition:literal) => {
        concat!(
            select_runs!("CASE WHEN :contexts THEN r.context END, NULL", $from, $condition),
            " AND (:schedule IS NULL OR r.schedule IN (:schedule, :other))
            AND (:workflow IS NULL OR r.workflow = :workflow)
            AND (:status IS NULL OR r.status = :status)
            ORDER BY r.row DESC LIMIT :limit OFFSET :offset"
        )
    };
}

const BY_SCHEDULE: &str = page_of_runs!("runs AS r INDEXED BY runs_schedule", "r.schedule = :schedule");
const BY_WORKFLOW: &str = page_of_runs!("runs AS r INDEXED BY runs_workflow", "r.workflow = :workflow");
const UNFINISHED: &str = page_of_runs!("runs AS r INDEXED BY runs_unfinished", "r.completed_at IS NULL");
const ANY: &str = page_of_runs!("runs AS r", "1");

/// Statements with what their plan must name.
#[cfg(test)]
pub const PLANS: [(&str, &str); 4] = [
    (BY_SCHEDULE, "USING INDEX runs_schedule"),
    (BY_WORKFLOW, "USING INDEX runs_workflow"),
    (UNFINISHED, "USING INDEX runs_unfinished"),
    (ANY, "SCAN r"),
];

/// Runs, newest first.
pub fn list(db: &Connection, filter: &RunFilter, page: Page) -> Result<Vec<RunRow>, Failure> {
    let Some([schedule, other]) = schedule_rows(db, filter)? else { return Ok(Vec::new()) };
    let mut statement = db.prepare_cached(statement_for(filter, schedule, other))?;
    let params = named_params! {
        ":schedule": schedule,
        ":other": other,
        ":workflow": filter.workflow,
        ":status": filter.status.map(RunStatus::name),
        ":contexts": filter.contexts,
        ":limit": signed(page.limit),
        ":offset": signed(page.offset),
    };
    let rows = statement.query_map(params, run_of)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The schedules that the filter asks for, if any; the outer none means that no run can match. A name may have been polled before it was a
/// cron, or the other way round.
fn schedule_rows(db: &Connection, filter: &RunFilter) -> Result<Option<[Option<i64>; 2]>, Failure> {
    let Some(name) = &filter.trigger else { return Ok(Some([filter.schedule, None])) };
    let found = [schedule::trigger(db, name)?, schedule::cron_named(db, name)?];
    let rows = found.into_iter().flatten().map(|schedule| schedule.row);
    let mut rows = rows.filter(|&row| filter.schedule.is_none_or(|schedule| schedule == row));
    Ok(rows.next().map(|row| [Some(row), rows.next()]))
}

/// The statement that reads the fewest rows. There are few unfinished runs, and a schedule has one workflow.
fn statement_for(filter: &RunFilter, schedule: Option<i64>, other: Option<i64>) -> &'static str {
    match filter.status {
        Some(RunStatus::Pending | RunStatus::Running) => UNFINISHED,
        _ if schedule.is_some() && other.is_none() => BY_SCHEDULE,
        _ if filter.workflow.is_some() => BY_WORKFLOW,
        _ => ANY,
    }
}

fn run_of(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    Ok(RunRow {
        id: id_at(row, 1)?,
        workflow: row.get(2)?,
        status: run_status_at(row, 3)?,
        trigger: row.get(4)?,
        run_key: row.get(5)?,
        context_hash: hash_at(row, 6)?,
        scheduled_at: wall_maybe_at(row, 7)?,
        created_at: wall_at(row, 8)?,
        started_at: wall_maybe_at(row, 11)?,
        completed_at: wall_maybe_at(row, 9)?,
        error: row.get(10)?,
        context: row.get(12)?,
        final_context: row.get(13)?,
    })
}

/// One run with its tasks, both as of one moment.
pub fn one(db: &Connection, id: Uuid) -> Result<Option<(RunRow, Vec<TaskRecord>)>, Failure> {
    // Index runs_id.
    const SQL: &str = select_runs!("r.context, r.final_context", "runs AS r", "r.id = :id");
    let snapshot = Transaction::new_unchecked(db, TransactionBehavior::Deferred)?;
    let found = snapshot
        .prepare_cached(SQL)?
        .query_row(named_params! { ":id": id.to_string() }, |row| Ok((row.get(0)?, run_of(row)?)))
        .optional()?;
    let Some((row, run)) = found else { return Ok(None) };
    let tasks = tasks(&snapshot, row)?;
    snapshot.commit()?;
    Ok(Some((run, tasks)))
}

/// Runs of cron slots created since `since`, also of crons that are deleted by now. Lost are those that became final
/// without completing and without a single task begun; one that waits may still start and is not lost yet.
pub fn cron_stats(db: &Connection, since: Wall) -> Result<CronStats, Failure> {
    // Index runs_slot holds the cron runs, which are few among all.
    const SQL: &str = "
        SELECT count(*),
            count(*) FILTER (WHERE status = 'Completed'),
            count(*) FILTER (WHERE status <> 'Completed' AND completed_at IS NOT NULL AND started_at IS NULL)
        FROM runs INDEXED BY runs_slot WHERE scheduled_at IS NOT NULL AND created_at >= :since";
    let params = named_params! { ":since": since.0 };
    Ok(db.prepare_cached(SQL)?.query_row(params, |row| {
        Ok(CronStats { total: count_at(row, 0)?, successful: count_at(row, 1)?, lost: count_at(row, 2)? })
    })?)
}
