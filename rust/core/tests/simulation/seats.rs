//! Limits with names and their seats, in memory: rows in the order in which they came, looked through each time.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use cloaca_core::key::Epoch;
use cloaca_core::seat::{
    Ask, Differs, Kind, Limit, Pass, Pause, Seat, Standing, Table, Terms, Until, Waiter, grant,
};
use cloaca_core::time::Wall;
use cloaca_core::urgency::Priority;

#[derive(Default)]
struct Row {
    declared: Terms,
    set: Option<Terms>,
    stamp: Option<Wall>,
}

struct Taking {
    waiter: Waiter,
    has_seats: bool,
}

#[derive(Default)]
pub struct SeatTable {
    limits: BTreeMap<Arc<str>, Row>,
    seats: Vec<Taking>,
    pauses: BTreeMap<(&'static str, Arc<str>), Pause>,
    numbers: i64,
}

impl SeatTable {
    pub fn declare(&mut self, limits: &[Limit]) -> Vec<Differs> {
        let mut differs = Vec::new();
        for Limit { name, terms } in limits {
            let row = self.limits.entry(Arc::clone(name)).or_default();
            row.declared = *terms;
            if let Some(set) = row.set.filter(|set| set != terms) {
                differs.push(Differs { name: Arc::clone(name), declared: *terms, set });
            }
        }
        differs
    }

    pub fn ask(&mut self, ask: &Ask) -> Pass {
        self.numbers += 1;
        self.seats.retain(|kept| kept.waiter.seat != ask.seat);
        let place = (ask.priority, self.numbers);
        let waiter = Waiter { seat: ask.seat.clone(), epoch: ask.epoch, limits: ask.limits.to_vec(), place };
        self.seats.push(Taking { waiter, has_seats: false });
        self.pass(&ask.limits, ask.at)
    }

    pub fn unseat(&mut self, seat: &Seat, epoch: Epoch, at: Wall) -> Pass {
        let is_it = |kept: &Taking| kept.waiter.seat == *seat && kept.waiter.epoch == epoch;
        let limits = self.seats.iter().find(|kept| is_it(kept)).map(|kept| kept.waiter.limits.clone());
        self.seats.retain(|kept| !is_it(kept));
        self.pass(&limits.unwrap_or_default(), at)
    }

    pub fn look(&mut self, epoch: Epoch, limits: &[Arc<str>], at: Wall) -> Pass {
        let mut pass = self.pass(limits, at);
        pass.granted.retain(|&(owner, _)| owner != epoch);
        let has = self.seats.iter().filter(|kept| kept.has_seats && kept.waiter.epoch == epoch);
        pass.granted.extend(has.map(|kept| (epoch, kept.waiter.seat.clone())));
        pass
    }

    pub fn pause_at_least(&mut self, pause: &Pause) {
        let key = (pause.kind.name(), Arc::clone(&pause.name));
        let holds = self.pauses.get(&key).is_some_and(|kept| match (kept.until, pause.until) {
            (Until::Resumed, _) => true,
            (Until::At(kept), Until::At(wanted)) => kept >= wanted,
            (Until::At(_), Until::Resumed) => false,
        });
        if !holds {
            self.pauses.insert(key, pause.clone());
        }
    }

    pub fn hand_on(&mut self, epoch: Epoch, remnant: Option<Epoch>) {
        self.seats.retain(|kept| kept.waiter.epoch != epoch || kept.has_seats && remnant.is_some());
        let left = self.seats.iter_mut().filter(|kept| kept.waiter.epoch == epoch);
        left.for_each(|kept| kept.waiter.epoch = remnant.unwrap_or(epoch));
    }

    pub fn retain(&mut self, lives: impl Fn(Epoch) -> bool) {
        self.seats.retain(|kept| lives(kept.waiter.epoch));
    }

    /// How many have a seat of a limit.
    pub fn taken(&self, limit: &str) -> usize {
        let has = |kept: &&Taking| kept.has_seats && kept.waiter.limits.iter().any(|name| **name == *limit);
        self.seats.iter().filter(has).count()
    }

    /// Whether an attempt has a seat of a limit.
    #[allow(dead_code, reason = "the races ask nothing of it")]
    pub fn has(&self, limit: &str, seat: &Seat) -> bool {
        let is_it = |kept: &Taking| kept.has_seats && kept.waiter.seat == *seat;
        self.seats.iter().any(|kept| is_it(kept) && kept.waiter.limits.iter().any(|name| **name == *limit))
    }

    /// Whether nobody has a seat, or waits for one.
    #[allow(dead_code, reason = "the races ask nothing of it")]
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    fn pass(&mut self, limits: &[Arc<str>], at: Wall) -> Pass {
        let Ok(pass) = grant(self, limits, at);
        pass
    }
}

impl Table for SeatTable {
    type Error = Infallible;

    fn standing(&mut self, limit: &str) -> Result<Option<Standing>, Infallible> {
        let taken = self.taken(limit) as u64;
        let paused = self.pauses.get(&(Kind::Limit.name(), limit.into())).map(|pause| pause.until);
        let standing =
            |row: &Row| Standing { terms: row.set.unwrap_or(row.declared), taken, stamp: row.stamp, paused };
        Ok(self.limits.get(limit).map(standing))
    }

    fn waiting(
        &mut self,
        limit: &str,
        behind: Option<(Priority, i64)>,
    ) -> Result<Option<Waiter>, Infallible> {
        let order = |place: (Priority, i64)| (Reverse(place.0), place.1);
        let waits = |kept: &&Taking| {
            let is_behind = behind.is_none_or(|behind| order(kept.waiter.place) > order(behind));
            !kept.has_seats && is_behind && kept.waiter.limits.iter().any(|name| **name == *limit)
        };
        let first = self.seats.iter().filter(waits).min_by_key(|kept| order(kept.waiter.place));
        Ok(first.map(|kept| kept.waiter.clone()))
    }

    fn grant(&mut self, waiter: &Waiter, _: Wall) -> Result<(), Infallible> {
        let granted = self.seats.iter_mut().filter(|kept| kept.waiter.seat == waiter.seat);
        granted.for_each(|kept| kept.has_seats = true);
        Ok(())
    }

    fn stamp(&mut self, limit: &str, stamp: Wall) -> Result<(), Infallible> {
        self.limits.entry(limit.into()).or_default().stamp = Some(stamp);
        Ok(())
    }
}
