//! What the files of `sql` say in SQLite's own words. Decides nothing. Invariant: `postgres::dialect` has the same names with the same meaning.

use super::db::Db;
use super::fault::Failure;

/// By which index SQLite reads a table.
macro_rules! by_index {
    ($index:literal) => {
        concat!(" INDEXED BY ", $index)
    };
}
pub(crate) use by_index;

/// How long whoever is given an end waits that has ended its process more than once, in microseconds.
macro_rules! pause_after_death {
    () => {
        "(1000000 << min(tries - 2, 9))"
    };
}
pub(crate) use pause_after_death;

/// The time by who keeps the store.
macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
    };
}
pub(crate) use now;

/// The names of a list, which [`listed`] binds.
macro_rules! names_of {
    ($list:literal) => {
        concat!("(SELECT value FROM json_each(", $list, "))")
    };
}
pub(crate) use names_of;

/// Names as a statement takes them.
pub fn listed(names: &[String]) -> String {
    serde_json::json!(names).to_string()
}

/// What others lock is left to them; here who writes is alone.
macro_rules! skip_locked {
    ($table:literal) => {
        ""
    };
}
pub(crate) use skip_locked;

/// What is read is about to be written; here who writes is alone.
macro_rules! for_update {
    () => {
        ""
    };
}
pub(crate) use for_update;

/// What time it is, in microseconds.
macro_rules! now_us {
    () => {
        "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
    };
}
pub(crate) use now_us;

/// An attempt that waits for its seat.
pub const ASK: &str = "
    INSERT OR REPLACE INTO limit_seats (name, run, task, attempt, owner, priority, since)
    VALUES (:name, :run, :task, :attempt, :owner, :priority, :at)";

/// What a poll leaves on its trigger.
macro_rules! advance {
    () => {
        "
    UPDATE schedules SET cursor = iif(cursor_set = :cursor_set, coalesce(:cursor, cursor), cursor),
        last_at = iif(kind = 'cron', last_at, :at), not_before = :not_before, wait_us = :wait_us,
        failures = :failures, called_by = NULL, overlap = iif(kind = 'cron', overlap, :overlap)
    WHERE row = :row AND owner = :epoch AND (cursor_set = :cursor_set OR kind = 'cron')"
    };
}
pub(crate) use advance;

/// The tries of a task beyond the first and the last ones; index tries_task, which ends in the row.
pub const BOUND_TRIES: &str = "
    DELETE FROM tries WHERE row IN (
        SELECT row FROM tries WHERE run = :run AND task = :task ORDER BY row DESC LIMIT -1 OFFSET :last)
    AND row NOT IN (SELECT row FROM tries WHERE run = :run AND task = :task ORDER BY row LIMIT :first)";

/// A body that still runs.
pub const PUT_OVERDUE: &str = "
    INSERT OR REPLACE INTO overdue (run, task, attempt, owner, since)
    SELECT :run, :task, :attempt, :epoch, :at FROM runs WHERE row = :run AND owner = :epoch";

/// How many ends were counted.
pub const COUNT_ENDS: &str = "INSERT OR REPLACE INTO meta (name, value) VALUES ('ends', :ends)";

/// What a prune was about, in words.
pub const ABOUT_PRUNE: &str = "SELECT coalesce('runs that ended before ' || strftime('%Y-%m-%dT%H:%M:%fZ', :at / 1e6, 'unixepoch'), 'what is old')";

/// The last time that the store knows of; primary keys.
pub const LAST_SIGN: &str = "
    SELECT max(
        coalesce((SELECT max(joined_at, coalesce(left_at, 0)) FROM owners WHERE epoch < :epoch ORDER BY epoch DESC LIMIT 1), 0),
        coalesce((SELECT created_at FROM runs WHERE created_at < (SELECT joined_at FROM owners WHERE epoch = :epoch)
                  ORDER BY row DESC LIMIT 1), 0))";

/// A stretch goes on.
pub const EXTEND: &str = "
    UPDATE ticks SET
        count = count + :count,
        last_at = max(last_at, :last_at),
        min_us = min(min_us, :min_us),
        max_us = max(max_us, :max_us),
        sum_us = sum_us + :sum_us
    WHERE row = :row";

/// Has ends of runs written down while anybody listens: that costs each run.
pub fn heed_listeners(db: &Db) -> Result<(), Failure> {
    const WRITE: &str = "
        CREATE TRIGGER IF NOT EXISTS runs_end AFTER UPDATE OF completed_at ON runs
        WHEN OLD.completed_at IS NULL AND NEW.completed_at IS NOT NULL
        BEGIN
            INSERT INTO ends (run, number, listener, workflow, outcome, due_at)
            SELECT NEW.row, NEW.reopened + 1, listener, NEW.workflow,
                CASE NEW.status WHEN 'Completed' THEN 1 WHEN 'Failed' THEN 2 ELSE 4 END, NEW.completed_at
            FROM listeners
            WHERE workflow = NEW.workflow AND outcomes & CASE NEW.status WHEN 'Completed' THEN 1 WHEN 'Failed' THEN 2 ELSE 4 END;
        END";
    let is_listening = db.prepare_cached("SELECT 1 FROM listeners LIMIT 1")?.exists([])?;
    Ok(db.execute_batch(if is_listening { WRITE } else { "DROP TRIGGER IF EXISTS runs_end" })?)
}
