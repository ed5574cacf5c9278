//! Runs: admitted, driven, claimed and listed. Invariant: a run is admitted by its insert alone; the unique indices
//! decide, and a lookup only tells which run stands in the way.

#[path = "../sql/run/again.rs"]
mod again;
#[path = "../sql/run/child.rs"]
pub mod child;
mod claim;
#[path = "../sql/run/line.rs"]
pub mod line;
mod list;
mod many;
#[path = "../sql/run/overdue.rs"]
pub mod overdue;
#[path = "../sql/run/progress.rs"]
mod progress;
#[path = "../sql/run/tries.rs"]
pub mod tries;

use std::borrow::Cow;
use std::collections::HashMap;

use crate::postgres::db::{self, Db, OptionalExtension as _, Row, named_params};
use cloaca_core::key::{Epoch, RunRow, ScheduleKey};
use cloaca_core::limit::Limits;
use cloaca_core::port::{Admitted, ContextHash, NewRun, RunStatus, TaskRecord};
use cloaca_core::time::Wall;
use cloaca_core::urgency::Priority;
use uuid::Uuid;

use crate::postgres::fault::Failure;
use crate::postgres::limits::{self, Terms};
use crate::postgres::schedule::twin::twins;
use crate::postgres::value::{id_at, micros, priority_at, task_status_at, wait_at, wall_maybe_at};

pub use claim::{
    Taking, cancel_requests, claim, deserted, end_deserted, ended, free, give_up, hand_out, next_due,
    release, release_ends, reopen, request_cancel, to_hand_out,
};
pub use list::{Depth, cron_stats, is_unfinished, list, one, place};
pub use many::{Fires, insert_all};
pub use progress::{Kept, count_ends, ends, progress, timed};

/// Run keys of runs that no schedule fired share this row; rows of schedules begin at 1.
const NO_SCHEDULE: i64 = 0;

/// Commits `new`, in the hands of `owner` or in nobody's, unless its run key, its call, its context hash or its moment is taken at `at`.
/// Of one that limits count, and let become one, see [`limits`].
pub fn admit(
    db: &Db,
    terms: &mut Terms,
    owner: Option<Epoch>,
    new: &NewRun,
    at: Wall,
) -> Result<Admitted, Failure> {
    if let Some(of) = key_holder(db, new, at)? {
        return Ok(Admitted::DuplicateKey { of: Some(of) });
    }
    if let Some(same) = child::obstacle(db, new)? {
        return Ok(same);
    }
    if let Some(hash) = new.context_hash.filter(|_| new.unique_hash)
        && let Some(of) = unguarded(db, new.schedule, hash)?
    {
        return Ok(Admitted::DuplicateHash { of });
    }
    if let Some(ended) = ended_since(db, new)? {
        return Ok(ended);
    }
    if let Some(limits) = terms.of(db, new)? {
        return admit_limited(db, &limits, owner, new, at);
    }
    match kept(db, owner, new)? {
        Some(row) => Ok(Admitted::Started { row }),
        None => obstacle(db, new),
    }
}

/// How the key or the hash of a fire is taken for which there is no room, if it is.
pub fn taken(db: &Db, new: &NewRun, at: Wall) -> Result<Option<Admitted>, Failure> {
    if let Some(of) = key_holder(db, new, at)? {
        return Ok(Some(Admitted::DuplicateKey { of: Some(of) }));
    }
    Ok(hash_holder(db, new)?.map(|of| Admitted::DuplicateHash { of }))
}

/// What is dropped for another reason uses up nothing of a limit: those are asked first.
fn admit_limited(
    db: &Db,
    limits: &Limits,
    owner: Option<Epoch>,
    new: &NewRun,
    at: Wall,
) -> Result<Admitted, Failure> {
    if let Some(of) = hash_holder(db, new)? {
        return Ok(Admitted::DuplicateHash { of });
    }
    if new.scheduled_at.is_some()
        && let Some(of) = moment_holder(db, new)?
    {
        return Ok(Admitted::DuplicateKey { of: Some(of) });
    }
    let entrant = match limits::judge(db, limits, new, at)? {
        Ok(entrant) => entrant,
        Err(refused) => return Ok(refused),
    };
    let Some(row) = kept(db, owner, new)? else { return obstacle(db, new) };
    Ok(match limits::enter(db, row, new, limits, entrant, at)? {
        true => Admitted::Held { row },
        false => Admitted::Started { row },
    })
}

/// The new row, with what is noted beside it; none if a unique index refuses it.
fn kept(db: &Db, owner: Option<Epoch>, new: &NewRun) -> Result<Option<RunRow>, Failure> {
    let Some(row) = insert(db, owner, new)? else { return Ok(None) };
    hold_key(db, new)?;
    if let Some(parent) = &new.parent {
        child::remember(db, row, parent)?;
    }
    Ok(Some(row))
}

/// The run that has used the key, unless its time is over.
pub fn key_holder(db: &Db, new: &NewRun, at: Wall) -> Result<Option<Uuid>, Failure> {
    // Also under what its name was while it was a cron, or polled.
    const SQL: &str = concat!(
        "SELECT run FROM run_keys
        WHERE schedule IN (SELECT CAST(:row AS BIGINT) UNION ALL ",
        twins!(),
        ") AND key = :key AND (expires_at IS NULL OR expires_at > :at) LIMIT 1"
    );
    let Some((key, _)) = &new.run_key else { return Ok(None) };
    let (schedule, key) = key_of(new, key);
    let params = named_params! { ":row": schedule, ":key": key, ":at": at.0 };
    Ok(db.prepare_cached(SQL)?.query_row(params, |row| id_at(row, 0)).optional()?)
}

/// Under what a run key stands: its trigger's or, of a run that was started by hand, its workflow's. See also `prune`.
fn key_of<'a>(new: &NewRun, key: &'a str) -> (i64, Cow<'a, str>) {
    match new.schedule {
        Some(schedule) => (schedule.0, key.into()),
        None => (NO_SCHEDULE, format!("{}:{}{key}", new.workflow.chars().count(), new.workflow).into()),
    }
}

/// Takes the key for `new`, from an earlier run if its time is over.
fn hold_key(db: &Db, new: &NewRun) -> Result<(), Failure> {
    const SQL: &str = "
        INSERT INTO run_keys (schedule, key, run, expires_at) VALUES (:schedule, :key, :run, :expires_at)
        ON CONFLICT (schedule, key) DO UPDATE SET run = excluded.run, expires_at = excluded.expires_at";
    let Some((key, expires_at)) = &new.run_key else { return Ok(()) };
    let (schedule, key) = key_of(new, key);
    db.prepare_cached(SQL)?.execute(named_params! {
        ":schedule": schedule,
        ":key": key,
        ":run": new.id,
        ":expires_at": micros(*expires_at),
    })?;
    Ok(())
}

/// The new row; none if a unique index refuses it.
fn insert(db: &Db, owner: Option<Epoch>, new: &NewRun) -> Result<Option<RunRow>, Failure> {
    const SQL: &str = "
        INSERT INTO runs (id, workflow, version, status, schedule, context_hash, unique_hash, run_key,
            scheduled_at, waits, owner, created_at, context, priority, due_at, delay_us, not_before, trace)
        VALUES (:id, :workflow, :version, :status, :schedule, :context_hash, :unique_hash, :run_key,
            :scheduled_at, :waits, :owner, :created_at, :context, :priority, :due_at, :delay_us, :not_before, :trace)
        ON CONFLICT DO NOTHING RETURNING row";
    let params = named_params! {
        ":id": new.id,
        ":workflow": &*new.workflow,
        ":version": &*new.version,
        ":status": RunStatus::Pending.name(),
        ":schedule": new.schedule.map(|key| key.0),
        ":context_hash": new.context_hash.as_ref().map(|hash| &hash[..]),
        ":unique_hash": new.unique_hash,
        ":run_key": new.run_key.as_ref().map(|(key, _)| key),
        ":scheduled_at": micros(new.scheduled_at),
        ":waits": new.waits,
        ":owner": owner.and_then(|owner| new.owner(owner)).map(|epoch| epoch.0),
        ":created_at": new.created_at.0,
        ":context": &*new.context,
        ":priority": priority(db, new)?.number(),
        ":due_at": micros(new.due_at),
        ":delay_us": new.delay_us,
        ":not_before": micros(new.due_at.filter(|_| new.is_delayed())),
        ":trace": new.trace.as_deref(),
    };
    Ok(db.prepare_cached(SQL)?.query_row(params, |row| row.get(0).map(RunRow)).optional()?)
}

/// What it asks for, or its workflow's, as the runner declares it that came last.
fn priority(db: &Db, new: &NewRun) -> Result<Priority, Failure> {
    const SQL: &str = "SELECT priority FROM workflows WHERE name = :name ORDER BY owner DESC LIMIT 1";
    if let Some(priority) = new.priority {
        return Ok(priority);
    }
    let params = named_params! { ":name": &*new.workflow };
    let found = db.prepare_cached(SQL)?.query_row(params, |row| priority_at(row, 0)).optional()?;
    Ok(found.unwrap_or_default())
}

/// What refused an insert.
fn obstacle(db: &Db, new: &NewRun) -> Result<Admitted, Failure> {
    if let Some(of) = hash_holder(db, new)? {
        return Ok(Admitted::DuplicateHash { of });
    }
    match moment_holder(db, new)? {
        Some(of) => Ok(Admitted::DuplicateKey { of: Some(of) }),
        None => Err(Failure::Refused(format!("run {} is in the store already", new.id))),
    }
}

fn hash_holder(db: &Db, new: &NewRun) -> Result<Option<Uuid>, Failure> {
    let Some(hash) = new.context_hash.filter(|_| new.unique_hash) else { return Ok(None) };
    guarded(db, new.schedule, hash)
}

/// The unfinished run that guards that hash.
pub fn guarded(db: &Db, schedule: Option<ScheduleKey>, hash: ContextHash) -> Result<Option<Uuid>, Failure> {
    // Index runs_hash.
    const SQL: &str = "
        SELECT id FROM runs
        WHERE schedule = :schedule AND context_hash = :hash AND unique_hash AND completed_at IS NULL";
    let params = named_params! { ":schedule": schedule.map(|key| key.0), ":hash": &hash[..] };
    Ok(db.prepare_cached(SQL)?.query_row(params, |row| id_at(row, 0)).optional()?)
}

/// An unfinished run with that hash from when its trigger allowed equal ones: no unique index covers it.
pub fn unguarded(db: &Db, schedule: Option<ScheduleKey>, hash: ContextHash) -> Result<Option<Uuid>, Failure> {
    const SQL: &str = "
        SELECT id FROM runs
        WHERE schedule = :schedule AND context_hash = :hash AND NOT unique_hash AND completed_at IS NULL LIMIT 1";
    let params = named_params! { ":schedule": schedule.map(|key| key.0), ":hash": &hash[..] };
    Ok(db.prepare_cached(SQL)?.query_row(params, |row| id_at(row, 0)).optional()?)
}

/// An equal run that ended after the poll of this fire began.
fn ended_since(db: &Db, new: &NewRun) -> Result<Option<Admitted>, Failure> {
    // By the index alone, unless there is one.
    const SQL: &str = "
        SELECT id, end_number FROM runs
        WHERE schedule = :schedule AND context_hash = :hash AND end_number > :ends
        ORDER BY end_number DESC LIMIT 1";
    let Some((ends, hash)) = new.ends.zip(new.context_hash) else { return Ok(None) };
    let params =
        named_params! { ":schedule": new.schedule.map(|key| key.0), ":hash": &hash[..], ":ends": ends };
    let ended = |row: &Row| Ok(Admitted::Ended { of: id_at(row, 0)?, number: row.get(1)? });
    Ok(db.prepare_cached(SQL)?.query_row(params, ended).optional()?)
}

/// The run that bears its moment.
pub fn moment_holder(db: &Db, new: &NewRun) -> Result<Option<Uuid>, Failure> {
    // Index runs_slot.
    const SQL: &str = "SELECT id FROM runs WHERE schedule = :schedule AND scheduled_at = :moment";
    let params =
        named_params! { ":schedule": new.schedule.map(|key| key.0), ":moment": micros(new.scheduled_at) };
    Ok(db.prepare_cached(SQL)?.query_row(params, |row| id_at(row, 0)).optional()?)
}

/// A run's tasks in the order of their first records.
fn tasks(db: &Db, run: RunRow) -> Result<Vec<TaskRecord>, Failure> {
    Ok(tasks_of(db, &[run.0])?.remove(&run.0).unwrap_or_default())
}

/// The same of several runs, by their rows.
fn tasks_of(db: &Db, runs: &[i64]) -> Result<HashMap<i64, Vec<TaskRecord>>, Failure> {
    const SQL: &str = "
        SELECT name, status, attempt, context, error, started_at, completed_at, interrupted,
            postponed, not_before, wait_us, checkpoint,
            CASE WHEN status = 'Failed' THEN (
                SELECT coalesce(error_type, outcome) FROM tries
                WHERE tries.run = tasks.run AND tries.task = tasks.name ORDER BY row DESC LIMIT 1) END, rests_since, run
        FROM tasks WHERE run = ANY(:runs::BIGINT[]) ORDER BY run, position";
    let mut tasks: HashMap<i64, Vec<TaskRecord>> = HashMap::new();
    let mut statement = db.prepare_cached(SQL)?;
    for found in statement
        .query_map(named_params! { ":runs": runs.to_vec() }, |row| Ok((row.get(14)?, task_of(row)?)))?
    {
        let (run, task) = found?;
        tasks.entry(run).or_default().push(task);
    }
    Ok(tasks)
}

fn task_of(row: &Row) -> db::Result<TaskRecord> {
    Ok(TaskRecord {
        name: row.get(0)?,
        status: task_status_at(row, 1)?,
        attempt: row.get(2)?,
        context: row.get(3)?,
        error: row.get(4)?,
        started_at: wall_maybe_at(row, 5)?,
        completed_at: wall_maybe_at(row, 6)?,
        interrupted: row.get(7)?,
        postponed: row.get(8)?,
        wait: wait_at(row, 9)?,
        checkpoint: row.get(11)?,
        error_type: row.get(12)?,
        rests_since: wall_maybe_at(row, 13)?,
        tries: Vec::new(),
    })
}
