//! What only somebody asks who looks at a store from outside. Invariant: each statement is bounded, and walks an index.

use std::collections::BTreeMap;

use cloaca_core::key::Epoch;
use cloaca_core::port::{Backlog, Begun};
use cloaca_core::time::Wall;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params};
use uuid::Uuid;

use crate::sqlite::fault::Failure;
use crate::sqlite::value::{count_at, id_at, signed, wall_at};

const RUN_IDS: &str = "SELECT id FROM runs WHERE id >= :first AND id < :end ORDER BY id LIMIT :limit";
/// Also what limits hold, which is no claim's until they let it begin: it waits behind the latest of all times. And what waits for its time, the
/// next first, or for who claims it since.
/// It is grouped here: SQLite would sort every row for it.
const BACKLOG: &str = "
    SELECT * FROM (
        SELECT workflow, coalesce(owner, owner_before), status = 'Pending', created_at, 0, 0 FROM runs INDEXED BY runs_unfinished
        WHERE completed_at IS NULL AND not_before IS NULL ORDER BY row LIMIT :limit)
    UNION ALL
    SELECT * FROM (
        SELECT workflow, NULL, status = 'Pending', created_at, 1, 0 FROM runs INDEXED BY runs_unfinished
        WHERE completed_at IS NULL AND not_before = 9223372036854775807 LIMIT :limit)
    UNION ALL
    SELECT * FROM (
        SELECT workflow, NULL, status = 'Pending', created_at, 0, not_before > :at FROM runs INDEXED BY runs_unfinished
        WHERE completed_at IS NULL AND not_before < 9223372036854775807 ORDER BY not_before LIMIT :limit)";
/// Who has a task that has begun is not pending: of a long backlog no tasks are looked for.
const BEGUN: &str = "
    SELECT r.id, r.workflow, tasks.name, tasks.attempt, tasks.started_at, r.owner
    FROM (
        SELECT row, id, workflow, status, coalesce(owner, owner_before) AS owner FROM runs INDEXED BY runs_unfinished
        WHERE completed_at IS NULL AND not_before IS NULL ORDER BY row LIMIT :limit
    ) AS r CROSS JOIN tasks ON tasks.run = r.row
    WHERE r.status = 'Running' AND tasks.status = 'Running' AND tasks.not_before IS NULL
        AND tasks.rests_since IS NULL AND tasks.started_at IS NOT NULL
    ORDER BY tasks.started_at LIMIT :limit";
/// From one name to the next, whatever the number of runs of each.
const WORKFLOWS: &str = "
    WITH RECURSIVE names (name) AS (
        SELECT min(workflow) FROM runs WHERE workflow > :after
        UNION ALL
        SELECT (SELECT min(workflow) FROM runs WHERE workflow > names.name) FROM names WHERE names.name IS NOT NULL
        LIMIT :limit
    ) SELECT name FROM names WHERE name IS NOT NULL";

const VERSION: &str = "SELECT version FROM runs WHERE workflow = :workflow ORDER BY created_at DESC LIMIT 1";
const ENDED: &str = "
    SELECT count(*) FROM (
        SELECT 1 FROM runs INDEXED BY runs_completed WHERE completed_at < :before LIMIT :limit
    )";

/// Statements with what their plan must name.
#[cfg(test)]
pub const PLANS: [(&str, &str); 7] = [
    (VERSION, "USING INDEX runs_workflow (workflow=?)"),
    (ENDED, "USING COVERING INDEX runs_completed (completed_at<?)"),
    (RUN_IDS, "USING COVERING INDEX runs_id (id>? AND id<?)"),
    (BACKLOG, "USING INDEX runs_unfinished"),
    (BACKLOG, "USING INDEX runs_unfinished (not_before<?)"),
    (BEGUN, "USING INDEX runs_unfinished"),
    (WORKFLOWS, "USING COVERING INDEX runs_workflow (workflow>?)"),
];

/// The content version of a workflow's newest run.
pub fn version(db: &Connection, workflow: &str) -> Result<Option<String>, Failure> {
    let params = named_params! { ":workflow": workflow };
    Ok(db.prepare_cached(VERSION)?.query_row(params, |row| row.get(0)).optional()?)
}

/// How many runs ended before a time, counted to `limit`.
pub fn ended_before(db: &Connection, before: Wall, limit: u64) -> Result<u64, Failure> {
    let params = named_params! { ":before": before.0, ":limit": signed(limit) };
    Ok(db.prepare_cached(ENDED)?.query_row(params, |row| count_at(row, 0))?)
}

/// In whose hands a run is, or was when its owner died, if nobody has taken it since.
pub fn holder(db: &Connection, id: Uuid) -> Result<Option<Epoch>, Failure> {
    // Index runs_id.
    const SQL: &str = "SELECT coalesce(owner, owner_before) FROM runs WHERE id = :id";
    let found = db
        .prepare_cached(SQL)?
        .query_row(named_params! { ":id": id.to_string() }, |row| row.get::<_, Option<i64>>(0));
    Ok(found.optional()?.flatten().map(Epoch))
}

/// At most `limit` ids of runs that begin like this.
pub fn run_ids(db: &Connection, prefix: &str, limit: u64) -> Result<Vec<Uuid>, Failure> {
    // `g` comes behind every digit.
    let params = named_params! { ":first": prefix, ":end": format!("{prefix}g"), ":limit": signed(limit) };
    let mut statement = db.prepare_cached(RUN_IDS)?;
    let rows = statement.query_map(params, |row| id_at(row, 0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// In whose hands runs are, whether they are held, and whether they are not due yet.
type Part = (Option<Epoch>, bool, bool);

/// What is not over, of the oldest `limit` such runs, by workflow and owner, and whether it is held or not due yet.
pub fn backlog(db: &Connection, limit: u64, at: Wall) -> Result<Vec<Backlog>, Failure> {
    let mut statement = db.prepare_cached(BACKLOG)?;
    let mut rows = statement.query(named_params! { ":limit": signed(limit), ":at": at.0 })?;
    let mut found: BTreeMap<String, BTreeMap<Part, Backlog>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let owner = row.get::<_, Option<i64>>(1)?.map(Epoch);
        let (is_held, is_delayed) = (row.get(4)?, row.get(5)?);
        let (is_pending, created_at): (bool, Wall) = (row.get(2)?, wall_at(row, 3)?);
        let workflow = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        let of_workflow = match found.get_mut(workflow) {
            Some(of_workflow) => of_workflow,
            None => found.entry(workflow.to_owned()).or_default(),
        };
        let sum = of_workflow.entry((owner, is_held, is_delayed)).or_insert_with(|| Backlog {
            workflow: workflow.to_owned(),
            owner,
            pending: 0,
            running: 0,
            oldest_at: created_at,
            is_held,
            is_delayed,
        });
        *(if is_pending { &mut sum.pending } else { &mut sum.running }) += 1;
        sum.oldest_at = sum.oldest_at.min(created_at);
    }
    Ok(found.into_values().flat_map(BTreeMap::into_values).collect())
}

/// Tasks on record as begun and not as waiting, of the oldest `limit` runs that are not over, the longest first.
pub fn begun(db: &Connection, limit: u64) -> Result<Vec<Begun>, Failure> {
    let read = |row: &Row<'_>| {
        Ok(Begun {
            run: id_at(row, 0)?,
            workflow: row.get(1)?,
            task: row.get(2)?,
            attempt: row.get(3)?,
            started_at: wall_at(row, 4)?,
            owner: row.get::<_, Option<i64>>(5)?.map(Epoch),
        })
    };
    let mut statement = db.prepare_cached(BEGUN)?;
    let rows = statement.query_map(named_params! { ":limit": signed(limit) }, read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// At most `limit` names of workflows that have runs, behind `after`.
pub fn workflows(db: &Connection, after: &str, limit: u64) -> Result<Vec<String>, Failure> {
    let mut statement = db.prepare_cached(WORKFLOWS)?;
    let params = named_params! { ":after": after, ":limit": signed(limit) };
    let rows = statement.query_map(params, |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A number that changes when another connection has committed.
pub fn commits(db: &Connection) -> Result<i64, Failure> {
    Ok(db.prepare_cached("PRAGMA data_version")?.query_row((), |row| row.get(0))?)
}
