//! Locks and waits, the only ones in the runtime.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere is reported there; what the lock guards is changed by whole steps and stays usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn wait_on<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    span: Option<Duration>,
) -> MutexGuard<'a, T> {
    match span {
        Some(span) => condvar.wait_timeout(guard, span).unwrap_or_else(PoisonError::into_inner).0,
        None => condvar.wait(guard).unwrap_or_else(PoisonError::into_inner),
    }
}
