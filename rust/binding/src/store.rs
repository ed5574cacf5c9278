//! The store itself: kept, asked, copied.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use cloaca_core::limit::Rate;
use cloaca_core::port::Redacted;
use cloaca_core::runtime::{Flush, Runtime};
use cloaca_core::seat::Terms;
use cloaca_core::time::Wall;

use crate::convert;
use crate::gil::free;
use crate::handle::{Handle, parse_run_id, span_of};
use crate::wait::{Looks, Waited, flush};

/// The store of one runner.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Store {
    pub handle: Arc<Handle>,
}

/// So many at once; so many within so many microseconds, with a burst.
type TermsParts = (Option<u64>, Option<(u64, u64, u64)>);

#[pymethods]
impl Store {
    /// Waits until everything sent to the store so far is kept.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        flush(py, self.handle.runtime(py)?, Runtime::flushing_all)
    }

    /// Calls a function once everything sent to the store so far is kept, with what polls of the trigger of that name have left: nothing that
    /// it looks at waits for the writer once more, however often it looks.
    #[pyo3(signature = (call, trigger=None))]
    fn after_flush<'py>(
        &self,
        py: Python<'py>,
        call: &Bound<'py, PyAny>,
        trigger: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let runtime = self.handle.runtime(py)?;
        flush(py, runtime, |runtime| {
            runtime.show_begun();
            trigger.map_or_else(|| runtime.flushing(), |trigger| runtime.flushing_trigger(&trigger))
        })?;
        let _waited = Waited::enter(runtime);
        call.call0()
    }

    /// Calls `call`, all of whose looks together wait for the store no longer than so long.
    fn within<'py>(&self, seconds: f64, call: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let _looks = Looks::until(Instant::now() + span_of(seconds));
        call.call0()
    }

    /// Runs one read-only statement; rows as dicts.
    fn query<'py>(
        &self,
        py: Python<'py>,
        sql: &str,
        params: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.rows(py, Runtime::flushing_all, sql, params)
    }

    /// The same without anything that is not written down yet: it waits for nobody, also where the store takes nothing.
    fn glance<'py>(
        &self,
        py: Python<'py>,
        sql: &str,
        params: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.rows(py, |_| Flush::default(), sql, params)
    }

    /// Why the store takes nothing at the moment, or not all, if so.
    fn trouble(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.trouble().or_else(|| runtime.refused()))
    }

    /// Why the store takes nothing at the moment, if so, also where it does not answer at all.
    fn takes_nothing(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.takes_nothing())
    }

    /// The same without the polls that are not written down yet: to write them all down looks at every trigger.
    fn look<'py>(
        &self,
        py: Python<'py>,
        sql: &str,
        params: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.rows(py, Runtime::flushing, sql, params)
    }

    /// What is to be hidden: keys, and whether a function decides beside them; `None` if nothing is.
    fn redacted(&self, py: Python<'_>) -> PyResult<Option<(Vec<String>, bool)>> {
        let Redacted { keys, by_function } =
            self.handle.stored(py, move |runtime| runtime.store().redacted())?;
        Ok((by_function || !keys.is_empty()).then_some((keys, by_function)))
    }

    /// Adds to it.
    fn redact(&self, py: Python<'_>, keys: Vec<String>, by_function: bool) -> PyResult<()> {
        let more = Redacted { keys, by_function };
        self.handle.written(py, move |runtime| runtime.store().redact(&more))
    }

    /// Takes a key back, or everything; how much that was.
    #[pyo3(signature = (key=None))]
    fn unredact(&self, py: Python<'_>, key: Option<String>) -> PyResult<usize> {
        self.handle.written(py, move |runtime| runtime.store().unredact(key.as_deref()))
    }

    /// Limits with names, as they stand now.
    fn limits<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        flush(py, self.handle.runtime(py)?, Runtime::flushing)?;
        self.glance_limits(py)
    }

    /// The same without anything that is not written down yet: it waits for nobody, also where the store takes nothing.
    fn glance_limits<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let found = self.handle.stored(py, move |runtime| runtime.store().limits(runtime.now().wall))?;
        found.iter().map(|row| convert::limit(py, row)).collect()
    }

    /// What one of them allows from now on: so many at once, and so many within so many microseconds with a burst; none of both goes back to
    /// what is declared. False if there is no such limit.
    fn set_limit(&self, py: Python<'_>, name: String, terms: Option<TermsParts>) -> PyResult<bool> {
        let terms = terms.map(|(concurrency, throttle)| Terms {
            concurrency,
            throttle: throttle.map(|(limit, per_us, burst)| Rate {
                limit,
                per: Duration::from_micros(per_us),
                burst,
            }),
        });
        flush(py, self.handle.runtime(py)?, Runtime::flushing)?;
        self.handle.written(py, move |runtime| runtime.set_limit(&name, terms))
    }

    /// Holds a limit or a workflow up, or what is counted for a value of its key, until a time in microseconds or until that is taken back. False
    /// if it has no keys.
    fn pause(
        &self,
        py: Python<'_>,
        kind: &str,
        name: String,
        key: Option<String>,
        until_us: Option<i64>,
        by: String,
    ) -> PyResult<bool> {
        let (kind, until) = (convert::kind_of(kind, key.as_deref()), convert::until_of(until_us));
        let key = key.unwrap_or_default();
        self.handle.written(py, move |runtime| runtime.pause(kind, &name, &key, until, &by))
    }

    /// Holds it up no longer; false if it was not.
    fn resume(&self, py: Python<'_>, kind: &str, name: String, key: Option<String>) -> PyResult<bool> {
        let kind = convert::kind_of(kind, key.as_deref());
        let key = key.unwrap_or_default();
        self.handle.written(py, move |runtime| runtime.resume(kind, &name, &key))
    }

    /// What is held up now.
    fn pauses<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let found = self.handle.stored(py, move |runtime| runtime.store().pauses(runtime.now().wall))?;
        found.iter().map(|row| convert::pause(py, row)).collect()
    }

    /// All contexts that are kept of a run, as JSON text.
    fn contexts_of_run(&self, py: Python<'_>, id: &str) -> PyResult<Vec<String>> {
        let id = parse_run_id(py, id)?;
        self.handle.stored(py, move |runtime| runtime.store().contexts_of_run(id))
    }

    /// What a trigger or cron has at hand, as JSON text.
    fn contexts_of_trigger(&self, py: Python<'_>, name: String) -> PyResult<Vec<String>> {
        self.handle.stored(py, move |runtime| runtime.store().contexts_of_trigger(&name))
    }

    /// At most `limit` runners that serve the store or served it, with what they did since a time in microseconds.
    fn owners<'py>(&self, py: Python<'py>, limit: u64, since_us: i64) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let found = self.handle.stored(py, move |runtime| runtime.store().owners(limit, Wall(since_us)))?;
        found.iter().map(|row| convert::owner(py, row)).collect()
    }

    /// What is not over, of the oldest `limit` such runs.
    fn backlog<'py>(&self, py: Python<'py>, limit: u64) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let found =
            self.handle.stored(py, move |runtime| runtime.store().backlog(limit, runtime.now().wall))?;
        found.iter().map(|row| convert::backlog(py, row)).collect()
    }

    /// Writes a copy of everything to a new file.
    fn export(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        self.handle.asked(py, Runtime::flushing_all, move |store, halt| store.export(&path, halt))
    }
}

impl Store {
    fn rows<'py>(
        &self,
        py: Python<'py>,
        flushing: impl FnOnce(&Runtime) -> Flush + Send,
        sql: &str,
        params: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let params = params.iter().map(convert::cell).collect::<PyResult<Vec<_>>>()?;
        let sql = sql.to_owned();
        let (columns, rows) =
            self.handle.asked(py, flushing, move |store, halt| store.query(&sql, &params, halt))?;
        rows.into_iter().map(|cells| convert::row(py, &columns, cells)).collect()
    }
}
