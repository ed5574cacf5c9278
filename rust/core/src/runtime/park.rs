//! Threads, locks and waits, the only ones in the runtime: the standard library's, or those of a model for `make races`.

#[cfg(feature = "races")]
pub(super) use super::modelled::*;
#[cfg(not(feature = "races"))]
pub(super) use native::*;

#[cfg(not(feature = "races"))]
mod native {
    use std::sync::{PoisonError, TryLockError};
    use std::time::Duration;

    pub(in crate::runtime) use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
    pub(in crate::runtime) use std::sync::{Condvar, Mutex, MutexGuard};
    pub(in crate::runtime) use std::thread::{Builder, JoinHandle, sleep};

    pub(in crate::runtime) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        // A panic elsewhere is reported there; what the lock guards is changed by whole steps and stays usable.
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it can be had without waiting for another thread.
    pub(in crate::runtime) fn is_free<T>(mutex: &Mutex<T>) -> bool {
        !matches!(mutex.try_lock(), Err(TryLockError::WouldBlock))
    }

    pub(in crate::runtime) fn wait_on<'a, T>(
        condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        span: Option<Duration>,
    ) -> MutexGuard<'a, T> {
        match span {
            Some(span) => condvar.wait_timeout(guard, span).unwrap_or_else(PoisonError::into_inner).0,
            None => condvar.wait(guard).unwrap_or_else(PoisonError::into_inner),
        }
    }
}
