//! Runs that wait for their time. They are nobody's and stand in the store alone: here is known when the next of them is due, so that however
//! many there are, there is one timer.
//! Invariant: once what was sent is kept, the timer is no later than the earliest of this runner's, and of what the store told last.

use std::collections::HashMap;

use uuid::Uuid;

use crate::engine::{Effects, Engine};
use crate::port::NewRun;
use crate::time::{Now, Wall};

#[derive(Debug, Default)]
pub(super) struct Delays {
    next: Option<Wall>,
    /// Those that are on their way to the store, with when they are due.
    sent: HashMap<Uuid, Wall>,
}

impl Delays {
    /// When the next one is due.
    pub fn next(&self) -> Option<Wall> {
        self.next
    }

    /// One is due then, or none if none is known.
    pub fn wait_until(&mut self, due: Option<Wall>) {
        self.next = [self.next, due].into_iter().flatten().min();
    }

    /// One goes to the store.
    pub fn send(&mut self, run: &NewRun) {
        if let Some(due) = run.due_at.filter(|_| run.is_delayed()) {
            self.sent.insert(run.id, due);
        }
    }

    /// What was sent is kept, or is not; true if it waits for its time.
    pub fn answered(&mut self, id: Uuid, is_kept: bool) -> bool {
        // Mostly there is none, and to look for it would cost each run.
        if self.sent.is_empty() {
            return false;
        }
        let due = self.sent.remove(&id).filter(|_| is_kept);
        self.wait_until(due);
        due.is_some()
    }
}

impl Engine {
    /// Whoever claims is to look once a run is due, and says when the next one is.
    pub(super) fn look_for_due(&mut self, now: Now, out: &mut Effects) {
        if self.delays.next.is_some_and(|due| due <= now.wall) {
            self.delays.next = None;
            out.is_due = true;
        }
    }
}
