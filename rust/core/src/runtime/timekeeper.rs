//! The thread that moves the engine's clock: retries, time-outs and crons.
//! Invariant: it never asks the store, so that no lock of a file and no slow disk puts off what is due.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::engine::Event;
use crate::runtime::Shared;
use crate::runtime::park::{lock, wait_on};

/// A jump of the wall clock is noticed after at most so long.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Shared {
    /// The timekeeper.
    pub(super) fn keep_time(&self) {
        // Also while the runner drains: what takes too long then still has its time-out.
        while !self.is_stopped.load(Ordering::Acquire) {
            self.step(Event::Clock);
            let silent_in = self.heed_silence();
            self.look_at_flights();
            self.send_logged();
            self.move_on();
            self.sleep(silent_in.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY)));
        }
    }

    /// Sleeps until a timer is due, at most `span`; whoever arms a timer before that wakes the timekeeper.
    pub(super) fn sleep(&self, span: Duration) {
        let left = {
            let now = self.now();
            let engine = lock(&self.engine);
            let left = engine.next_wake(now).unwrap_or(span).min(span);
            self.clock_until_ns.store(now.mono.after(left).0, Ordering::Release);
            left
        };
        let dirty = lock(&self.clock_dirty);
        let nap = self.clock.nap(left);
        let mut dirty = if *dirty { dirty } else { wait_on(&self.clock_wake, dirty, nap) };
        *dirty = false;
    }

    pub(super) fn wake_clock(&self) {
        let mut dirty = lock(&self.clock_dirty);
        if !*dirty {
            *dirty = true;
            self.clock_wake.notify_one();
        }
    }
}
