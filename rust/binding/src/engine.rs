//! What Python threads enter: one class whose methods translate, detach where they may wait, and call the runtime.
//! Invariant: every entry first checks that it is in the process that opened the runner.

use std::any::Any;
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use uuid::Uuid;

use cloaca_core::admit::Overlap;
use cloaca_core::context::{Bounds, LIGHT_BYTES_MAX};
use cloaca_core::cron::Cron;
use cloaca_core::engine::{Declared, Event, Job, Level, Settings};
use cloaca_core::error::{Error, Kind, excerpt};
use cloaca_core::poll::{Backoff, Plan, RESOLUTION};
use cloaca_core::port::{
    Fault, Halt, NewCron, Page, RunFilter, RunStatus, Schedule, ScheduleFilter, Store, TriggerRow,
};
use cloaca_core::run::{Ended, Ruling};
use cloaca_core::runtime::{Beginning, Clock, Kept, Order, Own, POLL_PATIENCE, Runtime, Services, Waited};
use cloaca_core::time::Wall;
use cloaca_store::Opened;

use crate::wait::{SIGNALS_EVERY, apart, flush};
use crate::watch::Watch;
use crate::{convert, error, work};

/// Bumped in a forked child, so that every handle made before is refused there.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// As good as for ever, and small enough to be added to any clock.
const SPAN_SECONDS_MAX: f64 = 1e9;

/// This process is about to fork, on this thread.
#[pyfunction]
pub fn before_fork(py: Python<'_>) -> PyResult<()> {
    free(py, cloaca_store::before_fork)
}

/// The fork is over, in the parent or in the child.
#[pyfunction]
pub fn after_fork() {
    cloaca_store::after_fork();
}

/// Tells this module that it is in a forked child now.
#[pyfunction]
pub fn forked() {
    GENERATION.fetch_add(1, Ordering::AcqRel);
    cloaca_store::forked();
}

/// One runner's engine. Not for direct use: `cloaca.DefaultRunner` is its face.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Engine {
    runtime: Arc<Runtime>,
    path: Option<PathBuf>,
    generation: u64,
    context_bytes_max: usize,
}

impl Engine {
    fn runtime(&self, py: Python<'_>) -> PyResult<&Arc<Runtime>> {
        refuse_after_fork(py, self.generation)?;
        Ok(&self.runtime)
    }

    fn watched(&self, watch: Arc<cloaca_core::runtime::Watch>) -> Watch {
        Watch { watch, generation: self.generation }
    }

    fn stored<T: Send>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&Runtime) -> Result<T, Fault> + Send,
    ) -> PyResult<T> {
        let runtime = self.runtime(py)?;
        free(py, || ask(runtime))?.map_err(|fault| fault_of(py, runtime, fault))
    }

    /// The same for who looks at runs.
    fn shown<T: Send>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&Runtime) -> Result<T, Fault> + Send,
    ) -> PyResult<T> {
        flush(py, self.runtime(py)?, Runtime::show_begun)?;
        self.stored(py, ask)
    }

    /// The same for what writes: it waits its turn, and the main thread hears its signals meanwhile.
    fn written<T: Send + 'static>(
        &self,
        py: Python<'_>,
        write: impl FnOnce(&Runtime) -> Result<T, Fault> + Send + 'static,
    ) -> PyResult<T> {
        let runtime = self.runtime(py)?;
        apart(py, runtime, &Halt::default(), write)?.map_err(|fault| fault_of(py, runtime, fault))
    }

    /// The same for a question that may take as long as it likes, about what was sent before it.
    fn asked<T: Send + 'static>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&dyn Store, &Halt) -> Result<T, Fault> + Send + 'static,
    ) -> PyResult<T> {
        let runtime = self.runtime(py)?;
        flush(py, runtime, Runtime::flushing_all)?;
        let halt = Halt::default();
        let asked = halt.clone();
        let answer =
            apart(py, runtime, &halt, move |runtime| runtime.ask(&asked, |store| ask(store, &asked)))?;
        answer.map_err(|e| error::raise(py, e))
    }
}

/// The exception for a fault of the store. One that was closed under a call is the runner's.
fn fault_of(py: Python<'_>, runtime: &Runtime, fault: Fault) -> PyErr {
    match runtime.is_finished() {
        true => error::raise(py, Error::new(Kind::Runner, "the runner was shut down")),
        false => error::raise_fault(py, fault),
    }
}

/// Whether this process was forked since what bears this generation was made.
pub fn is_forked(generation: u64) -> bool {
    generation != GENERATION.load(Ordering::Acquire)
}

/// Refuses what was made in another process: its threads and locks are not here.
pub fn refuse_after_fork(py: Python<'_>, generation: u64) -> PyResult<()> {
    if !is_forked(generation) {
        return Ok(());
    }
    let text = "this runner was made before a fork; make a new DefaultRunner in the child process";
    Err(error::raise(py, Error::new(Kind::Runner, text)))
}

/// Runs `work` with the interpreter released. A panic in it becomes an exception that asks for a report.
pub fn free<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    py.detach(|| catch_unwind(AssertUnwindSafe(work))).map_err(|panic| fault(py, &*panic))
}

/// Runs work that waits for nothing but the engine's lock: with the interpreter in hand if that is free, because giving it away and
/// taking it again costs more than such work.
fn quick<T: Send>(py: Python<'_>, runtime: &Runtime, work: impl FnOnce() -> T + Send) -> PyResult<T> {
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

/// A span from seconds that the Python layer has checked; whatever else comes is cut to what fits.
pub fn span_of(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.clamp(0.0, SPAN_SECONDS_MAX)).unwrap_or(Duration::ZERO)
}

impl Drop for Engine {
    fn drop(&mut self) {
        if is_forked(self.generation) {
            // The threads and locks of a forked runtime belong to the parent: leak them here.
            std::mem::forget(Arc::clone(&self.runtime));
        }
    }
}

/// A job as Python carries it: `(run, task, attempt, callback_only, life)`.
type JobParts = (u128, u32, u32, bool, u32);

fn job_of(job: JobParts) -> Job {
    let (run, task, attempt, callback_only, life) = job;
    Job { run: Uuid::from_u128(run), task, attempt, life, callback_only }
}

fn parse_id(py: Python<'_>, id: &str) -> PyResult<Uuid> {
    Uuid::parse_str(id).map_err(|_| {
        let text = format!("Invalid schedule ID '{}': it is not a UUID", excerpt(id));
        error::raise(py, Error::new(Kind::Schedule, text))
    })
}

fn next_of(cron: &Cron, at: Wall) -> Option<Wall> {
    cron.next(at)
}

/// What triggers of one kind have in common, as the Python layer declares it; spans are in microseconds.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct KindParts {
    workflow: String,
    interval: u64,
    allow_concurrent: bool,
    jitter: u64,
    timeout: Option<u64>,
    /// `(base, factor, longest)`.
    backoff: (u64, f64, u64),
    failures_max: Option<u32>,
    overlap: String,
}

impl KindParts {
    fn plan(&self) -> Plan {
        let (base, factor, longest) = self.backoff;
        Plan {
            interval: Duration::from_micros(self.interval),
            jitter: Duration::from_micros(self.jitter),
            timeout: self.timeout.map(Duration::from_micros),
            backoff: Backoff {
                base: Duration::from_micros(base),
                factor,
                longest: Duration::from_micros(longest),
            },
            failures_max: self.failures_max,
        }
    }

    /// Adds the triggers of these names, which share what can be shared.
    fn declare(
        self,
        names: &[Bound<'_, PyString>],
        triggers: &mut Vec<(Arc<Plan>, Declared)>,
    ) -> PyResult<()> {
        let plan = Arc::new(self.plan());
        let overlap = Overlap::from_name(&self.overlap).unwrap_or_default();
        let interval_us = i64::try_from(self.interval).unwrap_or(i64::MAX);
        let allow_concurrent = self.allow_concurrent;
        let workflow: Arc<str> = self.workflow.into();
        for name in names {
            let (name, workflow) = (Arc::from(name.to_str()?), Arc::clone(&workflow));
            let row = TriggerRow { name, workflow, interval_us, allow_concurrent };
            triggers.push((Arc::clone(&plan), Declared { row, overlap }));
        }
        Ok(())
    }
}

#[pymethods]
impl Engine {
    /// Opens a store and starts the engine over it; on a manual clock if a `start` in microseconds is given.
    #[staticmethod]
    #[pyo3(signature = (url, *, durability, slots, task_timeout, workflow_timeout, crons, catchup_max, recovery, context_bytes_max, ticks_retention, ticks_max, retention=None, resolution=None, start=None))]
    #[expect(clippy::too_many_arguments, reason = "all but the first are named at the one call")]
    fn open(
        py: Python<'_>,
        url: OsString,
        durability: Option<&str>,
        slots: usize,
        task_timeout: f64,
        workflow_timeout: f64,
        crons: bool,
        catchup_max: u64,
        recovery: bool,
        context_bytes_max: usize,
        ticks_retention: u64,
        ticks_max: u64,
        retention: Option<u64>,
        resolution: Option<u64>,
        start: Option<i64>,
    ) -> PyResult<Self> {
        let settings = Settings {
            task_timeout: span_of(task_timeout),
            workflow_timeout: span_of(workflow_timeout),
            crons_enabled: crons,
            catchup_max,
            contexts: Bounds { bytes_max: context_bytes_max, ..Bounds::default() },
        };
        let opened = free(py, || cloaca_store::open(&url, durability))?;
        let Opened { store, path } = opened.map_err(|e| error::raise_open(py, e))?;
        let clock = start.map_or_else(Clock::system, |at| Clock::manual(Wall(at)));
        let kept = Kept {
            runs: retention.map(Duration::from_micros),
            ticks: Duration::from_micros(ticks_retention),
            ticks_max,
        };
        let resolution = resolution.map_or(RESOLUTION, Duration::from_micros);
        let services = Services { slots_max: slots, recovery, kept, resolution };
        let started = free(py, || Runtime::start(store, settings, &services, clock))?;
        let runtime = started.map_err(|e| error::raise(py, e))?;
        let generation = GENERATION.load(Ordering::Acquire);
        Ok(Self { runtime: Arc::new(runtime), path, generation, context_bytes_max })
    }

    /// Whether nothing of the store is open any more: the runner was shut down, and its last body is home.
    #[getter]
    fn is_closed(&self) -> bool {
        self.runtime.is_closed()
    }

    /// How many bytes of JSON a context may have.
    #[getter]
    fn context_bytes_max(&self) -> usize {
        self.context_bytes_max
    }

    /// The store's file; none for `:memory:`.
    #[getter]
    fn path(&self) -> Option<PathBuf> {
        self.path.clone()
    }

    /// Declares a workflow from `Workflow._spec`'s plain data.
    fn declare_workflow(
        &self,
        py: Python<'_>,
        name: &str,
        version: &str,
        tasks: &Bound<'_, PyList>,
    ) -> PyResult<()> {
        let runtime = self.runtime(py)?;
        let workflow = convert::workflow(name, version, tasks)?.map_err(|e| error::raise(py, e))?;
        free(py, || runtime.step(Event::Workflow(Arc::new(workflow))))?;
        Ok(())
    }

    /// Declares triggers, as kinds with the names of theirs, and returns the first one's place in the list of bodies; the others
    /// follow it.
    fn declare_triggers(
        &self,
        py: Python<'_>,
        kinds: Vec<(KindParts, Vec<Bound<'_, PyString>>)>,
    ) -> PyResult<u32> {
        let runtime = self.runtime(py)?;
        let mut triggers = Vec::with_capacity(kinds.iter().map(|(_, names)| names.len()).sum());
        for (kind, names) in kinds {
            kind.declare(&names, &mut triggers)?;
        }
        free(py, || runtime.declare(triggers))
    }

    /// How many places for triggers there are: the next declaration's first.
    fn places(&self, py: Python<'_>) -> PyResult<u32> {
        let runtime = self.runtime(py)?;
        free(py, || runtime.places())
    }

    /// The program has declared what it had to declare.
    fn ready(&self, py: Python<'_>) -> PyResult<()> {
        self.runtime(py)?.ready();
        Ok(())
    }

    /// Polls until sent home. `skip` is the answer that means nothing to do; anything else goes to `slow`.
    fn poll(
        &self,
        py: Python<'_>,
        bodies: &Bound<'_, PyList>,
        skip: &Bound<'_, PyAny>,
        slow: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        work::poll_loop(py, self.runtime(py)?, bodies, skip, slow, self.generation)
    }

    /// `(cursor, scheduled_at, last_fired_at, failures)` of the trigger in a place whose body is being called.
    fn tick_state(
        &self,
        py: Python<'_>,
        slot: u32,
    ) -> PyResult<(Option<String>, String, Option<String>, u32)> {
        let (state, due) = self.runtime(py)?.tick_state(slot);
        let cursor = state.cursor.as_deref().map(str::to_owned);
        Ok((cursor, due.rfc3339(), state.fired_at.map(Wall::rfc3339), state.failures))
    }

    /// The right to poll a trigger out of turn; `None` while another of its polls is in flight, `False` if it is not declared here.
    fn poll_now(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyAny>> {
        let runtime = self.runtime(py)?;
        let row = self.trigger_row(py, name)?;
        let row = row.map(|row| row.row);
        let polled =
            free(py, || row.filter(|&row| runtime.standing(row).is_some()).map(|row| runtime.poll_now(row)))?;
        let Some(begun) = polled else {
            return Ok(false.into_pyobject(py)?.to_owned().into_any().unbind());
        };
        match begun {
            Some((ticket, began)) => Ok(work::parts_of(ticket, began).into_pyobject(py)?.into_any().unbind()),
            None => Ok(py.None()),
        }
    }

    /// Ends a poll whose answer came later, or that was out of turn. With an `error` the answer does not count.
    fn poll_answer(
        &self,
        py: Python<'_>,
        ticket: work::TicketParts,
        answer: Bound<'_, PyAny>,
        error: Option<Bound<'_, PyAny>>,
        slow: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let answer = match error {
            Some(error) => Err(PyErr::from_value(error)),
            None => Ok(answer),
        };
        work::finish(self.runtime(py)?, ticket, answer, slow, self.generation)
    }

    /// Ends a poll out of turn without a trace.
    fn poll_looked(&self, py: Python<'_>, ticket: work::TicketParts) -> PyResult<()> {
        let runtime = self.runtime(py)?;
        let (ticket, _) = work::ticket_of(ticket);
        free(py, || runtime.poll_looked(ticket))?;
        Ok(())
    }

    /// Where a trigger stands: its row with `standing`, a dict, or `None` if it is not polled here.
    fn standing<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
        let runtime = self.runtime(py)?;
        let Some(row) = self.trigger_row(py, name)? else { return Ok(None) };
        let (standing, last) = free(py, || (runtime.standing(row.row), runtime.last_polls([row.row])))?;
        let dict = convert::trigger(py, &row, last[0])?;
        dict.set_item("disabled_cause", &row.disabled_cause)?;
        dict.set_item("standing", standing.map(|found| convert::standing(py, found)).transpose()?)?;
        Ok(Some(dict))
    }

    /// Opens a final run that did not complete again, and returns a watch on it; `None` if there is none such.
    fn retry(&self, py: Python<'_>, id: &str) -> PyResult<Option<Watch>> {
        let id = parse_id(py, id)?;
        flush(py, self.runtime(py)?, Runtime::flushing)?;
        Ok(self.written(py, move |runtime| runtime.retry(id))?.map(|watch| self.watched(watch)))
    }

    /// Moves a manual clock; false if the runner does not come to rest within `patience` seconds.
    fn advance(&self, py: Python<'_>, span: u64, patience: f64) -> PyResult<bool> {
        let runtime = self.runtime(py)?;
        let patience = span_of(patience);
        free(py, || runtime.advance(Duration::from_micros(span), patience))
    }

    /// Microseconds until something is due; `None` if nothing is.
    fn next_due(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        let runtime = self.runtime(py)?;
        let due = free(py, || runtime.next_due())?;
        // Round up: a clock moved short of the moment would not reach it.
        Ok(due.map(|due| due.since(runtime.now().mono).as_nanos().div_ceil(1000) as u64))
    }

    /// This moment in microseconds since 1970.
    fn now(&self, py: Python<'_>) -> PyResult<i64> {
        Ok(self.runtime(py)?.now().wall.0)
    }

    /// Waits until everything sent to the store so far is kept.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        flush(py, self.runtime(py)?, Runtime::flushing_all)
    }

    /// A worker thread has come or goes.
    fn worker_present(&self, py: Python<'_>, present: bool) -> PyResult<()> {
        self.runtime(py)?.worker_present(present);
        Ok(())
    }

    /// The next job as `(job, body, task_id, context_json, error)`; `None` when idle too long; `False` when closed.
    fn take_job(&self, py: Python<'_>, seconds: f64) -> PyResult<Py<PyAny>> {
        let runtime = self.runtime(py)?;
        let mut was_woken = false;
        let work = loop {
            let Some(job) = runtime.ready_job(was_woken) else {
                match free(py, || runtime.wait_job(span_of(seconds)))? {
                    Waited::Ready => was_woken = true,
                    Waited::Idle => return Ok(py.None()),
                    Waited::Closed => return Ok(false.into_pyobject(py)?.to_owned().into_any().unbind()),
                }
                continue;
            };
            was_woken = false;
            let mut beginning = quick(py, runtime, || runtime.begin(job))?;
            if beginning == Beginning::Recording {
                beginning = free(py, || runtime.begin_recorded(job))?;
            }
            if let Beginning::Begun(work) = beginning {
                break work;
            }
        };
        let context = match work.context.text_at_once() {
            Some(context) => context,
            None => free(py, || work.context.text())?,
        };
        let Job { run, task, attempt, life, callback_only } = work.job;
        let job = (run.as_u128(), task, attempt, callback_only, life);
        let parts = (job, work.body, &*work.task, &*context, work.error);
        Ok(parts.into_pyobject(py)?.into_any().unbind())
    }

    /// An attempt returned `context` (JSON text). True if it counts; with a callback, `settled` must follow.
    fn succeeded(
        &self,
        py: Python<'_>,
        job: JobParts,
        context: String,
        has_callback: bool,
    ) -> PyResult<bool> {
        let runtime = self.runtime(py)?;
        let is_light = context.len() <= LIGHT_BYTES_MAX;
        let end = || runtime.attempt_ended(job_of(job), Ended::Success(context.into()), has_callback);
        let ruling = if is_light { quick(py, runtime, end)? } else { free(py, end)? };
        Ok(ruling == Ruling::Final)
    }

    /// An attempt failed. True if that is final; with a callback, `settled` must follow then.
    fn failed(&self, py: Python<'_>, job: JobParts, text: String, has_callback: bool) -> PyResult<bool> {
        let runtime = self.runtime(py)?;
        let ruling = free(py, || runtime.attempt_ended(job_of(job), Ended::Failure(text), has_callback))?;
        Ok(ruling == Ruling::Final)
    }

    /// A final attempt's callback has been told.
    fn settled(&self, py: Python<'_>, job: JobParts) -> PyResult<()> {
        let runtime = self.runtime(py)?;
        quick(py, runtime, || runtime.settled(job_of(job)))?;
        Ok(())
    }

    /// Gives an attempt's slot back.
    fn yield_slot(&self, py: Python<'_>, job: JobParts) -> PyResult<()> {
        let runtime = self.runtime(py)?;
        free(py, || runtime.yield_slot(job_of(job)))?;
        Ok(())
    }

    /// Takes a slot again; false if none was free in time.
    fn regain_slot(&self, py: Python<'_>, job: JobParts, seconds: f64) -> PyResult<bool> {
        let runtime = self.runtime(py)?;
        free(py, || runtime.regain_slot(job_of(job), span_of(seconds)))
    }

    /// Waits `seconds`, or until the runner closes; true if it does.
    fn wait_closing(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        let runtime = self.runtime(py)?;
        free(py, || runtime.wait_closing(span_of(seconds)))
    }

    /// The keeper's next order: `("log", level, text)`, `("worker",)`, `("poller",)` or `("close",)`.
    fn next_order(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let runtime = self.runtime(py)?;
        let order = free(py, || runtime.next_order())?;
        let order = match order {
            Order::Log(level, text) => {
                let level = match level {
                    Level::Info => 20,
                    Level::Warning => 30,
                    Level::Error => 40,
                };
                ("log", level, text).into_pyobject(py)?.into_any()
            }
            Order::SpawnWorker => ("worker",).into_pyobject(py)?.into_any(),
            Order::SpawnPoller => ("poller",).into_pyobject(py)?.into_any(),
            Order::Close => ("close",).into_pyobject(py)?.into_any(),
        };
        Ok(order.unbind())
    }

    /// Starts runs of a workflow in one transaction and returns a watch on each.
    fn submit(&self, py: Python<'_>, workflow: &str, contexts: Vec<String>) -> PyResult<Vec<Watch>> {
        let runtime = self.runtime(py)?;
        let contexts: Vec<Arc<str>> = contexts.into_iter().map(Arc::from).collect();
        let watches = match contexts.len() {
            1 => quick(py, runtime, || runtime.submit(workflow, contexts))?,
            _ => free(py, || runtime.submit(workflow, contexts))?,
        };
        let watches = watches.map_err(|e| error::raise(py, e))?;
        Ok(watches.into_iter().map(|watch| self.watched(watch)).collect())
    }

    /// A watch on a run that this runner drives; `None` if it does not.
    fn watch(&self, py: Python<'_>, id: &str) -> PyResult<Option<Watch>> {
        let runtime = self.runtime(py)?;
        let id = parse_id(py, id)?;
        Ok(free(py, || runtime.watch(id))?.map(|watch| self.watched(watch)))
    }

    /// Asks for a run's end; false if it is unknown or final.
    fn cancel(&self, py: Python<'_>, id: &str) -> PyResult<bool> {
        let id = parse_id(py, id)?;
        flush(py, self.runtime(py)?, Runtime::flushing)?;
        self.written(py, move |runtime| runtime.cancel(id))
    }

    /// Triggers in the order of their registration.
    fn triggers<'py>(
        &self,
        py: Python<'py>,
        enabled_only: bool,
        limit: u64,
        offset: u64,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let page = Page { limit, offset };
        flush(py, self.runtime(py)?, Runtime::flushing)?;
        let (rows, last) = self.stored(py, |runtime| {
            let rows = runtime.store().schedules(ScheduleFilter::Triggers, enabled_only, page)?;
            let last = runtime.last_polls(rows.iter().map(|row| row.row));
            Ok((rows, last))
        })?;
        rows.iter().zip(last).map(|(row, last)| convert::trigger(py, row, last)).collect()
    }

    /// The trigger of that name.
    fn trigger<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some(row) = self.trigger_row(py, name)? else { return Ok(None) };
        let last = free(py, || self.runtime.last_polls([row.row]))?;
        convert::trigger(py, &row, last[0]).map(Some)
    }

    /// Switches a trigger; false if there is none of that name.
    fn set_trigger_enabled(&self, py: Python<'_>, name: &str, enabled: bool) -> PyResult<bool> {
        let Some(row) = self.trigger_row(py, name)? else { return Ok(false) };
        self.written(py, move |runtime| runtime.set_trigger_enabled(row.row, enabled))
    }

    /// The runs that a trigger fired, newest first; `None` if there is no such trigger.
    fn trigger_runs<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        limit: u64,
        offset: u64,
    ) -> PyResult<Option<(String, Vec<Bound<'py, PyDict>>)>> {
        let Some(row) = self.trigger_row(py, name)? else { return Ok(None) };
        let filter = RunFilter { schedule: Some(row.row), ..RunFilter::default() };
        let runs = self.shown(py, |runtime| runtime.store().runs(&filter, Page { limit, offset }))?;
        let runs = runs.iter().map(|run| convert::run(py, run)).collect::<PyResult<_>>()?;
        Ok(Some((row.id.to_string(), runs)))
    }

    /// A trigger's polls as stretches of equal outcomes, newest first.
    fn ticks<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        limit: u64,
    ) -> PyResult<Option<Vec<Bound<'py, PyDict>>>> {
        let Some(row) = self.trigger_row(py, name)? else { return Ok(None) };
        let page = Page { limit, offset: 0 };
        flush(py, self.runtime(py)?, |runtime| runtime.flushing_trigger(row.row))?;
        let rows = self.stored(py, |runtime| runtime.store().history(row.row, page))?;
        rows.iter().map(|row| convert::stretch(py, row)).collect::<PyResult<Vec<_>>>().map(Some)
    }

    /// Registers a cron schedule, or finds the one with the same three; returns its id.
    #[pyo3(signature = (workflow, expression, timezone, name=""))]
    fn put_cron(
        &self,
        py: Python<'_>,
        workflow: &str,
        expression: &str,
        timezone: &str,
        name: &str,
    ) -> PyResult<String> {
        let cron = Cron::parse(expression, timezone).map_err(|e| error::raise(py, e))?;
        let [workflow, expression, timezone, name] =
            [workflow, expression, timezone, name].map(str::to_owned);
        let schedule = self.written(py, move |runtime| {
            let now = runtime.now().wall;
            let next = next_of(&cron, now);
            let (workflow, expression, timezone, name) = (&workflow, &expression, &timezone, &name);
            let id = Uuid::now_v7();
            let cron = NewCron { id, name, workflow, expression, timezone, next_at: next, at: now };
            runtime.put_cron(&cron)
        })?;
        Ok(schedule.id.to_string())
    }

    /// Crons in the order of their registration.
    fn crons<'py>(
        &self,
        py: Python<'py>,
        enabled_only: bool,
        limit: u64,
        offset: u64,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let page = Page { limit, offset };
        let rows =
            self.stored(py, |runtime| runtime.store().schedules(ScheduleFilter::Crons, enabled_only, page))?;
        rows.iter().map(|row| convert::cron(py, row)).collect()
    }

    /// The cron with that id.
    fn cron<'py>(&self, py: Python<'py>, id: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
        let id = parse_id(py, id)?;
        let row = self.stored(py, |runtime| runtime.store().cron(id))?;
        row.map(|row| convert::cron(py, &row)).transpose()
    }

    /// Replaces a cron's expression and zone; false if there is none with that id.
    fn update_cron(&self, py: Python<'_>, id: &str, expression: &str, timezone: &str) -> PyResult<bool> {
        let id = parse_id(py, id)?;
        let cron = Cron::parse(expression, timezone).map_err(|e| error::raise(py, e))?;
        let [expression, timezone] = [expression, timezone].map(str::to_owned);
        self.written(py, move |runtime| runtime.update_cron(id, &expression, &timezone, &cron))
    }

    /// Switches a cron; false if there is none with that id.
    fn set_cron_enabled(&self, py: Python<'_>, id: &str, enabled: bool) -> PyResult<bool> {
        let id = parse_id(py, id)?;
        self.written(py, move |runtime| runtime.set_cron_enabled(id, enabled))
    }

    /// Deletes a cron; false if there is none with that id.
    fn delete_cron(&self, py: Python<'_>, id: &str) -> PyResult<bool> {
        let id = parse_id(py, id)?;
        self.written(py, move |runtime| runtime.delete_cron(id))
    }

    /// The runs that a cron started, newest first; `None` if there is no such cron.
    fn cron_runs<'py>(
        &self,
        py: Python<'py>,
        id: &str,
        limit: u64,
        offset: u64,
    ) -> PyResult<Option<Vec<Bound<'py, PyDict>>>> {
        let id = parse_id(py, id)?;
        let Some(row) = self.stored(py, |runtime| runtime.store().cron(id))? else { return Ok(None) };
        let filter = RunFilter { schedule: Some(row.row), ..RunFilter::default() };
        let runs = self.shown(py, |runtime| runtime.store().runs(&filter, Page { limit, offset }))?;
        runs.iter().map(|run| convert::run(py, run)).collect::<PyResult<Vec<_>>>().map(Some)
    }

    /// `(total, successful, lost)` cron runs since a time in microseconds.
    fn cron_stats(&self, py: Python<'_>, since_us: i64) -> PyResult<(u64, u64, u64)> {
        let stats = self.stored(py, |runtime| runtime.store().cron_stats(Wall(since_us)))?;
        Ok((stats.total, stats.successful, stats.lost))
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
        let rows = self.shown(py, |runtime| runtime.store().runs(&filter, Page { limit, offset }))?;
        rows.iter().map(|row| convert::run(py, row)).collect()
    }

    /// One run with its tasks.
    fn run<'py>(&self, py: Python<'py>, id: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
        let id = parse_id(py, id)?;
        let Some((row, tasks)) = self.shown(py, |runtime| runtime.store().run(id))? else { return Ok(None) };
        let dict = convert::run(py, &row)?;
        let tasks = tasks.iter().map(|task| convert::task(py, task)).collect::<PyResult<Vec<_>>>()?;
        dict.set_item("tasks", tasks)?;
        Ok(Some(dict))
    }

    /// Counts since the start.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let runtime = self.runtime(py)?;
        let (polls, counts, unfinished) = free(py, || runtime.counts())?;
        let dict = PyDict::new(py);
        dict.set_item("polls", polls.polls)?;
        dict.set_item("skips", polls.skips)?;
        dict.set_item("missed", polls.missed)?;
        dict.set_item("late_mean_ms", polls.late_sum_ns as f64 / polls.polls.max(1) as f64 / 1e6)?;
        dict.set_item("late_max_ms", polls.late_max_ns as f64 / 1e6)?;
        dict.set_item("fires", counts.fires)?;
        dict.set_item("deduplicated", counts.deduplicated)?;
        dict.set_item("errors", counts.errors)?;
        dict.set_item("runs_started", counts.started)?;
        dict.set_item("runs_completed", counts.completed)?;
        dict.set_item("runs_failed", counts.failed)?;
        dict.set_item("runs_unfinished", unfinished)?;
        let ended = counts.completed + counts.failed;
        dict.set_item("run_latency_mean_ms", counts.run_sum_us as f64 / ended.max(1) as f64 / 1e3)?;
        dict.set_item("run_latency_max_ms", counts.run_max_us as f64 / 1e3)?;
        Ok(dict)
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

    /// Stops everything at once and tells whoever waits, because nothing can go on.
    fn give_up(&self, py: Python<'_>, why: &str) -> PyResult<()> {
        let runtime = self.runtime(py)?;
        free(py, || runtime.give_up(why))
    }

    /// Stops everything within `seconds`, and does not wait for `job` or, with `is_poll`, the one poll that asks. True if nothing else was
    /// still running. An exception of a signal handler ends the wait, and everything is closed before it is raised.
    #[pyo3(signature = (seconds, job=None, is_poll=false))]
    fn close(&self, py: Python<'_>, seconds: f64, job: Option<JobParts>, is_poll: bool) -> PyResult<bool> {
        let runtime = self.runtime(py)?;
        let own = Own { job: job.map(job_of), polls: usize::from(is_poll) };
        let drained = drained(py, runtime, span_of(seconds), own);
        free(py, || runtime.finish_close())?;
        drained
    }

    /// An attempt's body went home without an end.
    fn interrupted(&self, py: Python<'_>, job: JobParts) -> PyResult<()> {
        let runtime = self.runtime(py)?;
        free(py, || runtime.attempt_interrupted(job_of(job)))
    }

    /// `(waited_for, halted)`: whether an attempt is still waited for, and whether its run is to end.
    fn attempt_stands(&self, py: Python<'_>, job: JobParts) -> PyResult<(bool, bool)> {
        let runtime = self.runtime(py)?;
        free(py, || runtime.attempt_stands(job_of(job)))
    }
}

impl Engine {
    fn trigger_row(&self, py: Python<'_>, name: &str) -> PyResult<Option<Schedule>> {
        flush(py, self.runtime(py)?, Runtime::flushing)?;
        self.stored(py, |runtime| runtime.store().trigger(name))
    }
}

/// Waits in slices, so that the main thread hears its signals.
fn drained(py: Python<'_>, runtime: &Runtime, span: Duration, own: Own) -> PyResult<bool> {
    free(py, || runtime.begin_close())?;
    let began = Instant::now();
    let deadline = began + span;
    loop {
        // A poll that hangs is not waited for as long as a task.
        let polls = if began.elapsed() < POLL_PATIENCE { own.polls } else { usize::MAX };
        let own = Own { polls, ..own };
        let left = deadline.saturating_duration_since(Instant::now());
        if free(py, || runtime.drain(left.min(SIGNALS_EVERY), own))? {
            return Ok(true);
        }
        if left.is_zero() {
            return Ok(false);
        }
        py.check_signals()?;
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
