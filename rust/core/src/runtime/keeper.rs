//! Orders to the keeper, a thread made by Python that starts the others and writes log lines.
//! Invariant: nothing here waits for Python.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::engine::Note;
use crate::runtime::park::{lock, wait_on};
use crate::runtime::{Runtime, Shared};

/// Log lines that wait for the keeper; more are counted and dropped.
pub(super) const LOG_LINES_MAX: usize = 10_000;

/// What the keeper, a thread made by Python, is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Write this to the user's log.
    Log(Note),
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
}

impl Runtime {
    /// Whether somebody reads what is said at [`Level::Debug`](crate::engine::Level::Debug). Call detached.
    pub fn tell_debug(&self, tells: bool) {
        if self.shared.tells_debug.swap(tells, Ordering::AcqRel) != tells {
            lock(&self.shared.engine).tell_debug(tells);
        }
    }

    /// The keeper's next order; none if there is none for so long. Call detached.
    pub fn next_order(&self, patience: Option<Duration>) -> Option<Order> {
        let mut is_over = false;
        let mut orders = lock(&self.shared.orders);
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
        if matches!(order, Order::Log(..)) && orders.queue.len() >= LOG_LINES_MAX {
            orders.dropped += 1;
            return;
        }
        orders.queue.push_back(order);
        self.orders_wake.notify_one();
    }
}
