//! A runner on a manual clock: it is moved to whatever is due next, and each time comes to rest first.

use std::time::{Duration, Instant};

use crate::runtime::Runtime;
use crate::runtime::clock::Clock;
use crate::runtime::park::{lock, wait_on};
use crate::time::{Mono, Now};

/// Between two looks at whether a runner on a manual clock is idle.
pub(super) const SETTLE_PAUSE: Duration = Duration::from_micros(200);

impl Runtime {
    /// Moves a manual clock by `span`, stopping wherever something is due; true once nothing is left to do at its new time, false
    /// if that takes longer than `patience`. Of the machine's clock it only waits for that.
    pub fn advance(&self, span: Duration, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let target = self.now().mono.after(span);
        loop {
            if !self.settle(deadline) {
                return false;
            }
            let Clock::Manual(clock) = &self.shared.clock else { return true };
            let now = self.now().mono;
            if now >= target {
                return true;
            }
            let due = self.next_due().map_or(target, |due| due.clamp(now, target));
            let mut at = lock(clock);
            *at = Now { mono: due, wall: at.wall.after(due.since(now)) };
        }
    }

    /// When something is due next, be it a poll, a retry, a time-out or a cron.
    pub fn next_due(&self) -> Option<Mono> {
        let poll = lock(&self.shared.polls).poller.next_due();
        let now = self.now();
        let timer = lock(&self.shared.engine).next_wake(now).map(|left| now.mono.after(left));
        poll.into_iter().chain(timer).min()
    }

    /// Waits until nothing is due, running, or on its way to the store.
    pub(super) fn settle(&self, deadline: Instant) -> bool {
        loop {
            self.shared.leader_wake.notify_all();
            self.shared.wake_clock();
            self.shared.wake_liaison_if_due();
            if self.is_idle() {
                return true;
            }
            let jobs = lock(&self.shared.jobs);
            if jobs.closed || Instant::now() > deadline {
                return false;
            }
            drop(wait_on(&self.shared.closing_wake, jobs, Some(SETTLE_PAUSE)));
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        // Work goes from one place to another by a step only, and is in the one until it is in the other.
        let steps = self.shared.steps_at_rest();
        steps.is_some() && self.is_empty_handed() && self.shared.steps_at_rest() == steps
    }

    fn is_empty_handed(&self) -> bool {
        let now = self.now();
        let polls = lock(&self.shared.polls);
        let is_due = polls.poller.next_due().is_some_and(|due| due <= now.mono);
        if is_due || polls.poller.is_busy() {
            return false;
        }
        drop(polls);
        let is_timer_due = lock(&self.shared.engine).next_wake(now).is_some_and(|left| left.is_zero());
        let jobs = lock(&self.shared.jobs);
        let works = !jobs.ready.is_empty() || !jobs.running.is_empty();
        drop(jobs);
        let looks = self.shared.is_looking();
        let writer = lock(&self.shared.writer);
        !is_timer_due && !works && !looks && !writer.busy && writer.items.is_empty()
    }
}
