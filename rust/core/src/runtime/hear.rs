//! Ends of runs for who waits without a thread of his own: an event loop, through one thread of its runner that hears of all of them.
//! Invariant: who asked to hear of a run before its last news was told is told of it.

use std::time::Duration;

use std::sync::atomic::Ordering;

use uuid::Uuid;

use crate::runtime::park::{Condvar, Mutex, lock, wait_on};
use crate::runtime::{Runtime, Shared};

/// Runs whose last news nobody has fetched yet.
#[derive(Default)]
pub(super) struct Hearers {
    ended: Mutex<Vec<Uuid>>,
    wake: Condvar,
}

/// What there is to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// These runs have ended, or nothing more will be known of them here.
    Ended(Vec<Uuid>),
    /// The runner begins to close: bodies that wait go home.
    Closing,
    /// Nothing, for now.
    Nothing,
    /// Nothing any more.
    Over,
}

impl Hearers {
    pub(super) fn tell(&self, id: Uuid) {
        lock(&self.ended).push(id);
        self.wake.notify_all();
    }

    /// Something else has changed.
    pub(super) fn look(&self) {
        drop(lock(&self.ended));
        self.wake.notify_all();
    }
}

impl Runtime {
    /// Waits at most `span` for runs that somebody hears of. Call detached.
    pub fn hear_runs(&self, knows_closing: bool, span: Duration) -> Heard {
        let shared = &self.shared;
        let mut ended = lock(&shared.hearers.ended);
        let now = shared.heard(&mut ended, knows_closing);
        if now != Heard::Nothing {
            return now;
        }
        ended = wait_on(&shared.hearers.wake, ended, Some(span));
        shared.heard(&mut ended, knows_closing)
    }
}

impl Shared {
    fn heard(&self, ended: &mut Vec<Uuid>, knows_closing: bool) -> Heard {
        if !ended.is_empty() {
            return Heard::Ended(std::mem::take(ended));
        }
        if self.is_lost_told.load(Ordering::Acquire) {
            return Heard::Over;
        }
        match !knows_closing && self.closing.load(Ordering::Acquire) {
            true => Heard::Closing,
            false => Heard::Nothing,
        }
    }
}
