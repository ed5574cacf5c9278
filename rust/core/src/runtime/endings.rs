//! Tells triggers of the ends of runs that they are declared for: of each the first, until its tick is kept.
//! Invariant: who sees that nothing is asked for finds what was told in the poller.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::key::ScheduleKey;
use crate::poll::Plan;
use crate::port::{Ending, Stored};
use crate::runtime::park::{Mutex, lock};
use crate::runtime::{Runtime, Shared};

/// Ends that other processes wrote down are looked for so often.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Default)]
pub(super) struct Endings {
    /// Whether a trigger that is to be told of ends was declared here.
    is_open: AtomicBool,
    /// How often there may have been something to tell, and up to which of these it was looked for.
    asked: AtomicU64,
    done: AtomicU64,
    looked: Mutex<Option<Instant>>,
}

impl Endings {
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Until the next look, if nothing comes up.
    pub(super) fn pause(&self) -> Duration {
        if self.is_open() { LOOK_EVERY } else { Duration::MAX }
    }
}

impl Runtime {
    /// The end of a run that the poll in flight in that place is about; none if there is none to tell of, by now.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    pub fn ending_in(&self, place: u32) -> Stored<Option<Ending>> {
        let told = lock(&self.shared.polls).poller.tick_state(place).ending;
        let Some(told) = told else { return Ok(None) };
        let found = self.shared.store.ending(told.key)?;
        if found.is_none() {
            lock(&self.shared.polls).poller.forget_ends(place);
        }
        Ok(found)
    }
}

impl Shared {
    /// A trigger is declared that is polled like this.
    pub(super) fn listens(&self, plan: &Plan) {
        if plan.by_ends {
            self.endings.is_open.store(true, Ordering::Release);
        }
    }

    /// There may be an end more of which a trigger is to be told.
    pub(super) fn endings_came(&self) {
        if self.endings.is_open() {
            self.endings.asked.fetch_add(1, Ordering::AcqRel);
            self.wake_liaison();
        }
    }

    /// Whether that was said and nobody has looked since. Before a runner is ready none of its triggers is told anything.
    pub(super) fn is_ending_asked(&self) -> bool {
        let Endings { asked, done, .. } = &self.endings;
        self.ready.load(Ordering::Acquire) && asked.load(Ordering::Acquire) != done.load(Ordering::Acquire)
    }

    /// Looks for ends, if there may be some, and gives them to the poller.
    pub(super) fn look_for_endings(&self) {
        let asked = self.endings.asked.load(Ordering::Acquire);
        let is_time = lock(&self.endings.looked).is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        let is_asked = asked != self.endings.done.load(Ordering::Acquire);
        if !self.endings.is_open() || !(is_asked || is_time) {
            return;
        }
        *lock(&self.endings.looked) = Some(Instant::now());
        // What the store does not tell now is asked for again after the pause.
        let Ok(found) = self.store.endings(self.epoch) else { return };
        if !found.is_empty() {
            let now = self.now().mono;
            let mut polls = lock(&self.polls);
            found.into_iter().for_each(|ending| polls.poller.tell(ending, now));
            drop(polls);
            self.wake_pollers();
        }
        self.endings.done.store(asked, Ordering::Release);
    }

    /// The same of one trigger, for a poll of it that is to be made now.
    pub(super) fn look_for_ending_of(&self, schedule: ScheduleKey) {
        let is_told = {
            let polls = lock(&self.polls);
            polls.poller.place_of(schedule).is_some_and(|place| polls.poller.is_by_ends(place))
        };
        if is_told && let Ok(Some(ending)) = self.store.ending_of(schedule) {
            let now = self.now().mono;
            lock(&self.polls).poller.tell(ending, now);
        }
    }
}
