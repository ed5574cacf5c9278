//! Who serves this store. Invariant: an epoch is larger than all before it, in every process on the file.

use cloaca_core::time::Wall;
use rusqlite::{Connection, OptionalExtension as _, named_params};

use crate::sqlite::fault::Failure;

/// The condition under which a run's owner is dead, for a claim by `:epoch`. One process serves a store for now, so
/// that everyone before it is gone; leases will be looked up here.
macro_rules! owner_is_dead {
    () => {
        "(owner IS NULL OR owner <> :epoch)"
    };
}
pub(super) use owner_is_dead;

/// A new owner's epoch.
pub fn join(db: &Connection, at: Wall) -> Result<i64, Failure> {
    const SQL: &str = "INSERT INTO owners (joined_at) VALUES (:at) RETURNING epoch";
    Ok(db.prepare_cached(SQL)?.query_row(named_params! { ":at": at.0 }, |row| row.get(0))?)
}

/// Takes an owner off the list. The trait hands in no clock, so SQLite's tells when.
pub fn leave(db: &Connection, epoch: i64) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE owners SET left_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
        WHERE epoch = :epoch AND left_at IS NULL";
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": epoch })?;
    Ok(())
}

/// Whether `epoch` has joined and not left.
pub fn is_living(db: &Connection, epoch: i64) -> Result<bool, Failure> {
    const SQL: &str = "SELECT 1 FROM owners WHERE epoch = :epoch AND left_at IS NULL";
    let found =
        db.prepare_cached(SQL)?.query_row(named_params! { ":epoch": epoch }, |_| Ok(())).optional()?;
    Ok(found.is_some())
}
