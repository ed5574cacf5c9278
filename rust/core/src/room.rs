//! A stack that is large enough for whatever nests, on whatever thread it is met: Python lets a program give its threads 32 KiB.
//! Invariant: what nests deeper than [`SHALLOW_MAX`] is read, worked on and forgotten in here only.

use std::panic::resume_unwind;
use std::thread::{Builder, scope};

/// So deep may nest what is worked on with the caller's stack.
pub(crate) const SHALLOW_MAX: usize = 16;

/// More than [`crate::context::DEPTH_MAX`] levels need in a build without optimisation.
const ROOM_BYTES: usize = 4 * 1024 * 1024;

/// Runs `work` with enough room on the stack.
pub(crate) fn with_room<T: Send>(work: &(dyn Fn() -> T + Sync)) -> T {
    let found = scope(|scope| {
        let thread = Builder::new().stack_size(ROOM_BYTES).spawn_scoped(scope, work);
        thread.ok().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    // Where the system gives no thread, the caller's stack is all there is; most are large enough.
    found.unwrap_or_else(work)
}
