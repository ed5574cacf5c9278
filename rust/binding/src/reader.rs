//! A store that is only read, without a runner: what the command line and a page look through.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use cloaca_core::error::{Error, Kind};
use cloaca_core::key::ScheduleKey;
use cloaca_core::port::{Fault, Halt, Page, Redacted, Schedule, ScheduleFilter, ScheduleKind, Stored};

use cloaca_core::time::Wall;

use crate::client::now;
use crate::handle::{parse_id, parse_run_id};
use crate::runs::Wanting;
use crate::wait::{CALL_PATIENCE, CLOSE_PATIENCE, apart};
use crate::{convert, error, fork};

/// A store that is only read.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Reader {
    store: Arc<cloaca_store::Reader>,
    generation: u64,
}

#[pymethods]
impl Reader {
    /// Opens the store that a URL names, as it is.
    #[staticmethod]
    fn open(py: Python<'_>, url: OsString) -> PyResult<Self> {
        let read = apart(py, &Halt::default(), move || cloaca_store::read(&url))?;
        let store = read.map_err(|e| error::raise_open(py, e))?;
        Ok(Self { store: Arc::new(store), generation: fork::generation() })
    }

    /// The file; `None` of a store on a server.
    #[getter]
    fn path(&self) -> Option<PathBuf> {
        self.store.path().map(ToOwned::to_owned)
    }

    /// What messages call the store: its file, or its database and server, without secrets.
    #[getter]
    fn name(&self) -> String {
        self.store.name()
    }

    /// Closes it; twice is fine.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if fork::is_forked(self.generation) {
            return Ok(());
        }
        let store = Arc::clone(&self.store);
        apart(py, &Halt::within(CLOSE_PATIENCE), move || store.close())
    }

    /// At most `limit` triggers, or crons, behind the row `after`.
    fn schedules<'py>(
        &self,
        py: Python<'py>,
        crons: bool,
        after: i64,
        limit: u64,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let filter = if crons { ScheduleFilter::Crons } else { ScheduleFilter::Triggers };
        let found = self.read(py, move |store| store.schedules_after(filter, ScheduleKey(after), limit))?;
        found.iter().map(|row| schedule(py, row)).collect()
    }

    /// Triggers and crons of these rows, by their rows.
    fn schedules_of<'py>(&self, py: Python<'py>, rows: Vec<i64>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let found = self.read(py, move |store| store.schedules_of(&rows))?;
        found.iter().map(|row| schedule(py, row)).collect()
    }

    /// What a name stands for.
    fn named<'py>(&self, py: Python<'py>, name: String) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let found = self.read(py, move |store| store.named(&name))?;
        found.iter().map(|row| schedule(py, row)).collect()
    }

    /// The cron with that id.
    fn cron<'py>(&self, py: Python<'py>, id: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
        let id = parse_id(py, id)?;
        self.read(py, move |store| store.cron(id))?.map(|row| schedule(py, &row)).transpose()
    }

    /// What a schedule's polls answered, as stretches of equal outcomes, newest first.
    fn ticks<'py>(
        &self,
        py: Python<'py>,
        row: i64,
        limit: u64,
        offset: u64,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let found = self.read(py, move |store| store.history(ScheduleKey(row), Page { limit, offset }))?;
        found.iter().map(|row| convert::stretch(py, row)).collect()
    }

    /// Runs, newest first.
    fn runs<'py>(&self, py: Python<'py>, wanted: Wanting, limit: u64) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let filter = wanted.filter(py)?;
        let found = self.read(py, move |store| store.runs(&filter, Page { limit, offset: 0 }))?;
        found.iter().map(|row| convert::run(py, row)).collect()
    }

    /// One run with its tasks and their attempts, and in whose hands it is.
    fn run<'py>(&self, py: Python<'py>, id: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
        let id = parse_run_id(py, id)?;
        let Some((row, tasks)) = self.read(py, move |store| store.run(id))? else { return Ok(None) };
        let dict = convert::run(py, &row)?;
        let shown = tasks.iter().map(|task| {
            let shown = convert::task(py, &row, task, true)?;
            shown.set_item("context", task.context.as_deref())?;
            Ok(shown)
        });
        dict.set_item("tasks", shown.collect::<PyResult<Vec<_>>>()?)?;
        dict.set_item("former", convert::former(py, &row)?)?;
        dict.set_item("graph", row.graph.as_deref())?;
        dict.set_item("children", convert::children(py, &row)?)?;
        dict.set_item("callbacks", convert::calls(py, &row)?)?;
        dict.set_item("trace", row.trace.as_deref())?;
        dict.set_item("last_callback", convert::last_call(py, &row)?)?;
        dict.set_item("owner", self.read(py, move |store| store.holder(id))?.map(|owner| owner.0))?;
        Ok(Some(dict))
    }

    /// Where a run stands in listings.
    fn place(&self, py: Python<'_>, id: &str) -> PyResult<Option<convert::Place>> {
        let id = parse_run_id(py, id)?;
        Ok(self.read(py, move |store| store.place(id))?.map(convert::place))
    }

    /// At most `limit` ids of runs that begin like this.
    fn run_ids(&self, py: Python<'_>, prefix: String, limit: u64) -> PyResult<Vec<String>> {
        let found = self.read(py, move |store| store.run_ids(&prefix, limit))?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    /// Runners that serve the store or served it.
    #[pyo3(signature = (limit, since_us=i64::MAX))]
    fn owners<'py>(&self, py: Python<'py>, limit: u64, since_us: i64) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let found = self.read(py, move |store| store.owners(limit, Wall(since_us)))?;
        found.iter().map(|row| convert::owner(py, row)).collect()
    }

    /// What is not over, of the oldest `limit` such runs.
    fn backlog<'py>(&self, py: Python<'py>, limit: u64) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let found = self.read(py, move |store| store.backlog(limit, now()))?;
        found.iter().map(|row| convert::backlog(py, row)).collect()
    }

    /// Tasks on record as begun, of the oldest `limit` runs that are not over.
    fn begun<'py>(&self, py: Python<'py>, limit: u64) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let found = self.read(py, move |store| store.begun(limit))?;
        found.iter().map(|row| convert::begun(py, row)).collect()
    }

    /// What is kept of a workflow in its newest version.
    fn graph(&self, py: Python<'_>, workflow: String) -> PyResult<Option<String>> {
        self.read(py, move |store| store.graph(&workflow))
    }

    /// At most `limit` names of workflows of which something is kept, behind `after`.
    fn graphs(&self, py: Python<'_>, after: String, limit: u64) -> PyResult<Vec<String>> {
        self.read(py, move |store| store.graphs(&after, limit))
    }

    /// At most `limit` names of workflows that have runs, behind `after`.
    fn workflows(&self, py: Python<'_>, after: String, limit: u64) -> PyResult<Vec<String>> {
        self.read(py, move |store| store.workflows(&after, limit))
    }

    /// A number that changes when somebody has committed.
    fn commits(&self, py: Python<'_>) -> PyResult<i64> {
        self.read(py, cloaca_store::Reader::commits)
    }

    /// The content version of a workflow's newest run.
    fn version(&self, py: Python<'_>, workflow: String) -> PyResult<Option<String>> {
        self.read(py, move |store| store.version(&workflow))
    }

    /// How many runs ended before a time in microseconds, counted to `limit`.
    fn ended_before(&self, py: Python<'_>, before_us: i64, limit: u64) -> PyResult<u64> {
        self.read(py, move |store| store.ended_before(Wall(before_us), limit))
    }

    /// How many of them would go if they were to be deleted now, counted to `limit`.
    fn prunable(&self, py: Python<'_>, before_us: i64, limit: u64) -> PyResult<u64> {
        self.read(py, move |store| store.prunable(Wall(before_us), now(), limit))
    }

    /// Limits with names, as they stand now.
    fn limits<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let found = self.read(py, move |store| store.limits(now()))?;
        found.iter().map(|row| convert::limit(py, row)).collect()
    }

    /// What is held up now.
    fn pauses<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let found = self.read(py, move |store| store.pauses(now()))?;
        found.iter().map(|row| convert::pause(py, row)).collect()
    }

    /// What is to be hidden: keys, and whether a function decides beside them; `None` if nothing is.
    fn redacted(&self, py: Python<'_>) -> PyResult<Option<(Vec<String>, bool)>> {
        let Redacted { keys, by_function } = self.read(py, cloaca_store::Reader::redacted)?;
        Ok((by_function || !keys.is_empty()).then_some((keys, by_function)))
    }

    /// All contexts that are kept of a run, as JSON text.
    fn contexts_of_run(&self, py: Python<'_>, id: &str) -> PyResult<Vec<String>> {
        let id = parse_run_id(py, id)?;
        self.read(py, move |store| store.contexts_of_run(id))
    }

    /// What a trigger or cron has at hand, as JSON text.
    fn contexts_of_trigger(&self, py: Python<'_>, name: String) -> PyResult<Vec<String>> {
        self.read(py, move |store| store.contexts_of_trigger(&name))
    }

    /// Runs one read-only statement; rows as dicts.
    fn query<'py>(
        &self,
        py: Python<'py>,
        sql: &str,
        params: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let params = params.iter().map(convert::cell).collect::<PyResult<Vec<_>>>()?;
        let sql = sql.to_owned();
        let (columns, rows) = self.asked(py, move |store, halt| store.query(&sql, &params, halt))?;
        rows.into_iter().map(|cells| convert::row(py, &columns, cells)).collect()
    }

    /// Writes a copy of everything to a new file.
    fn export(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        self.asked(py, move |store, halt| store.export(&path, halt))
    }

    /// Copies everything to a store on a server that holds nothing: how many rows that were.
    fn copy_to_server(&self, py: Python<'_>, url: String) -> PyResult<u64> {
        self.asked(py, move |store, halt| store.copy_to_server(&url, halt))
    }

    /// Copies everything to a new file.
    fn copy_to_file(&self, py: Python<'_>, path: PathBuf) -> PyResult<u64> {
        self.asked(py, move |store, halt| store.copy_to_file(&path, halt))
    }
}

impl Reader {
    fn store(&self, py: Python<'_>) -> PyResult<&Arc<cloaca_store::Reader>> {
        if fork::is_forked(self.generation) {
            let text = "this reader was opened before a fork; open a new one in the child process";
            return Err(error::raise(py, Error::new(Kind::Runner, text)));
        }
        Ok(&self.store)
    }

    fn read<T: Send + 'static>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&cloaca_store::Reader) -> Stored<T> + Send + 'static,
    ) -> PyResult<T> {
        let store = Arc::clone(self.store(py)?);
        let answer = apart(py, &Halt::within(CALL_PATIENCE), move || ask(&store))?;
        answer.map_err(|fault| error::raise_fault(py, fault))
    }

    /// The same for what may take long: a signal ends it.
    fn asked<T: Send + 'static>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&cloaca_store::Reader, &Halt) -> Result<T, Fault> + Send + 'static,
    ) -> PyResult<T> {
        let halt = Halt::default();
        let asked = halt.clone();
        let store = Arc::clone(self.store(py)?);
        let answer = apart(py, &halt, move || ask(&store, &asked))?;
        answer.map_err(|fault| error::raise_fault(py, fault))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if fork::is_forked(self.generation) {
            // Its descriptors and locks are the parent's: leak them here.
            std::mem::forget(Arc::clone(&self.store));
        }
    }
}

/// A trigger or a cron as listings show it.
fn schedule<'py>(py: Python<'py>, row: &Schedule) -> PyResult<Bound<'py, PyDict>> {
    let (dict, due) = match row.kind {
        ScheduleKind::Trigger { interval_us, .. } => {
            let due =
                row.grid.filter(|_| row.on_run.is_none()).map(|grid| grid.resume(interval_us, now()).first);
            (convert::trigger(py, row, None)?, due)
        }
        ScheduleKind::Cron { next_at, .. } => (convert::cron(py, row)?, next_at),
    };
    convert::schedule(&dict, row, due)?;
    dict.set_item("failures", row.failures)?;
    Ok(dict)
}
