//! Keeps SQLite still while its process forks. A child that is born while another thread is inside SQLite inherits locks that
//! nobody will ever let go of, those of SQLite's allocator among them, and would hang at its first call.
//! Invariant: every call into SQLite happens inside [`enter`].

use std::cell::RefCell;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::sqlite::shield;

/// A fork waits no longer than this for a statement that takes its time, and then takes its chance.
const PATIENCE: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_micros(50);

static GATE: RwLock<()> = RwLock::new(());

thread_local! {
    static CLOSED: RefCell<Option<RwLockWriteGuard<'static, ()>>> = const { RefCell::new(None) };
}

/// Keeps forks waiting until the guard is dropped.
pub fn enter() -> RwLockReadGuard<'static, ()> {
    GATE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no thread is inside SQLite, and keeps them out until [`open`] is called on this thread.
pub fn close() {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(guard) = GATE.try_write() {
            CLOSED.with(|closed| *closed.borrow_mut() = Some(guard));
            shield::close_table();
            return;
        }
        if Instant::now() > deadline {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// Lets threads in again, in the parent and in the child.
pub fn open() {
    shield::open_table();
    CLOSED.with(|closed| closed.borrow_mut().take());
}
