//! What is kept of workflows without their programs. Invariant: as long as a run is kept that was executed in a version, so is what that
//! version was.
//!
//! No index leads from a version to its runs: each run would pay for it. A run that has begun is of a version that a living runner declared
//! then, so that a version which nobody declares any more has no run that is younger than that, but for what was asked for by somebody else
//! since, in the version of the newest run.

use std::collections::BTreeSet;

use cloaca_core::key::RunRow;

use super::db::{self, Db, OptionalExtension as _, named_params};
use super::dialect::{by_index, now_us};
use super::fault::Failure;
use super::value::signed;

/// Keeps what a living owner says of a workflow; nothing, if it says nothing.
pub fn keep(db: &Db, workflow: &str, version: &str, graph: &str) -> Result<(), Failure> {
    // What is unchanged is not written.
    const SQL: &str = "
        INSERT INTO graphs (workflow, version, graph) VALUES (:workflow, :version, :graph)
        ON CONFLICT (workflow, version) DO UPDATE SET graph = excluded.graph, unused_since = NULL
        WHERE graphs.unused_since IS NOT NULL OR graphs.graph <> excluded.graph";
    if !graph.is_empty() {
        let params = named_params! { ":workflow": workflow, ":version": version, ":graph": graph };
        db.prepare_cached(SQL)?.execute(params)?;
    }
    Ok(())
}

/// Notes of which versions nobody says anything any more, and forgets those of which no run is left, but for the last of each workflow.
pub fn set_aside(db: &Db) -> Result<(), Failure> {
    // Index graphs_used; primary key of workflows.
    const SQL: &str = concat!("
        UPDATE graphs", by_index!("graphs_used"), " SET unused_since = ", now_us!(), "
        WHERE unused_since IS NULL AND NOT EXISTS (
            SELECT 1 FROM workflows WHERE workflows.name = graphs.workflow AND workflows.version = graphs.version)
        RETURNING workflow");
    let mut statement = db.prepare_cached(SQL)?;
    let names = statement.query_map([], |row| row.get(0))?;
    let names: BTreeSet<String> = names.collect::<db::Result<_>>()?;
    names.iter().try_for_each(|name| forget(db, name))
}

/// Forgets the versions of a workflow that nobody declares and of which no run is left, but for the last.
pub fn forget(db: &Db, workflow: &str) -> Result<(), Failure> {
    // Index runs_workflow, twice, for each version that nobody declares. What was declared last stays: it is known by that.
    const SQL: &str = "
        DELETE FROM graphs
        WHERE workflow = :workflow AND unused_since IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.workflow = :workflow AND created_at <= graphs.unused_since)
            AND version IS DISTINCT FROM (
                SELECT runs.version FROM runs WHERE runs.workflow = :workflow ORDER BY created_at DESC LIMIT 1)
            AND EXISTS (
                SELECT 1 FROM graphs AS newer WHERE newer.workflow = :workflow AND newer.version <> graphs.version
                    AND (newer.unused_since IS NULL OR newer.unused_since > graphs.unused_since
                        OR newer.unused_since = graphs.unused_since AND newer.version > graphs.version))";
    db.prepare_cached(SQL)?.execute(named_params! { ":workflow": workflow })?;
    Ok(())
}

/// What is kept of a run's workflow, in the version in which it is or was executed.
pub fn of_run(db: &Db, row: RunRow) -> Result<Option<String>, Failure> {
    // Primary keys.
    const SQL: &str = "
        SELECT graph FROM runs JOIN graphs ON graphs.workflow = runs.workflow AND graphs.version = runs.version
        WHERE runs.row = :row";
    Ok(db.prepare_cached(SQL)?.query_row(named_params! { ":row": row.0 }, |row| row.get(0)).optional()?)
}

/// What is kept of a workflow: in the version that the newest runner declares, else in that of the newest run, else in what was declared last.
pub fn newest(db: &Db, workflow: &str) -> Result<Option<String>, Failure> {
    // Primary keys, index runs_workflow.
    const SQL: &str = "
        SELECT graph FROM graphs WHERE workflow = :workflow
        ORDER BY version IS NOT DISTINCT FROM (SELECT workflows.version FROM workflows WHERE name = :workflow ORDER BY owner DESC LIMIT 1) DESC,
            version IS NOT DISTINCT FROM (SELECT runs.version FROM runs WHERE runs.workflow = :workflow ORDER BY created_at DESC LIMIT 1) DESC,
            unused_since DESC NULLS LAST
        LIMIT 1";
    let params = named_params! { ":workflow": workflow };
    Ok(db.prepare_cached(SQL)?.query_row(params, |row| row.get(0)).optional()?)
}

/// At most `limit` names of workflows of which something is kept, behind `after`.
pub fn names(db: &Db, after: &str, limit: u64) -> Result<Vec<String>, Failure> {
    // Primary key.
    const SQL: &str =
        "SELECT DISTINCT workflow FROM graphs WHERE workflow > :after ORDER BY workflow LIMIT :limit";
    let params = named_params! { ":after": after, ":limit": signed(limit) };
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map(params, |row| row.get(0))?;
    Ok(rows.collect::<db::Result<_>>()?)
}
