//! What is to be hidden, and in which contexts it may stand. Invariant: what was once asked to be hidden stays so until somebody takes it
//! back: a program that asks for less hides no less.

use crate::postgres::db::{self, Db, named_params};
use cloaca_core::port::{REDACTED_KEYS_MAX, Redacted};
use uuid::Uuid;

use crate::postgres::fault::Failure;

// Index runs_id, and the key of tasks.
const OF_RUN: &str = "
    SELECT context FROM runs WHERE id = :id
    UNION ALL SELECT final_context FROM runs WHERE id = :id AND final_context IS NOT NULL
    UNION ALL SELECT tasks.context FROM runs JOIN tasks ON tasks.run = runs.row WHERE id = :id AND tasks.context IS NOT NULL
    UNION ALL SELECT checkpoint FROM runs JOIN tasks ON tasks.run = runs.row WHERE id = :id AND checkpoint IS NOT NULL";
// Indices schedules_trigger and schedules_cron_name, then runs_schedule from its end.
const OF_TRIGGER: &str = "
    WITH named AS (
        SELECT row, cursor, context FROM schedules WHERE kind = 'trigger' AND name = :name
        UNION ALL SELECT row, cursor, context FROM schedules WHERE kind = 'cron' AND name <> '' AND name = :name
    )
    SELECT cursor FROM named WHERE cursor IS NOT NULL
    UNION ALL SELECT context FROM named WHERE context IS NOT NULL
    UNION ALL SELECT newest FROM (
        SELECT (SELECT context FROM runs WHERE schedule = named.row ORDER BY created_at DESC LIMIT 1) AS newest FROM named
    ) AS found WHERE newest IS NOT NULL";

/// What the programs of this store have asked to be hidden.
pub fn read(db: &Db) -> Result<Redacted, Failure> {
    const SQL: &str = "SELECT how, key FROM redacted ORDER BY how, key";
    let mut redacted = Redacted::default();
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    for row in rows {
        let (how, key) = row?;
        match how.as_str() {
            "key" => redacted.keys.push(key),
            // What a newer program may mean by another word hides no less than a function does.
            _ => redacted.by_function = true,
        }
    }
    Ok(redacted)
}

/// Adds to it.
pub fn add(db: &Db, more: &Redacted) -> Result<(), Failure> {
    const SQL: &str = "INSERT INTO redacted (how, key) VALUES (:how, :key) ON CONFLICT DO NOTHING";
    const COUNT: &str = "SELECT count(*) FROM redacted WHERE how = 'key'";
    let mut statement = db.prepare_cached(SQL)?;
    for key in &more.keys {
        statement.execute(named_params! { ":how": "key", ":key": key })?;
    }
    if more.by_function {
        statement.execute(named_params! { ":how": "function", ":key": "" })?;
    }
    let count: i64 = db.prepare_cached(COUNT)?.query_row([], |row| row.get(0))?;
    match count > REDACTED_KEYS_MAX as i64 {
        true => Err(Failure::Refused(format!(
            "redact has too many keys: with those of this store they are {count}, and at most {REDACTED_KEYS_MAX} are kept; \
             name fewer, or take some back by unredact"
        ))),
        false => Ok(()),
    }
}

/// Takes a key back, or everything; returns how much that was.
pub fn take_back(db: &Db, key: Option<&str>) -> Result<usize, Failure> {
    const ONE: &str = "DELETE FROM redacted WHERE how = 'key' AND key = :key";
    const ALL: &str = "DELETE FROM redacted";
    Ok(match key {
        Some(key) => db.prepare_cached(ONE)?.execute(named_params! { ":key": key })?,
        None => db.prepare_cached(ALL)?.execute([])?,
    })
}

/// All contexts that are kept of a run.
pub fn contexts_of_run(db: &Db, id: Uuid) -> Result<Vec<String>, Failure> {
    texts(db, OF_RUN, &[(":id", &id)])
}

/// What a trigger or cron of that name has at hand: its cursor, what its runs are given, and the context of its newest run.
pub fn contexts_of_trigger(db: &Db, name: &str) -> Result<Vec<String>, Failure> {
    texts(db, OF_TRIGGER, &[(":name", &name)])
}

fn texts(
    db: &Db,
    sql: &str,
    params: &[(&str, &dyn crate::postgres::db::ToParam)],
) -> Result<Vec<String>, Failure> {
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(params, |row| row.get(0))?;
    Ok(rows.collect::<db::Result<_>>()?)
}
