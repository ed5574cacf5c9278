//! Runs: started, watched, listed, ended, opened again.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use uuid::Uuid;

use cloaca_core::error::{Error, Kind, excerpt};
use cloaca_core::key::RunRow;
use cloaca_core::port::{By, Page, Parent, Place, RunFilter, RunStatus};
use cloaca_core::runtime::{Heard, Runtime, Wanted};
use cloaca_core::time::Wall;

use crate::client::started;
use crate::gil::{free, quick};
use crate::handle::{Handle, parse_run_id, span_of};
use crate::hearer::Hearer;
use crate::poll_now::ToldParts;
use crate::wait::flush;
use crate::watch::Watch;
use crate::work::{UrgencyParts, urgency_of};
use crate::{convert, error};

/// Which runs a listing shows, from a dict.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Wanting {
    workflow: Option<String>,
    status: Option<String>,
    trigger: Option<String>,
    key: Option<String>,
    parent: Option<String>,
    error: Option<String>,
    since: Option<i64>,
    until: Option<i64>,
    by_end: bool,
    after: Option<(i64, i64, Option<i64>)>,
    contexts: bool,
    untold: bool,
}

impl Wanting {
    /// The filter that it stands for.
    pub fn filter(self, py: Python<'_>) -> PyResult<RunFilter> {
        Ok(RunFilter {
            workflow: self.workflow,
            status: self.status.map(|name| parse_status(py, &name)).transpose()?,
            trigger: self.trigger,
            schedule: None,
            run_key: self.key,
            parent: self.parent.map(|id| parse_run_id(py, &id)).transpose()?,
            error_type: self.error,
            untold: self.untold,
            since: self.since.map(Wall),
            until: self.until.map(Wall),
            by: if self.by_end { By::End } else { By::Creation },
            after: self.after.map(|(at_us, row, end_us)| Place {
                created_at: Wall(at_us),
                row: RunRow(row),
                completed_at: end_us.map(Wall),
            }),
            contexts: self.contexts,
        })
    }
}

/// Runs that somebody wants, one for each context.
fn wanted(
    contexts: Vec<String>,
    keys: Option<Vec<Option<(String, f64)>>>,
    urgency: Option<UrgencyParts>,
    trace: Option<String>,
) -> Vec<Wanted> {
    let urgency = urgency_of(urgency);
    let trace: Option<Arc<str>> = trace.map(Arc::from);
    let keys = keys.into_iter().flatten().chain(std::iter::repeat(None));
    let run_key = |(key, seconds)| (key, span_of(seconds));
    let wanted = contexts.into_iter().zip(keys);
    let wanted = wanted.map(|(context, key)| Wanted {
        trace: trace.clone(),
        context: context.into(),
        run_key: key.map(run_key),
        parent: None,
        urgency,
    });
    wanted.collect()
}

/// The run and the task that ask, and which of their calls each is; or, without those, the run that was named as the parent.
type CallParts = (u128, Option<String>, Option<Vec<Option<u32>>>);

fn called(mut wanted: Vec<Wanted>, parent: Option<CallParts>) -> Vec<Wanted> {
    if let Some((run, task, calls)) = parent {
        let (run, task) = (Uuid::from_u128(run), task.map(Arc::from));
        let Some(calls) = calls else {
            wanted.iter_mut().for_each(|wanted| wanted.parent = Some(Box::new(Parent::given(run))));
            return wanted;
        };
        for (wanted, call) in wanted.iter_mut().zip(calls) {
            let parent = Parent { run, task: task.clone(), call, again: false, given: false };
            wanted.parent = Some(Box::new(parent));
        }
    }
    wanted
}

/// Whether a run is open again, and else why not.
fn shown(told: Result<bool, String>) -> (bool, Option<String>) {
    match told {
        Ok(is_open) => (is_open, None),
        Err(why) => (false, Some(why)),
    }
}

/// The runs of one store.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Runs {
    pub handle: Arc<Handle>,
}

#[pymethods]
impl Runs {
    /// What would become of runs of a workflow that are started now, one after another, as `(verdict, run, reason)`.
    fn foretell_starts(
        &self,
        py: Python<'_>,
        workflow: String,
        runs: Vec<(String, Option<UrgencyParts>)>,
    ) -> PyResult<Vec<ToldParts>> {
        let runs = started(runs);
        flush(py, self.handle.runtime(py)?, Runtime::flushing)?;
        let told = self.handle.stored(py, move |runtime| runtime.rehearse_starts(&workflow, runs))?;
        Ok(told.unwrap_or_default().into_iter().map(crate::poll_now::shown).collect())
    }

    /// Starts runs of a workflow in one transaction and returns a watch on each. `keys` are run keys, and for how many seconds they hold;
    /// `parent` is what starts them: the run, its task's id unless a callback does, and the numbers of those calls that have one, or none of these if
    /// it was named;
    /// `urgency` says of all of them when they are to begin, `trace` is what telemetry hands on with them.
    #[pyo3(signature = (workflow, contexts, keys=None, parent=None, urgency=None, trace=None))]
    #[allow(clippy::too_many_arguments, reason = "each is a word of the request")]
    fn submit(
        &self,
        py: Python<'_>,
        workflow: &str,
        contexts: Vec<String>,
        keys: Option<Vec<Option<(String, f64)>>>,
        parent: Option<CallParts>,
        urgency: Option<UrgencyParts>,
        trace: Option<String>,
    ) -> PyResult<Vec<Watch>> {
        let runtime = self.handle.runtime(py)?;
        let wanted = called(wanted(contexts, keys, urgency, trace), parent);
        let watches = match wanted.len() {
            1 => quick(py, runtime, || runtime.submit(workflow, wanted))?,
            _ => free(py, || runtime.submit(workflow, wanted))?,
        };
        let watches = watches.map_err(|e| error::raise(py, e))?;
        Ok(watches.into_iter().map(|watch| self.handle.watched(watch)).collect())
    }

    /// The same of runs that others are to drive, of a workflow of which nothing need be known here but its name.
    #[pyo3(signature = (workflow, version, contexts, keys=None, parent=None, urgency=None, trace=None))]
    #[allow(clippy::too_many_arguments, reason = "each is a word of the request")]
    fn offer(
        &self,
        py: Python<'_>,
        workflow: &str,
        version: &str,
        contexts: Vec<String>,
        keys: Option<Vec<Option<(String, f64)>>>,
        parent: Option<CallParts>,
        urgency: Option<UrgencyParts>,
        trace: Option<String>,
    ) -> PyResult<Vec<Watch>> {
        let runtime = self.handle.runtime(py)?;
        let wanted = called(wanted(contexts, keys, urgency, trace), parent);
        let watches =
            free(py, || runtime.offer(workflow, version, wanted))?.map_err(|e| error::raise(py, e))?;
        Ok(watches.into_iter().map(|watch| self.handle.watched(watch)).collect())
    }

    /// A watch on a run of the store that is not over, whoever drives it.
    fn watch_anywhere(&self, py: Python<'_>, id: &str) -> PyResult<Watch> {
        let runtime = self.handle.runtime(py)?;
        let id = parse_run_id(py, id)?;
        Ok(self.handle.watched(free(py, || runtime.watch_anywhere(id))?))
    }

    /// Opens final runs that did not complete again, for others to drive; for each whether it is open, or else why it cannot be.
    fn reopen_each(&self, py: Python<'_>, ids: Vec<String>) -> PyResult<Vec<(bool, Option<String>)>> {
        let ids = parse_run_ids(py, &ids)?;
        flush(py, self.handle.runtime(py)?, Runtime::flushing)?;
        let told = self.handle.written(py, move |runtime| runtime.reopen_each(&ids))?;
        Ok(told.into_iter().map(shown).collect())
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

    /// What one event loop hears by of the runs that it waits for; `None` where it has to be told by who calls `hear`.
    fn hearer(&self, py: Python<'_>) -> PyResult<Option<Hearer>> {
        self.handle.runtime(py)?;
        Ok(Hearer::new(&self.handle))
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

    /// Has the callback of a run's end be called at once; false if none waits for its next call.
    fn call_soon(&self, py: Python<'_>, id: &str) -> PyResult<bool> {
        let id = parse_run_id(py, id)?;
        self.handle.written(py, move |runtime| runtime.call_soon(id))
    }

    /// Has it not be called any more; false if none waits for its next call.
    fn skip_call(&self, py: Python<'_>, id: &str) -> PyResult<bool> {
        let id = parse_run_id(py, id)?;
        self.handle.written(py, move |runtime| runtime.skip_call(id))
    }

    /// Asks for the ends of runs, in one transaction; for each whether it was there and not final.
    fn cancel_each(&self, py: Python<'_>, ids: Vec<String>) -> PyResult<Vec<bool>> {
        let ids = parse_run_ids(py, &ids)?;
        flush(py, self.handle.runtime(py)?, Runtime::flushing)?;
        self.handle.written(py, move |runtime| runtime.cancel_each(&ids))
    }

    /// Opens final runs that did not complete again, in one transaction; for each whether it is open, or else why it cannot be.
    fn retry_each(&self, py: Python<'_>, ids: Vec<String>) -> PyResult<Vec<(bool, Option<String>)>> {
        let ids = parse_run_ids(py, &ids)?;
        flush(py, self.handle.runtime(py)?, Runtime::flushing)?;
        let told = self.handle.written(py, move |runtime| runtime.retry_each(&ids))?;
        Ok(told.into_iter().map(shown).collect())
    }

    /// Runs, newest first.
    fn runs<'py>(
        &self,
        py: Python<'py>,
        wanted: Wanting,
        limit: u64,
        offset: u64,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let filter = wanted.filter(py)?;
        let rows =
            self.handle.shown(py, move |runtime| runtime.store().runs(&filter, Page { limit, offset }))?;
        rows.iter().map(|row| convert::run(py, row)).collect()
    }

    /// Where a run stands in listings, as `(created_at_us, row, completed_at_us)`; `None` if it is not kept.
    fn place(&self, py: Python<'_>, id: &str) -> PyResult<Option<convert::Place>> {
        let id = parse_run_id(py, id)?;
        let place = self.handle.stored(py, move |runtime| runtime.store().place(id))?;
        Ok(place.map(convert::place))
    }

    /// One run with its tasks; with `tries`, also with how each of their attempts ended.
    #[pyo3(signature = (id, tries=false))]
    fn run<'py>(&self, py: Python<'py>, id: &str, tries: bool) -> PyResult<Option<Bound<'py, PyDict>>> {
        let id = parse_run_id(py, id)?;
        let found = self.handle.shown(py, move |runtime| match tries {
            true => runtime.store().run_with_tries(id),
            false => runtime.store().run(id),
        })?;
        let Some((row, tasks)) = found else { return Ok(None) };
        let dict = convert::run(py, &row)?;
        let tasks =
            tasks.iter().map(|task| convert::task(py, &row, task, tries)).collect::<PyResult<Vec<_>>>()?;
        dict.set_item("tasks", tasks)?;
        dict.set_item("former", convert::former(py, &row)?)?;
        dict.set_item("graph", row.graph.as_deref())?;
        dict.set_item("children", convert::children(py, &row)?)?;
        dict.set_item("callbacks", convert::calls(py, &row)?)?;
        dict.set_item("trace", row.trace.as_deref())?;
        dict.set_item("last_callback", convert::last_call(py, &row)?)?;
        Ok(Some(dict))
    }

    /// The number under which this runner has runs.
    fn owner(&self, py: Python<'_>) -> PyResult<i64> {
        Ok(self.handle.runtime(py)?.epoch().0)
    }

    /// Where a run stands, a dict; `None` if this runner does not have it.
    fn standing<'py>(&self, py: Python<'py>, id: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
        let runtime = self.handle.runtime(py)?;
        let id = parse_run_id(py, id)?;
        let (found, refused) = free(py, || (runtime.run_standing(id), runtime.run_refused(id)))?;
        let Some((standing, is_permit_free)) = found else { return Ok(None) };
        let dict = convert::run_standing(py, &standing, is_permit_free)?;
        dict.set_item("refused", refused)?;
        Ok(Some(dict))
    }
}

pub fn parse_run_ids(py: Python<'_>, ids: &[String]) -> PyResult<Vec<Uuid>> {
    ids.iter().map(|id| parse_run_id(py, id)).collect()
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
