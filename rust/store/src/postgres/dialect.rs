//! What the files of `sql` say in PostgreSQL's own words. Decides nothing. Invariant: `sqlite::dialect` has the same names with the same meaning.

use super::db::Db;
use super::fault::Failure;

/// By which index SQLite reads a table; PostgreSQL chooses by itself.
macro_rules! by_index {
    ($index:literal) => {
        ""
    };
}
pub(crate) use by_index;

/// How long whoever is given an end waits that has ended its process more than once, in microseconds.
macro_rules! pause_after_death {
    () => {
        "(1000000::BIGINT << least(tries - 2, 9)::INT)"
    };
}
pub(crate) use pause_after_death;

/// The time by who keeps the store.
macro_rules! now {
    () => {
        "now_us()"
    };
}
pub(crate) use now;

/// The names of a list, which [`listed`] binds.
macro_rules! names_of {
    ($list:literal) => {
        concat!("(SELECT unnest(", $list, "::TEXT[]))")
    };
}
pub(crate) use names_of;

/// Names as a statement takes them.
pub fn listed(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// What others lock is left to them.
macro_rules! skip_locked {
    ($table:literal) => {
        concat!(" FOR UPDATE OF ", $table, " SKIP LOCKED")
    };
}
pub(crate) use skip_locked;

/// What is read is about to be written.
macro_rules! for_update {
    () => {
        " FOR UPDATE"
    };
}
pub(crate) use for_update;

/// What time it is, in microseconds.
macro_rules! now_us {
    () => {
        "now_us()"
    };
}
pub(crate) use now_us;

/// An attempt that waits for its seat.
pub const ASK: &str = "
    INSERT INTO limit_seats (name, run, task, attempt, owner, priority, since)
    VALUES (:name, :run, :task, :attempt, :owner, :priority, :at)
    ON CONFLICT (run, task, attempt, name) DO UPDATE SET row = excluded.row, owner = excluded.owner,
        priority = excluded.priority, since = excluded.since, granted_at = NULL";

/// What a poll leaves on its trigger.
macro_rules! advance {
    () => {
        "
    UPDATE schedules SET cursor = CASE WHEN cursor_set = :cursor_set THEN coalesce(:cursor, cursor) ELSE cursor END,
        last_at = CASE WHEN kind = 'cron' THEN last_at ELSE :at END, not_before = :not_before, wait_us = :wait_us,
        failures = :failures, called_by = NULL, overlap = CASE WHEN kind = 'cron' THEN overlap ELSE :overlap END
    WHERE row = :row AND owner = :epoch AND (cursor_set = :cursor_set OR kind = 'cron')"
    };
}
pub(crate) use advance;

/// The tries of a task beyond the first and the last ones; index tries_task, which ends in the row.
pub const BOUND_TRIES: &str = "
    DELETE FROM tries WHERE row IN (
        SELECT row FROM tries WHERE run = :run AND task = :task ORDER BY row DESC OFFSET :last)
    AND row NOT IN (SELECT row FROM tries WHERE run = :run AND task = :task ORDER BY row LIMIT :first)";

/// A body that still runs.
pub const PUT_OVERDUE: &str = "
    INSERT INTO overdue (run, task, attempt, owner, since)
    SELECT row, :task, :attempt::BIGINT, owner, :at::BIGINT FROM runs WHERE row = :run AND owner = :epoch
    ON CONFLICT (run, task, attempt) DO UPDATE SET owner = excluded.owner, since = excluded.since";

/// How many ends were counted.
pub const COUNT_ENDS: &str = "UPDATE meta SET value = :ends WHERE name = 'ends'";

/// What a prune was about, in words.
pub const ABOUT_PRUNE: &str = "
    SELECT coalesce('runs that ended before ' || 
        to_char(to_timestamp(:at::BIGINT / 1e6) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), 'what is old')";

/// The last time that the store knows of; primary keys.
pub const LAST_SIGN: &str = "
    SELECT greatest(
        coalesce((SELECT greatest(joined_at, coalesce(left_at, 0)) FROM owners WHERE epoch < :epoch ORDER BY epoch DESC LIMIT 1), 0),
        coalesce((SELECT created_at FROM runs WHERE created_at < (SELECT joined_at FROM owners WHERE epoch = :epoch)
                  ORDER BY row DESC LIMIT 1), 0))";

/// A stretch goes on.
pub const EXTEND: &str = "
    UPDATE ticks SET
        count = count + :count,
        last_at = greatest(last_at, :last_at),
        min_us = least(min_us, :min_us),
        max_us = greatest(max_us, :max_us),
        sum_us = sum_us + :sum_us
    WHERE row = :row";

/// Ends of runs are written down whether anybody listens or not: a trigger that comes and goes would lock all runs.
#[expect(clippy::unnecessary_wraps, reason = "SQLite's asks and writes")]
pub fn heed_listeners(_: &Db) -> Result<(), Failure> {
    Ok(())
}
