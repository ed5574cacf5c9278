//! How long a write waits while another process changes the file. Invariant: who waited for his turn behind others that waited for the same
//! waits no longer than if he had been alone.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cloaca_core::port::Halt;

use crate::sqlite::fault::Failure;

/// How long a statement waits for another process's transaction.
pub const BUSY_WAIT: Duration = Duration::from_secs(5);
/// Between two looks at whether that transaction is over, the first ones and all others.
const PAUSES_MS: [u64; 5] = [1, 2, 5, 10, 15];
const PAUSE_LAST_MS: u64 = 25;

thread_local! {
    /// Since when this thread waits for the file: its own wait, or that of those before it.
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Since when the next wait of this thread counts, if it began behind others.
    static BEHIND: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Waits for another process's transaction as SQLite would, unless this thread is to wait no more.
pub fn wait(looks: i32) -> bool {
    let now = Instant::now();
    if looks == 0 {
        BEGAN.set(Some(BEHIND.get().unwrap_or(now)));
    }
    let began = BEGAN.get().unwrap_or(now);
    if now.duration_since(began) >= BUSY_WAIT || Halt::current().ends(began) {
        return false;
    }
    let pause_ms = usize::try_from(looks).ok().and_then(|looks| PAUSES_MS.get(looks));
    thread::sleep(Duration::from_millis(*pause_ms.unwrap_or(&PAUSE_LAST_MS)));
    true
}

/// Since when the writes of a store give up, one after the other, because another process has the file.
#[derive(Default)]
pub struct Busy {
    is_busy: AtomicBool,
    since: Mutex<Option<Instant>>,
}

impl Busy {
    /// Writes, for somebody who has waited for his turn since a moment, or came at once.
    pub fn write<T>(
        &self,
        waited_since: Option<Instant>,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        // Who is alone pays for one look.
        let was_busy = self.is_busy.load(Ordering::Acquire);
        if was_busy {
            let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
            BEHIND.set(since.zip(waited_since).map(|(since, came)| since.max(came)));
        }
        let done = work();
        let is_busy = matches!(&done, Err(failure) if failure.is_busy());
        if was_busy || is_busy {
            BEHIND.set(None);
            let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
            *since = if is_busy { since.or_else(|| BEGAN.get()) } else { None };
            self.is_busy.store(is_busy, Ordering::Release);
        }
        done
    }
}
