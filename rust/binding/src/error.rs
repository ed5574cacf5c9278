//! Turns a refusal's kind into the exception class that Python code catches. The classes live in `cloaca.errors`, because under the
//! stable ABI a native class cannot extend `Exception` before Python 3.12.

use pyo3::prelude::*;

use cloaca_core::error::{Error, Kind};
use cloaca_core::limit::Dropped;
use cloaca_core::port::Fault;
use cloaca_store::OpenError;

/// The exception for a refusal.
pub fn raise(py: Python<'_>, error: Error) -> PyErr {
    let class = match error.kind {
        Kind::Context => "ContextError",
        Kind::Workflow => "WorkflowError",
        Kind::Trigger => "TriggerError",
        Kind::Schedule => "ScheduleError",
        Kind::Store => "StoreError",
        Kind::Runner => "RunnerError",
    };
    make(py, class, error.message)
}

/// The exception for a run that a limit has dropped.
pub fn raise_dropped(py: Python<'_>, message: String, dropped: &Dropped) -> PyErr {
    let made = py.import("cloaca.errors").and_then(|errors| {
        errors.getattr("Dropped")?.call1((bounded(message), dropped.rule.name(), dropped.key.as_deref()))
    });
    match made {
        Ok(value) => PyErr::from_value(value),
        Err(trouble) => trouble,
    }
}

/// The exception for a store that could not be opened.
pub fn raise_open(py: Python<'_>, error: OpenError) -> PyErr {
    match error {
        OpenError::Url(text) => make(py, "UrlError", text),
        OpenError::Store(text) => make(py, "StoreError", text),
        OpenError::Away(text) => make(py, "_AwayError", text),
    }
}

/// A message that quotes what it was given, a statement or a path, may be as long as that; longer than this it is cut in its middle.
const MESSAGE_CHARS_MAX: usize = 4_000;

fn bounded(message: String) -> String {
    let chars = message.chars().count();
    if chars <= MESSAGE_CHARS_MAX {
        return message;
    }
    let part = MESSAGE_CHARS_MAX / 2 - 2;
    let head: String = message.chars().take(part).collect();
    let tail: String = message.chars().skip(chars - part).collect();
    format!("{head}[…]{tail}")
}

fn make(py: Python<'_>, class: &str, message: String) -> PyErr {
    let message = bounded(message);
    let made = py.import("cloaca.errors").and_then(|errors| errors.getattr(class)?.call1((message,)));
    match made {
        Ok(value) => PyErr::from_value(value),
        Err(trouble) => trouble,
    }
}

/// The exception for a store's fault.
pub fn raise_fault(py: Python<'_>, fault: Fault) -> PyErr {
    let (Fault::Passing(text) | Fault::Final(text)) = fault;
    raise(py, Error::new(Kind::Store, text))
}
