//! What of a run is undecided once it is opened again. Invariant: what stays completed, and all that it comes after completed or was skipped.

use std::collections::BTreeSet;

use cloaca_core::graph;
use cloaca_core::key::RunRow;
use cloaca_core::port::{TaskRecord, TaskStatus};

use super::super::db::{Db, named_params};
use super::super::fault::Failure;
use super::super::graph as kept;
use super::tries;

/// Leaves of a run's tasks, which these are, those that stay, and returns them. Of what comes after one that goes it is known as long as its version is.
pub fn undecide(db: &Db, row: RunRow, mut tasks: Vec<TaskRecord>) -> Result<Vec<TaskRecord>, Failure> {
    // Primary key.
    const UNDECIDE: &str = "DELETE FROM tasks WHERE run = :row AND status <> 'Completed'";
    const GONE: &str = "DELETE FROM tasks WHERE run = :row AND name = :name";
    let of = |status: TaskStatus| -> BTreeSet<&str> {
        tasks.iter().filter(|task| task.status == status).map(|task| &*task.name).collect()
    };
    let text = kept::of_run(db, row)?.unwrap_or_default();
    let undone = graph::undone(&text, &of(TaskStatus::Completed), &of(TaskStatus::Skipped));
    db.prepare_cached(UNDECIDE)?.execute(named_params! { ":row": row.0 })?;
    for task in tasks.iter().filter(|task| undone.iter().any(|name| **name == *task.name)) {
        // Nothing else tells that it was made.
        if let Some(only) = task.only_try() {
            tries::keep(db, row, &task.name, &only, None)?;
        }
        db.prepare_cached(GONE)?.execute(named_params! { ":row": row.0, ":name": &*task.name })?;
    }
    tasks.retain(|task| {
        task.status == TaskStatus::Completed && !undone.iter().any(|name| **name == *task.name)
    });
    Ok(tasks)
}
