//! Who holds the interpreter: the one room that gives it away.
//! Invariant: a panic of the engine becomes an exception that asks for a report, and the interpreter is back in hand.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;

use cloaca_core::error::{Error, Kind};
use cloaca_core::runtime::Runtime;

use crate::error;

/// Runs `work` with the interpreter released. A panic in it becomes an exception that asks for a report.
pub fn free<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    py.detach(|| catch_unwind(AssertUnwindSafe(work))).map_err(|panic| fault(py, &*panic))
}

/// Runs work that waits for nothing but the engine's lock: with the interpreter in hand if that is free, because giving it away and
/// taking it again costs more than such work.
pub fn quick<T: Send>(py: Python<'_>, runtime: &Runtime, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    match runtime.is_at_hand() {
        true => guarded(py, work),
        false => free(py, work),
    }
}

/// Runs `work`. A panic in it becomes an exception that asks for a report.
fn guarded<T>(py: Python<'_>, work: impl FnOnce() -> T) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| fault(py, &*panic))
}

/// The exception for a panic.
pub fn fault(py: Python<'_>, panic: &(dyn Any + Send)) -> PyErr {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
    error::raise(py, Error::new(Kind::Runner, format!("the engine met a fault, please report it: {text}")))
}
