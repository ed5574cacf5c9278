//! Runs: started, watched, listed, ended, opened again.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use cloaca_core::error::{Error, Kind, excerpt};
use cloaca_core::port::{Page, RunFilter, RunStatus};
use cloaca_core::runtime::{Heard, Runtime, Wanted};

use crate::gil::{free, quick};
use crate::handle::{Handle, parse_run_id, span_of};
use crate::wait::flush;
use crate::watch::Watch;
use crate::{convert, error};

/// The runs of one store.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Runs {
    pub handle: Arc<Handle>,
}

#[pymethods]
impl Runs {
    /// Starts runs of a workflow in one transaction and returns a watch on each. `keys` are run keys, and for how many seconds they hold.
    #[pyo3(signature = (workflow, contexts, keys=None))]
    fn submit(
        &self,
        py: Python<'_>,
        workflow: &str,
        contexts: Vec<String>,
        keys: Option<Vec<Option<(String, f64)>>>,
    ) -> PyResult<Vec<Watch>> {
        let runtime = self.handle.runtime(py)?;
        let keys = keys.into_iter().flatten().chain(std::iter::repeat(None));
        let run_key = |(key, seconds)| (key, span_of(seconds));
        let wanted: Vec<Wanted> = contexts
            .into_iter()
            .zip(keys)
            .map(|(context, key)| Wanted { context: context.into(), run_key: key.map(run_key) })
            .collect();
        let watches = match wanted.len() {
            1 => quick(py, runtime, || runtime.submit(workflow, wanted))?,
            _ => free(py, || runtime.submit(workflow, wanted))?,
        };
        let watches = watches.map_err(|e| error::raise(py, e))?;
        Ok(watches.into_iter().map(|watch| self.handle.watched(watch)).collect())
    }

    /// A watch on a run that this runner drives; `None` if it does not.
    fn watch(&self, py: Python<'_>, id: &str) -> PyResult<Option<Watch>> {
        let runtime = self.handle.runtime(py)?;
        let id = parse_run_id(py, id)?;
        Ok(free(py, || runtime.watch(id))?.map(|watch| self.handle.watched(watch)))
    }

    /// Waits at most `seconds` for the ends of runs that are heard of: their ids; `True` once the runner begins to close, for whom it is news;
    /// `None` when nothing can come any more.
    fn hear(&self, py: Python<'_>, knows_closing: bool, seconds: f64) -> PyResult<Py<PyAny>> {
        let runtime = self.handle.runtime(py)?;
        let heard = free(py, || runtime.hear_runs(knows_closing, span_of(seconds)))?;
        Ok(match heard {
            Heard::Ended(ids) => {
                let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
                ids.into_pyobject(py)?.unbind()
            }
            Heard::Closing => true.into_pyobject(py)?.to_owned().into_any().unbind(),
            Heard::Nothing => PyList::empty(py).into_any().unbind(),
            Heard::Over => py.None(),
        })
    }

    /// Asks for a run's end; false if it is unknown or final.
    fn cancel(&self, py: Python<'_>, id: &str) -> PyResult<bool> {
        let id = parse_run_id(py, id)?;
        flush(py, self.handle.runtime(py)?, Runtime::flushing)?;
        self.handle.written(py, move |runtime| runtime.cancel(id))
    }

    /// Opens a final run that did not complete again, and returns a watch on it; `None` if there is none such.
    fn retry(&self, py: Python<'_>, id: &str) -> PyResult<Option<Watch>> {
        let id = parse_run_id(py, id)?;
        flush(py, self.handle.runtime(py)?, Runtime::flushing)?;
        Ok(self.handle.written(py, move |runtime| runtime.retry(id))?.map(|watch| self.handle.watched(watch)))
    }

    /// Runs, newest first.
    #[expect(clippy::too_many_arguments, reason = "a filter of a listing, at the one call")]
    fn runs<'py>(
        &self,
        py: Python<'py>,
        workflow: Option<String>,
        status: Option<&str>,
        trigger: Option<String>,
        contexts: bool,
        limit: u64,
        offset: u64,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let status = status.map(|name| parse_status(py, name)).transpose()?;
        let filter = RunFilter { workflow, status, trigger, schedule: None, contexts };
        let rows = self.handle.shown(py, |runtime| runtime.store().runs(&filter, Page { limit, offset }))?;
        rows.iter().map(|row| convert::run(py, row)).collect()
    }

    /// One run with its tasks.
    fn run<'py>(&self, py: Python<'py>, id: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
        let id = parse_run_id(py, id)?;
        let Some((row, tasks)) = self.handle.shown(py, |runtime| runtime.store().run(id))? else {
            return Ok(None);
        };
        let dict = convert::run(py, &row)?;
        let tasks = tasks.iter().map(|task| convert::task(py, task)).collect::<PyResult<Vec<_>>>()?;
        dict.set_item("tasks", tasks)?;
        Ok(Some(dict))
    }

    /// The number under which this runner has runs.
    fn owner(&self, py: Python<'_>) -> PyResult<i64> {
        Ok(self.handle.runtime(py)?.epoch())
    }

    /// Where a run stands, a dict; `None` if this runner does not have it.
    fn standing<'py>(&self, py: Python<'py>, id: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
        let runtime = self.handle.runtime(py)?;
        let id = parse_run_id(py, id)?;
        let found = free(py, || runtime.run_standing(id))?;
        found.map(|(standing, is_slot_free)| convert::run_standing(py, &standing, is_slot_free)).transpose()
    }
}

fn parse_status(py: Python<'_>, name: &str) -> PyResult<RunStatus> {
    RunStatus::from_name(name).ok_or_else(|| {
        let text = format!(
            "status is '{}'; it is one of Pending, Running, Completed, Failed, Cancelled",
            excerpt(name)
        );
        error::raise(py, Error::new(Kind::Workflow, text))
    })
}
