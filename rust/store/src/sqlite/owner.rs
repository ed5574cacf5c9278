//! Who serves this store. Invariant: an epoch is larger than all before it, in every process on the file.

use cloaca_core::port::{BURIED, Siblings};
use cloaca_core::time::Wall;
use rusqlite::{Connection, OptionalExtension as _, named_params};

use crate::sqlite::fault::Failure;
use crate::sqlite::lock::Locks;

/// The condition under which a run's owner is dead, for a claim by `:epoch`.
macro_rules! owner_is_dead {
    () => {
        "(owner IS NULL OR owner <> :epoch AND owner NOT IN (SELECT epoch FROM owners WHERE left_at IS NULL))"
    };
}
pub(super) use owner_is_dead;

/// A new owner's epoch. Its lock is held before the commit: whoever sees the row must not take it for dead.
pub fn join(db: &Connection, locks: &Locks, at: Wall) -> Result<i64, Failure> {
    const SQL: &str = "INSERT INTO owners (joined_at) VALUES (:at) RETURNING epoch";
    let epoch = db.prepare_cached(SQL)?.query_row(named_params! { ":at": at.0 }, |row| row.get(0))?;
    locks.hold(epoch).map_err(Failure::Refused)?;
    Ok(epoch)
}

/// A new owner's epoch, for what another leaves that is in flight.
pub fn remnant(db: &Connection, locks: &Locks, at: Wall) -> Result<i64, Failure> {
    let epoch = join(db, locks, at)?;
    seen(db, epoch, at)?;
    Ok(epoch)
}

/// Notes that an owner lives and polls.
pub fn seen(db: &Connection, epoch: i64, at: Wall) -> Result<(), Failure> {
    const SQL: &str = "UPDATE owners SET seen_at = :at WHERE epoch = :epoch AND left_at IS NULL";
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": epoch, ":at": at.0 })?;
    Ok(())
}

/// Takes owners whose lock is free off the list, and counts the others.
pub fn bury(db: &Connection, locks: &Locks, epoch: i64) -> Result<Siblings, Failure> {
    let mut siblings = Siblings { is_buried: !is_living(db, epoch)?, ..Siblings::default() };
    for other in others(db, epoch)? {
        if locks.is_free(other) {
            leave(db, other)?;
            siblings.buried += 1;
        } else {
            siblings.living.push(other);
        }
    }
    Ok(siblings)
}

/// Everyone else who has not left.
pub fn others(db: &Connection, epoch: i64) -> Result<Vec<i64>, Failure> {
    const SQL: &str = "SELECT epoch FROM owners WHERE left_at IS NULL AND epoch <> :epoch";
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map(named_params! { ":epoch": epoch }, |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Takes an owner off the list. The trait hands in no clock, so SQLite's tells when.
pub fn leave(db: &Connection, epoch: i64) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE owners SET left_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
        WHERE epoch = :epoch AND left_at IS NULL";
    const FORGET: &str = "DELETE FROM owners WHERE epoch <= :epoch - 100 AND left_at IS NOT NULL";
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": epoch })?;
    // An epoch that is in no row counts as one that left, and none is given twice: the last hundred are kept to be looked at.
    db.prepare_cached(FORGET)?.execute(named_params! { ":epoch": epoch })?;
    Ok(())
}

/// Refuses an owner that was taken for dead.
pub fn must_live(db: &Connection, epoch: i64) -> Result<(), Failure> {
    match is_living(db, epoch)? {
        true => Ok(()),
        false => Err(Failure::Refused(BURIED.to_owned())),
    }
}

/// Whether `epoch` has joined and not left.
pub fn is_living(db: &Connection, epoch: i64) -> Result<bool, Failure> {
    const SQL: &str = "SELECT 1 FROM owners WHERE epoch = :epoch AND left_at IS NULL";
    let found =
        db.prepare_cached(SQL)?.query_row(named_params! { ":epoch": epoch }, |_| Ok(())).optional()?;
    Ok(found.is_some())
}
