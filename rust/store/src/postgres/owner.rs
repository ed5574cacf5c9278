//! Who serves this store. Invariant: an epoch is larger than all before it, in every process on the file.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use crate::postgres::db::{self, Db, OptionalExtension as _, named_params};
use cloaca_core::key::Epoch;
use cloaca_core::port::{BURIED, Minute, OwnerRow, Siblings, WorkflowRow};
use cloaca_core::time::Wall;

use crate::postgres::end;
use crate::postgres::fault::Failure;
use crate::postgres::graph;
use crate::postgres::limits;
use crate::postgres::lock::{Home, Life, Locks};
use crate::postgres::run::{self, overdue};
use crate::postgres::seat;
use crate::postgres::value::{count_at, signed, wall_at, wall_maybe_at};

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
pub fn join(db: &Db, locks: &Locks, at: Wall) -> Result<Epoch, Failure> {
    const SQL: &str = "
        INSERT INTO owners (joined_at, host, pid, version) VALUES (:at, :host, :pid, :version) RETURNING epoch";
    const HOME: &str = "UPDATE owners SET boot = :boot, place = :place WHERE epoch = :epoch";
    const BEAT: &str = "INSERT INTO beats (epoch, at) VALUES (:epoch, now_us())";
    let params = named_params! {
        ":at": at.0,
        ":host": host(),
        ":pid": std::process::id(),
        ":version": env!("CARGO_PKG_VERSION"),
    };
    let epoch = db.prepare_cached(SQL)?.query_row(params, |row| row.get(0).map(Epoch))?;
    db.prepare_cached(BEAT)?.execute(named_params! { ":epoch": epoch.0 })?;
    // Without a lock it is known by its beats alone.
    if let Some(home) = locks.hold(epoch) {
        let params = named_params! { ":epoch": epoch.0, ":boot": home.boot, ":place": home.place };
        db.prepare_cached(HOME)?.execute(params)?;
    }
    Ok(epoch)
}

/// An owner of which nothing was heard for so long is dead, where no lock tells: four beats.
const SILENCE_US: i64 = 4_000_000;
/// Nobody is dead of silence before the server has been up for so long: its start silences all.
const GRACE_US: i64 = 10_000_000;

/// Who else lives, and which of them have died without leaving. While this store's own connection is fresh, what it missed proves nothing.
pub fn look(db: &Db, locks: &Locks, epoch: Epoch, is_fresh: bool) -> Result<(Siblings, Vec<Epoch>), Failure> {
    // One way to the server, by indices owners_living and owners_pkey. Who left last is in the row of nobody.
    const SQL: &str = "
        SELECT owners.epoch, boot, place, now_us() - beats.at > :silence
            AND now_us() - (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::BIGINT > :grace, draining
        FROM owners JOIN beats ON beats.epoch = owners.epoch WHERE left_at IS NULL
        UNION ALL
        SELECT max(owners.epoch), NULL, NULL, NULL, NULL FROM owners WHERE left_at IS NOT NULL";
    let mut statement = db.prepare_cached(SQL)?;
    let mut rows = statement.query(named_params! { ":silence": SILENCE_US, ":grace": GRACE_US })?;
    let mut siblings = Siblings { is_buried: true, ..Siblings::default() };
    let mut dead = Vec::new();
    while let Some(row) = rows.next()? {
        let Some(is_silent) = row.get::<_, Option<bool>>(3)? else {
            siblings.departed = row.get::<_, Option<i64>>(0)?.map(Epoch);
            continue;
        };
        let other = Epoch(row.get(0)?);
        if other == epoch {
            siblings.is_buried = false;
            continue;
        }
        let home: Option<(String, String)> = row.get::<_, Option<String>>(1)?.zip(row.get(2)?);
        let home = home.map(|(boot, place)| Home { boot, place });
        let is_dead = match locks.life(other, home.as_ref()) {
            Life::Held => false,
            Life::Free => true,
            Life::Unknown => is_silent && !is_fresh,
        };
        siblings.living.push(other);
        siblings.draining.extend(row.get::<_, bool>(4)?.then_some(other));
        if is_dead {
            dead.push(other);
        }
    }
    Ok((siblings, dead))
}

/// Living owners, but for `epoch`, that have died without leaving.
pub fn dead(db: &Db, locks: &Locks, epoch: Epoch, is_fresh: bool) -> Result<Vec<Epoch>, Failure> {
    Ok(look(db, locks, epoch, is_fresh)?.1)
}

/// Notes that an owner polls and runs nothing.
pub fn stand_by(db: &Db, epoch: Epoch) -> Result<(), Failure> {
    const SQL: &str = "UPDATE owners SET works = FALSE WHERE epoch = :epoch";
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": epoch.0 })?;
    Ok(())
}

/// Notes what its program calls an owner.
pub fn name(db: &Db, epoch: Epoch, name: &str) -> Result<(), Failure> {
    const SQL: &str = "UPDATE owners SET called = :name WHERE epoch = :epoch";
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": epoch.0, ":name": name })?;
    Ok(())
}

/// Notes that an owner runs no crons.
pub fn without_crons(db: &Db, epoch: Epoch) -> Result<(), Failure> {
    const SQL: &str = "UPDATE owners SET crons = FALSE WHERE epoch = :epoch";
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": epoch.0 })?;
    Ok(())
}

/// Notes that an owner lives at a time and does nothing before its program lets it begin, or that it begins. What it has said by then counts
/// for none of its triggers: it has none, or had no time to catch up.
pub fn waits(db: &Db, epoch: Epoch, at: Option<Wall>) -> Result<(), Failure> {
    const SQL: &str = "UPDATE owners SET paused = :paused, seen_at = coalesce(:at, seen_at) WHERE epoch = :epoch AND left_at IS NULL";
    db.prepare_cached(SQL)?
        .execute(named_params! { ":epoch": epoch.0, ":paused": at.is_some(), ":at": at.map(|at| at.0) })?;
    Ok(())
}

/// Notes that an owner takes nothing more.
pub fn drains(db: &Db, epoch: Epoch) -> Result<(), Failure> {
    const SQL: &str = "UPDATE owners SET draining = TRUE WHERE epoch = :epoch";
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
pub fn remnant(db: &Db, locks: &Locks, at: Wall) -> Result<Epoch, Failure> {
    let epoch = join(db, locks, at)?;
    seen(db, epoch, at)?;
    drains(db, epoch)?;
    Ok(epoch)
}

/// When owners were last seen alive, of those that are remembered.
pub fn seen_at(db: &Db, epochs: impl Iterator<Item = Epoch>) -> Result<HashMap<Epoch, Wall>, Failure> {
    const SQL: &str =
        "SELECT epoch, seen_at FROM owners WHERE epoch = ANY(:epochs::BIGINT[]) AND seen_at IS NOT NULL";
    let epochs: Vec<i64> = epochs.map(|epoch| epoch.0).collect::<BTreeSet<_>>().into_iter().collect();
    if epochs.is_empty() {
        return Ok(HashMap::new());
    }
    let mut statement = db.prepare_cached(SQL)?;
    let found = statement
        .query_map(named_params! { ":epochs": epochs }, |row| Ok((Epoch(row.get(0)?), wall_at(row, 1)?)))?;
    Ok(found.collect::<db::Result<_>>()?)
}

/// Notes that an owner lives and polls.
pub fn seen(db: &Db, epoch: Epoch, at: Wall) -> Result<(), Failure> {
    const SQL: &str =
        "UPDATE owners SET seen_at = :at, paused = FALSE WHERE epoch = :epoch AND left_at IS NULL";
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": epoch.0, ":at": at.0 })?;
    Ok(())
}

/// Takes owners that have died off the list, and counts the others.
pub fn bury(db: &Db, locks: &Locks, epoch: Epoch, is_fresh: bool) -> Result<Siblings, Failure> {
    let (mut siblings, dead) = look(db, locks, epoch, is_fresh)?;
    for other in &dead {
        // What nobody is to be told of any more goes as it leaves.
        end::hand_on(db, *other, &[], None)?;
        leave(db, *other, None)?;
        run::free(db, *other)?;
        seat::forget_owner(db, *other)?;
        locks.forget(*other);
    }
    siblings.living.retain(|other| !dead.contains(other));
    siblings.draining.retain(|other| !dead.contains(other));
    siblings.buried = dead.len() as u64;
    siblings.departed = siblings.departed.max(dead.into_iter().max());
    Ok(siblings)
}

/// At most `limit` runners that serve the store or served it, those that have not left first.
pub fn all(
    db: &Db,
    locks: &Locks,
    limit: u64,
    since: Wall,
    is_fresh: bool,
) -> Result<Vec<OwnerRow>, Failure> {
    // Of those that left a hundred are kept.
    const SQL: &str = "
        SELECT epoch, joined_at, seen_at, left_at, host, pid, version, coalesce(polls, 0), coalesce(fires, 0),
            coalesce(errors, 0), coalesce(started, 0), coalesce(completed, 0), coalesce(failed, 0), coalesce(cancelled, 0), works, called, draining, paused,
            (SELECT count(*) FROM schedules WHERE kind = 'trigger' AND owner = epoch AND enabled)
        FROM owners LEFT JOIN (
            SELECT owner, sum(polls)::BIGINT AS polls, sum(fires)::BIGINT AS fires, sum(errors)::BIGINT AS errors, sum(started)::BIGINT AS started,
                sum(completed)::BIGINT AS completed, sum(failed)::BIGINT AS failed, sum(cancelled)::BIGINT AS cancelled
            FROM minutes WHERE ended_at >= :since GROUP BY owner
        ) AS done ON owner = epoch
        ORDER BY left_at IS NOT NULL, epoch DESC LIMIT :limit";
    let dead = dead(db, locks, Epoch(0), is_fresh)?;
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map(named_params! { ":limit": signed(limit), ":since": since.0 }, |row| {
        Ok(OwnerRow {
            epoch: Epoch(row.get(0)?),
            joined_at: wall_at(row, 1)?,
            seen_at: wall_maybe_at(row, 2)?,
            left_at: wall_maybe_at(row, 3)?,
            is_dead: dead.contains(&Epoch(row.get(0)?)),
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
    Ok(rows.collect::<db::Result<_>>()?)
}

/// Takes an owner off the list. The trait hands in no clock, so the server's tells when.
pub fn leave(db: &Db, epoch: Epoch, at: Option<Wall>) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE owners SET left_at = now_us()
        WHERE epoch = :epoch AND left_at IS NULL";
    const WORKFLOWS: &str = "DELETE FROM workflows WHERE owner = :epoch";
    const UNWANTED: &str = "UPDATE declared SET wanted = FALSE WHERE wanted AND owner = :epoch";
    let (declared, told) = (limited_of(db, epoch)?, end::told_by(db, epoch)?);
    // Of clients there may be one for each line that somebody types.
    const FORGET: &str = "
        DELETE FROM owners WHERE left_at IS NOT NULL AND (
            NOT works AND epoch <= :epoch::BIGINT - 100
            OR works AND epoch <= (SELECT epoch FROM owners WHERE works ORDER BY epoch DESC LIMIT 1 OFFSET 100))";
    const SILENT: &str = "DELETE FROM beats WHERE epoch = :epoch";
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": epoch.0 })?;
    db.prepare_cached(SILENT)?.execute(named_params! { ":epoch": epoch.0 })?;
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
fn limited_of(db: &Db, epoch: Epoch) -> Result<Vec<String>, Failure> {
    const SQL: &str = "SELECT name FROM workflows WHERE owner = :epoch";
    if !limits::is_any(db)? {
        return Ok(Vec::new());
    }
    let mut statement = db.prepare_cached(SQL)?;
    let names = statement.query_map(named_params! { ":epoch": epoch.0 }, |row| row.get(0))?;
    Ok(names.collect::<db::Result<_>>()?)
}

/// Notes which workflows an owner declares, if it lives.
pub fn declare_workflows(db: &Db, epoch: Epoch, workflows: &[WorkflowRow], at: Wall) -> Result<(), Failure> {
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
pub fn workflows_of_others(db: &Db, epoch: Epoch) -> Result<Vec<Arc<str>>, Failure> {
    const SQL: &str = "
        SELECT DISTINCT name FROM workflows JOIN owners ON epoch = owner AND left_at IS NULL WHERE owner <> :epoch";
    let mut statement = db.prepare_cached(SQL)?;
    let names = statement.query_map(named_params! { ":epoch": epoch.0 }, |row| row.get::<_, String>(0))?;
    Ok(names.map(|name| name.map(Arc::from)).collect::<db::Result<_>>()?)
}

/// Refuses an owner that was taken for dead.
pub fn must_live(db: &Db, epoch: Epoch) -> Result<(), Failure> {
    match is_living(db, epoch)? {
        true => Ok(()),
        false => Err(Failure::Refused(BURIED.to_owned())),
    }
}

/// What time it is by the server's clock, in microseconds.
pub fn clock(db: &Db) -> Result<i64, Failure> {
    const SQL: &str = "SELECT now_us()";
    Ok(db.prepare_cached(SQL)?.query_row([], |row| row.get(0))?)
}

/// What time it is by the machine's.
pub fn machine_us() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Whether `epoch` has joined and not left.
pub fn is_living(db: &Db, epoch: Epoch) -> Result<bool, Failure> {
    const SQL: &str = "SELECT 1 FROM owners WHERE epoch = :epoch AND left_at IS NULL";
    let found =
        db.prepare_cached(SQL)?.query_row(named_params! { ":epoch": epoch.0 }, |_| Ok(())).optional()?;
    Ok(found.is_some())
}
