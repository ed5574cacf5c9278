//! Who serves this store. Invariant: an epoch is larger than all before it, in every process on the file.

use std::sync::Arc;

use cloaca_core::key::Epoch;
use cloaca_core::port::{BURIED, Minute, OwnerRow, Siblings, WorkflowRow};
use cloaca_core::time::Wall;
use rusqlite::{Connection, OptionalExtension as _, named_params};

use crate::sqlite::end;
use crate::sqlite::fault::Failure;
use crate::sqlite::graph;
use crate::sqlite::limits;
use crate::sqlite::lock::Locks;
use crate::sqlite::run::{self, overdue};
use crate::sqlite::seat;
use crate::sqlite::value::{count_at, signed, wall_at, wall_maybe_at};

/// More of a machine's name is not kept.
const HOST_CHARS_MAX: usize = 100;

/// The condition under which a run's owner is dead, for a claim by `:epoch`.
macro_rules! owner_is_dead {
    () => {
        "(owner IS NULL OR owner <> :epoch AND owner NOT IN (SELECT epoch FROM owners WHERE left_at IS NULL))"
    };
}
pub(super) use owner_is_dead;

/// A new owner's epoch. Its lock is held before the commit: whoever sees the row must not take it for dead.
pub fn join(db: &Connection, locks: &Locks, at: Wall) -> Result<Epoch, Failure> {
    const SQL: &str = "
        INSERT INTO owners (joined_at, host, pid, version) VALUES (:at, :host, :pid, :version) RETURNING epoch";
    let params = named_params! {
        ":at": at.0,
        ":host": host(),
        ":pid": std::process::id(),
        ":version": env!("CARGO_PKG_VERSION"),
    };
    let epoch = db.prepare_cached(SQL)?.query_row(params, |row| row.get(0).map(Epoch))?;
    locks.hold(epoch).map_err(Failure::Refused)?;
    Ok(epoch)
}

/// Notes that an owner polls and runs nothing.
pub fn stand_by(db: &Connection, epoch: Epoch) -> Result<(), Failure> {
    const SQL: &str = "UPDATE owners SET works = 0 WHERE epoch = :epoch";
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": epoch.0 })?;
    Ok(())
}

/// Notes what its program calls an owner.
pub fn name(db: &Connection, epoch: Epoch, name: &str) -> Result<(), Failure> {
    const SQL: &str = "UPDATE owners SET called = :name WHERE epoch = :epoch";
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": epoch.0, ":name": name })?;
    Ok(())
}

/// Notes that an owner runs no crons.
pub fn without_crons(db: &Connection, epoch: Epoch) -> Result<(), Failure> {
    const SQL: &str = "UPDATE owners SET crons = 0 WHERE epoch = :epoch";
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": epoch.0 })?;
    Ok(())
}

/// Notes that an owner lives at a time and does nothing before its program lets it begin, or that it begins. What it has said by then counts
/// for none of its triggers: it has none, or had no time to catch up.
pub fn waits(db: &Connection, epoch: Epoch, at: Option<Wall>) -> Result<(), Failure> {
    const SQL: &str = "UPDATE owners SET paused = :paused, seen_at = coalesce(:at, seen_at) WHERE epoch = :epoch AND left_at IS NULL";
    db.prepare_cached(SQL)?
        .execute(named_params! { ":epoch": epoch.0, ":paused": at.is_some(), ":at": at.map(|at| at.0) })?;
    Ok(())
}

/// Notes that an owner takes nothing more.
pub fn drains(db: &Connection, epoch: Epoch) -> Result<(), Failure> {
    const SQL: &str = "UPDATE owners SET draining = 1 WHERE epoch = :epoch";
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": epoch.0 })?;
    Ok(())
}

/// The name of this machine, where it can be asked for without a call of the system's.
fn host() -> Option<String> {
    let named = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let named =
        named.or_else(|| std::env::var("COMPUTERNAME").ok()).or_else(|| std::env::var("HOSTNAME").ok());
    named
        .map(|name| name.trim().chars().take(HOST_CHARS_MAX).collect::<String>())
        .filter(|name| !name.is_empty())
}

/// A new owner's epoch, for what another leaves that is in flight.
pub fn remnant(db: &Connection, locks: &Locks, at: Wall) -> Result<Epoch, Failure> {
    let epoch = join(db, locks, at)?;
    seen(db, epoch, at)?;
    drains(db, epoch)?;
    Ok(epoch)
}

/// Notes that an owner lives and polls.
pub fn seen(db: &Connection, epoch: Epoch, at: Wall) -> Result<(), Failure> {
    const SQL: &str = "UPDATE owners SET seen_at = :at, paused = 0 WHERE epoch = :epoch AND left_at IS NULL";
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": epoch.0, ":at": at.0 })?;
    Ok(())
}

/// When an owner was last seen alive, if it is remembered.
pub fn seen_at(db: &Connection, epoch: Epoch) -> Result<Option<Wall>, Failure> {
    const SQL: &str = "SELECT seen_at FROM owners WHERE epoch = :epoch";
    let found = db
        .prepare_cached(SQL)?
        .query_row(named_params! { ":epoch": epoch.0 }, |row| wall_maybe_at(row, 0))
        .optional()?;
    Ok(found.flatten())
}

/// Takes owners whose lock is free off the list, and counts the others.
pub fn bury(db: &Connection, locks: &Locks, epoch: Epoch) -> Result<Siblings, Failure> {
    let mut siblings = Siblings { is_buried: !is_living(db, epoch)?, ..Siblings::default() };
    for (other, drains) in others(db, epoch)? {
        if locks.is_free(other) {
            // What nobody is to be told of any more goes as it leaves.
            end::hand_on(db, other, &[], None)?;
            leave(db, other, None)?;
            run::free(db, other)?;
            seat::forget_owner(db, other)?;
            siblings.buried += 1;
        } else {
            siblings.living.push(other);
            siblings.draining.extend(drains.then_some(other));
        }
    }
    siblings.departed = departed(db)?;
    Ok(siblings)
}

/// The newest of those that have left.
pub fn departed(db: &Connection) -> Result<Option<Epoch>, Failure> {
    const SQL: &str = "SELECT max(epoch) FROM owners WHERE left_at IS NOT NULL";
    let newest = db.prepare_cached(SQL)?.query_row([], |row| row.get::<_, Option<i64>>(0))?;
    Ok(newest.map(Epoch))
}

/// Everyone who has not left, also in a file of an earlier version.
pub fn living(db: &Connection) -> Result<Vec<Epoch>, Failure> {
    const SQL: &str = "SELECT epoch FROM owners WHERE left_at IS NULL";
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map([], |row| row.get(0).map(Epoch))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Everyone else who has not left, and whether they drain.
pub fn others(db: &Connection, epoch: Epoch) -> Result<Vec<(Epoch, bool)>, Failure> {
    const SQL: &str = "SELECT epoch, draining FROM owners WHERE left_at IS NULL AND epoch <> :epoch";
    let mut statement = db.prepare_cached(SQL)?;
    let read = |row: &rusqlite::Row<'_>| Ok((Epoch(row.get(0)?), row.get(1)?));
    let rows = statement.query_map(named_params! { ":epoch": epoch.0 }, read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Those of them that work: news concern nobody else.
pub fn at_work(db: &Connection, epoch: Epoch) -> Result<Vec<Epoch>, Failure> {
    const SQL: &str = "SELECT epoch FROM owners WHERE left_at IS NULL AND epoch <> :epoch AND works";
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map(named_params! { ":epoch": epoch.0 }, |row| row.get(0).map(Epoch))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// At most `limit` runners that serve the store or served it, those that have not left first; nobody is known to be dead.
pub fn all(db: &Connection, limit: u64, since: Wall) -> Result<Vec<OwnerRow>, Failure> {
    // Of those that left a hundred are kept.
    const SQL: &str = "
        SELECT epoch, joined_at, seen_at, left_at, host, pid, version, coalesce(polls, 0), coalesce(fires, 0),
            coalesce(errors, 0), coalesce(started, 0), coalesce(completed, 0), coalesce(failed, 0), coalesce(cancelled, 0), works, called, draining, paused,
            (SELECT count(*) FROM schedules INDEXED BY schedules_polled WHERE kind = 'trigger' AND owner = epoch AND enabled)
        FROM owners LEFT JOIN (
            SELECT owner, sum(polls) AS polls, sum(fires) AS fires, sum(errors) AS errors, sum(started) AS started,
                sum(completed) AS completed, sum(failed) AS failed, sum(cancelled) AS cancelled
            FROM minutes WHERE ended_at >= :since GROUP BY owner
        ) ON owner = epoch
        ORDER BY left_at IS NOT NULL, epoch DESC LIMIT :limit";
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map(named_params! { ":limit": signed(limit), ":since": since.0 }, |row| {
        Ok(OwnerRow {
            epoch: Epoch(row.get(0)?),
            joined_at: wall_at(row, 1)?,
            seen_at: wall_maybe_at(row, 2)?,
            left_at: wall_maybe_at(row, 3)?,
            is_dead: false,
            host: row.get(4)?,
            pid: row.get(5)?,
            version: row.get(6)?,
            works: row.get(14)?,
            name: row.get(15)?,
            is_draining: row.get(16)?,
            is_paused: row.get(17)?,
            polls: count_at(row, 18)?,
            counts: Minute {
                polls: count_at(row, 7)?,
                fires: count_at(row, 8)?,
                errors: count_at(row, 9)?,
                started: count_at(row, 10)?,
                completed: count_at(row, 11)?,
                failed: count_at(row, 12)?,
                cancelled: count_at(row, 13)?,
            },
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Takes an owner off the list. The trait hands in no clock, so SQLite's tells when.
pub fn leave(db: &Connection, epoch: Epoch, at: Option<Wall>) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE owners SET left_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
        WHERE epoch = :epoch AND left_at IS NULL";
    const WORKFLOWS: &str = "DELETE FROM workflows WHERE owner = :epoch";
    const UNWANTED: &str = "UPDATE declared SET wanted = 0 WHERE wanted = 1 AND owner = :epoch";
    let (declared, told) = (limited_of(db, epoch)?, end::told_by(db, epoch)?);
    // Of clients there may be one for each line that somebody types.
    const FORGET: &str = "
        DELETE FROM owners WHERE left_at IS NOT NULL AND (
            works = 0 AND epoch <= :epoch - 100
            OR works = 1 AND epoch <= (SELECT epoch FROM owners WHERE works = 1 ORDER BY epoch DESC LIMIT 1 OFFSET 100))";
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": epoch.0 })?;
    if db.prepare_cached(WORKFLOWS)?.execute(named_params! { ":epoch": epoch.0 })? > 0 {
        graph::set_aside(db)?;
    }
    // Index declared_wanted.
    db.prepare_cached(UNWANTED)?.execute(named_params! { ":epoch": epoch.0 })?;
    overdue::hand_on(db, epoch, None)?;
    // Others may declare them without the callbacks that this one had.
    end::renew_all(db, &told, at, false)?;
    limits::renew_all(db, &declared)?;
    // An epoch that is in no row counts as one that left, and none is given twice: the last hundred of each kind are kept to be looked at.
    db.prepare_cached(FORGET)?.execute(named_params! { ":epoch": epoch.0 })?;
    Ok(())
}

/// The workflows that an owner declares, if any has limits.
fn limited_of(db: &Connection, epoch: Epoch) -> Result<Vec<String>, Failure> {
    const SQL: &str = "SELECT name FROM workflows WHERE owner = :epoch";
    if !limits::is_any(db)? {
        return Ok(Vec::new());
    }
    let mut statement = db.prepare_cached(SQL)?;
    let names = statement.query_map(named_params! { ":epoch": epoch.0 }, |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}

/// Notes which workflows an owner declares, if it lives.
pub fn declare_workflows(
    db: &Connection,
    epoch: Epoch,
    workflows: &[WorkflowRow],
    at: Wall,
) -> Result<(), Failure> {
    const FORGET: &str = "DELETE FROM workflows WHERE owner = :epoch";
    const KEEP: &str = "
        INSERT INTO workflows (name, owner, version, priority, limits, tells)
        VALUES (:name, :epoch, :version, :priority, :limits, :tells)";
    must_live(db, epoch)?;
    let (before, told) = (limited_of(db, epoch)?, end::told_by(db, epoch)?);
    db.prepare_cached(FORGET)?.execute(named_params! { ":epoch": epoch.0 })?;
    let mut keep = db.prepare_cached(KEEP)?;
    for WorkflowRow { name, version, priority, limits, tells, graph } in workflows {
        keep.execute(named_params! {
            ":name": name,
            ":epoch": epoch.0,
            ":version": version,
            ":priority": priority.number(),
            ":limits": limits.as_ref().map(|limits| limits.to_json()),
            ":tells": tells.bits(),
        })?;
        graph::keep(db, name, version, graph)?;
    }
    graph::set_aside(db)?;
    let declared: Vec<String> = workflows.iter().map(|workflow| workflow.name.to_string()).collect();
    end::renew_all(db, &[told, declared.clone()].concat(), Some(at), true)?;
    limits::renew_all(db, &[before, declared].concat())?;
    Ok(())
}

/// What other living owners declare.
pub fn workflows_of_others(db: &Connection, epoch: Epoch) -> Result<Vec<Arc<str>>, Failure> {
    const SQL: &str = "
        SELECT DISTINCT name FROM workflows JOIN owners ON epoch = owner AND left_at IS NULL WHERE owner <> :epoch";
    let mut statement = db.prepare_cached(SQL)?;
    let names = statement.query_map(named_params! { ":epoch": epoch.0 }, |row| row.get::<_, String>(0))?;
    Ok(names.map(|name| name.map(Arc::from)).collect::<rusqlite::Result<_>>()?)
}

/// Refuses an owner that was taken for dead.
pub fn must_live(db: &Connection, epoch: Epoch) -> Result<(), Failure> {
    match is_living(db, epoch)? {
        true => Ok(()),
        false => Err(Failure::Refused(BURIED.to_owned())),
    }
}

/// Whether another living owner has said that it lives later than `epoch` says that it is: then one of two clocks is wrong, and a wait that ends later
/// than it was to may be right by the other. After a clock was set back all say so anew within seconds.
pub fn is_behind(db: &Connection, epoch: Epoch, at: Wall) -> Result<bool, Failure> {
    const SQL: &str = "
        SELECT 1 FROM owners WHERE left_at IS NULL AND epoch <> :epoch AND coalesce(seen_at, joined_at) > :at + 1000000";
    Ok(db.prepare_cached(SQL)?.exists(named_params! { ":epoch": epoch.0, ":at": at.0 })?)
}

/// Whether `epoch` has joined and not left.
pub fn is_living(db: &Connection, epoch: Epoch) -> Result<bool, Failure> {
    const SQL: &str = "SELECT 1 FROM owners WHERE epoch = :epoch AND left_at IS NULL";
    let found =
        db.prepare_cached(SQL)?.query_row(named_params! { ":epoch": epoch.0 }, |_| Ok(())).optional()?;
    Ok(found.is_some())
}
