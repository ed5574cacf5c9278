//! Which attempts of tasks may begin under the named limits that they stand under. Pure: where limits and seats are kept is the table's affair.
//! Invariant: an attempt has a seat of each of its limits, or of none.

use std::collections::HashMap;
use std::fmt::{Display, Formatter};
use std::sync::Arc;

use crate::key::{Epoch, RunRow};
use crate::limit::{Rate, Turn};
use crate::time::Wall;
use crate::urgency::Priority;

/// So many that wait for another limit, too, are passed over for those behind them.
const PASSED_MAX: usize = 1000;

/// What a limit allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// So many attempts at once.
    pub concurrency: Option<u64>,
    /// How fast they may begin.
    pub throttle: Option<Rate>,
}

impl Terms {
    /// Whether it allows everything.
    pub fn is_empty(&self) -> bool {
        self.concurrency.is_none() && self.throttle.is_none()
    }
}

impl Display for Terms {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            return write!(f, "no bound");
        }
        if let Some(concurrency) = self.concurrency {
            write!(f, "{concurrency} at once")?;
        }
        if let Some(Rate { limit, per, burst }) = self.throttle {
            let separator = if self.concurrency.is_some() { " and " } else { "" };
            write!(f, "{separator}{limit} each {per:?}")?;
            if burst > 1 {
                write!(f, " in bursts of {burst}")?;
            }
        }
        Ok(())
    }
}

/// A limit as a program declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// What all that share it call it.
    pub name: Arc<str>,
    /// What it allows.
    pub terms: Terms,
}

/// A declaration that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differs {
    /// The limit's name.
    pub name: Arc<str>,
    /// What was declared.
    pub declared: Terms,
    /// What holds.
    pub set: Terms,
}

/// An attempt of a task, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Seat {
    /// The run's row.
    pub run: RunRow,
    /// The task's id in its workflow.
    pub task: Arc<str>,
    /// Which attempt of it.
    pub attempt: u32,
}

/// An attempt that may not begin, or go on, before it has a seat of each of its limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// Which.
    pub seat: Seat,
    /// The lease under which its run is driven.
    pub epoch: Epoch,
    /// The names of the limits.
    pub limits: Arc<[Arc<str>]>,
    /// Its run's.
    pub priority: Priority,
    /// Since when.
    pub at: Wall,
}

/// Until when something is held up by hand, or by a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// That instant.
    At(Wall),
    /// Somebody takes it back.
    Resumed,
}

impl Until {
    /// The instant, if it is known.
    pub fn instant(self) -> Option<Wall> {
        match self {
            Self::At(at) => Some(at),
            Self::Resumed => None,
        }
    }

    /// Whether it is over.
    pub fn is_over(self, at: Wall) -> bool {
        self.instant().is_some_and(|until| until <= at)
    }
}

impl Gate {
    /// When it opens by itself, if that is known.
    fn instant(&self) -> Option<Wall> {
        match self {
            Self::At(instant) => Some(*instant),
            Self::Open | Self::Shut => None,
        }
    }
}

/// What is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A workflow: no run of it begins.
    Workflow,
    /// A limit with a name: no attempt under it begins.
    Limit,
    /// A value of a workflow's key: no run of the workflow begins that its limits count for that.
    Key,
}

impl Kind {
    /// The public name, also kept in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Workflow => "workflow",
            Self::Limit => "limit",
            Self::Key => "key",
        }
    }

    /// The kind of that public name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Workflow, Self::Limit, Self::Key].into_iter().find(|kind| kind.name() == name)
    }
}

/// Something is not to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// What.
    pub kind: Kind,
    /// Its name; of a key that of the workflow.
    pub name: Arc<str>,
    /// The value of a key; empty of all else.
    pub key: Arc<str>,
    /// Until when.
    pub until: Until,
    /// Since when.
    pub since: Wall,
    /// By whom, in words.
    pub by: Arc<str>,
}

/// A limit as listings show it.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedLimit {
    /// Its name.
    pub name: String,
    /// What it allows.
    pub terms: Terms,
    /// What was declared last.
    pub declared: Terms,
    /// Whether that was set by hand.
    pub is_set: bool,
    /// So many attempts have a seat.
    pub taken: u64,
    /// So many wait for one.
    pub waiting: u64,
    /// Since when the first of them does.
    pub waits_since: Option<Wall>,
    /// Where it is paused.
    pub pause: Option<Pause>,
    /// When one more may begin, as far as its throttle goes.
    pub next_at: Option<Wall>,
}

/// Where a limit stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// What it allows now.
    pub terms: Terms,
    /// So many attempts have a seat of it.
    pub taken: u64,
    /// What the last one that began left for its throttle.
    pub stamp: Option<Wall>,
    /// Whether it is paused.
    pub paused: Option<Until>,
}

/// Whether a limit lets one more begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Yes.
    Open,
    /// Not before then, by its throttle or a pause.
    At(Wall),
    /// Not before one of its seats is free or somebody takes a pause back.
    Shut,
}

impl Standing {
    /// Whether one more may begin at `at`.
    pub fn gate(&self, at: Wall) -> Gate {
        match self.paused.filter(|until| !until.is_over(at)) {
            Some(Until::At(until)) => return Gate::At(until),
            Some(Until::Resumed) => return Gate::Shut,
            None => {}
        }
        if self.terms.concurrency.is_some_and(|most| self.taken >= most) {
            return Gate::Shut;
        }
        match self.terms.throttle.map(|rate| rate.turn(self.stamp, at)) {
            Some(Turn::At(instant)) => Gate::At(instant),
            Some(Turn::Now(_)) | None => Gate::Open,
        }
    }

    /// One more begins at `at`.
    fn take(&mut self, at: Wall) {
        self.taken += 1;
        if let Some(Turn::Now(stamp)) = self.terms.throttle.map(|rate| rate.turn(self.stamp, at)) {
            self.stamp = Some(stamp);
        }
    }

    /// The stamp as it counts at `at`, if that is not what is kept.
    fn put_right(&mut self, at: Wall) -> Option<Wall> {
        let stamp = self.stamp?;
        let kept = self.terms.throttle?.cut(stamp, at);
        self.stamp = Some(kept);
        (kept != stamp).then_some(kept)
    }
}

/// One that waits for seats.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiter {
    /// Which attempt.
    pub seat: Seat,
    /// Whose it is.
    pub epoch: Epoch,
    /// Its limits, by name in order.
    pub limits: Vec<Arc<str>>,
    /// Its place: higher ones go first, and of equal ones the lower number.
    pub place: (Priority, i64),
}

/// Where limits and seats are kept.
pub trait Table {
    /// Why it cannot be read or written.
    type Error;
    /// Where a limit stands; none if there is no such limit any more, which then holds up nothing.
    fn standing(&mut self, limit: &str) -> Result<Option<Standing>, Self::Error>;
    /// The first that waits for a limit, or the first behind that place.
    fn waiting(
        &mut self,
        limit: &str,
        behind: Option<(Priority, i64)>,
    ) -> Result<Option<Waiter>, Self::Error>;
    /// It has its seats from `at` on.
    fn grant(&mut self, waiter: &Waiter, at: Wall) -> Result<(), Self::Error>;
    /// Keeps the stamp of a limit's throttle.
    fn stamp(&mut self, limit: &str, stamp: Wall) -> Result<(), Self::Error>;
}

/// What became of those that waited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    /// Who has seats now, and whose they are.
    pub granted: Vec<(Epoch, Seat)>,
    /// When the next one may have some without anybody's doing, and whose that is.
    pub next: Option<(Wall, Epoch)>,
}

/// Gives what is free of these limits to those that wait for it: the most urgent first, and of one priority who came first. Who waits for
/// another limit, too, is passed over while that is shut.
///
/// # Errors
/// Those of the table.
pub fn grant<T: Table>(table: &mut T, limits: &[Arc<str>], at: Wall) -> Result<Pass, T::Error> {
    let mut pass = Pass::default();
    let mut known = Known { table, standings: HashMap::new(), at };
    for limit in limits {
        let (mut behind, mut passed) = (None, 0);
        while passed < PASSED_MAX
            && let Some(waiter) = known.table.waiting(limit, behind)?
        {
            let gates = waiter.limits.iter().map(|name| known.gate(name)).collect::<Result<Vec<_>, _>>()?;
            if gates.iter().all(|gate| *gate == Gate::Open) {
                known.take(&waiter)?;
                pass.granted.push((waiter.epoch, waiter.seat));
                continue;
            }
            let opens = gates.iter().filter_map(Gate::instant).map(|instant| (instant, waiter.epoch));
            pass.next = opens.chain(pass.next).min();
            if known.gate(limit)? != Gate::Open {
                break;
            }
            (behind, passed) = (Some(waiter.place), passed + 1);
        }
    }
    Ok(pass)
}

/// What a pass has read, and what it has made of that.
struct Known<'t, T> {
    table: &'t mut T,
    standings: HashMap<Arc<str>, Option<Standing>>,
    at: Wall,
}

impl<T: Table> Known<'_, T> {
    fn gate(&mut self, limit: &Arc<str>) -> Result<Gate, T::Error> {
        if let Some(standing) = self.standings.get(limit) {
            return Ok(standing.map_or(Gate::Open, |standing| standing.gate(self.at)));
        }
        let mut standing = self.table.standing(limit)?;
        if let Some(stamp) = standing.as_mut().and_then(|standing| standing.put_right(self.at)) {
            self.table.stamp(limit, stamp)?;
        }
        self.standings.insert(Arc::clone(limit), standing);
        Ok(standing.map_or(Gate::Open, |standing| standing.gate(self.at)))
    }

    fn take(&mut self, waiter: &Waiter) -> Result<(), T::Error> {
        self.table.grant(waiter, self.at)?;
        for name in &waiter.limits {
            let Some(Some(standing)) = self.standings.get_mut(name) else { continue };
            let before = standing.stamp;
            standing.take(self.at);
            if let Some(stamp) = standing.stamp.filter(|_| standing.stamp != before) {
                self.table.stamp(name, stamp)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Those that wait and those that have seats, in the order in which they came.
    #[derive(Default)]
    struct Room {
        standings: HashMap<String, Standing>,
        waiting: Vec<Waiter>,
    }

    impl Room {
        fn with(limit: &str, terms: Terms) -> Self {
            let standing = Standing { terms, ..Standing::default() };
            Self { standings: HashMap::from([(limit.to_owned(), standing)]), waiting: Vec::new() }
        }

        fn wait(&mut self, number: u32, priority: i64, limits: &[&str]) {
            let seat = Seat { run: RunRow(1), task: "call".into(), attempt: number };
            let priority = Priority::new(priority).unwrap();
            let limits = limits.iter().map(|&name| name.into()).collect();
            self.waiting.push(Waiter { seat, epoch: Epoch(1), limits, place: (priority, i64::from(number)) });
        }

        /// The numbers of those that begin, and when to look again.
        fn pass(&mut self, limits: &[&str], at: i64) -> (Vec<u32>, Option<i64>) {
            let limits: Vec<Arc<str>> = limits.iter().map(|&name| name.into()).collect();
            let Ok(pass) = grant(self, &limits, Wall(at));
            (pass.granted.iter().map(|(_, seat)| seat.attempt).collect(), pass.next.map(|(next, _)| next.0))
        }
    }

    impl Table for Room {
        type Error = Infallible;

        fn standing(&mut self, limit: &str) -> Result<Option<Standing>, Infallible> {
            Ok(self.standings.get(limit).copied())
        }

        fn waiting(
            &mut self,
            limit: &str,
            behind: Option<(Priority, i64)>,
        ) -> Result<Option<Waiter>, Infallible> {
            let order = |place: (Priority, i64)| (std::cmp::Reverse(place.0), place.1);
            let waits = |waiter: &&Waiter| {
                let is_behind = behind.is_none_or(|behind| order(waiter.place) > order(behind));
                is_behind && waiter.limits.iter().any(|name| **name == *limit)
            };
            Ok(self.waiting.iter().filter(waits).min_by_key(|waiter| order(waiter.place)).cloned())
        }

        fn grant(&mut self, granted: &Waiter, _: Wall) -> Result<(), Infallible> {
            self.waiting.retain(|waiter| waiter != granted);
            for name in &granted.limits {
                self.standings.entry(name.to_string()).or_default().taken += 1;
            }
            Ok(())
        }

        fn stamp(&mut self, limit: &str, stamp: Wall) -> Result<(), Infallible> {
            self.standings.entry(limit.to_owned()).or_default().stamp = Some(stamp);
            Ok(())
        }
    }

    fn seats(concurrency: u64) -> Terms {
        Terms { concurrency: Some(concurrency), throttle: None }
    }

    fn paced(limit: u64, burst: u64) -> Terms {
        let per = std::time::Duration::from_micros(1000);
        Terms { concurrency: None, throttle: Some(Rate { limit, per, burst }) }
    }

    #[test]
    fn seats_go_to_the_most_urgent_and_of_those_to_who_came_first() {
        let mut room = Room::with("api", seats(2));
        [(1, 5), (2, 9), (3, 5)]
            .into_iter()
            .for_each(|(number, priority)| room.wait(number, priority, &["api"]));
        assert_eq!(room.pass(&["api"], 0), (vec![2, 1], None));
        assert_eq!(room.pass(&["api"], 1), (vec![], None));
        room.standings.get_mut("api").unwrap().taken -= 1;
        assert_eq!(room.pass(&["api"], 2), (vec![3], None));
    }

    #[test]
    fn a_throttle_says_when_the_next_one_may_begin() {
        let mut room = Room::with("api", paced(1, 2));
        (1..=4).for_each(|number| room.wait(number, 5, &["api"]));
        assert_eq!(room.pass(&["api"], 0), (vec![1, 2], Some(1000)));
        assert_eq!(room.pass(&["api"], 999), (vec![], Some(1000)));
        assert_eq!(room.pass(&["api"], 1000), (vec![3], Some(2000)));
        assert_eq!(room.pass(&["api"], 9000), (vec![4], None));
    }

    #[test]
    fn a_stamp_of_a_clock_that_was_ahead_is_put_right_once() {
        let mut room = Room::with("api", paced(1, 1));
        room.standings.get_mut("api").unwrap().stamp = Some(Wall(1_000_000_000));
        room.wait(1, 5, &["api"]);
        assert_eq!(room.pass(&["api"], 0), (vec![], Some(1000)));
        assert_eq!(room.pass(&["api"], 1000), (vec![1], None));
    }

    #[test]
    fn who_needs_two_limits_takes_both_or_none_and_holds_up_nobody() {
        let mut room = Room::with("api", seats(1));
        room.standings
            .insert("disk".to_owned(), Standing { terms: seats(1), taken: 1, ..Standing::default() });
        room.wait(1, 5, &["api", "disk"]);
        room.wait(2, 5, &["api"]);
        assert_eq!(room.pass(&["api"], 0), (vec![2], None));
        for name in ["api", "disk"] {
            room.standings.get_mut(name).unwrap().taken = 0;
        }
        assert_eq!(room.pass(&["disk"], 1), (vec![1], None));
        assert_eq!(room.standings["api"].taken, 1);
    }

    #[test]
    fn a_pause_holds_up_until_it_is_over_or_taken_back() {
        let mut room = Room::with("api", seats(1));
        room.wait(1, 5, &["api"]);
        room.standings.get_mut("api").unwrap().paused = Some(Until::Resumed);
        assert_eq!(room.pass(&["api"], 0), (vec![], None));
        room.standings.get_mut("api").unwrap().paused = Some(Until::At(Wall(7)));
        assert_eq!(room.pass(&["api"], 6), (vec![], Some(7)));
        assert_eq!(room.pass(&["api"], 7), (vec![1], None));
    }

    #[test]
    fn a_limit_that_nobody_knows_holds_up_nothing() {
        let mut room = Room::default();
        room.wait(1, 5, &["gone"]);
        assert_eq!(room.pass(&["gone"], 0), (vec![1], None));
    }
}
