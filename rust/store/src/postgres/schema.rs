//! The tables, and the way to them from older ones. Invariant: a migration that has shipped is never edited; a new one is appended, and the row `version` of
//! `meta` counts how many a store has seen.

use std::collections::HashSet;

use cloaca_core::fault_point::{Step, around};
use uuid::Uuid;

use crate::postgres::db::{self, Db, OptionalExtension as _, named_params};
use crate::postgres::fault::Failure;
use crate::postgres::open::quoted;
use crate::tables;

/// In the order in which they are applied.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001.sql")];

/// "cloa": the first of the two numbers of our locks on the server.
pub const LOCK_CLASS: i32 = 0x636c_6f61;

/// The tables that are ours.
pub fn tables() -> Vec<&'static str> {
    tables::made_by(&MIGRATIONS)
}

/// Brings the tables in `schema` to this program's version, making the schema if there is none. Without rights to do so a schema that is up to date will do.
pub fn migrate(db: &Db, name: &str, schema: &str) -> Result<(), Failure> {
    if version(db, name, schema)? == MIGRATIONS.len() {
        return refuse_partial(db, name, schema);
    }
    db.execute_batch("BEGIN")?;
    match bring_up(db, name, schema) {
        Ok(()) => Ok(around(Step::Migrate, || db.execute_batch("COMMIT"))?),
        Err(failure) => {
            // What failed may be the connection.
            let _ = db.execute_batch("ROLLBACK");
            Err(failure)
        }
    }
}

/// Brings the tables up to date in the transaction that is open.
pub fn bring_up(db: &Db, name: &str, schema: &str) -> Result<(), Failure> {
    const VERSION: &str = "UPDATE meta SET value = :version WHERE name = 'version'";
    lock(db, schema)?;
    // Another process may have done it while this one waited for the lock.
    let seen = version(db, name, schema)?;
    if seen == MIGRATIONS.len() {
        return Ok(());
    }
    if let Some(sql) = making(db, seen, schema)? {
        db.execute_batch(&sql)?;
    }
    work_as_owner(db, schema)?;
    for sql in &MIGRATIONS[seen..] {
        db.execute_batch(sql)?;
    }
    db.prepare_cached(VERSION)?.execute(named_params! { ":version": MIGRATIONS.len() as i64 })?;
    Ok(())
}

/// What is made in a schema belongs to whom the schema belongs to, whoever makes it, if he may work as that one: an administrator who opens a
/// tenant's store leaves nothing in it that the tenant could not use.
fn work_as_owner(db: &Db, schema: &str) -> Result<(), Failure> {
    const SQL: &str = "
        SELECT rolname FROM pg_catalog.pg_namespace JOIN pg_catalog.pg_roles ON pg_roles.oid = nspowner
        WHERE nspname = :schema AND rolname <> current_user AND pg_has_role(nspowner, 'USAGE')
          AND pg_has_role(nspowner, CASE WHEN current_setting('server_version_num')::INT < 160000 THEN 'MEMBER' ELSE 'SET' END)";
    let owner: Option<String> = db
        .prepare_cached(SQL)?
        .query_row(named_params! { ":schema": schema }, |row| row.get(0))
        .optional()?;
    match owner {
        Some(owner) => Ok(db.execute_batch(&format!("SET LOCAL ROLE {}", quoted(&owner)))?),
        None => Ok(()),
    }
}

/// What makes the schema, if there is none: whose it is need not have the right to make others.
fn making(db: &Db, seen: usize, schema: &str) -> Result<Option<String>, Failure> {
    const IS_THERE: &str = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = :schema";
    let is_there = seen > 0 || db.prepare_cached(IS_THERE)?.exists(named_params! { ":schema": schema })?;
    Ok((!is_there).then(|| format!("CREATE SCHEMA IF NOT EXISTS {};\n", quoted(schema))))
}

/// Takes the lock of the whole store until the end of the transaction.
pub fn lock(db: &Db, schema: &str) -> Result<(), Failure> {
    db.execute_batch(&format!("SELECT pg_advisory_xact_lock({LOCK_CLASS}, {})", key_of(schema)))?;
    Ok(())
}

/// The second of the two numbers: of the schema's name, the same in every program.
pub fn key_of(schema: &str) -> i32 {
    // FNV-1a.
    let hash =
        schema.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash as i32
}

/// How many migrations the store has seen.
pub fn version(db: &Db, name: &str, schema: &str) -> Result<usize, Failure> {
    const IS_THERE: &str = "
        SELECT 1 FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname = :schema AND relname = :table";
    const MAY_LOOK: &str = "SELECT 1 WHERE has_schema_privilege(:schema::TEXT, 'USAGE')";
    const VERSION: &str = "SELECT value FROM meta WHERE name = 'version'";
    let is_there = |table: &str| {
        db.prepare_cached(IS_THERE)?.exists(named_params! { ":schema": schema, ":table": table })
    };
    match whose(is_there)? {
        Whose::Ours => {}
        Whose::Nobodys => return Ok(0),
        Whose::Foreign(table) => return Err(taken(name, table)),
    }
    if !db.prepare_cached(MAY_LOOK)?.exists(named_params! { ":schema": schema })? {
        return Err(Failure::Refused(format!(
            "database '{name}': permission denied for schema '{schema}', which is somebody else's: grant USAGE on it, or name another \
             with '?schema='"
        )));
    }
    let found: Option<i64> = db.prepare_cached(VERSION)?.query_row([], |row| row.get(0)).optional()?;
    let known = MIGRATIONS.len();
    match found.and_then(|seen| usize::try_from(seen).ok()) {
        Some(seen) if seen > known => Err(Failure::Refused(format!(
            "database '{name}' has schema version {seen}; this cloaca knows versions up to {known}: upgrade cloaca or use another schema"
        ))),
        Some(seen) => Ok(seen),
        None => Err(taken(name, "meta")),
    }
}

#[derive(Debug, PartialEq)]
enum Whose {
    Ours,
    Nobodys,
    Foreign(&'static str),
}

/// Whose the tables in a schema are. All of ours come in one transaction, which may end between two looks.
fn whose(is_there: impl Fn(&str) -> db::Result<bool>) -> db::Result<Whose> {
    if is_there("meta")? {
        return Ok(Whose::Ours);
    }
    for table in ["owners", "runs", "schedules", "tasks"] {
        if is_there(table)? {
            return Ok(if is_there("meta")? { Whose::Ours } else { Whose::Foreign(table) });
        }
    }
    Ok(Whose::Nobodys)
}

/// Refuses a schema that holds nothing of ours, or that is of another version: who only reads changes nothing.
pub fn check_for_reading(db: &Db, name: &str, schema: &str) -> Result<(), Failure> {
    match version(db, name, schema)? {
        0 => Err(Failure::Refused(format!(
            "database '{name}' holds nothing of cloaca; name one that a runner has made, and its schema with '?schema='"
        ))),
        seen if seen < MIGRATIONS.len() => Err(Failure::Refused(format!(
            "database '{name}' has schema version {seen}, and this cloaca reads version {}: the first runner of it that may do so brings \
             it up to date, and so does 'cloaca migrate'",
            MIGRATIONS.len()
        ))),
        _ => refuse_partial(db, name, schema),
    }
}

/// Refuses a schema of this version in which not all tables are there: what lacks one would come out amidst the work.
fn refuse_partial(db: &Db, name: &str, schema: &str) -> Result<(), Failure> {
    const SQL: &str = "
        SELECT relname::TEXT FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname = :schema AND relkind IN ('r', 'p')";
    let mut statement = db.prepare_cached(SQL)?;
    let found = statement.query_map(named_params! { ":schema": schema }, |row| row.get::<_, String>(0))?;
    let found: HashSet<String> = found.collect::<db::Result<_>>()?;
    let made = tables().into_iter().map(str::to_owned);
    let missing: Vec<String> = made.filter(|table| !found.contains(table)).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => {
            let way_out = "restore the schema whole, or name another one with '?schema='";
            Err(Failure::Refused(tables::lacking(name, &missing, way_out)))
        }
    }
}

/// Which version a schema has, none counting as zero, and the SQL by which [`migrate`] would bring it to this program's.
pub fn outlook(db: &Db, name: &str, schema: &str) -> Result<(usize, Vec<String>), Failure> {
    let seen = version(db, name, schema)?;
    let quoted = quoted(schema);
    let making = making(db, seen, schema)?;
    let step = |(number, sql): (usize, &&str)| {
        format!(
            "{}SET LOCAL search_path TO {quoted}, pg_catalog;\n{sql}UPDATE meta SET value = {number} WHERE name = 'version';\n",
            making.as_deref().filter(|_| number == 1).unwrap_or_default()
        )
    };
    Ok((seen, (1..).zip(&MIGRATIONS).skip(seen).map(step).collect()))
}

/// The number by which this store is known among all.
pub fn number(db: &Db) -> Result<i64, Failure> {
    const SQL: &str = "SELECT value FROM meta WHERE name = 'store'";
    Ok(db.prepare_cached(SQL)?.query_row([], |row| row.get(0))?)
}

/// The number by which this store is known among all, once `client` is known to it.
pub fn identity(db: &Db, client: Uuid) -> Result<i64, Failure> {
    // Those of clients that are gone stay for a day.
    const FORGET: &str = "DELETE FROM stamps WHERE at < now_us() - 86400000000";
    const SQL: &str = "INSERT INTO stamps (client, number, at) VALUES (:client, 0, now_us())";
    db.prepare_cached(FORGET)?.execute([])?;
    db.prepare_cached(SQL)?.execute(named_params! { ":client": client })?;
    number(db)
}

/// Forgets a client that will not ask any more.
pub fn forget(db: &Db, client: Uuid) -> Result<(), Failure> {
    const SQL: &str = "DELETE FROM stamps WHERE client = :client";
    db.prepare_cached(SQL)?.execute(named_params! { ":client": client })?;
    Ok(())
}

fn taken(name: &str, table: &str) -> Failure {
    Failure::Refused(format!(
        "database '{name}' has no room for cloaca's tables: the schema has a table '{table}' of its own; name another one \
         with '?schema='"
    ))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_another_program_makes_meanwhile_is_no_strangers() {
        for before in 0..6 {
            let looks = Cell::new(0);
            let is_there = |_: &str| Ok(looks.replace(looks.get() + 1) >= before);
            let found = whose(is_there).unwrap();
            assert_eq!(found, if before < 5 { Whose::Ours } else { Whose::Nobodys }, "after {before} looks");
        }
        assert_eq!(whose(|table| Ok(table == "runs")).unwrap(), Whose::Foreign("runs"));
        assert_eq!(whose(|_| Ok(false)).unwrap(), Whose::Nobodys);
    }
}
