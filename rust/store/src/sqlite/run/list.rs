//! Listings of runs. Invariant: no listing sorts, but for that of runs whose callbacks wait, which are few; each walks an index, or the table, from its
//! newest row.

use cloaca_core::key::{RunRow, ScheduleKey};
use cloaca_core::port::{By, CronStats, ListedRun, Page, Place, RunFilter, RunStatus, TaskRecord};
use cloaca_core::time::Wall;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, named_params};
use uuid::Uuid;

use crate::sqlite::end;
use crate::sqlite::fault::Failure;
use crate::sqlite::graph;
use crate::sqlite::run::tries::Told;
use crate::sqlite::run::{child, overdue, tasks, tries};
use crate::sqlite::schedule;
use crate::sqlite::value::{
    count_at, hash_at, id_at, priority_at, run_status_at, signed, wall_at, wall_maybe_at,
};

/// Runs by a `FROM` item and a condition, in the columns that [`run_of`] reads; of the contexts those that are given.
macro_rules! select_runs {
    ($contexts:expr, $from:expr, $condition:expr) => {
        concat!(
            "SELECT r.row, r.id, r.workflow, r.status, nullif(s.name, ''), r.run_key, r.context_hash, r.scheduled_at,
                r.created_at, r.completed_at, r.error, r.started_at, nullif(r.error_type, ''),
                r.cancelled, r.parent, r.parent_task, r.parent_call, r.again, r.given, r.priority, r.due_at, r.lay_since, r.lain_us, ",
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
    ($at:literal, $index:expr, $condition:expr) => {
        concat!(
            runs_by!($at, $index, concat!($condition, " AND (r.", $at, ", r.row) < (:below_at, :below_row)")),
            " ORDER BY r.",
            $at,
            " DESC, r.row DESC LIMIT :limit OFFSET :offset"
        )
    };
}

/// All that the filter leaves of what one index holds.
macro_rules! runs_by {
    ($at:literal, $index:expr, $condition:expr) => {
        concat!(
            select_runs!(
                "CASE WHEN :contexts THEN r.context END, NULL, NULL",
                concat!("runs AS r", $index),
                $condition
            ),
            " AND r.",
            $at,
            " >= :since AND (:schedule IS NULL OR r.schedule IN (:schedule, :other))
            AND (:workflow IS NULL OR r.workflow = :workflow)
            AND (:status IS NULL OR r.status = :status)
            AND (:key IS NULL OR r.run_key = :key)
            AND (:parent IS NULL OR r.parent = :parent)
            AND (:error IS NULL OR r.error_type = :error)
            AND (NOT :untold OR r.row IN (SELECT run FROM ends INDEXED BY ends_untold WHERE listener = 0))"
        )
    };
}

/// In the order of their commits, from below a place.
macro_rules! newest {
    ($index:literal, $condition:literal) => {
        page_of_runs!("created_at", $index, $condition)
    };
}

/// In the order of their ends, likewise.
macro_rules! ended_last {
    ($index:literal, $condition:literal) => {
        page_of_runs!("completed_at", $index, $condition)
    };
}

const BY_KEY: &str = newest!(" INDEXED BY runs_key", "r.run_key = :key");
const BY_PARENT: &str = newest!(" INDEXED BY runs_parent", "r.parent = :parent");
const BY_ERROR: &str = newest!(" INDEXED BY runs_error", "r.error_type = :error");
const BY_END: &str = newest!(" INDEXED BY runs_failed", "r.error_type IS NOT NULL AND r.status = :status");
const BY_END_OF: &str = newest!(
    " INDEXED BY runs_failed_of",
    "r.error_type IS NOT NULL AND r.status = :status AND r.workflow = :workflow"
);
const BY_SCHEDULE: &str = newest!(" INDEXED BY runs_schedule", "r.schedule = :schedule");
const BY_WORKFLOW: &str = newest!(" INDEXED BY runs_workflow", "r.workflow = :workflow");
const ANY: &str = newest!(" INDEXED BY runs_created", "1");
const FAILED_LAST: &str = ended_last!(" INDEXED BY runs_failed_ends", "r.error_type IS NOT NULL");
const ENDED_LAST: &str = ended_last!(" INDEXED BY runs_completed", "r.completed_at IS NOT NULL");
/// Their rows are found by ends_untold, and then sorted.
const UNTOLD: &str =
    newest!(" NOT INDEXED", "r.row IN (SELECT run FROM ends INDEXED BY ends_untold WHERE listener = 0)");
const UNTOLD_LAST: &str =
    ended_last!(" NOT INDEXED", "r.row IN (SELECT run FROM ends INDEXED BY ends_untold WHERE listener = 0)");
/// They are claimed in the order of their rows. Those that wait for their time, of which there may be very many, are in an index of their own.
const UNFINISHED: &str = concat!(
    runs_by!(
        "created_at",
        " INDEXED BY runs_unfinished",
        "r.completed_at IS NULL AND r.not_before IS NULL AND r.row < :below_row AND r.created_at < :below_at"
    ),
    " UNION ALL ",
    runs_by!(
        "created_at",
        " INDEXED BY runs_delayed",
        "r.completed_at IS NULL AND r.not_before IS NOT NULL AND r.row < :below_row AND r.created_at < :below_at"
    ),
    " ORDER BY 1 DESC LIMIT :limit OFFSET :offset"
);

/// Statements with what their plan must name.
#[cfg(test)]
pub const PLANS: [(&str, &str); 12] = [
    (BY_KEY, "USING INDEX runs_key (run_key=? AND created_at>? AND created_at<?)"),
    (BY_PARENT, "USING INDEX runs_parent (parent=? AND created_at>? AND created_at<?)"),
    (BY_ERROR, "USING INDEX runs_error (error_type=? AND created_at>? AND created_at<?)"),
    (BY_END, "USING INDEX runs_failed (status=? AND created_at>? AND created_at<?)"),
    (BY_END_OF, "USING INDEX runs_failed_of (workflow=? AND status=? AND created_at>? AND created_at<?)"),
    (BY_SCHEDULE, "USING INDEX runs_schedule (schedule=? AND created_at>? AND created_at<?)"),
    (BY_WORKFLOW, "USING INDEX runs_workflow (workflow=? AND created_at>? AND created_at<?)"),
    (ANY, "USING INDEX runs_created (created_at>? AND created_at<?)"),
    (FAILED_LAST, "USING INDEX runs_failed_ends (completed_at>? AND completed_at<?)"),
    (ENDED_LAST, "USING INDEX runs_completed (completed_at>? AND completed_at<?)"),
    (UNFINISHED, "USING INDEX runs_unfinished (not_before=? AND rowid<?)"),
    (UNFINISHED, "USING INDEX runs_delayed (row<?)"),
];

/// The same of those that sort the few rows which their index holds.
#[cfg(test)]
pub const SORTED: [(&str, &str); 2] =
    [(UNTOLD, "USING COVERING INDEX ends_untold"), (UNTOLD_LAST, "USING COVERING INDEX ends_untold")];

/// Runs, newest first.
pub fn list(db: &Connection, filter: &RunFilter, page: Page) -> Result<Vec<ListedRun>, Failure> {
    let Some([schedule, other]) = schedule_rows(db, filter)? else { return Ok(Vec::new()) };
    let sql = statement_for(filter, schedule, other);
    let mut statement = db.prepare_cached(sql)?;
    let until = filter.until.map_or(i64::MAX, |at| at.0);
    let below = match filter.after {
        Some(place) if sql == UNFINISHED => (until, place.row.0),
        // One bound for both, so that the index begins there.
        Some(place) => (until, i64::MIN).min((place.by(filter.by).0, place.row.0)),
        None if sql == UNFINISHED => (until, i64::MAX),
        None => (until, i64::MIN),
    };
    let params = named_params! {
        ":schedule": schedule.map(|key| key.0),
        ":other": other.map(|key| key.0),
        ":workflow": filter.workflow,
        ":status": filter.status.map(RunStatus::name),
        ":key": filter.run_key,
        ":parent": filter.parent.map(|id| id.to_string()),
        ":error": filter.error_type,
        ":since": filter.since.map_or(i64::MIN, |at| at.0),
        ":below_at": below.0,
        ":below_row": below.1,
        ":untold": filter.untold,
        ":contexts": filter.contexts,
        ":limit": signed(page.limit),
        ":offset": signed(page.offset),
    };
    let rows = statement.query_map(params, run_of)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Where a run stands in listings.
pub fn place(db: &Connection, id: Uuid) -> Result<Option<Place>, Failure> {
    // Index runs_id.
    const SQL: &str = "SELECT created_at, row, completed_at FROM runs WHERE id = :id";
    let place = |row: &Row<'_>| {
        Ok(Place {
            created_at: wall_at(row, 0)?,
            row: RunRow(row.get(1)?),
            completed_at: wall_maybe_at(row, 2)?,
        })
    };
    Ok(db.prepare_cached(SQL)?.query_row(named_params! { ":id": id.to_string() }, place).optional()?)
}

/// The schedules that the filter asks for, if any; the outer none means that no run can match. A name may have been polled before it was a
/// cron, or the other way round.
fn schedule_rows(db: &Connection, filter: &RunFilter) -> Result<Option<[Option<ScheduleKey>; 2]>, Failure> {
    let Some(name) = &filter.trigger else { return Ok(Some([filter.schedule, None])) };
    let found = [schedule::trigger(db, name)?, schedule::cron_named(db, name)?];
    let rows = found.into_iter().flatten().map(|schedule| schedule.row);
    let mut rows = rows.filter(|&row| filter.schedule.is_none_or(|schedule| schedule == row));
    Ok(rows.next().map(|row| [Some(row), rows.next()]))
}

/// The statement that reads the fewest rows. Of one key, and of one parent, there are few runs, of those that are unfinished or ended badly fewer than of
/// the others, and a schedule has one workflow.
fn statement_for(
    filter: &RunFilter,
    schedule: Option<ScheduleKey>,
    other: Option<ScheduleKey>,
) -> &'static str {
    let is_of_failed = filter.error_type.is_some()
        || matches!(filter.status, Some(RunStatus::Failed | RunStatus::Cancelled));
    match filter.status {
        _ if filter.untold && filter.by == By::End => UNTOLD_LAST,
        _ if filter.untold => UNTOLD,
        _ if filter.by == By::End => {
            if is_of_failed {
                FAILED_LAST
            } else {
                ENDED_LAST
            }
        }
        _ if filter.run_key.is_some() => BY_KEY,
        _ if filter.parent.is_some() => BY_PARENT,
        Some(RunStatus::Pending | RunStatus::Running) => UNFINISHED,
        _ if filter.error_type.is_some() => BY_ERROR,
        Some(RunStatus::Failed | RunStatus::Cancelled) if filter.workflow.is_some() => BY_END_OF,
        Some(RunStatus::Failed | RunStatus::Cancelled) => BY_END,
        _ if schedule.is_some() && other.is_none() => BY_SCHEDULE,
        _ if filter.workflow.is_some() => BY_WORKFLOW,
        _ => ANY,
    }
}

fn run_of(row: &Row<'_>) -> rusqlite::Result<ListedRun> {
    Ok(ListedRun {
        row: RunRow(row.get(0)?),
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
        error_type: row.get(12)?,
        cancelled: row.get(13)?,
        parent: child::parent_at(row, 14)?,
        priority: priority_at(row, 19)?,
        due_at: wall_maybe_at(row, 20)?,
        lay_since: wall_maybe_at(row, 21)?,
        lain_us: count_at(row, 22)?,
        context: row.get(23)?,
        final_context: row.get(24)?,
        trace: row.get(25)?,
        graph: None,
        children: Vec::new(),
        overdue: Vec::new(),
        calls: Vec::new(),
        former: Vec::new(),
        tries_left_out: Vec::new(),
        last_call: None,
    })
}

/// How much is read of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Its tasks.
    Tasks,
    /// Its tasks, and how each of their attempts ended.
    Tries,
}

/// One run with its tasks, as of one moment.
pub fn one(db: &Connection, id: Uuid, depth: Depth) -> Result<Option<(ListedRun, Vec<TaskRecord>)>, Failure> {
    // Index runs_id.
    const SQL: &str = select_runs!("r.context, r.final_context, r.trace", "runs AS r", "r.id = :id");
    let snapshot = Transaction::new_unchecked(db, TransactionBehavior::Deferred)?;
    let found = snapshot
        .prepare_cached(SQL)?
        .query_row(named_params! { ":id": id.to_string() }, |row| Ok((RunRow(row.get(0)?), run_of(row)?)))
        .optional()?;
    let Some((row, mut run)) = found else { return Ok(None) };
    run.graph = graph::of_run(&snapshot, row)?;
    run.overdue = overdue::of_run(&snapshot, row)?;
    run.calls = end::of_run(&snapshot, row)?;
    run.last_call = end::last_of_run(&snapshot, row)?;
    run.children = child::of_run(&snapshot, id)?;
    let mut tasks = tasks(&snapshot, row)?;
    if depth == Depth::Tries {
        let Told { mut tries, left_out } = tries::of_run(&snapshot, row)?;
        for task in &mut tasks {
            task.tries = tries.remove(&task.name).unwrap_or_default();
        }
        run.former = tries.into_iter().collect();
        run.former.sort_by_key(|(_, tries)| tries.first().map(|first| first.ended_at));
        run.tries_left_out = left_out;
    }
    snapshot.commit()?;
    Ok(Some((run, tasks)))
}

/// Runs of cron moments created since `since`, also of crons that are deleted by now. Lost are those that became final
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
