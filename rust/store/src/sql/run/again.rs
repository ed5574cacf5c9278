//! What of a run is undecided once it is opened again. Invariant: what stays completed, and so did all that it comes after.

use std::collections::BTreeSet;

use cloaca_core::graph;
use cloaca_core::key::RunRow;

use super::super::db::{self, Db, named_params};
use super::super::fault::Failure;
use super::super::graph as kept;

/// Leaves of a run's tasks those that stay. Of what comes after one that goes it is known as long as its version is.
pub fn undecide(db: &Db, row: RunRow) -> Result<(), Failure> {
    // Primary key.
    const UNDECIDE: &str = "DELETE FROM tasks WHERE run = :row AND status <> 'Completed'";
    const LEFT: &str = "SELECT name FROM tasks WHERE run = :row";
    const GONE: &str = "DELETE FROM tasks WHERE run = :row AND name = :name";
    db.prepare_cached(UNDECIDE)?.execute(named_params! { ":row": row.0 })?;
    let Some(text) = kept::of_run(db, row)? else { return Ok(()) };
    let mut statement = db.prepare_cached(LEFT)?;
    let left = statement.query_map(named_params! { ":row": row.0 }, |row| row.get(0))?;
    let left = left.collect::<db::Result<Vec<String>>>()?;
    let completed: BTreeSet<&str> = left.iter().map(String::as_str).collect();
    for name in graph::undone(&text, &completed) {
        db.prepare_cached(GONE)?.execute(named_params! { ":row": row.0, ":name": name })?;
    }
    Ok(())
}
