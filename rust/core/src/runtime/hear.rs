//! Ends of runs for who waits without a thread of his own: an event loop, which has a hearer of its own or is told by one thread of its runner
//! that hears of all the others. Invariant: who asked to hear of a run before its last news was told is told of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use uuid::Uuid;

use crate::runtime::lanes::Waker;
use crate::runtime::park::{Condvar, Mutex, lock, wait_on};
use crate::runtime::{Runtime, Shared};

/// Runs whose last news nobody has fetched yet.
#[derive(Default)]
pub(super) struct Hearers {
    ended: Mutex<Vec<Uuid>>,
    wake: Condvar,
}

/// Of one event loop, which is woken without the interpreter.
pub struct Hearer {
    ended: Mutex<Vec<Uuid>>,
    place: Box<dyn Waker>,
}

impl Hearer {
    /// One for the loop that calls [`Hearer::heard`] when `place` wakes it.
    pub fn new(place: Box<dyn Waker>) -> Arc<Self> {
        Arc::new(Self { ended: Mutex::new(Vec::new()), place })
    }

    /// The runs of which nobody has fetched the news yet. Never waits for more.
    pub fn heard(&self) -> Vec<Uuid> {
        std::mem::take(&mut lock(&self.ended))
    }

    fn tell(&self, id: Uuid) {
        let mut ended = lock(&self.ended);
        ended.push(id);
        let is_news = ended.len() == 1;
        drop(ended);
        if is_news {
            self.place.wake();
        }
    }
}

/// Who hears of one news of a run.
#[derive(Default)]
pub(super) struct Listening {
    hearer: Option<Arc<Hearer>>,
    is_by_thread: bool,
}

impl Listening {
    /// One more does. A second one leaves it to the thread, which tells every loop.
    pub(super) fn add(&mut self, hearer: Option<&Arc<Hearer>>) {
        match hearer {
            Some(hearer) if self.hearer.as_ref().is_none_or(|other| Arc::ptr_eq(other, hearer)) => {
                self.hearer = Some(Arc::clone(hearer));
            }
            _ => self.is_by_thread = true,
        }
    }
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
    /// Those hear of the run.
    pub(super) fn tell(&self, id: Uuid, listening: [Listening; 2]) {
        for Listening { hearer, is_by_thread } in listening {
            if let Some(hearer) = hearer {
                hearer.tell(id);
            }
            if is_by_thread {
                lock(&self.ended).push(id);
                self.wake.notify_all();
            }
        }
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
