//! Whose turn it is to write, of the processes on one file: one after another, as they come. SQLite itself has who finds the file taken sleep
//! for up to a tenth of a second between two looks, and so lets who has just written write again, for seconds on end.
//! Two bytes of the file are locked: one by who writes, one by who is next. Who has written finds the second one taken.
//! Invariant: nothing relies on it. Who waits too long, because somebody stands still amidst his turn, asks SQLite as ever.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::sqlite::shield::{Place, Shield};

/// Between two looks of who is next, and of who waits to be that.
const PAUSE: Duration = Duration::from_micros(100);
const PAUSE_BEHIND: Duration = Duration::from_micros(300);

/// Who has waited so long asks no more for a while.
const PATIENCE: Duration = Duration::from_millis(500);
const IMPATIENCE: Duration = Duration::from_secs(10);

/// What a store knows of the others that write.
#[derive(Default)]
pub struct Turns {
    has_company: AtomicBool,
    /// Until then it asks SQLite at once.
    impatient_until: Mutex<Option<Instant>>,
}

/// The right to write next, for as long as it is kept.
pub struct Turn<'s> {
    shield: &'s Shield,
    place: Cell<Place>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.shield.give(self.place.get());
    }
}

impl Turns {
    /// Whether others have the file open: who is alone need not ask.
    pub fn has_company(&self, has: bool) {
        self.has_company.store(has, Ordering::Relaxed);
    }

    /// Waits until it is this store's turn; none if it need not ask, or has waited for too long.
    pub fn take<'s>(&self, shield: &'s Shield) -> Option<Turn<'s>> {
        if !self.has_company.load(Ordering::Relaxed) {
            return None;
        }
        let mut impatient_until = self.impatient_until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if impatient_until.is_some_and(|until| now < until) {
            return None;
        }
        let deadline = now + PATIENCE;
        let turn = wait(shield, deadline);
        *impatient_until = turn.is_none().then(|| Instant::now() + IMPATIENCE);
        turn
    }
}

fn wait(shield: &Shield, deadline: Instant) -> Option<Turn<'_>> {
    wait_for(shield, Place::Next, PAUSE_BEHIND, deadline).then_some(())?;
    let turn = Turn { shield, place: Cell::new(Place::Next) };
    wait_for(shield, Place::Writer, PAUSE, deadline).then_some(())?;
    turn.place.set(Place::Writer);
    shield.give(Place::Next);
    Some(turn)
}

fn wait_for(shield: &Shield, place: Place, pause: Duration, deadline: Instant) -> bool {
    while !shield.take(place) {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(pause);
    }
    true
}
