//! What is counted for who watches a runner from outside. Decides nothing.
//! Invariant: to ask costs the engine and the poller a copy of so many names at most, and nothing is reset by it.

use std::sync::Arc;

use crate::engine::{CallCounts, Counted, Counts};
use crate::meter::{Durations, Named};
use crate::poll::{PollCounts, PollMeter};
use crate::runtime::Runtime;
use crate::runtime::park::lock;

/// What the threads around the engine count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Doings {
    /// How long each commit took.
    pub commits: Durations,
    /// So many changes were in them.
    pub changes: u64,
    /// So often the store did not take them at once.
    pub refusals: u64,
    /// Runs that were taken over from runners that are gone.
    pub taken_over: u64,
}

/// All that a runner counts, since the start.
#[derive(Debug, Clone)]
pub struct Metered {
    /// Of polls.
    pub polls: PollCounts,
    /// The same by triggers, and how long they took.
    pub poll_meter: PollMeter,
    /// Of what followed.
    pub counts: Counts,
    /// The same by names.
    pub counted: Counted,
    /// Of callbacks for ends of runs, by workflows that have some.
    pub calls: Named<Arc<str>, CallCounts>,
    /// Of the threads.
    pub doings: Doings,
    /// Runs in hand now.
    pub in_hand: usize,
    /// Bodies that run now, and that nobody waits for.
    pub overdue: usize,
}

impl Runtime {
    /// What was counted since the start. Call detached.
    pub fn metered(&self) -> Metered {
        let (polls, poll_meter) = {
            let polls = lock(&self.shared.polls);
            (polls.poller.counts(), polls.poller.meter())
        };
        let calls = lock(&self.shared.tellings).calls().clone();
        let doings = *lock(&self.shared.doings);
        let engine = lock(&self.shared.engine);
        Metered {
            polls,
            poll_meter,
            counts: engine.counts(),
            counted: engine.counted().clone(),
            calls,
            doings,
            in_hand: engine.runs_unfinished(),
            overdue: engine.bodies_overdue(),
        }
    }
}
