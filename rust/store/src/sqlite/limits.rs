//! Runs that limits of their workflows count: who is dropped, who waits in which lane, and who has a seat.
//! Invariant: a run that is not over and sits has a row here that says so, and of one key no more parties sit than its limit lets.
//! Longer than a room should be: seats, lanes and drops are counted from one another, in one transaction.

mod claim;
#[path = "../sql/limits/declare.rs"]
mod declare;

use std::collections::HashMap;
use std::sync::Arc;

use cloaca_core::key::RunRow;
use cloaca_core::limit::{Keys, Limits, Turn};
use cloaca_core::port::{Admitted, NewRun, Unfinished};
use cloaca_core::time::Wall;
use rusqlite::{Connection, OptionalExtension as _, named_params};
use uuid::Uuid;

use crate::sqlite::fault::Failure;
use crate::sqlite::run::line;
use crate::sqlite::value::{count_at, micros, signed, wall_maybe_at};

#[cfg(test)]
pub use claim::PLANS;
pub use claim::{claim, next_at};
pub use declare::{is_any, renew_all};

/// Until then waits what a limit holds: a claim of what is due never finds it.
pub const HELD: Wall = Wall(i64::MAX);

/// So far up is looked for a run in whose seat another one goes on.
const ANCESTORS_MAX: u32 = 100;
/// The priority of what goes on in another one's seat: above all others.
const RIDES: i64 = 10;

/// How a limited run stands.
mod stand {
    pub const WAITS: i64 = 0;
    pub const SITS: i64 = 1;
    pub const DELAYED: i64 = 2;
    pub const BEHIND: i64 = 3;
}

/// A seat of a key is free. Without a key to count seats by, all lanes of a workflow have the same.
const REOPEN: &str = "UPDATE lanes INDEXED BY lanes_full SET held = 0 WHERE seat = :seat AND held = 1";

/// What a key counts.
mod rule {
    pub const SEATS: i64 = 0;
    pub const STARTS: i64 = 1;
    pub const ADMISSIONS: i64 = 2;
}

/// What is in force within one transaction.
#[derive(Default)]
pub struct Terms {
    is_any: Option<bool>,
    known: HashMap<Arc<str>, Option<Arc<Limits>>>,
}

impl Terms {
    /// What limits the workflow of a new run. What nobody has declared yet is in force as whoever starts it declares it.
    pub fn of(&mut self, db: &Connection, new: &NewRun) -> Result<Option<Arc<Limits>>, Failure> {
        if !self.is_any(db)? && new.limits.is_none() {
            return Ok(None);
        }
        if let Some(known) = self.known.get(&new.workflow) {
            return Ok(known.clone());
        }
        let mut limits = declare::in_force(db, &new.workflow)?.map(Arc::new);
        if let (None, Some(asked)) = (&limits, &new.limits) {
            declare::put(db, &new.workflow, Some(&asked.to_json()))?;
            (limits, self.is_any) = (Some(Arc::clone(asked)), Some(true));
        }
        self.known.insert(Arc::clone(&new.workflow), limits.clone());
        Ok(limits)
    }
}

impl Terms {
    /// Whether any workflow has limits.
    pub fn is_any(&mut self, db: &Connection) -> Result<bool, Failure> {
        Ok(match self.is_any {
            Some(is_any) => is_any,
            None => *self.is_any.insert(is_any(db)?),
        })
    }
}

/// A new run that limits let become one, with what they count it for.
pub struct Entrant {
    keys: Keys,
    /// In whose seat it goes on, if it does.
    party: Option<i64>,
    /// The stamp of its rate limit.
    stamp: Option<(i64, Wall)>,
}

/// What limits say of a new run at `at`, before it is kept.
pub fn judge(
    db: &Connection,
    limits: &Limits,
    new: &NewRun,
    at: Wall,
) -> Result<Result<Entrant, Admitted>, Failure> {
    let keys = match limits.keys_of(&new.context) {
        Ok(keys) => keys,
        Err(refused) => return Ok(Err(Admitted::Unkeyed(refused.message.into()))),
    };
    let mut party = None;
    if limits.concurrency.is_some()
        && let Some(seat) = known_key(db, &new.workflow, rule::SEATS, &keys.concurrency)?
    {
        if let Some(parent) = new.parent.as_ref().filter(|parent| parent.task.is_some()) {
            party = party_of(db, parent.run, seat)?;
        }
        if let Some(most) = limits.unfinished_max()
            && party.is_none()
            && unfinished(db, seat)? >= most
        {
            return Ok(Err(Admitted::Limited(Box::new(limits.full(&keys)))));
        }
    }
    let mut stamp = None;
    if let Some(paced) = &limits.rate_limit {
        let key = key(db, &new.workflow, rule::ADMISSIONS, &keys.rate_limit)?;
        let last = stamp_of(db, key)?;
        match paced.rate.turn(last, at) {
            Turn::Now(next) => stamp = Some((key, next)),
            Turn::At(next) => {
                if let Some(cut) = last.map(|last| paced.rate.cut(last, at)).filter(|cut| Some(*cut) != last)
                {
                    put_stamp(db, key, cut, at)?;
                }
                return Ok(Err(Admitted::Limited(Box::new(limits.too_fast(&keys, next)))));
            }
        }
    }
    Ok(Ok(Entrant { keys, party, stamp }))
}

/// A new run is kept, and counts; true if it is nobody's, and waits for a claim.
pub fn enter(
    db: &Connection,
    row: RunRow,
    new: &NewRun,
    limits: &Limits,
    entrant: Entrant,
    at: Wall,
) -> Result<bool, Failure> {
    if let Some((key, stamp)) = entrant.stamp {
        put_stamp(db, key, stamp, at)?;
    }
    if limits.concurrency.is_none() && limits.throttle.is_none() {
        return Ok(false);
    }
    let stand = match limits.holds() {
        false => stand::SITS,
        true if new.is_delayed() => stand::DELAYED,
        true => stand::WAITS,
    };
    let is_held = stand == stand::WAITS;
    mark(db, row, is_held)?;
    let seat = Seat {
        run: row.0,
        keys: &entrant.keys,
        workflow: &new.workflow,
        priority: priority_of(db, row)?,
        stand,
        party: entrant.party.unwrap_or(row.0),
        schedule: new.schedule.filter(|_| new.waits).map(|schedule| schedule.0),
    };
    put_seat(db, &seat)?;
    Ok(is_held)
}

/// A row of `seats`, as it is to be.
struct Seat<'a> {
    run: i64,
    keys: &'a Keys,
    workflow: &'a str,
    priority: i64,
    stand: i64,
    party: i64,
    /// Of one that waits for those of its trigger before it.
    schedule: Option<i64>,
}

fn put_seat(db: &Connection, new: &Seat<'_>) -> Result<(), Failure> {
    const PUT: &str = "
        INSERT OR REPLACE INTO seats (run, lane, seat, priority, stand, party, schedule, place)
        VALUES (:run, :lane, :seat, :priority, :stand, :party, :schedule, :place)";
    // Index seats_schedule.
    const BEFORE: &str = "SELECT 1 FROM seats WHERE schedule = :schedule AND place < :place";
    let seat = key(db, new.workflow, rule::SEATS, &new.keys.concurrency)?;
    let pace = key(db, new.workflow, rule::STARTS, &new.keys.throttle)?;
    let lane = lane(db, new.workflow, seat, pace)?;
    let place = match new.schedule {
        Some(_) => line::stands(db, RunRow(new.run))?,
        None => line::place_of(RunRow(new.run)),
    };
    let is_behind = new.stand == stand::WAITS
        && new.schedule.is_some()
        && db.prepare_cached(BEFORE)?.exists(named_params! { ":schedule": new.schedule, ":place": place })?;
    let stand = if is_behind { stand::BEHIND } else { new.stand };
    let priority = if new.party == new.run { new.priority } else { RIDES };
    db.prepare_cached(PUT)?.execute(named_params! {
        ":run": new.run,
        ":lane": lane,
        ":seat": seat,
        ":priority": priority,
        ":stand": stand,
        ":party": new.party,
        ":schedule": new.schedule,
        ":place": place,
    })?;
    if stand == stand::WAITS {
        open(db, lane, priority)?;
    }
    Ok(())
}

/// Something of that priority waits in a lane.
fn open(db: &Connection, lane: i64, priority: i64) -> Result<(), Failure> {
    const TOP: &str = "SELECT top FROM lanes WHERE row = :lane";
    // A full lane lets through what goes on in another one's seat.
    const RAISE: &str = "
        UPDATE lanes SET top = :priority, held = CASE WHEN held = 1 AND :rides THEN 0 ELSE held END WHERE row = :lane";
    const FILL: &str = "
        UPDATE lanes SET top = :priority, since = :turn, held = CASE WHEN held = 1 AND :rides THEN 0 ELSE held END
        WHERE row = :lane";
    let top: Option<i64> =
        db.prepare_cached(TOP)?.query_row(named_params! { ":lane": lane }, |row| row.get(0))?;
    let rides = priority == RIDES;
    match top {
        Some(top) if top >= priority => {}
        Some(_) => {
            let params = named_params! { ":lane": lane, ":priority": priority, ":rides": rides };
            db.prepare_cached(RAISE)?.execute(params)?;
        }
        None => {
            let turn = turns(db, 1)?;
            let params =
                named_params! { ":lane": lane, ":priority": priority, ":rides": rides, ":turn": turn };
            db.prepare_cached(FILL)?.execute(params)?;
        }
    }
    Ok(())
}

/// What is counted for a key is looked at anew, by whether it is paused; false if the limits of its workflow have no keys.
pub fn move_key(db: &Connection, workflow: &str, key: &str) -> Result<bool, Failure> {
    // Indices lanes_keys and lanes_pace.
    const SEAT: &str = "UPDATE lanes SET held = 0, until = NULL WHERE seat = :key AND held = 2";
    const PACE: &str = "UPDATE lanes SET held = 0, until = NULL WHERE pace = :key AND held = 2";
    if !declare::in_force(db, workflow)?.is_some_and(|limits| limits.has_keys()) {
        return Ok(false);
    }
    for (rule, reopen) in [(rule::SEATS, SEAT), (rule::STARTS, PACE)] {
        if let Some(row) = known_key(db, workflow, rule, key)? {
            db.prepare_cached(reopen)?.execute(named_params! { ":key": row })?;
        }
    }
    Ok(true)
}

/// Numbers for what comes one after another: the first of so many.
fn turns(db: &Connection, many: i64) -> Result<i64, Failure> {
    const SQL: &str = "UPDATE meta SET value = value + :many WHERE name = 'turns' RETURNING value";
    let last: i64 = db.prepare_cached(SQL)?.query_row(named_params! { ":many": many }, |row| row.get(0))?;
    Ok(last - many + 1)
}

/// A run is over, or nobody's to begin any more: what it held is free. While a body of it still runs it keeps its seat.
pub fn over(db: &Connection, row: RunRow) -> Result<(), Failure> {
    const FIND: &str = "SELECT lane, seat, stand, schedule FROM seats WHERE run = :run";
    const RUNS_ON: &str = "SELECT 1 FROM overdue WHERE run = :run";
    const DELETE: &str = "DELETE FROM seats WHERE run = :run";
    // Index seats_waiting.
    const EMPTIED: &str = "
        UPDATE lanes SET top = NULL WHERE row = :lane AND NOT EXISTS (SELECT 1 FROM seats WHERE lane = :lane AND stand = 0)";
    let run = named_params! { ":run": row.0 };
    let found = db.prepare_cached(FIND)?.query_row(run, |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get(3)?))
    });
    let Some((lane, seat, stand, schedule)) = found.optional()? else { return Ok(()) };
    if stand == stand::SITS && db.prepare_cached(RUNS_ON)?.exists(run)? {
        return Ok(());
    }
    db.prepare_cached(DELETE)?.execute(run)?;
    match stand {
        stand::SITS => db.prepare_cached(REOPEN)?.execute(named_params! { ":seat": seat })?,
        // A lane in which nothing waits loses its place among those that do.
        stand::WAITS => db.prepare_cached(EMPTIED)?.execute(named_params! { ":lane": lane })?,
        _ => 0,
    };
    move_up(db, schedule)?;
    clear(db, lane, seat)
}

/// The same, if the run is final.
pub fn over_if_final(db: &Connection, row: RunRow) -> Result<(), Failure> {
    const SQL: &str = "SELECT 1 FROM runs WHERE row = :row AND limited AND completed_at IS NOT NULL";
    match db.prepare_cached(SQL)?.exists(named_params! { ":row": row.0 })? {
        true => over(db, row),
        false => Ok(()),
    }
}

/// The first of a trigger's runs waits for none before it any more.
fn move_up(db: &Connection, schedule: Option<i64>) -> Result<(), Failure> {
    // Index seats_schedule.
    const FIRST: &str = "
        SELECT run, lane, priority, stand FROM seats WHERE schedule = :schedule ORDER BY place LIMIT 1";
    let Some(schedule) = schedule else { return Ok(()) };
    let found = db.prepare_cached(FIRST)?.query_row(named_params! { ":schedule": schedule }, |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?))
    });
    let Some((run, lane, priority, stand::BEHIND)) = found.optional()? else { return Ok(()) };
    stand_as(db, run, stand::WAITS)?;
    open(db, lane, priority)
}

/// A lane in which nothing is left, and a key that nothing counts, are forgotten.
fn clear(db: &Connection, lane: i64, seat: i64) -> Result<(), Failure> {
    // Indices seats_lane and seats_seat.
    const LANE: &str =
        "DELETE FROM lanes WHERE row = :lane AND NOT EXISTS (SELECT 1 FROM seats WHERE lane = :lane)";
    const KEY: &str = "
        DELETE FROM keys WHERE row = :seat AND NOT EXISTS (SELECT 1 FROM lanes WHERE seat = :seat)
            AND NOT EXISTS (SELECT 1 FROM seats WHERE seat = :seat)";
    const PACE: &str = "SELECT pace FROM lanes WHERE row = :lane";
    // One with a stamp is forgotten once that has passed.
    const UNUSED: &str = "
        DELETE FROM keys WHERE row = :pace AND stamp IS NULL AND NOT EXISTS (SELECT 1 FROM lanes WHERE pace = :pace)";
    let params = named_params! { ":lane": lane };
    let pace: Option<i64> = db.prepare_cached(PACE)?.query_row(params, |row| row.get(0)).optional()?;
    if db.prepare_cached(LANE)?.execute(params)? > 0 {
        db.prepare_cached(KEY)?.execute(named_params! { ":seat": seat })?;
        db.prepare_cached(UNUSED)?.execute(named_params! { ":pace": pace })?;
    }
    Ok(())
}

/// A run that had a seat and was left before it began gives it back, and waits anew; what it took of a throttle is used up. What nothing
/// holds, and what has begun, is left as it is.
pub fn unseat(db: &Connection, row: RunRow) -> Result<(), Failure> {
    const FIND: &str = "
        SELECT lane, seat, seats.priority, workflow FROM seats JOIN runs ON runs.row = seats.run
        WHERE run = :run AND stand = 1 AND started_at IS NULL AND completed_at IS NULL
            AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.run = seats.run)";
    let found = db.prepare_cached(FIND)?.query_row(named_params! { ":run": row.0 }, |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, String>(3)?))
    });
    let Some((lane, seat, priority, workflow)) = found.optional()? else { return Ok(()) };
    if !declare::in_force(db, &workflow)?.is_some_and(|limits| limits.holds()) {
        return Ok(());
    }
    mark(db, row, true)?;
    stand_as(db, row.0, stand::WAITS)?;
    db.prepare_cached(REOPEN)?.execute(named_params! { ":seat": seat })?;
    open(db, lane, priority)
}

/// The unbegun runs of an owner that is about to lose them, but for those `kept`; they are to be given back to [`unseat`] once it has.
pub fn unbegun(db: &Connection, owner: i64) -> Result<Vec<RunRow>, Failure> {
    const SQL: &str = "
        SELECT row FROM runs INDEXED BY runs_unfinished
        WHERE completed_at IS NULL AND not_before IS NULL AND owner = :owner AND limited AND started_at IS NULL";
    if !is_any(db)? {
        return Ok(Vec::new());
    }
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map(named_params! { ":owner": owner }, |row| row.get(0).map(RunRow))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A run that waited for its time is due: it waits for its limits now. False if none holds it.
pub fn due(db: &Connection, row: RunRow) -> Result<bool, Failure> {
    const FIND: &str = "SELECT lane, priority FROM seats WHERE run = :run AND stand = 2";
    let found = db
        .prepare_cached(FIND)?
        .query_row(named_params! { ":run": row.0 }, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
    let Some((lane, priority)) = found.optional()? else { return Ok(false) };
    stand_as(db, row.0, stand::WAITS)?;
    open(db, lane, priority)?;
    mark(db, row, true)?;
    Ok(true)
}

/// Why a final run must not be opened again, as far as its workflow's limits say so; otherwise whether it waits for a claim.
pub fn reenter(db: &Connection, run: &Unfinished) -> Result<bool, Failure> {
    let (row, workflow) = (run.row, &*run.workflow);
    let Some(limits) = declare::in_force(db, workflow)? else { return Ok(false) };
    if limits.concurrency.is_none() && limits.throttle.is_none() {
        return Ok(false);
    }
    let keys = limits.keys_of(&run.context).unwrap_or_default();
    if let Some(most) = limits.unfinished_max()
        && let Some(seat) = known_key(db, workflow, rule::SEATS, &keys.concurrency)?
        && unfinished(db, seat)? >= most
    {
        let why = limits.full(&keys).why;
        return Err(Failure::Refused(format!(
            "it cannot be opened again: {why}; wait for one of them or cancel it"
        )));
    }
    let is_held = limits.holds();
    mark(db, row, is_held)?;
    let stand = if is_held { stand::WAITS } else { stand::SITS };
    let priority = priority_of(db, row)?;
    let schedule = run.schedule.filter(|_| run.waits).map(|schedule| schedule.0);
    if let Some(schedule) = schedule {
        line::line_up(db, schedule)?;
    }
    let seat = Seat { run: row.0, keys: &keys, workflow, priority, stand, party: row.0, schedule };
    put_seat(db, &seat)?;
    Ok(is_held)
}

/// Notes that limits count a run, and takes it out of every hand if they hold it.
fn mark(db: &Connection, row: RunRow, is_held: bool) -> Result<(), Failure> {
    const COUNT: &str = "UPDATE runs SET limited = 1 WHERE row = :row";
    const HOLD: &str = "UPDATE runs SET limited = 1, owner = NULL, not_before = :held WHERE row = :row";
    match is_held {
        true => db.prepare_cached(HOLD)?.execute(named_params! { ":row": row.0, ":held": HELD.0 })?,
        false => db.prepare_cached(COUNT)?.execute(named_params! { ":row": row.0 })?,
    };
    Ok(())
}

fn stand_as(db: &Connection, run: i64, stand: i64) -> Result<(), Failure> {
    const SQL: &str = "UPDATE seats SET stand = :stand WHERE run = :run";
    db.prepare_cached(SQL)?.execute(named_params! { ":run": run, ":stand": stand })?;
    Ok(())
}

fn priority_of(db: &Connection, row: RunRow) -> Result<i64, Failure> {
    const SQL: &str = "SELECT priority FROM runs WHERE row = :row";
    Ok(db.prepare_cached(SQL)?.query_row(named_params! { ":row": row.0 }, |row| row.get(0))?)
}

/// In whose seat a run goes on that this one calls: its own, or that of one that has called it, if that sits by the same key.
fn party_of(db: &Connection, parent: Uuid, seat: i64) -> Result<Option<i64>, Failure> {
    // Index runs_id; by the keys of the tables.
    const SQL: &str = "
        SELECT CASE WHEN parent_task IS NOT NULL THEN runs.parent END, (SELECT party FROM seats WHERE run = runs.row AND seat = :seat AND stand = 1)
        FROM runs WHERE id = :id";
    let mut next = Some(parent.to_string());
    for _ in 0..ANCESTORS_MAX {
        let Some(id) = next.take() else { break };
        let found = db.prepare_cached(SQL)?.query_row(named_params! { ":id": id, ":seat": seat }, |row| {
            Ok((row.get::<_, Option<String>>(0)?, row.get::<_, Option<i64>>(1)?))
        });
        match found.optional()? {
            Some((_, Some(party))) => return Ok(Some(party)),
            Some((parent, None)) => next = parent,
            None => break,
        }
    }
    Ok(None)
}

/// How many parties of a key are not over.
fn unfinished(db: &Connection, seat: i64) -> Result<u64, Failure> {
    const SQL: &str = "SELECT count(DISTINCT party) FROM seats WHERE seat = :seat";
    Ok(db.prepare_cached(SQL)?.query_row(named_params! { ":seat": seat }, |row| count_at(row, 0))?)
}

fn known_key(db: &Connection, workflow: &str, rule: i64, key: &str) -> Result<Option<i64>, Failure> {
    const SQL: &str = "SELECT row FROM keys WHERE workflow = :workflow AND rule = :rule AND key = :key";
    let params = named_params! { ":workflow": workflow, ":rule": rule, ":key": key };
    Ok(db.prepare_cached(SQL)?.query_row(params, |row| row.get(0)).optional()?)
}

fn key(db: &Connection, workflow: &str, rule: i64, key: &str) -> Result<i64, Failure> {
    const SQL: &str = "INSERT INTO keys (workflow, rule, key) VALUES (:workflow, :rule, :key)";
    if let Some(row) = known_key(db, workflow, rule, key)? {
        return Ok(row);
    }
    let params = named_params! { ":workflow": workflow, ":rule": rule, ":key": key };
    db.prepare_cached(SQL)?.execute(params)?;
    Ok(db.last_insert_rowid())
}

fn lane(db: &Connection, workflow: &str, seat: i64, pace: i64) -> Result<i64, Failure> {
    const FIND: &str = "SELECT row FROM lanes WHERE seat = :seat AND pace = :pace";
    const PUT: &str = "INSERT INTO lanes (workflow, seat, pace, since) VALUES (:workflow, :seat, :pace, 0)";
    let params = named_params! { ":seat": seat, ":pace": pace };
    if let Some(row) = db.prepare_cached(FIND)?.query_row(params, |row| row.get(0)).optional()? {
        return Ok(row);
    }
    db.prepare_cached(PUT)?.execute(named_params! { ":workflow": workflow, ":seat": seat, ":pace": pace })?;
    Ok(db.last_insert_rowid())
}

fn stamp_of(db: &Connection, key: i64) -> Result<Option<Wall>, Failure> {
    const SQL: &str = "SELECT stamp FROM keys WHERE row = :key";
    let found = db.prepare_cached(SQL)?.query_row(named_params! { ":key": key }, |row| wall_maybe_at(row, 0));
    Ok(found.optional()?.flatten())
}

/// Keeps a stamp, and forgets a few that are as good as none at `at`.
fn put_stamp(db: &Connection, key: i64, stamp: Wall, at: Wall) -> Result<(), Failure> {
    const PUT: &str = "UPDATE keys SET stamp = :stamp WHERE row = :key";
    const PASSED_MAX: u64 = 4;
    // Index keys_stamp.
    const PASSED: &str = "SELECT row FROM keys WHERE stamp <= :at ORDER BY stamp LIMIT :limit";
    const FORGET: &str = "UPDATE keys SET stamp = NULL WHERE row = :key";
    // Index lanes_pace.
    const DELETE: &str = "
        DELETE FROM keys WHERE row = :key AND rule > 0 AND NOT EXISTS (SELECT 1 FROM lanes WHERE pace = :key)";
    db.prepare_cached(PUT)?.execute(named_params! { ":key": key, ":stamp": micros(Some(stamp)) })?;
    let mut passed = db.prepare_cached(PASSED)?;
    let params = named_params! { ":at": at.0, ":limit": signed(PASSED_MAX) };
    let passed = passed.query_map(params, |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    for key in passed {
        db.prepare_cached(FORGET)?.execute(named_params! { ":key": key })?;
        db.prepare_cached(DELETE)?.execute(named_params! { ":key": key })?;
    }
    Ok(())
}
