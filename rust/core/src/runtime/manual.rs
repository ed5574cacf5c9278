//! A runner on a manual clock: it is moved to whatever is due next, and each time comes to rest first. Whoever comes to rest last moves it
//! on, so that a poll wakes nobody who has nothing to do with it.
//! Invariant: one thread at a time moves it, and only while nothing is due, running, or on its way to the store.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::engine::Job;
use crate::runtime::clock::Clock;
use crate::runtime::lanes::Lane;
use crate::runtime::park::{lock, wait_on};
use crate::runtime::{Runtime, Shared};
use crate::time::{Mono, Now};

/// While it moves, the liaison is told so often that its time may have come: its looks would hold up a clock that is always ahead of them.
const LIAISON_PAUSE: Duration = Duration::from_millis(5);

/// The same while it does: who brings it to its end tells so.
const MOVING_PAUSE: Duration = Duration::from_millis(1);

/// After so many looks at a clock that stands, and at the first, everybody is woken who may have missed what is due.
const LOOKS_STILL: u32 = 5;

/// Between two looks of who waits for a manual clock at whether it moves.
pub(super) const SETTLE_PAUSE: Duration = Duration::from_micros(200);

/// A move of a manual clock on its way, for [`Runtime::advanced`].
#[derive(Debug)]
pub struct Advance {
    target: Mono,
    patience: Duration,
    /// When its patience ends, unless the clock moves before.
    deadline: Instant,
    /// Where the clock was at the last look, and at how many it has not moved since.
    seen: Mono,
    still: u32,
    /// When the liaison was last told that its time may have come.
    told: Instant,
}

impl Runtime {
    /// Moves a manual clock by `span`, stopping wherever something is due; true once nothing is left to do at its new time, false
    /// if it stands still for longer than `patience`. Of the machine's clock it only waits for that.
    pub fn advance(&self, span: Duration, patience: Duration) -> bool {
        let mut advance = self.begin_advance(span, patience);
        let has_come = loop {
            if let Some(has_come) = self.advanced(&mut advance, patience) {
                break has_come;
            }
        };
        self.end_advance(advance);
        has_come
    }

    /// The same, for who looks at something else now and then. It is moved on until [`Runtime::end_advance`].
    pub fn begin_advance(&self, span: Duration, patience: Duration) -> Advance {
        if matches!(self.shared.clock, Clock::Manual(_)) {
            self.shared.lend(true);
        }
        let (seen, now) = (self.now().mono, Instant::now());
        self.shared.wake_liaison_if_due();
        Advance { target: seen.after(span), patience, deadline: now + patience, seen, still: 0, told: now }
    }

    /// Whether it has come to its new time and to rest there; none if neither that nor its patience has come to an end `within` so long.
    pub fn advanced(&self, advance: &mut Advance, within: Duration) -> Option<bool> {
        let until = Instant::now() + within;
        loop {
            let now = self.now().mono;
            if now >= advance.target || advance.told.elapsed() >= LIAISON_PAUSE {
                advance.told = Instant::now();
                self.shared.wake_liaison_if_due();
            }
            let mut pause = SETTLE_PAUSE;
            if now > advance.seen {
                pause = MOVING_PAUSE;
                (advance.seen, advance.still) = (now, 0);
                advance.deadline = Instant::now() + advance.patience;
            } else {
                if advance.still.is_multiple_of(LOOKS_STILL) {
                    self.shared.leader_wake.notify_all();
                    self.shared.wake_clock();
                }
                advance.still += 1;
                let is_there = now >= advance.target || !matches!(self.shared.clock, Clock::Manual(_));
                if is_there && self.shared.is_idle() {
                    return Some(true);
                }
                let mut shared = lock(&self.shared.target);
                *shared = advance.target.max(*shared);
                drop(shared);
                self.shared.move_on();
            }
            let jobs = lock(&self.shared.jobs);
            let looked = Instant::now();
            if jobs.closed || looked > advance.deadline {
                return Some(false);
            }
            if looked > until {
                return None;
            }
            drop(wait_on(&self.shared.closing_wake, jobs, Some(pause)));
        }
    }

    /// Leaves the clock where it is.
    pub fn end_advance(&self, _: Advance) {
        *lock(&self.shared.target) = Mono(0);
        if matches!(self.shared.clock, Clock::Manual(_)) {
            self.shared.lend(false);
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
        let timer = lock(&self.engine).next_wake(now).map(|left| now.mono.after(left));
        (poll, timer.into_iter().chain(lock(&self.tellings).next_due(now)).min())
    }

    /// Moves a clock that is being moved to what is due next, if nothing is left to do now; false if it stands. Call detached, by a thread
    /// that is about to wait for something to do.
    pub(super) fn move_on(&self) -> bool {
        let Clock::Manual(clock) = &self.clock else { return false };
        while self.write_lent() {}
        // Held to the end: who finds rest and moves on a moment later would move from a time that is past.
        let target = lock(&self.target);
        let now = self.now().mono;
        if now >= *target {
            if *target > Mono(0) && self.is_idle() {
                self.closing_wake.notify_all();
            }
            return false;
        }
        if !self.is_idle() {
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
            self.ends_came();
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
        let waits = |lane: &Lane| {
            let is_still = lane.ready.is_empty() && lane.recorded.is_empty();
            !(is_still && lane.regaining.is_empty() && lane.claims.is_empty())
        };
        let goes_on = !jobs.running.is_empty() || !jobs.resuming.is_empty();
        let works = goes_on || jobs.lanes.iter().any(waits);
        let away: Vec<Job> = jobs.away.keys().copied().collect();
        drop(jobs);
        // What waits for its condition hears in real time that it is to end, and has all of it for that.
        let ends = !away.is_empty() && away.iter().any(|&job| lock(&self.engine).is_in_grace(job));
        let is_due = self.due_asked.load(Ordering::Acquire) != self.due_done.load(Ordering::Acquire);
        // Who has not begun claims nothing, whatever asks for it.
        let is_claiming = self.ready.load(Ordering::Acquire) && (is_due || self.is_limited_asked());
        let looks = self.is_looking() || is_claiming;
        let writer = lock(&self.writer);
        let is_written = !writer.busy && writer.items.is_empty();
        drop(writer);
        let tells = !lock(&self.tellings).is_idle(now.wall) || self.is_ending_asked();
        !is_timer_due && !works && !ends && !looks && is_written && !tells
    }
}
