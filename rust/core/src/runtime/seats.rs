//! Attempts that wait for seats of limits: without a permit, so that others run meanwhile.
//! Invariant: whose body rests gets no permit before it has its seats again.

use crate::engine::{Event, Job};
use crate::port::Stored;
use crate::runtime::jobs::JobState;
use crate::runtime::park::lock;
use crate::runtime::{Runtime, Shared};
use crate::seat::{Kind, Pause, Terms, Until};
use crate::workflow::Executor;

/// Whether an attempt that rests has said that it wants to go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seatless {
    pub(super) has_asked: bool,
    /// It does not wait here: it is called once it may.
    pub(super) is_pumped: bool,
}

impl JobState {
    /// Whether an attempt that wants to go on needs its seats first.
    pub(super) fn lacks_seats(&self, job: Job) -> bool {
        !self.closed && self.seatless.contains_key(&job)
    }
}

impl Runtime {
    /// What a limit allows from now on, here and elsewhere; none goes back to what programs declare. False if there is no such limit.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store, as of all these.
    pub fn set_limit(&self, name: &str, terms: Option<Terms>) -> Stored<bool> {
        let done = self.shared.store.set_limit(name, terms)?;
        self.seats_moved();
        Ok(done)
    }

    /// Holds something up. False if it is a key of a workflow that has none.
    pub fn pause(&self, kind: Kind, name: &str, key: &str, until: Until, by: &str) -> Stored<bool> {
        let since = self.now().wall;
        if kind == Kind::Key && self.shared.works {
            // What is declared here may not be known there yet.
            self.shared.tell_limits();
        }
        let pause = Pause { kind, name: name.into(), key: key.into(), until, since, by: by.into() };
        let done = self.shared.store.pause(&pause)?;
        self.seats_moved();
        Ok(done)
    }

    /// Holds it up no longer; false if it was not.
    pub fn resume(&self, kind: Kind, name: &str, key: &str) -> Stored<bool> {
        let done = self.shared.store.resume(kind, name, key, self.now().wall)?;
        self.seats_moved();
        Ok(done)
    }

    fn seats_moved(&self) {
        self.shared.read_pauses();
        self.shared.look_for_seats();
        self.shared.ask_for_limited();
        self.wake_others();
    }
}

impl Shared {
    /// An attempt whose body rests wants to go on.
    pub(super) fn want_seats(&self, job: Job, is_pumped: bool) {
        let mut jobs = lock(&self.jobs);
        let Some(seatless) = jobs.seatless.get_mut(&job) else { return };
        seatless.is_pumped |= is_pumped;
        let is_new = !std::mem::replace(&mut seatless.has_asked, true);
        drop(jobs);
        if is_new {
            self.step(Event::WantsSeats(job));
            let mut jobs = lock(&self.jobs);
            if jobs.seatless.contains_key(&job) {
                // A clock that is moved by hand may have to go on before it has them.
                jobs.resuming.remove(&job);
            }
        }
    }

    pub(super) fn change_seats(
        &self,
        unseated: Vec<(Executor, Job)>,
        seatless: Vec<Job>,
        reseated: Vec<Job>,
    ) {
        let mut jobs = lock(&self.jobs);
        for (executor, _) in unseated {
            jobs.lane(executor).taken -= 1;
        }
        for job in seatless {
            jobs.seatless.insert(job, Seatless::default());
        }
        let goes_on = !reseated.is_empty();
        for job in reseated {
            let Some(seatless) = jobs.seatless.remove(&job) else { continue };
            let Some(&executor) = jobs.away.get(&job) else { continue };
            jobs.resuming.insert(job);
            if seatless.is_pumped {
                jobs.lane(executor).regaining.push_back(job);
            }
        }
        if goes_on {
            self.permits_wake.notify_all();
        }
        self.call_for_regainer(&jobs);
        let calls = self.call(&mut jobs);
        drop(jobs);
        calls.iter().for_each(|waker| waker.wake());
    }

    /// What is paused, before anything begins by what is known of that. What cannot be read now is read with the next news.
    pub(super) fn read_pauses(&self) {
        if let Ok(pauses) = self.store.pauses(self.now().wall) {
            self.step(Event::Paused(pauses));
        }
    }

    /// Others may have given seats to attempts that wait here, or set some free.
    pub(super) fn look_for_seats(&self) {
        let waits = lock(&self.engine).waits_for_seats();
        if waits {
            self.step(Event::SeatsMoved);
        }
    }
}
