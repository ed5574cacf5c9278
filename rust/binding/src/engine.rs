//! A runner's life: opened, told what there is, asked how it fares, closed. Its rooms stand beside it, over one handle.
//! Invariant: every entry first checks that it is in the process that opened the runner.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use cloaca_core::context::Bounds;
use cloaca_core::engine::{Event, Level, Note, Settings};
use cloaca_core::error::Error;
use cloaca_core::poll::RESOLUTION;
use cloaca_core::port::{Halt, Outcomes};
use cloaca_core::runtime::{Clock, FailedPoll, Kept, Order, Own, POLL_PATIENCE, Runtime, Services};
use cloaca_core::time::Wall;
use cloaca_store::{OpenError, Opened};

use crate::ends::Ends;
use crate::gil::free;
use crate::handle::{Handle, span_of};
use crate::jobs::{JobParts, Jobs, job_of, parts_of};
use crate::polls::Polls;
use crate::runs::Runs;
use crate::schedules::Schedules;
use crate::store::Store;
use crate::wait::{self, SIGNALS_EVERY, apart};
use crate::{convert, error, fork, metrics};

/// So long shutting down waits for bodies that it has stopped.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// A runner starts within this over a store that is open.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// What was in the way of a runner.
enum Unopened {
    Store(OpenError),
    Runtime(Error),
}

/// One runner's engine. Not for direct use: `cloaca.DefaultRunner` is its face.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Engine {
    handle: Arc<Handle>,
    #[pyo3(get)]
    jobs: Py<Jobs>,
    #[pyo3(get)]
    ends: Py<Ends>,
    #[pyo3(get)]
    polls: Py<Polls>,
    #[pyo3(get)]
    runs: Py<Runs>,
    #[pyo3(get)]
    schedules: Py<Schedules>,
    #[pyo3(get)]
    store: Py<Store>,
}

impl Engine {
    fn over(py: Python<'_>, handle: &Arc<Handle>) -> PyResult<Self> {
        Ok(Self {
            jobs: Py::new(py, Jobs { handle: Arc::clone(handle) })?,
            ends: Py::new(py, Ends { handle: Arc::clone(handle) })?,
            polls: Py::new(py, Polls { handle: Arc::clone(handle) })?,
            runs: Py::new(py, Runs { handle: Arc::clone(handle) })?,
            schedules: Py::new(py, Schedules { handle: Arc::clone(handle) })?,
            store: Py::new(py, Store { handle: Arc::clone(handle) })?,
            handle: Arc::clone(handle),
        })
    }
}

#[pymethods]
impl Engine {
    /// Opens a store and starts the engine over it; on a manual clock if a `start` in microseconds is given.
    #[staticmethod]
    #[pyo3(signature = (url, *, durability, permits, pollers, task_timeout, workflow_timeout, timeout_grace, overdue_max, interruptions_max, crons, catchup_max, recovery, context_bytes_max, ticks_retention, ticks_max, work=true, name=None, hands=None, retention=None, resolution=None, start=None))]
    #[expect(clippy::too_many_arguments, reason = "all but the first are named at the one call")]
    fn open(
        py: Python<'_>,
        url: OsString,
        durability: Option<&str>,
        permits: Vec<usize>,
        pollers: usize,
        task_timeout: f64,
        workflow_timeout: f64,
        timeout_grace: f64,
        overdue_max: usize,
        interruptions_max: u32,
        crons: bool,
        catchup_max: u64,
        recovery: bool,
        context_bytes_max: usize,
        ticks_retention: u64,
        ticks_max: u64,
        work: bool,
        name: Option<String>,
        hands: Option<usize>,
        retention: Option<u64>,
        resolution: Option<u64>,
        start: Option<i64>,
    ) -> PyResult<Self> {
        let settings = Settings {
            task_timeout: span_of(task_timeout),
            workflow_timeout: span_of(workflow_timeout),
            timeout_grace: span_of(timeout_grace),
            interruptions_max,
            crons_enabled: crons,
            catchup_max,
            contexts: Bounds { bytes_max: context_bytes_max, ..Bounds::default() },
            permits,
            runs_in_hand: hands,
            shares: recovery && work,
        };
        let clock = start.map_or_else(Clock::system, |at| Clock::manual(Wall(at)));
        let kept = Kept {
            runs: retention.map(Duration::from_micros),
            ticks: Duration::from_micros(ticks_retention),
            ticks_max,
        };
        let resolution = resolution.map_or(RESOLUTION, Duration::from_micros);
        let (pollers_max, works) = (pollers, work);
        // On a clock that is moved by hand over memory there is no load to spread, and nobody who comes after.
        let in_step = start.is_some() && url == ":memory:";
        let services =
            Services { overdue_max, pollers_max, recovery, name, works, kept, resolution, in_step };
        let durability = durability.map(str::to_owned);
        let opened = apart(py, &Halt::default(), move || {
            let Opened { store, path } =
                cloaca_store::open(&url, durability.as_deref()).map_err(Unopened::Store)?;
            let start = || Runtime::start(store, settings, &services, clock);
            Ok((Halt::within(START_PATIENCE).over(start).map_err(Unopened::Runtime)?, path))
        })?;
        let (runtime, path) = opened.map_err(|unopened| match unopened {
            Unopened::Store(error) => error::raise_open(py, error),
            Unopened::Runtime(error) => error::raise(py, error),
        })?;
        let generation = fork::generation();
        let (runtime, unneeded) = (Arc::new(runtime), Arc::default());
        let handle = Handle { runtime, path, generation, context_bytes_max, unneeded };
        Self::over(py, &Arc::new(handle))
    }

    /// Whether nothing of the store is open any more: the runner was shut down, and its last body is home.
    #[getter]
    fn is_closed(&self) -> bool {
        self.handle.runtime.is_closed()
    }

    /// How many bytes of JSON a context may have.
    #[getter]
    fn context_bytes_max(&self) -> usize {
        self.handle.context_bytes_max
    }

    /// The store's file; none for `:memory:`.
    #[getter]
    fn path(&self) -> Option<PathBuf> {
        self.handle.path.clone()
    }

    /// Declares a workflow from `Workflow._spec`'s plain data; `graph` is kept as it is. The numbers of its bodies are its own, and no other declaration's.
    fn declare_workflow(
        &self,
        py: Python<'_>,
        name: &str,
        version: &str,
        terms: convert::WorkflowTerms,
        graph: &str,
        tasks: &Bound<'_, PyList>,
    ) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        let workflow = convert::workflow(name, version, &terms, graph, tasks)?;
        let workflow = workflow.map_err(|e| error::raise(py, e))?;
        let workflow = self.handle.unneeded.tied(workflow);
        let has_callbacks = workflow.tells != Outcomes::default();
        free(py, || {
            runtime.step(Event::Workflow(Arc::new(workflow)));
            if has_callbacks {
                runtime.say_workflows();
            }
        })
    }

    /// The bodies of workflows that were declared again, or no more, and that no run follows any more; each once.
    fn unneeded_bodies(&self) -> Vec<u64> {
        self.handle.unneeded.take()
    }

    /// The program declares the workflow of that name no more.
    fn withdraw_workflow(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.step(Event::WorkflowGone(name.into())))
    }

    /// The program lets the runner do nothing until it is ready.
    fn wait_for_program(&self, py: Python<'_>) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.wait_for_program())?.map_err(|fault| error::raise_fault(py, fault))
    }

    /// The program has declared what it had to declare.
    fn ready(&self, py: Python<'_>) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.ready())
    }

    /// Moves a manual clock; false if the runner does not come to rest within `patience` seconds.
    fn advance(&self, py: Python<'_>, span: u64, patience: f64) -> PyResult<bool> {
        let runtime = self.handle.runtime(py)?;
        wait::advance(py, runtime, Duration::from_micros(span), span_of(patience))
    }

    /// Microseconds until something is due; `None` if nothing is.
    fn next_due(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        let runtime = self.handle.runtime(py)?;
        let due = free(py, || runtime.next_due())?;
        // Round up: a clock moved short of the moment would not reach it.
        Ok(due.map(|due| due.since(runtime.now().mono).as_nanos().div_ceil(1000) as u64))
    }

    /// This moment in microseconds since 1970.
    fn now(&self, py: Python<'_>) -> PyResult<i64> {
        Ok(self.handle.runtime(py)?.now().wall.0)
    }

    /// Waits `seconds`, or until the runner closes; true if it does.
    fn wait_closing(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.wait_closing(span_of(seconds)))
    }

    /// Whether somebody reads what is logged at DEBUG: if not, it is not even made.
    fn tell_debug(&self, py: Python<'_>, tells: bool) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.tell_debug(tells))
    }

    /// Waits until the keeper has carried out all orders that there are now; false if it does not come back from one for so long.
    fn wait_carried_out(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        let runtime = self.handle.runtime(py)?;
        wait::within(py, span_of(seconds), |slice| runtime.wait_carried_out(slice))
    }

    /// The keeper's next order: `("log", level, text, about, end, judged)`, `("tell", job, (level, text, about) or None)`, `("poll_failed", place, error, failures, disabled)`, `("worker",)`, `("poller",)` or `("close",)`; `None` if there is none for so
    /// long.
    fn next_order(&self, py: Python<'_>, seconds: f64) -> PyResult<Py<PyAny>> {
        let runtime = self.handle.runtime(py)?;
        let Some(order) = free(py, || runtime.next_order(Some(span_of(seconds))))? else {
            return Ok(py.None());
        };
        let order = match order {
            Order::Log(note) => {
                let (level, text, about) = noted(py, &note)?;
                ("log", level, text, about, note.end(), note.judged()).into_pyobject(py)?.into_any()
            }
            Order::PollFailed(FailedPoll { place, error, failures, disabled }) => {
                ("poll_failed", place, &*error, failures, disabled.as_deref()).into_pyobject(py)?.into_any()
            }
            Order::StopPoll { place, serial } => ("stop_poll", place, serial).into_pyobject(py)?.into_any(),
            Order::Tell(job, note) => {
                let log = note.map(|note| noted(py, &note)).transpose()?;
                ("tell", parts_of(job), log).into_pyobject(py)?.into_any()
            }
            Order::SpawnWorker => ("worker",).into_pyobject(py)?.into_any(),
            Order::SpawnPoller => ("poller",).into_pyobject(py)?.into_any(),
            Order::Close => ("close",).into_pyobject(py)?.into_any(),
        };
        Ok(order.unbind())
    }

    /// Counts since the start.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let runtime = self.handle.runtime(py)?;
        let (polls, counts, unfinished) = free(py, || runtime.counts())?;
        let dict = PyDict::new(py);
        dict.set_item("polls", polls.polls)?;
        dict.set_item("skips", polls.skips)?;
        dict.set_item("missed", polls.missed)?;
        dict.set_item("late_mean_ms", polls.late_sum_ns as f64 / polls.polls.max(1) as f64 / 1e6)?;
        dict.set_item("late_max_ms", polls.late_max_ns as f64 / 1e6)?;
        dict.set_item("fires", counts.fires)?;
        dict.set_item("deduplicated", counts.deduplicated)?;
        dict.set_item("dropped", counts.dropped)?;
        dict.set_item("held_back", counts.held_back)?;
        dict.set_item("errors", counts.errors)?;
        dict.set_item("runs_started", counts.started)?;
        dict.set_item("runs_completed", counts.completed)?;
        dict.set_item("runs_failed", counts.failed)?;
        dict.set_item("runs_cancelled", counts.cancelled)?;
        dict.set_item("runs_unfinished", unfinished)?;
        dict.set_item("bodies_overdue", free(py, || runtime.bodies_overdue())?)?;
        let ended = counts.completed + counts.failed + counts.cancelled;
        dict.set_item("run_latency_mean_ms", counts.run_sum_us as f64 / ended.max(1) as f64 / 1e3)?;
        dict.set_item("run_latency_max_ms", counts.run_max_us as f64 / 1e3)?;
        Ok(dict)
    }

    /// The same and more, by names: see [`metrics::metered`].
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let runtime = self.handle.runtime(py)?;
        let found = free(py, || runtime.metered())?;
        metrics::metered(py, &found)
    }

    /// Stops everything at once and tells whoever waits, because nothing can go on.
    fn give_up(&self, py: Python<'_>) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.give_up())
    }

    /// Takes nothing more, and waits at most `seconds` for the ends of all runs in hand. An exception of a signal handler ends the wait.
    fn drain(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        let runtime = self.handle.runtime(py)?;
        let deadline = Instant::now() + span_of(seconds);
        free(py, || runtime.begin_drain())?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if free(py, || runtime.drain_runs(left.min(SIGNALS_EVERY)))? {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
            py.check_signals()?;
        }
    }

    /// Whoever closes this, now or later, waits no more for a store that does not answer at once.
    fn hurry(&self, py: Python<'_>) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.hurry())
    }

    /// Stops everything within `seconds`, and does not wait for `job` or, with `is_poll` or `is_call`, the one poll or call about an end that asks. True if nothing else was
    /// still running. An exception of a signal handler ends the wait, and everything is closed before it is raised, as far as the store answers
    /// soon: not at all if it has not for a while, or at a second such exception.
    #[pyo3(signature = (seconds, job=None, is_poll=false, is_call=false))]
    fn close(
        &self,
        py: Python<'_>,
        seconds: f64,
        job: Option<JobParts>,
        is_poll: bool,
        is_call: bool,
    ) -> PyResult<bool> {
        let runtime = self.handle.runtime(py)?;
        let own = Own { job: job.map(job_of), polls: usize::from(is_poll), ends: usize::from(is_call) };
        let until = Instant::now() + span_of(seconds);
        let drained = drained(py, runtime, span_of(seconds), own);
        let left = match drained {
            Ok(_) => until.saturating_duration_since(Instant::now()),
            Err(_) => Duration::ZERO,
        };
        if drained.is_err() {
            runtime.hurry();
            if runtime.is_silent() {
                runtime.halt().ask();
            }
        }
        let closed = Arc::clone(runtime);
        let finished = apart(py, runtime.halt(), move || closed.finish_close(left));
        drained.and_then(|clean| finished.map(|()| clean))
    }
}

/// A note as `(level, text, about)`.
fn noted<'py>(py: Python<'py>, note: &Note) -> PyResult<(u8, String, Bound<'py, PyDict>)> {
    let level = match note.level() {
        Level::Debug => 10,
        Level::Info => 20,
        Level::Warning => 30,
        Level::Error => 40,
    };
    Ok((level, note.to_string(), convert::about(py, &note.about())?))
}

/// Waits in slices, so that the main thread hears its signals.
fn drained(py: Python<'_>, runtime: &Runtime, span: Duration, own: Own) -> PyResult<bool> {
    free(py, || runtime.begin_close())?;
    let began = Instant::now();
    let mut deadline = began + span;
    let mut has_stopped = false;
    loop {
        // A poll that hangs is not waited for as long as a task.
        let polls = if began.elapsed() < POLL_PATIENCE { own.polls } else { usize::MAX };
        let own = Own { polls, ..own };
        let left = deadline.saturating_duration_since(Instant::now());
        if free(py, || runtime.drain(left.min(SIGNALS_EVERY), own))? {
            return Ok(!has_stopped);
        }
        if left.is_zero() {
            if has_stopped || !free(py, || runtime.has_stoppable(own.job))? {
                return Ok(false);
            }
            // Those that can be stopped are home soon.
            free(py, || runtime.stop_bodies(own.job))?;
            has_stopped = true;
            deadline = Instant::now() + STOP_PATIENCE;
        }
        py.check_signals()?;
    }
}
