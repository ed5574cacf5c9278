//! A runner on a manual clock: it is moved to whatever is due next, and each time comes to rest first. Whoever comes to rest last moves it
//! on, so that a poll wakes nobody who has nothing to do with it.
//! Invariant: one thread at a time moves it, and only while nothing is due, running, or on its way to the store.

use std::time::{Duration, Instant};

use crate::runtime::clock::Clock;
use crate::runtime::park::{lock, wait_on};
use crate::runtime::{Runtime, Shared};
use crate::time::{Mono, Now};

/// Between two looks of who waits for a manual clock at whether it moves.
pub(super) const SETTLE_PAUSE: Duration = Duration::from_micros(200);

impl Runtime {
    /// Moves a manual clock by `span`, stopping wherever something is due; true once nothing is left to do at its new time, false
    /// if it stands still for longer than `patience`. Of the machine's clock it only waits for that.
    pub fn advance(&self, span: Duration, patience: Duration) -> bool {
        let has_come = self.has_come_to(self.now().mono.after(span), patience);
        *lock(&self.shared.target) = Mono(0);
        has_come
    }

    fn has_come_to(&self, target: Mono, patience: Duration) -> bool {
        let mut deadline = Instant::now() + patience;
        let mut seen = self.now().mono;
        loop {
            self.shared.wake_liaison_if_due();
            let now = self.now().mono;
            if now > seen {
                (seen, deadline) = (now, Instant::now() + patience);
            } else {
                // Nobody has moved it since the last look: somebody may have missed what is due.
                self.shared.leader_wake.notify_all();
                self.shared.wake_clock();
                let is_there = now >= target || !matches!(self.shared.clock, Clock::Manual(_));
                if is_there && self.shared.is_idle() {
                    return true;
                }
                let mut shared = lock(&self.shared.target);
                *shared = target.max(*shared);
                drop(shared);
                self.shared.move_on();
            }
            let jobs = lock(&self.shared.jobs);
            if jobs.closed || Instant::now() > deadline {
                return false;
            }
            drop(wait_on(&self.shared.closing_wake, jobs, Some(SETTLE_PAUSE)));
        }
    }

    /// When something is due next, be it a poll, a retry, a time-out or a cron.
    pub fn next_due(&self) -> Option<Mono> {
        let (poll, timer) = self.shared.next_due();
        poll.into_iter().chain(timer).min()
    }
}

impl Shared {
    /// The same, apart for polls and for the engine's timers.
    fn next_due(&self) -> (Option<Mono>, Option<Mono>) {
        let poll = lock(&self.polls).poller.next_due();
        let now = self.now();
        (poll, lock(&self.engine).next_wake(now).map(|left| now.mono.after(left)))
    }

    /// Moves a clock that is being moved to what is due next, if nothing is left to do now; false if it stands. Call detached, by a thread
    /// that is about to wait for something to do.
    pub(super) fn move_on(&self) -> bool {
        let Clock::Manual(clock) = &self.clock else { return false };
        // Held to the end: who finds rest and moves on a moment later would move from a time that is past.
        let target = lock(&self.target);
        let now = self.now().mono;
        if now >= *target || !self.is_idle() {
            return false;
        }
        let (poll, timer) = self.next_due();
        let due = poll.into_iter().chain(timer).min().map_or(*target, |due| due.clamp(now, *target));
        {
            let mut at = lock(clock);
            *at = Now { mono: due, wall: at.wall.after(due.since(now)) };
        }
        if timer.is_some_and(|timer| timer <= due) {
            self.wake_clock();
        }
        if lock(&self.polls).leader_until.is_some() {
            self.leader_wake.notify_all();
        }
        true
    }

    pub(super) fn is_idle(&self) -> bool {
        // Work goes from one place to another by a step only, and is in the one until it is in the other.
        let steps = self.steps_at_rest();
        steps.is_some() && self.is_empty_handed() && self.steps_at_rest() == steps
    }

    fn is_empty_handed(&self) -> bool {
        let now = self.now();
        let polls = lock(&self.polls);
        let is_due = polls.poller.next_due().is_some_and(|due| due <= now.mono);
        if is_due || polls.poller.is_busy() {
            return false;
        }
        drop(polls);
        let is_timer_due = lock(&self.engine).next_wake(now).is_some_and(|left| left.is_zero());
        let jobs = lock(&self.jobs);
        let works = !jobs.ready.is_empty() || !jobs.running.is_empty();
        drop(jobs);
        let looks = self.is_looking();
        let writer = lock(&self.writer);
        !is_timer_due && !works && !looks && !writer.busy && writer.items.is_empty()
    }
}
