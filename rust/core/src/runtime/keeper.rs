//! Orders to the keeper, a thread made by Python that starts the others and writes log lines.
//! Invariant: nothing here waits for Python.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::engine::{Job, Note};
use crate::runtime::park::{lock, wait_on};
use crate::runtime::{Runtime, Shared};

/// Log lines that wait for the keeper; more are counted and dropped.
pub(super) const LOG_LINES_MAX: usize = 10_000;

/// A failed poll of a trigger whose program wants to hear of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedPoll {
    /// The trigger's place.
    pub place: u32,
    /// What went wrong, as the history shows it.
    pub error: Arc<str>,
    /// So many polls in a row have failed with this one.
    pub failures: u32,
    /// Why the trigger is switched off, if it is.
    pub disabled: Option<Arc<str>>,
}

/// What the keeper, a thread made by Python, is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Write this to the user's log.
    Log(Note),
    /// Tell the program that a poll of its trigger failed.
    PollFailed(FailedPoll),
    /// Stop the body of this trigger's poll, which is over its time.
    StopPoll {
        /// The trigger's place.
        place: u32,
        /// Which of its polls.
        serial: u32,
    },
    /// Tell the body of this attempt to end, and write this to the user's log with where it is.
    Tell(Job, Option<Note>),
    /// Start another thread that takes jobs.
    SpawnWorker,
    /// Start another thread that polls.
    SpawnPoller,
    /// The runner is closed.
    Close,
}

#[derive(Default)]
pub(super) struct Orders {
    pub(super) queue: VecDeque<Order>,
    pub(super) dropped: u64,
    /// So many failed polls were given to the keeper.
    pub(super) failures: u64,
    /// How many orders there were in all.
    given: u64,
    /// How many of them the keeper has come back from.
    carried_out: u64,
}

impl Runtime {
    /// Whether somebody reads what is said at [`Level::Debug`](crate::engine::Level::Debug). Call detached.
    pub fn tell_debug(&self, tells: bool) {
        if self.shared.tells_debug.swap(tells, Ordering::AcqRel) != tells {
            lock(&self.shared.engine).tell_debug(tells);
        }
    }

    /// How many failed polls the keeper was, or is to be, given.
    pub fn failures_given(&self) -> u64 {
        lock(&self.shared.orders).failures
    }

    /// Waits until the keeper has come back from all orders there are now; false if it does not for so long. Call detached.
    pub fn wait_carried_out(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut orders = lock(&self.shared.orders);
        let given = orders.given;
        while orders.carried_out < given && !self.shared.closing.load(Ordering::Acquire) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            orders = wait_on(&self.shared.carried_out, orders, Some(left));
        }
        true
    }

    /// The keeper's next order; none if there is none for so long. Who asks has carried out the last one. Call detached.
    pub fn next_order(&self, patience: Option<Duration>) -> Option<Order> {
        let mut is_over = false;
        let mut orders = lock(&self.shared.orders);
        orders.carried_out = orders.given - orders.queue.len() as u64;
        self.shared.carried_out.notify_all();
        loop {
            if let Some(order) = orders.queue.pop_front() {
                return Some(order);
            }
            if orders.dropped > 0 {
                return Some(Order::Log(Note::LinesDropped { count: std::mem::take(&mut orders.dropped) }));
            }
            if is_over {
                return None;
            }
            orders = wait_on(&self.shared.orders_wake, orders, patience);
            is_over = patience.is_some();
        }
    }
}

impl Shared {
    pub(super) fn order(&self, order: Order) {
        let mut orders = lock(&self.orders);
        // That a trigger is switched off is told all the same: there are only so many triggers.
        let may_be_lost =
            matches!(order, Order::Log(..) | Order::PollFailed(FailedPoll { disabled: None, .. }));
        if may_be_lost && orders.queue.len() >= LOG_LINES_MAX {
            orders.dropped += 1;
            return;
        }
        orders.failures += u64::from(matches!(order, Order::PollFailed(..)));
        orders.given += 1;
        orders.queue.push_back(order);
        self.orders_wake.notify_one();
    }
}
