//! Which interpreter of the process has the module. Invariant: no second one gets it where that is not sound.

use std::sync::atomic::{AtomicI64, Ordering};

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

/// None yet.
const NOBODY: i64 = -1;

static FIRST: AtomicI64 = AtomicI64::new(NOBODY);

/// Refuses an interpreter that is not the first of its process. PyO3 has one type object for all of them, and from Python 3.12 on each keeps
/// its own method cache by its own count of versions: it finds methods of other classes.
pub fn claim(py: Python<'_>) -> PyResult<()> {
    if py.version_info() < (3, 12) {
        return Ok(());
    }
    // SAFETY: the thread is attached, so it has an interpreter.
    let this = unsafe { pyo3::ffi::PyInterpreterState_GetID(pyo3::ffi::PyInterpreterState_Get()) };
    match FIRST.compare_exchange(NOBODY, this, Ordering::AcqRel, Ordering::Acquire) {
        Err(first) if first != this => Err(PyImportError::new_err(
            "cloaca is in use in another interpreter of this process; from Python 3.12 on only one can import it: let the server run one \
             interpreter a process (mod_wsgi: WSGIApplicationGroup %{GLOBAL}; uWSGI: single-interpreter)",
        )),
        _ => Ok(()),
    }
}
