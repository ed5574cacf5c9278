//! The border between cloaca's engine and Python: translation only, no decisions.
//!
//! Reading order: `error` turns a kind into an exception class, `convert` turns records into dicts, `metrics` counts, `gil` gives the interpreter
//! away, `fork` refuses what another process made, and `handle` is what the classes share. `engine` is a runner's life; `jobs`,
//! `ends`, `polls`, `runs`, `schedules` and `store` are its rooms, which Python threads enter, `pump` feeds executors beside the workers and `carrier` an
//! event loop, `wait` is how they wait there, and `watch` for a run, of which an event loop hears by a `hearer`; `way` is how one is woken. `reader` is a store without a runner, `client` changes one.
//! `file_locks` is what SQLite locks by. `work` is the loop in which they poll, and `call` is how that calls them back.

mod bodies;
mod call;
mod carrier;
mod client;
mod convert;
mod ends;
mod engine;
mod error;
#[cfg(target_os = "linux")]
mod event_fd;
#[cfg(target_os = "linux")]
mod file_locks;
mod fork;
mod gil;
mod handle;
mod hearer;
mod interpreter;
mod jobs;
mod metrics;
mod poll_now;
mod polls;
mod pump;
mod reader;
mod runs;
mod schedules;
mod store;
mod wait;
mod watch;
mod way;
mod work;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;

use cloaca_core::cron::Cron;
use cloaca_core::graph::Graph;
use cloaca_core::layout::{Frame, Gaps, Line, Size};
use cloaca_core::limit::Key;
use cloaca_core::port::Halt;
use cloaca_core::time::Wall;

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

type Frames = Vec<(f64, f64, f64, f64)>;
type Lines = Vec<(usize, usize, Vec<(f64, f64)>)>;

/// Where tasks of these sizes stand in the picture of their workflow.
///
/// Returns a frame `(x, y, width, height)` for each task, a line `(from, to, points)` for each edge, and the size of it all.
#[pyfunction]
fn layout(
    py: Python<'_>,
    workflow: &str,
    ids: Vec<String>,
    dependencies: Vec<Vec<String>>,
    sizes: Vec<(f64, f64)>,
    gaps: (f64, f64),
) -> PyResult<(Frames, Lines, (f64, f64))> {
    let (ids, dependencies) = (shared(ids), dependencies.into_iter().map(shared).collect::<Vec<_>>());
    let drawn = gil::free(py, || {
        let graph = Graph::check(workflow, &ids, &dependencies)?;
        let sizes: Vec<Size> = sizes.into_iter().map(|(width, height)| Size { width, height }).collect();
        Ok(cloaca_core::layout::layout(&graph, &sizes, Gaps { layers: gaps.0, tasks: gaps.1 }))
    })?;
    let drawn = drawn.map_err(|e| error::raise(py, e))?;
    let frame = |frame: &Frame| (frame.corner.x, frame.corner.y, frame.size.width, frame.size.height);
    let line =
        |line: Line| (line.from, line.to, line.points.iter().map(|point| (point.x, point.y)).collect());
    let frames = drawn.frames.iter().map(frame).collect();
    Ok((frames, drawn.lines.into_iter().map(line).collect(), (drawn.size.width, drawn.size.height)))
}

/// Checks a cron expression and its time zone.
#[pyfunction]
fn check_cron(py: Python<'_>, expression: &str, timezone: &str) -> PyResult<()> {
    Cron::parse(expression, timezone).map(drop).map_err(|e| error::raise(py, e))
}

/// Checks what a limit counts for.
#[pyfunction]
fn check_key(py: Python<'_>, key: &str) -> PyResult<()> {
    Key::parse(key).map(drop).map_err(|e| error::raise(py, e))
}

/// The value of a limit's key in a context's JSON text; `None` if it has none there.
#[pyfunction]
fn key_in(py: Python<'_>, key: &str, context: &str) -> PyResult<Option<String>> {
    let key = Key::parse(key).map_err(|e| error::raise(py, e))?;
    gil::free(py, || key.of_text(context).ok())
}

/// At most `many` moments of a cron behind a time, in microseconds.
#[pyfunction]
fn cron_moments(
    py: Python<'_>,
    expression: &str,
    timezone: &str,
    after_us: i64,
    many: usize,
) -> PyResult<Vec<i64>> {
    let cron = Cron::parse(expression, timezone).map_err(|e| error::raise(py, e))?;
    let next = |after: &Wall| cron.next(*after);
    gil::free(py, || {
        std::iter::successors(next(&Wall(after_us)), next).take(many).map(|moment| moment.0).collect()
    })
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

/// What each task of a run was given, as JSON text, by what the run began with and what those before it left; `None` for what left
/// nothing.
#[pyfunction]
fn given(
    py: Python<'_>,
    ids: Vec<String>,
    dependencies: Vec<Vec<String>>,
    initial: String,
    left: Vec<Option<String>>,
) -> PyResult<Vec<String>> {
    let (ids, dependencies) = (shared(ids), dependencies.into_iter().map(shared).collect::<Vec<_>>());
    let left: Vec<Option<Arc<str>>> = left.into_iter().map(|text| text.map(Arc::from)).collect();
    let found = gil::free(py, || {
        let graph = Graph::check("", &ids, &dependencies)?;
        Ok(cloaca_core::context::given(&graph, &initial.into(), &left))
    })?;
    let found = found.map_err(|e: cloaca_core::error::Error| error::raise(py, e))?;
    Ok(found.iter().map(|text| text.to_string()).collect())
}

/// What to say of a name that nothing has: which one was probably meant, and which there are.
#[pyfunction]
fn hint(name: &str, kind: &str, known: Vec<String>) -> String {
    cloaca_core::near::hint(name, kind, &known)
}

/// The file that a URL names, which need not be there; `None` for memory.
#[pyfunction]
fn path_of(py: Python<'_>, url: OsString) -> PyResult<Option<PathBuf>> {
    cloaca_store::path_of(url).map_err(|refused| error::raise_open(py, refused))
}

/// What messages call the store that a URL names, without secrets.
#[pyfunction]
fn name_of(py: Python<'_>, url: OsString) -> PyResult<String> {
    cloaca_store::name_of(url).map_err(|refused| error::raise_open(py, refused))
}

/// Whether what is to name a file is meant for a server instead, also if that is misspelt.
#[pyfunction]
fn means_server(text: OsString) -> bool {
    cloaca_store::means_server(text)
}

/// Gives a file a name that nothing has; `FileExistsError` if something has it by then.
#[pyfunction]
fn rename_to_new(py: Python<'_>, from: PathBuf, to: PathBuf) -> PyResult<()> {
    py.detach(|| cloaca_store::rename_to_new(&from, &to)).map_err(PyErr::from)
}

/// Which schema version a store has, and for each that this program brings it to beyond that the SQL.
#[pyfunction]
fn schema_of(py: Python<'_>, url: OsString) -> PyResult<(usize, Vec<String>)> {
    let found = wait::apart(py, &Halt::default(), move || cloaca_store::schema_of(url))?;
    found.map_err(|refused| error::raise_open(py, refused))
}

/// Makes a tenant, or renews one that is there: its password and the URL of its store.
#[pyfunction]
fn create_tenant(
    py: Python<'_>,
    url: &str,
    schema: &str,
    user: &str,
    password: Option<&str>,
) -> PyResult<(String, String)> {
    let made = gil::free(py, || cloaca_store::create_tenant(url, schema, user, password))?;
    made.map(|found| (found.password, found.url)).map_err(|refused| error::raise_open(py, refused))
}

/// Removes a tenant with all that it has.
#[pyfunction]
fn remove_tenant(py: Python<'_>, url: &str, schema: &str, user: &str) -> PyResult<()> {
    let removed = gil::free(py, || cloaca_store::remove_tenant(url, schema, user))?;
    removed.map_err(|refused| error::raise_open(py, refused))
}

/// From here on this thread changes stores in that name, by that door and from that place; in nobody's if there is none. Whether something
/// was changed in the name before.
#[pyfunction]
fn work_as(by: Option<(String, String, Option<String>)>) -> bool {
    use cloaca_core::audit::{By, work_as};
    work_as(by.map(|(who, door, place)| Arc::new(By { who, door, place, ..By::default() })))
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
    module.add_class::<carrier::Carrier>()?;
    module.add_class::<client::Client>()?;
    module.add_class::<hearer::Hearer>()?;
    module.add_class::<ends::Ends>()?;
    module.add_class::<engine::Engine>()?;
    module.add_class::<jobs::Jobs>()?;
    module.add_class::<poll_now::PollNow>()?;
    module.add_class::<polls::Polls>()?;
    module.add_class::<pump::Pump>()?;
    module.add_class::<reader::Reader>()?;
    module.add_class::<runs::Runs>()?;
    module.add_class::<schedules::Schedules>()?;
    module.add_class::<store::Store>()?;
    module.add_class::<watch::Watch>()?;
    module.add_function(wrap_pyfunction!(check_cron, module)?)?;
    module.add_function(wrap_pyfunction!(check_graph, module)?)?;
    module.add_function(wrap_pyfunction!(check_key, module)?)?;
    module.add_function(wrap_pyfunction!(content_version, module)?)?;
    module.add_function(wrap_pyfunction!(create_tenant, module)?)?;
    module.add_function(wrap_pyfunction!(cron_moments, module)?)?;
    module.add_function(wrap_pyfunction!(given, module)?)?;
    module.add_function(wrap_pyfunction!(hint, module)?)?;
    module.add_function(wrap_pyfunction!(key_in, module)?)?;
    module.add_function(wrap_pyfunction!(name_of, module)?)?;
    module.add_function(wrap_pyfunction!(path_of, module)?)?;
    module.add_function(wrap_pyfunction!(remove_tenant, module)?)?;
    module.add_function(wrap_pyfunction!(means_server, module)?)?;
    module.add_function(wrap_pyfunction!(rename_to_new, module)?)?;
    module.add_function(wrap_pyfunction!(schema_of, module)?)?;
    module.add_function(wrap_pyfunction!(layout, module)?)?;
    module.add_function(wrap_pyfunction!(too_large, module)?)?;
    module.add_function(wrap_pyfunction!(work_as, module)?)?;
    module.add_function(wrap_pyfunction!(fork::before_fork, module)?)?;
    module.add_function(wrap_pyfunction!(fork::after_fork, module)?)?;
    module.add_function(wrap_pyfunction!(fork::forked, module)?)
}
