//! The border between cloaca's engine and Python: translation only, no decisions.
//!
//! Reading order: `error` turns a kind into an exception class, `convert` turns records into dicts, `gil` gives the interpreter
//! away, `fork` refuses what another process made, and `handle` is what the classes share. `engine` is a runner's life; `jobs`,
//! `polls`, `runs`, `schedules` and `store` are its rooms, which Python threads enter, `wait` is how they wait there, and `watch` for a run.
//! `file_locks` is what SQLite locks by. `work` is the loop in which they poll, and `call` is how that calls them back.

mod call;
mod convert;
mod engine;
mod error;
#[cfg(target_os = "linux")]
mod file_locks;
mod fork;
mod gil;
mod handle;
mod interpreter;
mod jobs;
mod poll_now;
mod polls;
mod runs;
mod schedules;
mod store;
mod wait;
mod watch;
mod work;

use std::sync::Arc;

use pyo3::prelude::*;

use cloaca_core::cron::Cron;
use cloaca_core::graph::Graph;

/// Checks a workflow's edges.
///
/// Returns the tasks' positions in topological order and the levels that may run side by side.
#[pyfunction]
fn check_graph(
    py: Python<'_>,
    workflow: &str,
    ids: Vec<String>,
    dependencies: Vec<Vec<String>>,
) -> PyResult<(Vec<usize>, Vec<Vec<usize>>)> {
    let (ids, dependencies) = (shared(ids), dependencies.into_iter().map(shared).collect::<Vec<_>>());
    let graph = Graph::check(workflow, &ids, &dependencies).map_err(|e| error::raise(py, e))?;
    Ok((graph.topological().to_vec(), graph.levels()))
}

/// Checks a cron expression and its time zone.
#[pyfunction]
fn check_cron(py: Python<'_>, expression: &str, timezone: &str) -> PyResult<()> {
    Cron::parse(expression, timezone).map(drop).map_err(|e| error::raise(py, e))
}

/// Hex digest of named texts; equal for equal content in any process.
#[pyfunction]
fn content_version(parts: Vec<(String, String)>) -> String {
    let parts: Vec<(&str, &str)> = parts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    cloaca_core::version::content_version(&parts)
}

/// What to say of a context that has more bytes than it may; `None` if it fits.
#[pyfunction]
fn too_large(py: Python<'_>, what: &str, text: &str, bytes_max: usize) -> PyResult<Option<String>> {
    gil::free(py, || cloaca_core::context::too_large(what, text, bytes_max))
}

/// What to say of a name that nothing has: which one was probably meant, and which there are.
#[pyfunction]
fn hint(name: &str, kind: &str, known: Vec<String>) -> String {
    cloaca_core::near::hint(name, kind, &known)
}

fn shared(texts: Vec<String>) -> Vec<Arc<str>> {
    texts.into_iter().map(Arc::from).collect()
}

/// The native half of cloaca.
#[pymodule(gil_used = true)]
fn _cloaca(module: &Bound<'_, PyModule>) -> PyResult<()> {
    interpreter::claim(module.py())?;
    #[cfg(target_os = "linux")]
    file_locks::install();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("FAULT_POINTS", cloaca_core::fault_point::NAMES.to_vec())?;
    module.add_class::<engine::Engine>()?;
    module.add_class::<jobs::Jobs>()?;
    module.add_class::<poll_now::PollNow>()?;
    module.add_class::<polls::Polls>()?;
    module.add_class::<runs::Runs>()?;
    module.add_class::<schedules::Schedules>()?;
    module.add_class::<store::Store>()?;
    module.add_class::<watch::Watch>()?;
    module.add_function(wrap_pyfunction!(check_cron, module)?)?;
    module.add_function(wrap_pyfunction!(check_graph, module)?)?;
    module.add_function(wrap_pyfunction!(content_version, module)?)?;
    module.add_function(wrap_pyfunction!(hint, module)?)?;
    module.add_function(wrap_pyfunction!(too_large, module)?)?;
    module.add_function(wrap_pyfunction!(fork::before_fork, module)?)?;
    module.add_function(wrap_pyfunction!(fork::after_fork, module)?)?;
    module.add_function(wrap_pyfunction!(fork::forked, module)?)
}
