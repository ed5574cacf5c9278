//! The tables, and the way to them from older files. Invariant: a migration that has shipped is never edited; a new
//! one is appended, and `PRAGMA user_version` counts how many a file has seen.

use std::collections::HashSet;
use std::path::Path;

use cloaca_core::context::hash_text;
use cloaca_core::fault_point::{Step, around};
use cloaca_core::key::Epoch;
use cloaca_core::port::ContextHash;
use rusqlite::{Connection, Error, OptionalExtension as _, Transaction, TransactionBehavior};

use crate::sqlite::fault::{Cause, Failure};
use crate::sqlite::{lock, owner};
use crate::tables;

/// In the order in which they are applied.
const MIGRATIONS: [&str; 2] = [include_str!("migrations/0001.sql"), include_str!("migrations/0002.sql")];
/// "cloa": marks a file as ours in its header.
const APPLICATION_ID: i32 = 0x636c_6f61;

/// The tables that are ours.
pub fn tables() -> Vec<&'static str> {
    tables::made_by(&MIGRATIONS)
}

/// Refuses a file that is not ours and cannot become so, before anything in it is changed.
pub fn check(connection: &Connection, name: &str) -> Result<(), Failure> {
    const SQL: &str = "
        SELECT name FROM sqlite_schema
        WHERE name IN ('owners', 'schedules', 'runs', 'tasks', 'run_keys', 'ticks') LIMIT 1";
    if version(connection, name)? > 0 {
        return Ok(());
    }
    match connection.query_row(SQL, [], |row| row.get::<_, String>(0)).optional()? {
        // Another process may have made them since.
        Some(_) if version(connection, name)? > 0 => Ok(()),
        Some(table) => Err(Failure::Refused(format!(
            "database '{name}' has no room for cloaca's tables: it has a table '{table}' of its own; use another file"
        ))),
        None => Ok(()),
    }
}

/// Which version the file has, and what would bring it to this program's.
pub fn outlook(connection: &Connection, name: &str) -> Result<(usize, Vec<&'static str>), Failure> {
    match version(connection, name)? {
        0 => Err(nothing_of_ours(name)),
        seen => Ok((seen, MIGRATIONS[seen..].to_vec())),
    }
}

fn nothing_of_ours(name: &str) -> Failure {
    Failure::Refused(format!("database '{name}' holds nothing of cloaca; name one that a runner has made"))
}

/// Refuses a file that is not ours, or of another version: who only reads changes nothing.
pub fn check_for_reading(connection: &Connection, name: &str) -> Result<(), Failure> {
    match version(connection, name)? {
        0 => Err(nothing_of_ours(name)),
        seen if seen < MIGRATIONS.len() => Err(Failure::Refused(format!(
            "database '{name}' has schema version {seen}, and this cloaca reads version {}: the first runner of it that \
             opens the file brings it up to date, and so does 'cloaca migrate'",
            MIGRATIONS.len()
        ))),
        _ => refuse_partial(connection, name),
    }
}

/// Refuses a file of this version in which not all tables are there: what lacks one would come out amidst the work.
fn refuse_partial(connection: &Connection, name: &str) -> Result<(), Failure> {
    const SQL: &str = "SELECT name FROM sqlite_schema WHERE type = 'table'";
    let mut statement = connection.prepare(SQL)?;
    let found: HashSet<String> =
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let made = tables().into_iter().map(str::to_owned);
    let missing: Vec<String> = made.filter(|table| !found.contains(table)).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Failure::Refused(tables::lacking(
            name,
            &missing,
            "restore a whole copy, or use another file",
        ))),
    }
}

/// Brings the tables of the database, which is known by `paths`, to this program's version.
pub fn migrate(connection: &Connection, name: &str, paths: &[&Path]) -> Result<(), Failure> {
    if version(connection, name)? == MIGRATIONS.len() {
        return refuse_partial(connection, name);
    }
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    // Another process may have done it while this one waited for the lock.
    let seen = version(&transaction, name)?;
    if seen == 1 {
        let living = owner::living(&transaction)?;
        let is_held = |epoch: &Epoch| paths.iter().any(|path| lock::is_held_by_first_release(path, *epoch));
        if let Some(epoch) = living.into_iter().find(is_held) {
            let holders = paths.iter().find_map(|path| lock::holder(&lock::hint(path, epoch)));
            let of = holders.map_or_else(
                || format!("which holds '{}'; 'fuser' names it", lock::hint(paths[0], epoch).display()),
                |process| format!("in process {process}"),
            );
            return Err(Failure::Refused(format!(
                "database '{name}' is served by a runner of cloaca 0.1.0, {of}: it would not see this one; stop that process \
                 first, then start again"
            )));
        }
    }
    for sql in &MIGRATIONS[seen..] {
        transaction.execute_batch(sql).map_err(|error| blocked(name, error))?;
    }
    if seen == 1 {
        forget_names(&transaction)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    Ok(around(Step::Migrate, || transaction.commit())?)
}

/// Release 0.1.0 hashed contexts with the names of their triggers, which may become others: unfinished runs guard theirs without from now on.
fn forget_names(db: &Connection) -> Result<(), Failure> {
    const GUARDED: &str = "
        SELECT runs.row, name, runs.context, context_hash FROM runs JOIN schedules ON schedules.row = runs.schedule
        WHERE completed_at IS NULL AND context_hash IS NOT NULL";
    const HASHED: &str = "UPDATE runs SET context_hash = ?2 WHERE row = ?1";
    let mut statement = db.prepare(GUARDED)?;
    let guarded = statement.query_map([], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
            row.get::<_, Vec<u8>>(3)?,
        ))
    })?;
    for (row, name, context, known) in guarded.collect::<rusqlite::Result<Vec<_>>>()? {
        let is_of = |hash: &ContextHash| hash[..] == known[..];
        if hash_text(&name, &context).is_ok_and(|hash| is_of(&hash))
            && let Ok(hash) = hash_text("", &context)
        {
            db.execute(HASHED, (row, &hash[..]))?;
        }
    }
    Ok(())
}

/// How many migrations the file has seen.
fn version(connection: &Connection, name: &str) -> Result<usize, Failure> {
    let stamp: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let known = MIGRATIONS.len();
    match usize::try_from(stamp) {
        Ok(seen) if seen > known && [0, APPLICATION_ID].contains(&application) => {
            Err(Failure::Refused(format!(
                "database '{name}' has schema version {seen}; this cloaca knows versions up to {known}: \
                 upgrade cloaca or use another file"
            )))
        }
        Ok(seen) if application == APPLICATION_ID => Ok(seen),
        Ok(0) if application == 0 => Ok(0),
        _ => Err(Failure::Refused(format!(
            "database '{name}' belongs to another program (application_id {application}, user_version {stamp}); \
             use another file"
        ))),
    }
}

/// A statement of ours that SQLite does not take meets a table of somebody else.
fn blocked(name: &str, error: rusqlite::Error) -> Failure {
    match error {
        Error::SqlInputError { .. } => Failure::Refused(format!(
            "database '{name}' has no room for cloaca's tables: {}; use another file",
            Cause(&error)
        )),
        error => Failure::Sql(error),
    }
}
