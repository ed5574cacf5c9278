//! Runs that came of other runs. Invariant: one call of a task starts at most one run, however often the task is attempted, and no run goes
//! on unasked after the cancel of the one that called it.

use std::sync::Arc;

use cloaca_core::key::{Epoch, RunRow};
use cloaca_core::port::{Admitted, CHILDREN_SHOWN, Child, NewRun, Parent};
use cloaca_core::time::Wall;
use uuid::Uuid;

use super::super::db::{self, Db, OptionalExtension as _, Row, named_params};
use super::super::dialect::by_index;
use super::super::fault::Failure;
use super::super::value::{id_at, is_null_at, run_status_at, signed, wall_at, wall_maybe_at};
use super::claim::{ask, end_if_free};

/// What stands in the way of a run that another one starts: the run that the same call has started before.
///
/// # Errors
/// A task calls whose run is to end or has ended.
pub fn obstacle(db: &Db, new: &NewRun) -> Result<Option<Admitted>, Failure> {
    // Index runs_call.
    const SAME: &str = "
        SELECT id FROM runs
        WHERE parent = :parent AND parent_task = :task AND workflow = :workflow AND parent_call = :call";
    // Index runs_id.
    const STANDS: &str = "SELECT 1 FROM runs WHERE id = :parent AND completed_at IS NULL AND NOT cancelled";
    let Some(parent) = &new.parent else { return Ok(None) };
    // A callback tells of an end, and may start something after a cancel.
    let Some(task) = &parent.task else { return Ok(None) };
    let run = parent.run.to_string();
    if let Some(call) = parent.call {
        let params =
            named_params! { ":parent": run, ":task": &**task, ":workflow": &*new.workflow, ":call": call };
        let same = db.prepare_cached(SAME)?.query_row(params, |row| id_at(row, 0)).optional()?;
        if same.is_some() {
            return Ok(Some(Admitted::DuplicateKey { of: same }));
        }
    }
    match db.prepare_cached(STANDS)?.exists(named_params! { ":parent": run })? {
        true => Ok(None),
        false => Err(Failure::Refused(format!(
            "run {run}, whose task '{task}' asks for it, is over or is to end, and its tasks start nothing more; a callback of it may"
        ))),
    }
}

/// Notes by what a run was started.
pub fn remember(db: &Db, row: RunRow, parent: &Parent) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE runs SET parent = :parent, parent_task = :task, parent_call = :call, again = :again, given = :given WHERE row = :row";
    db.prepare_cached(SQL)?.execute(named_params! {
        ":row": row.0,
        ":parent": parent.run.to_string(),
        ":task": parent.task.as_deref(),
        ":call": parent.call,
        ":again": parent.again,
        ":given": parent.given,
    })?;
    Ok(())
}

/// The unfinished runs that the tasks of a run have started or that were said to be its own, and theirs, each before its own.
macro_rules! family {
    ($root:literal, $rest:literal) => {
        concat!(
            "WITH RECURSIVE family (id, cancelled) AS (",
            "SELECT child.id, child.cancelled FROM runs AS own JOIN runs AS child ON child.parent = own.id WHERE ",
            $root,
            " AND (child.parent_task IS NOT NULL OR child.given) AND child.completed_at IS NULL
            UNION
            SELECT child.id, child.cancelled FROM family JOIN runs AS child ON child.parent = family.id
            WHERE (child.parent_task IS NOT NULL OR child.given) AND child.completed_at IS NULL)
            SELECT id FROM family",
            $rest
        )
    };
}

/// The unfinished children of a run, and theirs.
pub fn family(db: &Db, id: &str) -> Result<Vec<Uuid>, Failure> {
    // Indices runs_id, runs_parent.
    const SQL: &str = family!("own.id = :id", "");
    let mut statement = db.prepare_cached(SQL)?;
    let found = statement.query_map(named_params! { ":id": id }, |row| id_at(row, 0))?;
    Ok(found.collect::<db::Result<_>>()?)
}

/// A run is cancelled: asks for the ends of its unfinished children, and theirs, and ends those that nobody drives. Those whose end
/// nobody had asked for before.
pub fn cancel_of(db: &Db, epoch: Epoch, row: RunRow, at: Wall) -> Result<Vec<Uuid>, Failure> {
    // Index runs_parent.
    const SQL: &str = family!("own.row = :row", " WHERE NOT cancelled");
    let mut statement = db.prepare_cached(SQL)?;
    let found = statement.query_map(named_params! { ":row": row.0 }, |row| id_at(row, 0))?;
    let found = found.collect::<db::Result<Vec<Uuid>>>()?;
    for child in &found {
        let id = child.to_string();
        ask(db, &id)?;
        end_if_free(db, epoch, &id, at)?;
    }
    Ok(found)
}

/// Of these runs those that were cancelled at that time: their workflows, and when they were created.
pub fn cancelled_at(db: &Db, runs: &[Uuid], at: Wall) -> Result<Vec<(String, Wall)>, Failure> {
    // Index runs_id.
    const SQL: &str = "SELECT workflow, created_at FROM runs WHERE id = :id AND status = 'Cancelled' AND completed_at = :at";
    let mut statement = db.prepare_cached(SQL)?;
    let mut cancelled = Vec::new();
    for run in runs {
        let params = named_params! { ":id": run.to_string(), ":at": at.0 };
        let found = statement.query_row(params, |row| Ok((row.get(0)?, wall_at(row, 1)?))).optional()?;
        cancelled.extend(found);
    }
    Ok(cancelled)
}

/// The first runs that came of a run.
pub fn of_run(db: &Db, id: Uuid) -> Result<Vec<Child>, Failure> {
    // Index runs_parent.
    const SQL: &str = concat!(
        "
        SELECT id, workflow, status, parent_task, created_at, completed_at, again, given,
            (SELECT nullif(name, '') FROM schedules WHERE schedules.row = runs.schedule) FROM runs",
        by_index!("runs_parent"),
        "
        WHERE parent = :id ORDER BY created_at, row LIMIT :limit"
    );
    let mut statement = db.prepare_cached(SQL)?;
    let params = named_params! { ":id": id.to_string(), ":limit": signed(CHILDREN_SHOWN) };
    let rows = statement.query_map(params, child_of)?;
    Ok(rows.collect::<db::Result<_>>()?)
}

fn child_of(row: &Row) -> db::Result<Child> {
    Ok(Child {
        id: id_at(row, 0)?,
        workflow: row.get(1)?,
        status: run_status_at(row, 2)?,
        task: row.get(3)?,
        created_at: wall_at(row, 4)?,
        completed_at: wall_maybe_at(row, 5)?,
        again: row.get(6)?,
        given: row.get(7)?,
        trigger: row.get(8)?,
    })
}

/// By what a run was started, from five columns that stand side by side.
pub fn parent_at(row: &Row, column: usize) -> db::Result<Option<Parent>> {
    if is_null_at(row, column)? {
        return Ok(None);
    }
    let task: Option<Arc<str>> = row.get(column + 1)?;
    Ok(Some(Parent {
        run: id_at(row, column)?,
        task,
        call: row.get(column + 2)?,
        again: row.get(column + 3)?,
        given: row.get(column + 4)?,
    }))
}
