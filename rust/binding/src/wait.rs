//! Waits of Python threads that may be long: in slices, between which the main thread hears its signals.
//! Invariant: nothing of ours is locked while signal handlers run, because they may call us.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use cloaca_core::audit;
use cloaca_core::port::Halt;
use cloaca_core::runtime::{Flush, Runtime};

use crate::gil::{fault, free};

/// No wait of the main thread is longer without a look at its signals.
pub const SIGNALS_EVERY: Duration = Duration::from_millis(50);

/// Other threads hear none; they look now and then all the same, for a program that runs Python's main thread on another one than its own.
const SELDOM: Duration = Duration::from_secs(1);

/// How long this thread may wait without a look at its signals. Thousands that look as often as the main one would keep the interpreter from it.
pub fn slice() -> Duration {
    if is_main() { SIGNALS_EVERY } else { SELDOM }
}

#[cfg(target_os = "linux")]
fn is_main() -> bool {
    // SAFETY: both only tell numbers.
    unsafe { libc::gettid() == libc::getpid() }
}

#[cfg(not(target_os = "linux"))]
fn is_main() -> bool {
    true
}

/// No call waits longer than this for a store, but those that take as long as they like.
pub const CALL_PATIENCE: Duration = Duration::from_secs(30);

/// Who closes a store beside its runners waits no longer than this.
pub const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Work that was told to end is waited for so long, so that it leaves nothing half done behind.
const HALT_PATIENCE: Duration = Duration::from_secs(1);

thread_local! {
    /// The runtime whose writer the call on this thread has waited for. Never followed, only compared.
    static WAITED_FOR: Cell<*const Runtime> = const { Cell::new(ptr::null()) };
    /// Until when what the call on this thread looks at is waited for.
    static LOOKS_UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Until it is left, no [`flush`] on this thread waits for the writer of that runtime: one call waits for it once.
pub struct Waited {
    before: *const Runtime,
}

impl Waited {
    pub fn enter(runtime: &Runtime) -> Self {
        Self { before: WAITED_FOR.replace(runtime) }
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        WAITED_FOR.set(self.before);
    }
}

/// Until it is left, the store is waited for no longer than until then, by all that this thread looks at together.
pub struct Looks {
    before: Option<Instant>,
}

impl Looks {
    pub fn until(until: Instant) -> Self {
        let before = LOOKS_UNTIL.get();
        Self { before: LOOKS_UNTIL.replace(Some(before.map_or(until, |before| before.min(until)))) }
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        LOOKS_UNTIL.set(self.before);
    }
}

/// How long the call on this thread may still wait for what it looks at, if that is bounded.
pub fn left_to_look() -> Option<Duration> {
    LOOKS_UNTIL.get().map(|until| until.saturating_duration_since(Instant::now()))
}

/// Waits until what `begin` names is kept, or cannot be expected to be.
pub fn flush(
    py: Python<'_>,
    runtime: &Runtime,
    begin: impl FnOnce(&Runtime) -> Flush + Send,
) -> PyResult<()> {
    if ptr::eq(WAITED_FOR.get(), runtime) {
        return Ok(());
    }
    let flush = free(py, || begin(runtime))?;
    while !free(py, || runtime.flushed(&flush, SIGNALS_EVERY))? {
        py.check_signals()?;
    }
    Ok(())
}

/// Waits until what `begin` names is kept, or the runner closes; or else why it is not, where the store takes nothing for as long as a call waits.
pub fn keep(
    py: Python<'_>,
    runtime: &Runtime,
    begin: impl FnOnce(&Runtime) -> Flush + Send,
) -> PyResult<Result<(), String>> {
    let flush = free(py, || begin(runtime))?;
    loop {
        let flush = flush.within(CALL_PATIENCE);
        while !free(py, || runtime.flushed(&flush, slice()))? {
            py.check_signals()?;
        }
        let (is_kept, trouble) = free(py, || (runtime.is_kept(&flush), runtime.trouble()))?;
        match trouble {
            Some(why) if !is_kept => return Ok(Err(why)),
            _ if is_kept => return Ok(Ok(())),
            _ => {}
        }
    }
}

/// Moves a manual clock. An exception of a signal handler leaves it wherever it is.
pub fn advance(py: Python<'_>, runtime: &Runtime, span: Duration, patience: Duration) -> PyResult<bool> {
    let mut advance = free(py, || runtime.begin_advance(span, patience))?;
    let has_come = loop {
        match free(py, || runtime.advanced(&mut advance, slice())) {
            Ok(Some(has_come)) => break Ok(has_come),
            Ok(None) => {}
            Err(fault) => break Err(fault),
        }
        if let Err(interrupt) = py.check_signals() {
            break Err(interrupt);
        }
    };
    free(py, || runtime.end_advance(advance))?;
    has_come
}

/// Waits for what `wait` waits for, at most for so long; false if it has not come.
pub fn within(py: Python<'_>, patience: Duration, wait: impl Fn(Duration) -> bool + Sync) -> PyResult<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if free(py, || wait(left.min(slice())))? {
            return Ok(true);
        }
        py.check_signals()?;
        if left.is_zero() {
            return Ok(false);
        }
    }
}

/// Runs what may take long, or what a store may not answer, on a thread of its own. An exception of a signal handler ends the wait and asks for the halt of the
/// work; what cannot be halted goes on by itself.
pub fn apart<T: Send + 'static>(
    py: Python<'_>,
    halt: &Halt,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    let (sender, receiver) = sync_channel(1);
    let receiver = Mutex::new(receiver);
    let (by, heeded) = (audit::current(), halt.clone());
    // Outside of the thread, so that it is still there if the system has no thread to give.
    let work = Arc::new(Mutex::new(Some(move || {
        let done = catch_unwind(AssertUnwindSafe(|| audit::within(by, || heeded.over(work))));
        // Nobody may wait any more.
        let _ = sender.send(done);
    })));
    let begin = |work: &Mutex<Option<_>>| work.lock().unwrap_or_else(PoisonError::into_inner).take();
    let taken = Arc::clone(&work);
    let thread = std::thread::Builder::new().name("cloaca-asked".to_owned()).spawn(move || {
        if let Some(work) = begin(&taken) {
            work();
        }
    });
    if thread.is_err()
        && let Some(work) = begin(&work)
    {
        free(py, work)?;
    }
    let wait = |span| receiver.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(span);
    loop {
        match free(py, || wait(SIGNALS_EVERY))? {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(panic)) => return Err(fault(py, &*panic)),
            Err(RecvTimeoutError::Disconnected) => unreachable!("the work sends before it ends"),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Err(interrupt) = py.check_signals() {
            halt.ask();
            let _ = free(py, || wait(HALT_PATIENCE));
            return Err(interrupt);
        }
    }
}
