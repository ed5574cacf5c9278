//! What `make races` puts in the place of the standard library's threads, locks and waits: shuttle's, which plays many schedules of
//! them. It knows no time. A wait that is shorter than [`PATIENCE`] looks again after others have had a turn; a longer one never runs
//! out, so that a wake-up that somebody lost is a deadlock, which shuttle tells.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Duration;

pub(super) use shuttle::sync::Condvar;
pub use shuttle::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
pub(super) use shuttle::thread::{Builder, JoinHandle};

/// Between what is waited for step by step and what somebody has to tell.
const PATIENCE: Duration = Duration::from_millis(50);

/// A lock that a guard leads back to.
#[derive(Debug, Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

pub(super) struct MutexGuard<'a, T> {
    of: &'a Mutex<T>,
    held: shuttle::sync::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.held
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.held
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    let held = mutex.0.lock().unwrap_or_else(PoisonError::into_inner);
    MutexGuard { of: mutex, held }
}

pub(super) fn is_free<T>(mutex: &Mutex<T>) -> bool {
    mutex.0.try_lock().is_ok()
}

pub(super) fn wait_on<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    span: Option<Duration>,
) -> MutexGuard<'a, T> {
    let MutexGuard { of, held } = guard;
    if span.is_some_and(|span| span < PATIENCE) {
        drop(held);
        shuttle::thread::yield_now();
        return lock(of);
    }
    let held = condvar.wait(held).unwrap_or_else(PoisonError::into_inner);
    MutexGuard { of, held }
}

pub(super) fn sleep(_: Duration) {
    shuttle::thread::yield_now();
}
