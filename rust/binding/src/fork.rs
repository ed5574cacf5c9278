//! Forks of this process, told in numbers: what was made in one generation is refused in another.
//! Invariant: nothing that was made before a fork is touched after it, in the child.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;

use cloaca_core::error::{Error, Kind};

use crate::error;
use crate::gil::free;

/// Bumped in a forked child, so that every handle made before is refused there.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// This process is about to fork, on this thread.
#[pyfunction]
pub fn before_fork(py: Python<'_>) -> PyResult<()> {
    free(py, cloaca_store::before_fork)
}

/// The fork is over, in the parent or in the child.
#[pyfunction]
pub fn after_fork() {
    cloaca_store::after_fork();
}

/// Tells this module that it is in a forked child now.
#[pyfunction]
pub fn forked() {
    GENERATION.fetch_add(1, Ordering::AcqRel);
    cloaca_store::forked();
}

/// Whether this process was forked since what bears this generation was made.
pub fn is_forked(generation: u64) -> bool {
    generation != GENERATION.load(Ordering::Acquire)
}

/// Refuses what was made in another process: its threads and locks are not here.
pub fn refuse_after_fork(py: Python<'_>, generation: u64) -> PyResult<()> {
    if !is_forked(generation) {
        return Ok(());
    }
    let text = "this runner was made before a fork; make a new DefaultRunner in the child process";
    Err(error::raise(py, Error::new(Kind::Runner, text)))
}

/// What is made now bears this generation.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}
