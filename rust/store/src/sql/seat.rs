//! Named limits, the seats that attempts have of them or wait for, and what is paused. Which attempts begin the core decides.
//! Invariant: a seat is a row of its own, so that what is taken is counted and never reckoned; it goes with its owner.

use std::sync::Arc;
use std::time::Duration;

use cloaca_core::key::{Epoch, RunRow};
use cloaca_core::limit::{Rate, Turn};
use cloaca_core::seat::{
    self, Ask, Differs, Kind, Limit, ListedLimit, Pass, Pause, Seat, Standing, Table, Terms, Until, Waiter,
};
use cloaca_core::time::Wall;
use cloaca_core::urgency::Priority;

use super::db::{self, Db, OptionalExtension as _, Row, named_params};
use super::dialect::{ASK, by_index};
use super::fault::Failure;
use super::value::{count_at, priority_at, signed, wall_at, wall_maybe_at};

pub const WAITING: &str = concat!(
    "
    SELECT row, run, task, attempt, owner, priority FROM limit_seats",
    by_index!("limit_seats_waiting"),
    "
    WHERE name = :name AND granted_at IS NULL ORDER BY priority DESC, row LIMIT 1"
);
pub const WAITING_EQUAL: &str = concat!(
    "
    SELECT row, run, task, attempt, owner, priority FROM limit_seats",
    by_index!("limit_seats_waiting"),
    "
    WHERE name = :name AND granted_at IS NULL AND priority = :priority AND row > :row ORDER BY row LIMIT 1"
);
pub const WAITING_LESS: &str = concat!(
    "
    SELECT row, run, task, attempt, owner, priority FROM limit_seats",
    by_index!("limit_seats_waiting"),
    "
    WHERE name = :name AND granted_at IS NULL AND priority < :priority ORDER BY priority DESC, row LIMIT 1"
);
pub const TAKEN: &str = concat!(
    "
    SELECT count(*) FROM limit_seats",
    by_index!("limit_seats_taken"),
    " WHERE name = :name AND granted_at IS NOT NULL"
);
pub const NAMES: &str = concat!(
    "
    SELECT name FROM limit_seats",
    by_index!("limit_seats_attempt"),
    "
    WHERE run = :run AND task = :task AND attempt = :attempt ORDER BY name"
);
pub const HAS: &str = concat!(
    "
    SELECT DISTINCT run, task, attempt FROM limit_seats",
    by_index!("limit_seats_owner"),
    "
    WHERE owner = :epoch AND granted_at IS NOT NULL"
);

/// An attempt waits for its seats, or has them at once; none if its run is another owner's.
pub fn ask(db: &Db, ask: &Ask) -> Result<Option<Pass>, Failure> {
    const OWNED: &str = "SELECT 1 FROM runs WHERE row = :run AND owner = :epoch AND completed_at IS NULL";
    let owned = named_params! { ":run": ask.seat.run.0, ":epoch": ask.epoch.0 };
    if !db.prepare_cached(OWNED)?.exists(owned)? {
        return Ok(None);
    }
    let mut insert = db.prepare_cached(ASK)?;
    for name in &*ask.limits {
        insert.execute(named_params! {
            ":name": name,
            ":run": ask.seat.run.0,
            ":task": ask.seat.task,
            ":attempt": ask.seat.attempt,
            ":owner": ask.epoch.0,
            ":priority": ask.priority.number(),
            ":at": ask.at.0,
        })?;
    }
    pass(db, &ask.limits, ask.at).map(Some)
}

/// An attempt gives its seats back, or waits no longer.
pub fn unseat(db: &Db, seat: &Seat, epoch: Epoch, at: Wall) -> Result<Pass, Failure> {
    const SQL: &str = "
        DELETE FROM limit_seats WHERE run = :run AND task = :task AND attempt = :attempt AND owner = :owner
        RETURNING name";
    let mut delete = db.prepare_cached(SQL)?;
    let params =
        named_params! { ":run": seat.run.0, ":task": seat.task, ":attempt": seat.attempt, ":owner": epoch.0 };
    let mut names: Vec<Arc<str>> = delete.query_map(params, |row| row.get(0))?.collect::<db::Result<_>>()?;
    names.sort();
    pass(db, &names, at)
}

/// Gives what is free of these limits to those that wait, and tells which seats that owner has.
pub fn look(db: &Db, epoch: Epoch, limits: &[Arc<str>], at: Wall) -> Result<Pass, Failure> {
    let mut pass = pass(db, limits, at)?;
    pass.granted.retain(|&(owner, _)| owner != epoch);
    let mut has = db.prepare_cached(HAS)?;
    let seats = has.query_map(named_params! { ":epoch": epoch.0 }, |row| seat_at(row, 0))?;
    for seat in seats {
        pass.granted.push((epoch, seat?));
    }
    Ok(pass)
}

fn pass(db: &Db, limits: &[Arc<str>], at: Wall) -> Result<Pass, Failure> {
    seat::grant(&mut Rows { db, at }, limits, at)
}

/// Notes what a program declares, and tells what was set by hand instead.
pub fn declare(db: &Db, limits: &[Limit]) -> Result<Vec<Differs>, Failure> {
    const SQL: &str = "
        INSERT INTO named_limits (name, concurrency, throttle, per_us, burst)
        VALUES (:name, :concurrency, :throttle, :per_us, :burst)
        ON CONFLICT (name) DO UPDATE SET concurrency = excluded.concurrency, throttle = excluded.throttle,
            per_us = excluded.per_us, burst = excluded.burst";
    const SET: &str = "
        SELECT set_concurrency, set_throttle, set_per_us, set_burst FROM named_limits
        WHERE name = :name AND is_set";
    let mut differs = Vec::new();
    for Limit { name, terms } in limits {
        let (throttle, per_us, burst) = rate_columns(terms.throttle);
        db.prepare_cached(SQL)?.execute(named_params! {
            ":name": name,
            ":concurrency": terms.concurrency.map(signed),
            ":throttle": throttle,
            ":per_us": per_us,
            ":burst": burst,
        })?;
        let set = db
            .prepare_cached(SET)?
            .query_row(named_params! { ":name": name }, |row| terms_at(row, 0))
            .optional()?;
        if let Some(set) = set.filter(|set| set != terms) {
            differs.push(Differs { name: Arc::clone(name), declared: *terms, set });
        }
    }
    Ok(differs)
}

/// Whether a limit allows something else, or by another's word.
pub fn would_set(db: &Db, name: &str, terms: Option<Terms>) -> Result<bool, Failure> {
    const SQL: &str = "
        SELECT is_set, set_concurrency, set_throttle, set_per_us, set_burst FROM named_limits WHERE name = :name";
    let kept = db
        .prepare_cached(SQL)?
        .query_row(named_params! { ":name": name }, |row| Ok((row.get::<_, bool>(0)?, terms_at(row, 1)?)))
        .optional()?;
    Ok(kept.is_some_and(|(is_set, kept)| is_set.then_some(kept) != terms))
}

/// What a limit allows from now on; none goes back to what was declared. False if there is no such limit.
pub fn set(db: &Db, name: &str, terms: Option<Terms>) -> Result<bool, Failure> {
    const SQL: &str = "
        UPDATE named_limits SET is_set = :is_set, set_concurrency = :concurrency, set_throttle = :throttle,
            set_per_us = :per_us, set_burst = :burst
        WHERE name = :name";
    let (throttle, per_us, burst) = rate_columns(terms.and_then(|terms| terms.throttle));
    let done = db.prepare_cached(SQL)?.execute(named_params! {
        ":name": name,
        ":is_set": terms.is_some(),
        ":concurrency": terms.and_then(|terms| terms.concurrency).map(signed),
        ":throttle": throttle,
        ":per_us": per_us,
        ":burst": burst,
    })?;
    Ok(done > 0)
}

/// All limits by name, as they stand at `at`.
pub fn list(db: &Db, at: Wall) -> Result<Vec<ListedLimit>, Failure> {
    const SQL: &str = "
        SELECT name, concurrency, throttle, per_us, burst, is_set, set_concurrency, set_throttle, set_per_us, set_burst,
            stamp, (SELECT count(*) FROM limit_seats WHERE limit_seats.name = named_limits.name AND granted_at IS NOT NULL),
            (SELECT count(*) FROM limit_seats WHERE limit_seats.name = named_limits.name AND granted_at IS NULL),
            (SELECT min(since) FROM limit_seats WHERE limit_seats.name = named_limits.name AND granted_at IS NULL)
        FROM named_limits ORDER BY name";
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map([], |row| {
        let (declared, is_set) = (terms_at(row, 1)?, row.get(5)?);
        let terms = if is_set { terms_at(row, 6)? } else { declared };
        let stamp = wall_maybe_at(row, 10)?;
        let next_at = match terms.throttle.map(|rate| rate.turn(stamp, at)) {
            Some(Turn::At(instant)) => Some(instant),
            Some(Turn::Now(_)) | None => None,
        };
        Ok(ListedLimit {
            name: row.get(0)?,
            terms,
            declared,
            is_set,
            taken: count_at(row, 11)?,
            waiting: count_at(row, 12)?,
            waits_since: wall_maybe_at(row, 13)?,
            pause: None,
            next_at,
        })
    })?;
    let mut limits = rows.collect::<db::Result<Vec<_>>>()?;
    for limit in &mut limits {
        limit.pause = pause_of(db, Kind::Limit, &limit.name)?.filter(|pause| !pause.until.is_over(at));
    }
    Ok(limits)
}

/// Whether it is held up just so, by the same.
pub fn is_paused_so(db: &Db, pause: &Pause) -> Result<bool, Failure> {
    const SQL: &str = "
        SELECT 1 FROM pauses
        WHERE kind = :kind AND name = :name AND key = :key AND by = :by AND until IS NOT DISTINCT FROM :until
            AND (until IS NULL OR until > :at)";
    Ok(db.prepare_cached(SQL)?.exists(named_params! {
        ":kind": pause.kind.name(),
        ":name": pause.name,
        ":key": pause.key,
        ":by": pause.by,
        ":until": pause.until.instant().map(|until| until.0),
        ":at": pause.since.0,
    })?)
}

/// Holds something up, in place of how it was held up before.
pub fn pause(db: &Db, pause: &Pause) -> Result<(), Failure> {
    const SQL: &str = "
        INSERT INTO pauses (kind, name, key, until, since, by) VALUES (:kind, :name, :key, :until, :since, :by)
        ON CONFLICT (kind, name, key) DO UPDATE SET until = excluded.until, since = excluded.since, by = excluded.by";
    const OVER: &str = "DELETE FROM pauses WHERE until <= :at";
    db.prepare_cached(OVER)?.execute(named_params! { ":at": pause.since.0 })?;
    db.prepare_cached(SQL)?.execute(named_params! {
        ":kind": pause.kind.name(),
        ":name": pause.name,
        ":key": pause.key,
        ":until": pause.until.instant().map(|until| until.0),
        ":since": pause.since.0,
        ":by": pause.by,
    })?;
    Ok(())
}

/// The same of what may be held up for longer already, which holds then.
pub fn pause_at_least(db: &Db, wanted: &Pause) -> Result<(), Failure> {
    let holds = |kept: &Pause| match (kept.until, wanted.until) {
        (Until::Resumed, _) => true,
        (Until::At(_), Until::Resumed) => false,
        (Until::At(kept), Until::At(wanted)) => kept >= wanted,
    };
    match pause_of(db, wanted.kind, &wanted.name)?.is_some_and(|kept| holds(&kept)) {
        true => Ok(()),
        false => pause(db, wanted),
    }
}

/// Holds it up no longer; false if it was not.
pub fn resume(db: &Db, kind: Kind, name: &str, key: &str, at: Wall) -> Result<bool, Failure> {
    const SQL: &str = "
        DELETE FROM pauses WHERE kind = :kind AND name = :name AND key = :key RETURNING until IS NULL OR until > :at";
    let params = named_params! { ":kind": kind.name(), ":name": name, ":key": key, ":at": at.0 };
    Ok(db.prepare_cached(SQL)?.query_row(params, |row| row.get(0)).optional()?.unwrap_or(false))
}

/// What is held up at `at`.
pub fn pauses(db: &Db, at: Wall) -> Result<Vec<Pause>, Failure> {
    const SQL: &str = "
        SELECT kind, name, key, until, since, by FROM pauses WHERE until IS NULL OR until > :at
        ORDER BY kind <> 'limit', name, key";
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map(named_params! { ":at": at.0 }, pause_at)?;
    Ok(rows.collect::<db::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// The workflows of which no run begins at `at`. Mostly there is none.
pub fn paused_workflows(db: &Db, at: Wall) -> Result<Vec<Arc<str>>, Failure> {
    const SQL: &str = "SELECT name FROM pauses WHERE kind = 'workflow' AND (until IS NULL OR until > :at)";
    let mut statement = db.prepare_cached(SQL)?;
    let names = statement.query_map(named_params! { ":at": at.0 }, |row| row.get(0))?;
    Ok(names.collect::<db::Result<_>>()?)
}

fn pause_of(db: &Db, kind: Kind, name: &str) -> Result<Option<Pause>, Failure> {
    const SQL: &str = "
        SELECT kind, name, key, until, since, by FROM pauses WHERE kind = :kind AND name = :name AND key = ''";
    let params = named_params! { ":kind": kind.name(), ":name": name };
    Ok(db.prepare_cached(SQL)?.query_row(params, pause_at).optional()?.flatten())
}

/// An owner is gone, or leaves and has nothing in flight.
pub fn forget_owner(db: &Db, epoch: Epoch) -> Result<(), Failure> {
    const SQL: &str = "DELETE FROM limit_seats WHERE owner = :epoch";
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": epoch.0 })?;
    Ok(())
}

/// An owner leaves: what it waited for goes, and seats of bodies in flight pass to what is left of it.
pub fn hand_on(db: &Db, epoch: Epoch, remnant: Option<Epoch>) -> Result<(), Failure> {
    const FORGET: &str = "DELETE FROM limit_seats WHERE owner = :epoch AND granted_at IS NULL";
    const PASS: &str = "UPDATE limit_seats SET owner = :remnant WHERE owner = :epoch";
    let Some(remnant) = remnant else { return forget_owner(db, epoch) };
    db.prepare_cached(FORGET)?.execute(named_params! { ":epoch": epoch.0 })?;
    db.prepare_cached(PASS)?.execute(named_params! { ":epoch": epoch.0, ":remnant": remnant.0 })?;
    Ok(())
}

struct Rows<'c> {
    db: &'c Db,
    at: Wall,
}

impl Table for Rows<'_> {
    type Error = Failure;

    fn standing(&mut self, limit: &str) -> Result<Option<Standing>, Failure> {
        const SQL: &str = "
            SELECT concurrency, throttle, per_us, burst, is_set, set_concurrency, set_throttle, set_per_us, set_burst, stamp
            FROM named_limits WHERE name = :name";
        let params = named_params! { ":name": limit };
        let found = self.db.prepare_cached(SQL)?.query_row(params, |row| {
            let terms = if row.get(4)? { terms_at(row, 5)? } else { terms_at(row, 0)? };
            Ok((terms, wall_maybe_at(row, 9)?))
        });
        let Some((terms, stamp)) = found.optional()? else { return Ok(None) };
        let taken = match terms.concurrency {
            Some(_) => self.db.prepare_cached(TAKEN)?.query_row(params, |row| count_at(row, 0))?,
            None => 0,
        };
        let paused = pause_of(self.db, Kind::Limit, limit)?.map(|pause| pause.until);
        Ok(Some(Standing { terms, taken, stamp, paused: paused.filter(|until| !until.is_over(self.at)) }))
    }

    fn waiting(&mut self, limit: &str, behind: Option<(Priority, i64)>) -> Result<Option<Waiter>, Failure> {
        let found = match behind {
            None => {
                let params = named_params! { ":name": limit };
                self.db.prepare_cached(WAITING)?.query_row(params, waiter_of).optional()?
            }
            Some((priority, row)) => {
                let priority = priority.number();
                let equal = named_params! { ":name": limit, ":priority": priority, ":row": row };
                let less = named_params! { ":name": limit, ":priority": priority };
                match self.db.prepare_cached(WAITING_EQUAL)?.query_row(equal, waiter_of).optional()? {
                    None => self.db.prepare_cached(WAITING_LESS)?.query_row(less, waiter_of).optional()?,
                    found => found,
                }
            }
        };
        let Some(mut waiter) = found else { return Ok(None) };
        let mut names = self.db.prepare_cached(NAMES)?;
        let params = attempt_params(&waiter.seat);
        let rows = names.query_map(&params[..], |row| row.get(0))?;
        waiter.limits = rows.collect::<db::Result<_>>()?;
        Ok(Some(waiter))
    }

    fn grant(&mut self, waiter: &Waiter, at: Wall) -> Result<(), Failure> {
        const SQL: &str = "
            UPDATE limit_seats SET granted_at = :at WHERE run = :run AND task = :task AND attempt = :attempt";
        let mut params = attempt_params(&waiter.seat).to_vec();
        params.push((":at", &at.0));
        self.db.prepare_cached(SQL)?.execute(&params[..])?;
        Ok(())
    }

    fn stamp(&mut self, limit: &str, stamp: Wall) -> Result<(), Failure> {
        const SQL: &str = "UPDATE named_limits SET stamp = :stamp WHERE name = :name";
        self.db.prepare_cached(SQL)?.execute(named_params! { ":name": limit, ":stamp": stamp.0 })?;
        Ok(())
    }
}

fn attempt_params(seat: &Seat) -> [(&str, &dyn db::ToParam); 3] {
    [(":run", &seat.run.0), (":task", &seat.task), (":attempt", &seat.attempt)]
}

fn waiter_of(row: &Row) -> db::Result<Waiter> {
    Ok(Waiter {
        seat: seat_at(row, 1)?,
        epoch: Epoch(row.get(4)?),
        limits: Vec::new(),
        place: (priority_at(row, 5)?, row.get(0)?),
    })
}

fn seat_at(row: &Row, column: usize) -> db::Result<Seat> {
    Ok(Seat { run: RunRow(row.get(column)?), task: row.get(column + 1)?, attempt: row.get(column + 2)? })
}

fn terms_at(row: &Row, column: usize) -> db::Result<Terms> {
    let number = |column| -> db::Result<Option<u64>> {
        row.get::<_, Option<i64>>(column)?.map(|_| count_at(row, column)).transpose()
    };
    let rate = number(column + 1)?.zip(number(column + 2)?).zip(number(column + 3)?);
    let throttle =
        rate.map(|((limit, per_us), burst)| Rate { limit, per: Duration::from_micros(per_us), burst });
    Ok(Terms { concurrency: number(column)?, throttle })
}

fn rate_columns(rate: Option<Rate>) -> (Option<i64>, Option<i64>, Option<i64>) {
    let per_us = |rate: Rate| i64::try_from(rate.per.as_micros()).unwrap_or(i64::MAX);
    (rate.map(|rate| signed(rate.limit)), rate.map(per_us), rate.map(|rate| signed(rate.burst)))
}

/// None of a kind that a newer program may know.
fn pause_at(row: &Row) -> db::Result<Option<Pause>> {
    let kind: String = row.get(0)?;
    let Some(kind) = Kind::from_name(&kind) else { return Ok(None) };
    let until = wall_maybe_at(row, 3)?.map_or(Until::Resumed, Until::At);
    Ok(Some(Pause {
        kind,
        name: row.get(1)?,
        key: row.get(2)?,
        until,
        since: wall_at(row, 4)?,
        by: row.get(5)?,
    }))
}
