//! What bodies logged. Invariant: of a run no more is kept than it may have, the newest lines, and how many were left out is known.

use cloaca_core::key::RunRow;
use cloaca_core::port::{Line, Logged};

use crate::postgres::db::{Db, OptionalExtension as _, named_params};
use crate::postgres::fault::Failure;
use crate::postgres::value::signed;

/// Keeps these lines behind those of the same run before; of a run that is not kept it keeps none.
pub fn append(db: &Db, logged: &Logged) -> Result<(), Failure> {
    // Index runs_id. Before the lines are numbered: of two who write of one run, who has its row comes first, also with its numbers.
    const COUNT: &str = "
        INSERT INTO logged (run, bytes, left_out) SELECT row, :bytes, :left_out FROM runs WHERE id = :id
        ON CONFLICT (run) DO UPDATE SET bytes = logged.bytes + excluded.bytes, left_out = logged.left_out + excluded.left_out
        RETURNING run, bytes";
    const PUT: &str = "
        INSERT INTO logs (run, task, attempt, callback, at, level, logger, text, error, bytes)
        SELECT :run, task, attempt, callback, at, level, logger, text, error, bytes
        FROM unnest(:task::TEXT[], :attempt::BIGINT[], :callback::TEXT[], :at::BIGINT[], :level::BIGINT[], :logger::TEXT[], :text::TEXT[],
            :error::TEXT[], :bytes::BIGINT[])
            WITH ORDINALITY AS line (task, attempt, callback, at, level, logger, text, error, bytes, place)
        ORDER BY place";
    let counted = named_params! {
        ":id": logged.run, ":bytes": signed(logged.bytes() as u64), ":left_out": signed(logged.left_out)
    };
    let row =
        db.prepare_cached(COUNT)?.query_row(counted, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((run, bytes)): Option<(i64, i64)> = row else { return Ok(()) };
    let lines = &logged.lines;
    let numbers = |of: &dyn Fn(&Line) -> i64| lines.iter().map(of).collect::<Vec<_>>();
    db.prepare_cached(PUT)?.execute(named_params! {
        ":run": run,
        ":task": lines.iter().map(|line| line.task.as_deref()).collect::<Vec<_>>(),
        ":attempt": lines.iter().map(|line| line.attempt.map(i64::from)).collect::<Vec<_>>(),
        ":callback": lines.iter().map(|line| line.callback.as_deref()).collect::<Vec<_>>(),
        ":at": numbers(&|line| line.at.0),
        ":level": numbers(&|line| line.level),
        ":logger": lines.iter().map(|line| &*line.logger).collect::<Vec<_>>(),
        ":text": lines.iter().map(|line| &*line.text).collect::<Vec<_>>(),
        ":error": lines.iter().map(|line| line.error.as_deref()).collect::<Vec<_>>(),
        ":bytes": numbers(&|line| signed(line.bytes() as u64)),
    })?;
    bound(db, RunRow(run), bytes, signed(logged.bytes_max))
}

/// Deletes the oldest lines of a run that has more than its bound: an eighth more than that, so that it isn't done for each line.
fn bound(db: &Db, run: RunRow, bytes: i64, bytes_max: i64) -> Result<(), Failure> {
    // Index logs_run. The newest line stays, however long.
    const SQL: &str = "
        WITH counted AS (
            SELECT row, bytes, (sum(bytes) OVER (ORDER BY row))::BIGINT - bytes AS before, max(row) OVER () AS newest
            FROM logs WHERE run = :run
        ), gone AS (
            DELETE FROM logs USING counted
            WHERE logs.row = counted.row AND before < :excess AND counted.row < newest RETURNING logs.bytes
        )
        UPDATE logged SET
            bytes = logged.bytes - (SELECT coalesce(sum(bytes), 0)::BIGINT FROM gone),
            left_out = left_out + (SELECT count(*) FROM gone)
        WHERE run = :run";
    if bytes > bytes_max {
        let excess = bytes - (bytes_max - bytes_max / 8);
        db.prepare_cached(SQL)?.execute(named_params! { ":run": run.0, ":excess": excess })?;
    }
    Ok(())
}

/// Forgets them with their run.
pub fn forget(db: &Db, run: RunRow) -> Result<(), Failure> {
    const COUNT: &str = "DELETE FROM logged WHERE run = :run";
    const LINES: &str = "DELETE FROM logs WHERE run = :run";
    if db.prepare_cached(COUNT)?.execute(named_params! { ":run": run.0 })? > 0 {
        db.prepare_cached(LINES)?.execute(named_params! { ":run": run.0 })?;
    }
    Ok(())
}
