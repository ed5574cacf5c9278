//! The thread that looks at contexts for runs that cannot go on before, where that may take long.
//! Invariant: nobody waits for a look but the run that asked for it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::engine::{Event, Note};
use crate::run::{Look, Looked};
use crate::runtime::keeper::Order;
use crate::runtime::park::{lock, wait_on};
use crate::runtime::{Runtime, Shared};

#[derive(Default)]
pub(super) struct LookState {
    queue: VecDeque<Look>,
    is_busy: bool,
    closed: bool,
}

impl Runtime {
    /// Waits until nothing is left to look at, so that a run whose last task has just ended gets its end; false if that lasts longer.
    pub(super) fn drain_looks(&self, deadline: Instant) -> bool {
        let mut looks = lock(&self.shared.looks);
        while looks.is_busy || !looks.queue.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            looks = wait_on(&self.shared.looks_done, looks, Some(left));
        }
        true
    }
}

impl Shared {
    pub(super) fn look_soon(&self, looks: Vec<Look>) {
        lock(&self.looks).queue.extend(looks);
        self.looks_wake.notify_one();
    }

    /// Whether a look is being taken or is to be.
    pub(super) fn is_looking(&self) -> bool {
        let looks = lock(&self.looks);
        looks.is_busy || !looks.queue.is_empty()
    }

    /// No look is taken from now on, but for the one that is.
    pub(super) fn close_looks(&self) {
        lock(&self.looks).closed = true;
        self.looks_wake.notify_all();
        self.looks_done.notify_all();
    }

    /// The thread: takes one look after another.
    pub(super) fn look_all(&self) {
        while let Some(look) = self.next_look() {
            if let Some(looked) = self.take_look(&look) {
                self.step(Event::Looked(looked));
            }
        }
    }

    fn next_look(&self) -> Option<Look> {
        let mut looks = lock(&self.looks);
        looks.is_busy = false;
        loop {
            if looks.closed {
                return None;
            }
            if let Some(look) = looks.queue.pop_front() {
                looks.is_busy = true;
                return Some(look);
            }
            self.looks_done.notify_all();
            looks = wait_on(&self.looks_wake, looks, None);
        }
    }

    /// A context that somebody else spoilt in the file must not stop all other runs.
    fn take_look(&self, look: &Look) -> Option<Looked> {
        let looked = catch_unwind(AssertUnwindSafe(|| look.take()));
        if looked.is_err() {
            self.order(Order::Log(Note::ContextUnreadable { run: look.run }));
        }
        looked.ok()
    }
}
