//! What only somebody asks who looks at a store from outside. Invariant: each statement is bounded, and walks an index.

use crate::postgres::db::{self, Db, OptionalExtension as _, Row, named_params};
use cloaca_core::key::Epoch;
use cloaca_core::port::{Backlog, Begun};
use cloaca_core::time::Wall;
use uuid::Uuid;

use crate::postgres::fault::Failure;
use crate::postgres::inbox;
use crate::postgres::value::{count_at, id_at, signed, wall_at};

const RUN_IDS: &str = "SELECT id FROM runs WHERE id BETWEEN :first AND :last ORDER BY id LIMIT :limit";
/// Also what limits hold, which is no claim's until they let it begin: it waits behind the latest of all times. And what waits for its time, the
/// next first, or for who claims it since: by runs_due.
const BACKLOG: &str = "
    SELECT workflow, owner, count(*) FILTER (WHERE status = 'Pending'), count(*) FILTER (WHERE status <> 'Pending'),
        min(created_at), held, delayed
    FROM (
        SELECT * FROM (
            SELECT workflow, coalesce(owner, owner_before) AS owner, status, created_at, FALSE AS held, FALSE AS delayed
            FROM runs
            WHERE completed_at IS NULL AND not_before IS NULL ORDER BY row LIMIT :limit) AS open
        UNION ALL
        SELECT * FROM (
            SELECT workflow, NULL::BIGINT, status, created_at, TRUE, FALSE FROM runs
            WHERE completed_at IS NULL AND not_before = 9223372036854775807 LIMIT :limit) AS limited
        UNION ALL
        SELECT * FROM (
            SELECT workflow, NULL::BIGINT, status, created_at, FALSE, not_before > :at FROM runs
            WHERE completed_at IS NULL AND not_before IS NOT NULL AND not_before < 9223372036854775807
            ORDER BY not_before, row LIMIT :limit) AS timed
    ) AS runs GROUP BY workflow, owner, held, delayed ORDER BY workflow, owner NULLS FIRST, held, delayed";
/// Who has a task that has begun is not pending: of a long backlog no tasks are looked for.
const BEGUN: &str = "
    SELECT r.id, r.workflow, tasks.name, tasks.attempt, tasks.started_at, r.owner
    FROM (
        SELECT row, id, workflow, status, coalesce(owner, owner_before) AS owner FROM runs
        WHERE completed_at IS NULL AND not_before IS NULL ORDER BY row LIMIT :limit
    ) AS r JOIN tasks ON tasks.run = r.row
    WHERE r.status = 'Running' AND tasks.status = 'Running' AND tasks.not_before IS NULL
        AND tasks.rests_since IS NULL AND tasks.started_at IS NOT NULL
    ORDER BY tasks.started_at LIMIT :limit";
/// From one name to the next, whatever the number of runs of each, and no further than is asked for.
const WORKFLOWS: &str = "
    WITH RECURSIVE names (name) AS (
        SELECT min(workflow) FROM runs WHERE workflow > :after
        UNION ALL
        SELECT (SELECT min(workflow) FROM runs WHERE workflow > names.name) FROM names WHERE names.name IS NOT NULL
    ) SELECT name FROM names WHERE name IS NOT NULL LIMIT :limit";

const VERSION: &str = "SELECT version FROM runs WHERE workflow = :workflow ORDER BY created_at DESC LIMIT 1";
const ENDED: &str = "
    SELECT count(*) FROM (
        SELECT 1 FROM runs WHERE completed_at < :before LIMIT :limit
    ) AS old";

/// The content version of a workflow's newest run.
pub fn version(db: &Db, workflow: &str) -> Result<Option<String>, Failure> {
    let params = named_params! { ":workflow": workflow };
    Ok(db.prepare_cached(VERSION)?.query_row(params, |row| row.get(0)).optional()?)
}

/// How many runs ended before a time, counted to `limit`.
pub fn ended_before(db: &Db, before: Wall, limit: u64) -> Result<u64, Failure> {
    let params = named_params! { ":before": before.0, ":limit": signed(limit) };
    Ok(db.prepare_cached(ENDED)?.query_row(params, |row| count_at(row, 0))?)
}

/// In whose hands a run is, or was when its owner died, if nobody has taken it since.
pub fn holder(db: &Db, id: Uuid) -> Result<Option<Epoch>, Failure> {
    // Index runs_id.
    const SQL: &str = "SELECT coalesce(owner, owner_before) FROM runs WHERE id = :id";
    let found =
        db.prepare_cached(SQL)?.query_row(named_params! { ":id": id }, |row| row.get::<_, Option<i64>>(0));
    Ok(found.optional()?.flatten().map(Epoch))
}

/// At most `limit` ids of runs that begin like this.
pub fn run_ids(db: &Db, prefix: &str, limit: u64) -> Result<Vec<Uuid>, Failure> {
    let filled = |rest: &str| format!("{prefix}{}", rest.get(prefix.len()..).unwrap_or_default());
    let first = Uuid::parse_str(&filled("00000000-0000-0000-0000-000000000000"));
    let last = Uuid::parse_str(&filled("ffffffff-ffff-ffff-ffff-ffffffffffff"));
    let (Ok(first), Ok(last)) = (first, last) else { return Ok(Vec::new()) };
    let params = named_params! { ":first": first, ":last": last, ":limit": signed(limit) };
    let mut statement = db.prepare_cached(RUN_IDS)?;
    let rows = statement.query_map(params, |row| id_at(row, 0))?;
    let mut found: Vec<Uuid> = rows.collect::<db::Result<_>>()?;
    found.extend(inbox::ids(db, first, last, limit)?);
    found.sort_unstable();
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(found)
}

/// What is not over, of the oldest `limit` such runs, by workflow and owner, and whether it is held or not due yet.
pub fn backlog(db: &Db, limit: u64, at: Wall) -> Result<Vec<Backlog>, Failure> {
    let read = |row: &Row| {
        Ok(Backlog {
            workflow: row.get(0)?,
            owner: row.get::<_, Option<i64>>(1)?.map(Epoch),
            pending: count_at(row, 2)?,
            running: count_at(row, 3)?,
            oldest_at: wall_at(row, 4)?,
            is_held: row.get(5)?,
            is_delayed: row.get(6)?,
        })
    };
    let mut statement = db.prepare_cached(BACKLOG)?;
    let rows = statement.query_map(named_params! { ":limit": signed(limit), ":at": at.0 }, read)?;
    Ok(rows.collect::<db::Result<_>>()?)
}

/// Tasks on record as begun and not as waiting, of the oldest `limit` runs that are not over, the longest first.
pub fn begun(db: &Db, limit: u64) -> Result<Vec<Begun>, Failure> {
    let read = |row: &Row| {
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
    Ok(rows.collect::<db::Result<_>>()?)
}

/// At most `limit` names of workflows that have runs, behind `after`.
pub fn workflows(db: &Db, after: &str, limit: u64) -> Result<Vec<String>, Failure> {
    let mut statement = db.prepare_cached(WORKFLOWS)?;
    let params = named_params! { ":after": after, ":limit": signed(limit) };
    let rows = statement.query_map(params, |row| row.get(0))?;
    Ok(rows.collect::<db::Result<_>>()?)
}

/// A number that changes when somebody has committed, be it to another schema.
pub fn commits(db: &Db) -> Result<i64, Failure> {
    const SQL: &str = "SELECT pg_current_snapshot()::TEXT::BYTEA";
    let seen: Vec<u8> = db.prepare_cached(SQL)?.query_row([], |row| row.get(0))?;
    // FNV-1a.
    Ok(seen.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    }) as i64)
}
