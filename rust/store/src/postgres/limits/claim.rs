//! Which of the runs that limits have held may begin: the most urgent first, of one priority the lane that has waited longest, and of one lane
//! the oldest. Invariant: whoever is handed out has a seat and a start, in the same transaction.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::postgres::db::{self, Db, OptionalExtension as _, named_params};
use cloaca_core::key::{Epoch, RunRow};
use cloaca_core::limit::{Limits, Turn};
use cloaca_core::port::{Allowed, Unfinished};
use cloaca_core::time::Wall;

use crate::postgres::fault::Failure;
use crate::postgres::limits::{HELD, declare, put_stamp, stamp_of, turns};
use crate::postgres::run;
use crate::postgres::value::{count_at, signed, wall_maybe_at};

const OPEN: &str = "
    SELECT row, top, since, seat, pace FROM lanes
    WHERE workflow = :workflow AND top IS NOT NULL AND held = 0 ORDER BY top DESC, since LIMIT :limit";
const HEAD: &str = "
    SELECT run, priority, party FROM seats
    WHERE lane = :lane AND stand = 0 ORDER BY priority DESC, run LIMIT 1";
/// What is paused until somebody takes that back is shut until the end of time.
const NEXT_AT: &str = "SELECT min(until) FROM lanes WHERE held = 2 AND until < 9223372036854775807";
const REOPEN_SHUT: &str = "UPDATE lanes SET held = 0, until = NULL WHERE held = 2 AND until <= :at";
/// Shut by a clock that has been set back since: then its time says nothing.
const AHEAD: &str = "SELECT 1 FROM lanes WHERE held = 2 AND shut_at > :at LIMIT 1";
const REOPEN_AHEAD: &str = "UPDATE lanes SET held = 0, until = NULL WHERE held = 2 AND shut_at > :at";
const TAKEN: &str = "SELECT count(DISTINCT party) FROM seats WHERE seat = :seat AND stand = 1";

/// When the next lane is open that is shut; `Err` if something may begin before.
pub fn next_at(db: &Db, at: Wall) -> Result<Result<Option<Wall>, ()>, Failure> {
    const ANY: &str = "SELECT 1 FROM lanes WHERE top IS NOT NULL AND held = 0 LIMIT 1";
    if db.prepare_cached(ANY)?.exists([])?
        || db.prepare_cached(AHEAD)?.exists(named_params! { ":at": at.0 })?
    {
        return Ok(Err(()));
    }
    let next = db.prepare_cached(NEXT_AT)?.query_row([], |row| wall_maybe_at(row, 0))?;
    Ok(match next {
        Some(next) if next <= at => Err(()),
        next => Ok(next),
    })
}

/// Hands out what limits let begin.
pub fn claim(db: &Db, epoch: Epoch, at: Wall, room: u64, workflows: &[Arc<str>]) -> Result<Allowed, Failure> {
    db.prepare_cached(REOPEN_SHUT)?.execute(named_params! { ":at": at.0 })?;
    db.prepare_cached(REOPEN_AHEAD)?.execute(named_params! { ":at": at.0 })?;
    let mut walk = Walk::new(db, at, room, workflows)?;
    while walk.go()? {}
    let (rows, is_more, mut next_at) = walk.end()?;
    let shut = db.prepare_cached(NEXT_AT)?.query_row([], |row| wall_maybe_at(row, 0))?;
    next_at = next_at.into_iter().chain(shut).min();
    let mut runs =
        rows.into_iter().map(|row| run::to_hand_out(db, row)).collect::<Result<Vec<Unfinished>, _>>()?;
    run::hand_out(db, epoch, &mut runs, at)?;
    Ok(Allowed { runs, is_more, next_at })
}

/// The most urgent first, then what has waited longest.
type Place = (Reverse<i64>, i64, i64);

#[derive(Clone, Copy)]
struct Lane {
    row: i64,
    seat: i64,
    pace: i64,
    workflow: usize,
    /// It was looked at in this claim: others that were not fetched may stand before it now.
    is_again: bool,
}

struct Head {
    run: i64,
    priority: i64,
    party: i64,
}

struct Limited<'w> {
    workflow: &'w Arc<str>,
    limits: Limits,
    /// The top of the last lane that was fetched, if there may be more.
    rest: Option<i64>,
    /// What holds for all its keys lets nothing more begin but what goes on in a seat.
    is_closed: bool,
    /// Which of its keys are paused, until when. Mostly there is none.
    paused: HashMap<String, Wall>,
}

/// Which keys of a workflow are paused at `at`, and until when.
fn paused(db: &Db, workflow: &str, at: Wall) -> Result<HashMap<String, Wall>, Failure> {
    const SQL: &str = "
        SELECT key, until FROM pauses
        WHERE kind = 'key' AND name = :workflow AND (until IS NULL OR until > :at)";
    let mut statement = db.prepare_cached(SQL)?;
    let found = statement.query_map(named_params! { ":workflow": workflow, ":at": at.0 }, |row| {
        Ok((row.get(0)?, wall_maybe_at(row, 1)?.unwrap_or(HELD)))
    })?;
    Ok(found.collect::<db::Result<_>>()?)
}

/// One claim's way through the lanes.
struct Walk<'w> {
    db: &'w Db,
    at: Wall,
    room: u64,
    limited: Vec<Limited<'w>>,
    lanes: BTreeMap<Place, Lane>,
    /// How many seats of a key are free.
    free: HashMap<i64, u64>,
    stamps: HashMap<i64, Option<Wall>>,
    found: Vec<RunRow>,
    turn: i64,
    next_at: Option<Wall>,
    is_more: bool,
}

impl<'w> Walk<'w> {
    fn new(db: &'w Db, at: Wall, room: u64, workflows: &'w [Arc<str>]) -> Result<Self, Failure> {
        let mut limited = Vec::new();
        for workflow in workflows {
            if let Some(limits) = declare::in_force(db, workflow)?.filter(Limits::holds) {
                let paused = paused(db, workflow, at)?;
                limited.push(Limited { workflow, limits, rest: None, is_closed: false, paused });
            }
        }
        let turn = turns(db, signed(room).saturating_add(1))?;
        Ok(Self {
            db,
            at,
            room,
            limited,
            lanes: BTreeMap::new(),
            free: HashMap::new(),
            stamps: HashMap::new(),
            found: Vec::new(),
            turn,
            next_at: None,
            is_more: false,
        })
    }

    /// Fetches lanes and walks through them; true if there may be more.
    fn go(&mut self) -> Result<bool, Failure> {
        self.lanes.clear();
        for place in 0..self.limited.len() {
            self.fetch(place)?;
        }
        while let Some((place, lane)) = self.lanes.pop_first() {
            let Reverse(top) = place.0;
            let limited = &self.limited[lane.workflow];
            if lane.is_again && limited.rest.is_some_and(|rest| top <= rest) {
                return Ok(true);
            }
            self.look(place, lane)?;
            if self.is_more {
                return Ok(false);
            }
        }
        // What was shut on the way has made room for others.
        Ok(self.limited.iter().any(|limited| limited.rest.is_some() && !limited.is_closed))
    }

    fn fetch(&mut self, workflow: usize) -> Result<(), Failure> {
        let limited = &mut self.limited[workflow];
        if limited.is_closed {
            return Ok(());
        }
        let most = self.room.saturating_sub(self.found.len() as u64) + 1;
        let mut open = self.db.prepare_cached(OPEN)?;
        let params = named_params! { ":workflow": &**limited.workflow, ":limit": signed(most) };
        let mut rows = open.query(params)?;
        let mut many = 0;
        let mut last = None;
        while let Some(row) = rows.next()? {
            let (lane, top, since) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let found = Lane { row: lane, seat: row.get(3)?, pace: row.get(4)?, workflow, is_again: false };
            self.lanes.insert((Reverse(top), since, lane), found);
            (last, many) = (Some(top), many + 1);
        }
        limited.rest = last.filter(|_| many >= most);
        Ok(())
    }

    /// Takes the first of a lane, if its limits let it begin.
    fn look(&mut self, (Reverse(top), since, _): Place, lane: Lane) -> Result<(), Failure> {
        let Some(head) = self.head(lane)? else { return self.set_top(lane, None) };
        if head.priority < top {
            self.set_top(lane, Some(head.priority))?;
            self.lanes.insert((Reverse(head.priority), since, lane.row), Lane { is_again: true, ..lane });
            return Ok(());
        }
        if let Some(until) = self.paused(lane)? {
            return self.shut(lane, until);
        }
        let rides = head.party != head.run && self.sits(lane.seat, head.party)?;
        if !rides && (self.limited[lane.workflow].is_closed || !self.has_seat(lane)?) {
            return Ok(());
        }
        let Some(stamp) = self.start(lane)? else { return Ok(()) };
        if !rides && self.found.len() as u64 >= self.room {
            self.is_more = true;
            return Ok(());
        }
        self.take(lane, &head, rides, stamp)
    }

    fn take(&mut self, lane: Lane, head: &Head, rides: bool, stamp: Option<Wall>) -> Result<(), Failure> {
        const SIT: &str = "UPDATE seats SET stand = 1 WHERE run = :run";
        const LATER: &str = "UPDATE lanes SET since = :turn, top = :top WHERE row = :lane";
        self.db.prepare_cached(SIT)?.execute(named_params! { ":run": head.run })?;
        if !rides && let Some(free) = self.free.get_mut(&lane.seat) {
            *free -= 1;
        }
        if stamp.is_some() {
            self.stamps.insert(lane.pace, stamp);
        }
        // What rides needs no room and no turn.
        if rides {
            self.room += 1;
        }
        self.found.push(RunRow(head.run));
        let top = self.head(lane)?.map(|head| head.priority);
        self.db
            .prepare_cached(LATER)?
            .execute(named_params! { ":turn": self.turn, ":top": top, ":lane": lane.row })?;
        if let Some(top) = top {
            self.lanes.insert((Reverse(top), self.turn, lane.row), Lane { is_again: true, ..lane });
        }
        self.turn += 1;
        Ok(())
    }

    /// Whether a seat is free.
    fn has_seat(&mut self, lane: Lane) -> Result<bool, Failure> {
        const FULL: &str = "UPDATE lanes SET held = 1 WHERE row = :lane";
        let limited = &mut self.limited[lane.workflow];
        let Some(terms) = &limited.limits.concurrency else { return Ok(true) };
        let free = match self.free.get(&lane.seat) {
            Some(free) => *free,
            None => {
                let params = named_params! { ":seat": lane.seat };
                let taken = self.db.prepare_cached(TAKEN)?.query_row(params, |row| count_at(row, 0))?;
                *self.free.entry(lane.seat).or_insert(terms.limit.saturating_sub(taken))
            }
        };
        if free > 0 {
            return Ok(true);
        }
        match terms.key {
            Some(_) => {
                self.db.prepare_cached(FULL)?.execute(named_params! { ":lane": lane.row })?;
            }
            None => limited.is_closed = true,
        }
        Ok(false)
    }

    /// The stamp that a start leaves, if one may be now; none inside where nothing paces them.
    fn start(&mut self, lane: Lane) -> Result<Option<Option<Wall>>, Failure> {
        let limited = &mut self.limited[lane.workflow];
        let Some(paced) = &limited.limits.throttle else { return Ok(Some(None)) };
        let stamp = match self.stamps.get(&lane.pace) {
            Some(stamp) => *stamp,
            None => stamp_of(self.db, lane.pace)?,
        };
        let until = match paced.rate.turn(stamp, self.at) {
            Turn::Now(stamp) => return Ok(Some(Some(stamp))),
            Turn::At(until) => until,
        };
        // One from a clock that was ahead is kept as it counts.
        self.stamps.insert(lane.pace, stamp.map(|stamp| paced.rate.cut(stamp, self.at)));
        self.next_at = self.next_at.into_iter().chain([until]).min();
        match paced.key {
            Some(_) => self.shut(lane, until)?,
            None => limited.is_closed = true,
        }
        Ok(None)
    }

    /// Until when a lane is paused: by the key for which its seats are counted, or that for which its starts are.
    fn paused(&self, lane: Lane) -> Result<Option<Wall>, Failure> {
        const KEY: &str = "SELECT key FROM keys WHERE row = :row";
        let Limited { limits, paused, .. } = &self.limited[lane.workflow];
        if paused.is_empty() {
            return Ok(None);
        }
        let seat = limits.concurrency.as_ref().is_some_and(|terms| terms.key.is_some());
        let pace = limits.throttle.as_ref().is_some_and(|paced| paced.key.is_some());
        let mut until = None;
        for row in [seat.then_some(lane.seat), pace.then_some(lane.pace)].into_iter().flatten() {
            let key: String =
                self.db.prepare_cached(KEY)?.query_row(named_params! { ":row": row }, |row| row.get(0))?;
            until = until.max(paused.get(&key).copied());
        }
        Ok(until)
    }

    fn shut(&self, lane: Lane, until: Wall) -> Result<(), Failure> {
        const SHUT: &str = "UPDATE lanes SET held = 2, until = :until, shut_at = :at WHERE row = :lane";
        let params = named_params! { ":lane": lane.row, ":until": until.0, ":at": self.at.0 };
        self.db.prepare_cached(SHUT)?.execute(params)?;
        Ok(())
    }

    fn sits(&self, seat: i64, party: i64) -> Result<bool, Failure> {
        const SQL: &str = "SELECT 1 FROM seats WHERE seat = :seat AND stand = 1 AND party = :party";
        Ok(self.db.prepare_cached(SQL)?.exists(named_params! { ":seat": seat, ":party": party })?)
    }

    fn head(&self, lane: Lane) -> Result<Option<Head>, Failure> {
        let params = named_params! { ":lane": lane.row };
        let found = self.db.prepare_cached(HEAD)?.query_row(params, |row| {
            Ok(Head { run: row.get(0)?, priority: row.get(1)?, party: row.get(2)? })
        });
        Ok(found.optional()?)
    }

    fn set_top(&self, lane: Lane, top: Option<i64>) -> Result<(), Failure> {
        const SQL: &str = "UPDATE lanes SET top = :top WHERE row = :lane";
        self.db.prepare_cached(SQL)?.execute(named_params! { ":lane": lane.row, ":top": top })?;
        Ok(())
    }

    fn end(self) -> Result<(Vec<RunRow>, bool, Option<Wall>), Failure> {
        for (key, stamp) in self.stamps {
            if let Some(stamp) = stamp {
                put_stamp(self.db, key, stamp, self.at)?;
            }
        }
        Ok((self.found, self.is_more, self.next_at))
    }
}
