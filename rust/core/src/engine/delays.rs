//! Runs that are sent to the store and not taken in hand: those that wait for their time, and those that others may have. Of the former is known
//! here when the next of them is due, so that however many there are, there is one timer.
//! Invariant: once what was sent is kept, the timer is no later than the earliest of this runner's, and of what the store told last.

use uuid::Uuid;

use crate::engine::{Effects, Engine};
use crate::key::ById;
use crate::time::{Now, Wall};

#[derive(Debug, Default)]
pub(super) struct Delays {
    next: Option<Wall>,
    sent: ById<Uuid, Sent>,
}

/// What is on its way to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// Due then.
    Due(Wall),
    /// For whoever has room, of that share of the work.
    Anyone(usize),
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
    pub fn send(&mut self, run: Uuid, sent: Sent) {
        self.sent.insert(run, sent);
    }

    /// What was sent is kept, or is not; none of what was taken in hand.
    pub fn answered(&mut self, id: Uuid, is_kept: bool) -> Option<Sent> {
        // Mostly there is none, and to look for it would cost each run.
        if self.sent.is_empty() {
            return None;
        }
        let sent = self.sent.remove(&id)?;
        if let (true, Sent::Due(due)) = (is_kept, sent) {
            self.wait_until(Some(due));
        }
        Some(sent)
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
