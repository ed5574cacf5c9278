//! Bodies that are to end, and those that did not.
//! Invariant: whoever leaves keeps the runs of bodies that still run, whether or not somebody waits for them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::engine::{Event, Job, Note};
use crate::runtime::jobs::JobState;
use crate::runtime::keeper::Order;
use crate::runtime::park::lock;
use crate::runtime::{Runtime, Shared};

impl Runtime {
    /// How many bodies run for which nobody waits.
    pub fn bodies_overdue(&self) -> usize {
        lock(&self.shared.engine).bodies_overdue()
    }

    /// Whether an attempt's end would still count. As long as others may take this runner for dead, it may not.
    pub fn is_current(&self, job: Job) -> bool {
        if self.is_silent() {
            return false;
        }
        let engine = lock(&self.shared.engine);
        let is_over =
            self.shared.is_over.load(Ordering::Acquire) || self.shared.has_given_in.load(Ordering::Acquire);
        !is_over && engine.expects(job)
    }

    /// Whether an attempt's body is to end: nobody waits for it, its time is over, its run's end was asked for, the runner closes,
    /// or others may take it for dead.
    pub fn is_to_end(&self, job: Job) -> bool {
        let (is_waited_for, is_told) = self.attempt_stands(job);
        !is_waited_for || is_told || self.shared.closing.load(Ordering::Acquire) || self.is_silent()
    }
}

impl JobState {
    /// A body is home, whether or not it was given up.
    pub(super) fn overdue_home(&mut self, job: Job) {
        if self.overdue.is_empty() {
            return;
        }
        if let Some(executor) = self.overdue.remove(&job) {
            let lane = self.lane(executor);
            lane.overdue -= 1;
            let is_full = lane.overdue >= lane.overdue_max;
            self.is_overdue_told &= is_full;
        }
    }
}

impl Shared {
    /// While others may take this runner for dead nothing begins, and bodies are told to end. How long it is until they may; asks no database.
    pub(super) fn heed_silence(&self) -> Option<Duration> {
        let left = self.store.silent_in(self.epoch)?;
        if !left.is_zero() {
            self.break_silence();
            return Some(left);
        }
        let in_flight: Vec<Job> = {
            let mut jobs = lock(&self.jobs);
            jobs.hush(true);
            jobs.in_flight().copied().collect()
        };
        if !in_flight.is_empty() {
            self.step(Event::CutOff(in_flight));
        }
        None
    }

    /// Bodies are to end, and others have not.
    pub(super) fn tell_bodies(&self, told: Vec<(Job, Option<Note>)>, overdue: Vec<Job>) {
        let mut jobs = lock(&self.jobs);
        for (job, note) in told {
            let Some(executor) = jobs.place(job) else { continue };
            let lane = jobs.lane(executor);
            // Who has no waker runs bodies that can only be told.
            if lane.waker.is_none() {
                self.order(Order::Tell(job, note));
            } else {
                lane.stopped.push(job);
                note.into_iter().for_each(|note| self.order(Order::Log(note)));
            }
        }
        for job in overdue {
            let Some(executor) = jobs.place(job) else { continue };
            jobs.give_back(job);
            jobs.resuming.remove(&job);
            jobs.seatless.remove(&job);
            if jobs.away.remove(&job).is_some() {
                jobs.lane(executor).forgo(job);
            }
            jobs.overdue.insert(job, executor);
            let lane = jobs.lane(executor);
            lane.overdue += 1;
            let (count, is_full) = (lane.overdue, lane.overdue >= lane.overdue_max);
            if is_full && !std::mem::replace(&mut jobs.is_overdue_told, true) {
                self.order(Order::Log(Note::BodiesOverdue { count }));
            }
            self.call_for_regainer(&jobs);
        }
        let calls = self.call(&mut jobs);
        drop(jobs);
        calls.iter().for_each(|waker| waker.wake());
    }
}
