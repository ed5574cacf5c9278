//! Runs of one poll that limits count, all at once. Invariant: when they are written everything stands as if each had come by itself after those before it.

use std::collections::HashMap;

use cloaca_core::key::RunRow;
use cloaca_core::limit::Limits;
use cloaca_core::port::{Admitted, NewRun};

use crate::postgres::db::{self, Db, named_params};
use crate::postgres::fault::Failure;
use crate::postgres::limits::{Entrant, HELD, rule, stand, turns};
use crate::postgres::run::line::{BETWEEN, place_of};

/// What limits say of a new run without a look at others.
pub enum Judged {
    /// It becomes one.
    Entrant(Entrant),
    /// It does not.
    Refused(Admitted),
    /// It depends on those before it: on how many there are, on when the last one came, or on whose seat it goes on in.
    ByItself,
}

/// What limits say of a new run, whatever others there are.
pub fn judge_alone(limits: &Limits, new: &NewRun) -> Judged {
    let counts = limits.concurrency.is_some() || limits.throttle.is_some();
    if !counts || limits.rate_limit.is_some() || limits.unfinished_max().is_some() || new.parent.is_some() {
        return Judged::ByItself;
    }
    match limits.keys_of(&new.context) {
        Ok(keys) => Judged::Entrant(Entrant { keys, party: None, stamp: None, waits: limits.holds() }),
        Err(refused) => Judged::Refused(Admitted::Unkeyed(refused.message.into())),
    }
}

/// A workflow, one of its rules, and a key of that.
type Name<'a> = (&'a str, i64, &'a str);

/// New runs are kept, in that order, and count. As `enter` has each.
pub fn enter_all(db: &Db, entrants: Vec<(RunRow, &NewRun, Entrant)>) -> Result<(), Failure> {
    if entrants.is_empty() {
        return Ok(());
    }
    let names = |(_, new, entrant): &(RunRow, &NewRun, Entrant)| {
        let workflow = (*new.workflow).to_owned();
        [
            (workflow.clone(), rule::SEATS, entrant.keys.concurrency.clone()),
            (workflow, rule::STARTS, entrant.keys.throttle.clone()),
        ]
    };
    let names: Vec<_> = entrants.iter().flat_map(names).collect();
    let names: Vec<Name<'_>> =
        names.iter().map(|(workflow, rule, key)| (&**workflow, *rule, &**key)).collect();
    let keys = keys(db, &names)?;
    let pairs: Vec<(&str, i64, i64)> = entrants
        .iter()
        .zip(keys.chunks_exact(2))
        .map(|((_, new, _), keys)| (&*new.workflow, keys[0], keys[1]))
        .collect();
    let lanes = lanes(db, &pairs)?;
    let priorities = mark(db, &entrants)?;
    let mut line = Line::default();
    let mut seats = Vec::with_capacity(entrants.len());
    let mut opened: Vec<(i64, i64)> = Vec::new();
    let mut places: HashMap<i64, usize> = HashMap::new();
    for ((row, new, entrant), (&(_, seat, _), lane)) in entrants.iter().zip(pairs.iter().zip(&lanes)) {
        let schedule = new.schedule.filter(|_| new.waits).map(|schedule| schedule.0);
        let is_behind = line.is_behind(db, schedule, row.0)?;
        let stand = match entrant.stand(new) {
            stand::WAITS if is_behind => stand::BEHIND,
            stand => stand,
        };
        let Some(&priority) = priorities.get(&row.0) else {
            return Err(Failure::Refused(format!("run {} has no row", new.id)));
        };
        if stand == stand::WAITS {
            let place = *places.entry(lane.row).or_insert_with(|| {
                opened.push((lane.row, priority));
                opened.len() - 1
            });
            opened[place].1 = opened[place].1.max(priority);
        }
        seats.push(Row { run: row.0, lane: lane.row, seat, priority, stand, schedule });
    }
    put_seats(db, &seats)?;
    let tops = lanes.iter().map(|lane| (lane.row, lane.top)).collect();
    open(db, &opened, &tops)
}

/// The rows of keys, which are there from now on.
fn keys(db: &Db, names: &[Name<'_>]) -> Result<Vec<i64>, Failure> {
    // Index keys_name.
    const PUT: &str = "
        INSERT INTO keys (workflow, rule, key)
        SELECT workflow, rule, key FROM unnest(:workflow::TEXT[], :rule::BIGINT[], :key::TEXT[])
            WITH ORDINALITY AS new (workflow, rule, key, place) ORDER BY place
        ON CONFLICT (workflow, rule, key) DO NOTHING";
    const FIND: &str = "
        SELECT keys.row FROM unnest(:workflow::TEXT[], :rule::BIGINT[], :key::TEXT[])
            WITH ORDINALITY AS asked (workflow, rule, key, place)
        JOIN keys ON keys.workflow = asked.workflow AND keys.rule = asked.rule AND keys.key = asked.key ORDER BY place";
    let workflows: Vec<&str> = names.iter().map(|(workflow, ..)| *workflow).collect();
    let rules: Vec<i64> = names.iter().map(|(_, rule, _)| *rule).collect();
    let keys: Vec<&str> = names.iter().map(|(.., key)| *key).collect();
    let params = named_params! { ":workflow": workflows, ":rule": rules, ":key": keys };
    db.prepare_cached(PUT)?.execute(params)?;
    let found: Vec<i64> =
        db.prepare_cached(FIND)?.query_map(params, |row| row.get(0))?.collect::<db::Result<_>>()?;
    whole(found, names.len())
}

struct Lane {
    row: i64,
    /// The priority of the first that waits in it, if one does.
    top: Option<i64>,
}

/// The lanes of pairs of keys, which are there from now on.
fn lanes(db: &Db, pairs: &[(&str, i64, i64)]) -> Result<Vec<Lane>, Failure> {
    // Index lanes_keys.
    const PUT: &str = "
        INSERT INTO lanes (workflow, seat, pace, since)
        SELECT workflow, seat, pace, 0 FROM unnest(:workflow::TEXT[], :seat::BIGINT[], :pace::BIGINT[])
            WITH ORDINALITY AS new (workflow, seat, pace, place) ORDER BY place
        ON CONFLICT (seat, pace) DO NOTHING";
    const FIND: &str = "
        SELECT lanes.row, top FROM unnest(:seat::BIGINT[], :pace::BIGINT[]) WITH ORDINALITY AS asked (seat, pace, place)
        JOIN lanes ON lanes.seat = asked.seat AND lanes.pace = asked.pace ORDER BY place";
    let seats = || pairs.iter().map(|(_, seat, _)| *seat).collect::<Vec<_>>();
    let paces = || pairs.iter().map(|(.., pace)| *pace).collect::<Vec<_>>();
    db.prepare_cached(PUT)?.execute(named_params! {
        ":workflow": pairs.iter().map(|(workflow, ..)| *workflow).collect::<Vec<_>>(),
        ":seat": seats(),
        ":pace": paces(),
    })?;
    let mut statement = db.prepare_cached(FIND)?;
    let found = statement.query_map(named_params! { ":seat": seats(), ":pace": paces() }, |row| {
        Ok(Lane { row: row.get(0)?, top: row.get(1)? })
    })?;
    whole(found.collect::<db::Result<_>>()?, pairs.len())
}

fn whole<T>(found: Vec<T>, many: usize) -> Result<Vec<T>, Failure> {
    match found.len() == many {
        true => Ok(found),
        false => Err(Failure::Refused(format!("{} of {many} keys of limits are there", found.len()))),
    }
}

/// Notes that limits count these runs, and takes those that they hold out of every hand; returns how urgent each is.
fn mark(db: &Db, entrants: &[(RunRow, &NewRun, Entrant)]) -> Result<HashMap<i64, i64>, Failure> {
    const SQL: &str = "
        UPDATE runs SET limited = TRUE, owner = CASE WHEN is_held THEN NULL ELSE owner END,
            not_before = CASE WHEN is_held THEN :held ELSE not_before END
        FROM unnest(:row::BIGINT[], :is_held::BOOLEAN[]) AS new (run, is_held)
        WHERE runs.row = new.run RETURNING runs.row, priority";
    let mut statement = db.prepare_cached(SQL)?;
    let marked = statement.query_map(
        named_params! {
            ":held": HELD.0,
            ":row": entrants.iter().map(|(row, ..)| row.0).collect::<Vec<_>>(),
            ":is_held": entrants.iter().map(|(_, new, entrant)| entrant.is_held(new)).collect::<Vec<_>>(),
        },
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok(marked.collect::<db::Result<_>>()?)
}

/// The lines of triggers whose runs wait for those before them.
#[derive(Default)]
struct Line {
    has_before: HashMap<i64, bool>,
}

impl Line {
    /// Whether one of the same line has a seat, or waits for one, before that run, which is in it from now on.
    fn is_behind(&mut self, db: &Db, schedule: Option<i64>, run: i64) -> Result<bool, Failure> {
        // Index seats_schedule.
        const BEFORE: &str = "SELECT 1 FROM seats WHERE schedule = :schedule AND place < :place LIMIT 1";
        let Some(schedule) = schedule else { return Ok(false) };
        match self.has_before.insert(schedule, true) {
            Some(has_before) => Ok(has_before),
            None => {
                let params = named_params! { ":schedule": schedule, ":place": place_of(RunRow(run)) };
                Ok(db.prepare_cached(BEFORE)?.exists(params)?)
            }
        }
    }
}

/// A row of `seats` of a run that goes on in nobody else's.
struct Row {
    run: i64,
    lane: i64,
    seat: i64,
    priority: i64,
    stand: i64,
    /// Of one that waits for those of its trigger before it.
    schedule: Option<i64>,
}

fn put_seats(db: &Db, seats: &[Row]) -> Result<(), Failure> {
    const SQL: &str = "
        INSERT INTO seats (run, lane, seat, priority, stand, party, schedule, place)
        SELECT run, lane, seat, priority, stand, run, schedule, run * :between
        FROM unnest(:run::BIGINT[], :lane::BIGINT[], :seat::BIGINT[], :priority::BIGINT[], :stand::BIGINT[], :schedule::BIGINT[])
            AS new (run, lane, seat, priority, stand, schedule)";
    db.prepare_cached(SQL)?.execute(named_params! {
        ":between": BETWEEN,
        ":run": seats.iter().map(|seat| seat.run).collect::<Vec<_>>(),
        ":lane": seats.iter().map(|seat| seat.lane).collect::<Vec<_>>(),
        ":seat": seats.iter().map(|seat| seat.seat).collect::<Vec<_>>(),
        ":priority": seats.iter().map(|seat| seat.priority).collect::<Vec<_>>(),
        ":stand": seats.iter().map(|seat| seat.stand).collect::<Vec<_>>(),
        ":schedule": seats.iter().map(|seat| seat.schedule).collect::<Vec<_>>(),
    })?;
    Ok(())
}

/// Something waits in these lanes, of that priority at most; those in which nothing did have their turns in this order.
fn open(db: &Db, opened: &[(i64, i64)], tops: &HashMap<i64, Option<i64>>) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE lanes SET top = new.top, since = coalesce(new.since, lanes.since)
        FROM unnest(:lane::BIGINT[], :top::BIGINT[], :since::BIGINT[]) AS new (lane, top, since) WHERE lanes.row = new.lane";
    let top_of = |lane: i64| tops.get(&lane).copied().flatten();
    let raised: Vec<(i64, i64)> = opened
        .iter()
        .copied()
        .filter(|&(lane, top)| top_of(lane).is_none_or(|before| before < top))
        .collect();
    if raised.is_empty() {
        return Ok(());
    }
    let empty = raised.iter().filter(|(lane, _)| top_of(*lane).is_none()).count();
    let mut turn = if empty == 0 { 0 } else { turns(db, empty as i64)? };
    let mut since = Vec::with_capacity(raised.len());
    for &(lane, _) in &raised {
        since.push(top_of(lane).is_none().then_some(turn));
        turn += i64::from(top_of(lane).is_none());
    }
    db.prepare_cached(SQL)?.execute(named_params! {
        ":lane": raised.iter().map(|(lane, _)| *lane).collect::<Vec<_>>(),
        ":top": raised.iter().map(|(_, top)| *top).collect::<Vec<_>>(),
        ":since": since,
    })?;
    Ok(())
}
