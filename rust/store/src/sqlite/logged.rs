//! What bodies logged. Invariant: of a run no more is kept than it may have, the newest lines, and how many were left out is known.

use cloaca_core::key::RunRow;
use cloaca_core::port::Logged;
use rusqlite::{Connection, OptionalExtension as _, named_params};

use crate::sqlite::fault::Failure;
use crate::sqlite::value::signed;

/// Keeps these lines behind those of the same run before; of a run that is not kept it keeps none.
pub fn append(db: &Connection, logged: &Logged) -> Result<(), Failure> {
    // Index runs_id.
    const RUN: &str = "SELECT row FROM runs WHERE id = :id";
    const COUNT: &str = "
        INSERT INTO logged (run, bytes, left_out) VALUES (:run, :bytes, :left_out)
        ON CONFLICT (run) DO UPDATE SET bytes = bytes + excluded.bytes, left_out = left_out + excluded.left_out
        RETURNING bytes";
    const PUT: &str = "
        INSERT INTO logs (run, task, attempt, callback, at, level, logger, text, error, bytes)
        VALUES (:run, :task, :attempt, :callback, :at, :level, :logger, :text, :error, :bytes)";
    let id = named_params! { ":id": logged.run.to_string() };
    let Some(run) = db.prepare_cached(RUN)?.query_row(id, |row| row.get(0).map(RunRow)).optional()? else {
        return Ok(());
    };
    let counted = named_params! {
        ":run": run.0, ":bytes": signed(logged.bytes() as u64), ":left_out": signed(logged.left_out)
    };
    let bytes: i64 = db.prepare_cached(COUNT)?.query_row(counted, |row| row.get(0))?;
    let mut put = db.prepare_cached(PUT)?;
    for line in &logged.lines {
        put.execute(named_params! {
            ":run": run.0,
            ":task": line.task.as_deref(),
            ":attempt": line.attempt,
            ":callback": line.callback.as_deref(),
            ":at": line.at.0,
            ":level": line.level,
            ":logger": line.logger,
            ":text": line.text,
            ":error": line.error,
            ":bytes": signed(line.bytes() as u64),
        })?;
    }
    bound(db, run, bytes, signed(logged.bytes_max))
}

/// Deletes the oldest lines of a run that has more than its bound: an eighth more than that, so that it isn't done for each line.
fn bound(db: &Connection, run: RunRow, mut bytes: i64, bytes_max: i64) -> Result<(), Failure> {
    // Index logs_run, which ends in the row.
    const OLDEST: &str = "
        SELECT row, bytes FROM logs
        WHERE run = :run AND row < (SELECT max(row) FROM logs WHERE run = :run) ORDER BY row";
    const DELETE: &str = "DELETE FROM logs WHERE run = :run AND row <= :row";
    const COUNT: &str = "UPDATE logged SET bytes = :bytes, left_out = left_out + :lines WHERE run = :run";
    if bytes <= bytes_max {
        return Ok(());
    }
    let mut last: Option<i64> = None;
    let mut oldest = db.prepare_cached(OLDEST)?;
    let mut rows = oldest.query(named_params! { ":run": run.0 })?;
    while bytes > bytes_max - bytes_max / 8
        && let Some(row) = rows.next()?
    {
        last = Some(row.get(0)?);
        bytes -= row.get::<_, i64>(1)?;
    }
    let lines = db.prepare_cached(DELETE)?.execute(named_params! { ":run": run.0, ":row": last })?;
    let counted = named_params! { ":run": run.0, ":bytes": bytes, ":lines": signed(lines as u64) };
    db.prepare_cached(COUNT)?.execute(counted)?;
    Ok(())
}

/// Forgets them with their run.
pub fn forget(db: &Connection, run: RunRow) -> Result<(), Failure> {
    const COUNT: &str = "DELETE FROM logged WHERE run = :run";
    const LINES: &str = "DELETE FROM logs WHERE run = :run";
    if db.prepare_cached(COUNT)?.execute(named_params! { ":run": run.0 })? > 0 {
        db.prepare_cached(LINES)?.execute(named_params! { ":run": run.0 })?;
    }
    Ok(())
}
