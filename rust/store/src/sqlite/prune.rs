//! Forgets what is older than somebody wants to keep. Invariant: nothing that decides about the future goes: no unfinished run,
//! no run key whose time is not over, no cursor.

use cloaca_core::time::Wall;
use rusqlite::{Connection, Params, named_params};

use crate::sqlite::fault::Failure;
use crate::sqlite::value::signed;

/// Deletes at most `limit` final runs and as many stretches from before `before`, and expired run keys; returns how many rows went.
pub fn run(db: &Connection, before: Wall, now: Wall, limit: u64) -> Result<u64, Failure> {
    // Index runs_completed, and run_keys_expiry.
    const TASKS: &str = "
        DELETE FROM tasks WHERE run IN (
            SELECT row FROM runs WHERE completed_at < :before ORDER BY completed_at, row LIMIT :limit)";
    const RUNS: &str = "
        DELETE FROM runs WHERE row IN (
            SELECT row FROM runs WHERE completed_at < :before ORDER BY completed_at, row LIMIT :limit)";
    const TICKS: &str = "
        DELETE FROM ticks WHERE row IN (
            SELECT row FROM ticks WHERE last_at < :before ORDER BY row LIMIT :limit)";
    const KEYS: &str = "DELETE FROM run_keys WHERE expires_at <= :now";
    let old = named_params! { ":before": before.0, ":limit": signed(limit) };
    delete(db, TASKS, old)?;
    let runs = delete(db, RUNS, old)?;
    let ticks = delete(db, TICKS, old)?;
    let keys = delete(db, KEYS, named_params! { ":now": now.0 })?;
    Ok((runs + ticks + keys) as u64)
}

fn delete(db: &Connection, sql: &str, params: impl Params) -> Result<usize, Failure> {
    Ok(db.prepare_cached(sql)?.execute(params)?)
}
