//! Listings of runs. Invariant: each walks an index from its newest row.

use crate::postgres::db::{self, Db, OptionalExtension as _, Row, named_params};
use cloaca_core::key::{RunRow, ScheduleKey};
use cloaca_core::port::{By, CronStats, ListedRun, Page, Place, RunFilter, RunStatus, TaskRecord};
use cloaca_core::time::Wall;
use uuid::Uuid;

use crate::postgres::end;
use crate::postgres::fault::Failure;
use crate::postgres::graph;
use crate::postgres::run::tries::Told;
use crate::postgres::run::{child, overdue, tasks, tries};
use crate::postgres::schedule;
use crate::postgres::value::{
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

const SHOWN: &str = select_runs!("r.context, NULL, NULL", "runs AS r", "");
/// What is not shown is not read: a context may be very long.
const BARE: &str = select_runs!("NULL::TEXT, NULL, NULL", "runs AS r", "");

/// Runs that are not over are claimed in the order of their rows. Those that wait for their time, of which there may be very many, are in an index
/// of their own: runs_unfinished, runs_delayed.
const UNFINISHED: [&str; 2] = [
    "r.completed_at IS NULL AND r.not_before IS NULL",
    "r.completed_at IS NULL AND r.not_before IS NOT NULL",
];

/// Runs, newest first. Each statement has the conditions of its filter and no others, so that the server takes the index of the narrowest.
pub fn list(db: &Db, filter: &RunFilter, page: Page) -> Result<Vec<ListedRun>, Failure> {
    let Some([schedule, other]) = schedule_rows(db, filter)? else { return Ok(Vec::new()) };
    let is_unfinished = is_unfinished(filter);
    let until = filter.until.map_or(i64::MAX, |at| at.0);
    let below = match filter.after {
        Some(place) if is_unfinished => (until, place.row.0),
        // One bound for both, so that the index begins there.
        Some(place) => (until, i64::MIN).min((place.by(filter.by).0, place.row.0)),
        None if is_unfinished => (until, i64::MAX),
        None => (until, i64::MIN),
    };
    let sql = text_of(filter, schedule, other);
    let params = named_params! {
        ":schedule": schedule.map(|key| key.0),
        ":other": other.map(|key| key.0),
        ":workflow": filter.workflow,
        ":status": filter.status.map(RunStatus::name),
        ":key": filter.run_key,
        ":parent": filter.parent,
        ":error": filter.error_type,
        ":since": filter.since.map_or(i64::MIN, |at| at.0),
        ":below_at": below.0,
        ":below_row": below.1,
        ":limit": signed(page.limit),
        ":offset": signed(page.offset),
        ":most": signed(page.limit.saturating_add(page.offset)),
    };
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params, run_of)?;
    Ok(rows.collect::<db::Result<_>>()?)
}

/// Of these there are few, beside those that have ended.
pub fn is_unfinished(filter: &RunFilter) -> bool {
    matches!(filter.status, Some(RunStatus::Pending | RunStatus::Running))
        && filter.by == By::Creation
        && filter.run_key.is_none()
        && filter.parent.is_none()
        && !filter.untold
}

fn text_of(filter: &RunFilter, schedule: Option<ScheduleKey>, other: Option<ScheduleKey>) -> String {
    let mut narrow = String::new();
    let conditions = [
        (schedule.is_some() && other.is_none(), "r.schedule = :schedule"),
        (other.is_some(), "r.schedule IN (:schedule, :other)"),
        (filter.workflow.is_some(), "r.workflow = :workflow"),
        (filter.status.is_some(), "r.status = :status"),
        // Indices runs_failed, runs_failed_of hold what ended badly.
        (matches!(filter.status, Some(RunStatus::Failed | RunStatus::Cancelled)), "r.error_type IS NOT NULL"),
        (filter.run_key.is_some(), "r.run_key = :key"),
        (filter.parent.is_some(), "r.parent = :parent"),
        (filter.error_type.is_some(), "r.error_type = :error"),
        // Index ends_untold.
        (filter.untold, "r.row IN (SELECT run FROM ends WHERE listener = 0)"),
        (filter.since.is_some() && filter.by == By::Creation, "r.created_at >= :since"),
        (filter.since.is_some() && filter.by == By::End, "r.completed_at >= :since"),
        (filter.by == By::End, "r.completed_at IS NOT NULL"),
    ];
    for (_, condition) in conditions.iter().filter(|(is_asked, _)| *is_asked) {
        narrow.push_str(" AND ");
        narrow.push_str(condition);
    }
    let shown = if filter.contexts { SHOWN } else { BARE };
    if is_unfinished(filter) {
        let part = |which: &str| {
            format!(
                "({shown}{which} AND r.row < :below_row AND r.created_at < :below_at{narrow} ORDER BY r.row DESC LIMIT :most)"
            )
        };
        return format!(
            "{} ORDER BY 1 DESC LIMIT :limit OFFSET :offset",
            UNFINISHED.map(part).join(" UNION ALL ")
        );
    }
    let at = match filter.by {
        By::Creation => "r.created_at",
        By::End => "r.completed_at",
    };
    format!(
        "{shown}({at}, r.row) < (:below_at, :below_row){narrow}
        ORDER BY {at} DESC, r.row DESC LIMIT :limit OFFSET :offset"
    )
}

/// Where a run stands in listings.
pub fn place(db: &Db, id: Uuid) -> Result<Option<Place>, Failure> {
    // Index runs_id.
    const SQL: &str = "SELECT created_at, row, completed_at FROM runs WHERE id = :id";
    let place = |row: &Row| {
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
fn schedule_rows(db: &Db, filter: &RunFilter) -> Result<Option<[Option<ScheduleKey>; 2]>, Failure> {
    let Some(name) = &filter.trigger else { return Ok(Some([filter.schedule, None])) };
    let found = [schedule::trigger(db, name)?, schedule::cron_named(db, name)?];
    let rows = found.into_iter().flatten().map(|schedule| schedule.row);
    let mut rows = rows.filter(|&row| filter.schedule.is_none_or(|schedule| schedule == row));
    Ok(rows.next().map(|row| [Some(row), rows.next()]))
}

fn run_of(row: &Row) -> db::Result<ListedRun> {
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
pub fn one(db: &Db, id: Uuid, depth: Depth) -> Result<Option<(ListedRun, Vec<TaskRecord>)>, Failure> {
    // Index runs_id.
    const SQL: &str = select_runs!("r.context, r.final_context, r.trace", "runs AS r", "r.id = :id");
    let snapshot = db.snapshot()?;
    let found = db
        .prepare_cached(SQL)?
        .query_row(named_params! { ":id": id.to_string() }, |row| Ok((RunRow(row.get(0)?), run_of(row)?)))
        .optional()?;
    let Some((row, mut run)) = found else { return Ok(None) };
    run.graph = graph::of_run(db, row)?;
    run.overdue = overdue::of_run(db, row)?;
    run.calls = end::of_run(db, row)?;
    run.last_call = end::last_of_run(db, row)?;
    run.children = child::of_run(db, id)?;
    let mut tasks = tasks(db, row)?;
    if depth == Depth::Tries {
        let Told { mut tries, left_out } = tries::of_run(db, row)?;
        for task in &mut tasks {
            task.tries = tries.remove(&task.name).unwrap_or_default();
        }
        run.former = tries.into_iter().collect();
        run.former.sort_by_key(|(_, tries)| tries.first().map(|first| first.ended_at));
        run.tries_left_out = left_out;
    }
    drop(snapshot);
    Ok(Some((run, tasks)))
}

/// Runs of cron moments created since `since`, also of crons that are deleted by now. Lost are those that became final
/// without completing and without a single task begun; one that waits may still start and is not lost yet.
pub fn cron_stats(db: &Db, since: Wall) -> Result<CronStats, Failure> {
    // Index runs_slot holds the cron runs, which are few among all.
    const SQL: &str = "
        SELECT count(*),
            count(*) FILTER (WHERE status = 'Completed'),
            count(*) FILTER (WHERE status <> 'Completed' AND completed_at IS NOT NULL AND started_at IS NULL)
        FROM runs WHERE scheduled_at IS NOT NULL AND created_at >= :since";
    let params = named_params! { ":since": since.0 };
    Ok(db.prepare_cached(SQL)?.query_row(params, |row| {
        Ok(CronStats { total: count_at(row, 0)?, successful: count_at(row, 1)?, lost: count_at(row, 2)? })
    })?)
}
