//! What an event loop is fed by: it is woken through a descriptor or a thread, fetches what there is, and reports the ends of bodies by id.
//! Invariant: what the loop's thread calls waits for a hand-over alone, never for the engine, a commit or another turn of the interpreter.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyList};

use cloaca_core::port::Failure;
use cloaca_core::run::{Ended, Ruling};
use cloaca_core::runtime::{Carrier as Core, Fetched, Report, Waker as _};
use cloaca_core::workflow::Executor;

use crate::gil::free;
use crate::handle::{Handle, span_of};
use crate::jobs::{JobParts, job_of, parts_of};
use crate::pump::work_parts;
use crate::way::Way;
use crate::work::{self, TicketParts, ticket_of};

/// What goes between the engine and an event loop.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Carrier {
    handle: Arc<Handle>,
    way: Way,
    core: Arc<Core>,
}

impl Carrier {
    pub fn new(handle: &Arc<Handle>, executor: Executor) -> Self {
        let way = Way::new();
        let core = Arc::new(Core::new(executor, Box::new(way.clone())));
        Self { handle: Arc::clone(handle), way, core }
    }

    /// Reports; the answer, if nobody carries any more.
    fn tell(&self, py: Python<'_>, report: Report) -> PyResult<Option<Fetched>> {
        let runtime = self.handle.runtime(py)?;
        // Nobody carries any more after the end: then the loop goes itself.
        let Some(report) = self.core.report(report) else { return Ok(None) };
        free(py, || runtime.heed(report))
    }

    fn ended(&self, py: Python<'_>, job: JobParts, ended: Ended, callback: bool) -> PyResult<Option<bool>> {
        let asks = callback || !matches!(ended, Ended::Success(_));
        let report = Report::Ended { job: job_of(job), ended, has_callback: callback, asks };
        Ok(match self.tell(py, report)? {
            Some(Fetched::Ruled(_, ruling)) => Some(ruling == Ruling::Final),
            _ => None,
        })
    }
}

#[pymethods]
impl Carrier {
    /// The descriptor that is readable when there is something to fetch; `None` if there is none: see `wait`.
    #[getter]
    fn descriptor(&self) -> Option<i32> {
        self.way.number()
    }

    /// Closes the descriptor, which the loop reads no more.
    fn deafen(&self) {
        self.way.deafen();
    }

    /// Waits at most `seconds` until there is something to fetch; false if there is not.
    fn wait(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        free(py, || self.way.heard_within(span_of(seconds)))
    }

    /// Carries until the runner has ended, on a thread that does nothing else.
    fn carry(&self, py: Python<'_>) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.carry(&self.core))
    }

    /// What there is, at most `max` of it: `("begun", *work)` with what `Jobs.take_job` gives, `("stopped", job)`, `("ruled", job, is_final)`,
    /// `("regained", job)`, `("closing",)`. If there is more, the loop is woken again.
    fn fetch<'py>(
        &self,
        py: Python<'py>,
        max: usize,
        tasks: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyList>> {
        self.handle.runtime(py)?;
        // Before the look: what comes after it wakes anew.
        self.way.hear();
        let (found, has_more) = self.core.fetch(max);
        if has_more {
            self.way.wake();
        }
        let list = PyList::empty(py);
        for item in found {
            let item: Bound<'py, PyAny> = match item {
                Fetched::Begun(work, context) => {
                    ("begun", work_parts(work, &context, tasks)?).into_pyobject(py)?.into_any()
                }
                Fetched::Stopped(job) => ("stopped", parts_of(job)).into_pyobject(py)?.into_any(),
                Fetched::Ruled(job, ruling) => {
                    ("ruled", parts_of(job), ruling == Ruling::Final).into_pyobject(py)?.into_any()
                }
                Fetched::Regained(job) => ("regained", parts_of(job)).into_pyobject(py)?.into_any(),
                Fetched::Closing => ("closing",).into_pyobject(py)?.into_any(),
            };
            list.append(item)?;
        }
        Ok(list)
    }

    /// Several reports are about to come, until `gathered`.
    fn gather(&self, py: Python<'_>) -> PyResult<()> {
        self.handle.runtime(py)?;
        self.core.gather();
        Ok(())
    }

    /// Those have come that are to come in this turn of the loop.
    fn gathered(&self, py: Python<'_>) -> PyResult<()> {
        self.handle.runtime(py)?;
        self.core.gathered();
        Ok(())
    }

    /// An attempt returned `context` (JSON text). With a callback the ruling comes by `fetch`, or at once if the runner has ended.
    fn succeeded(
        &self,
        py: Python<'_>,
        job: JobParts,
        context: String,
        callback: bool,
    ) -> PyResult<Option<bool>> {
        self.ended(py, job, Ended::Success(context.into()), callback)
    }

    /// An attempt failed with an exception of that class; the ruling comes likewise.
    fn failed(
        &self,
        py: Python<'_>,
        job: JobParts,
        error_type: &str,
        text: String,
        traceback: Option<String>,
        callback: bool,
    ) -> PyResult<Option<bool>> {
        self.ended(py, job, Ended::Failure(Failure::raised(error_type, text, traceback)), callback)
    }

    /// An attempt is to be made again `delay_us` later; the ruling comes likewise.
    #[allow(clippy::too_many_arguments, reason = "each is a word of the report")]
    #[pyo3(signature = (job, delay_us, text, traceback, callback, pause=None))]
    fn postponed(
        &self,
        py: Python<'_>,
        job: JobParts,
        delay_us: u64,
        text: String,
        traceback: Option<String>,
        callback: bool,
        pause: Option<String>,
    ) -> PyResult<Option<bool>> {
        let failure = Failure::raised("RetryAfter", text, traceback);
        let (delay, pause) = (Duration::from_micros(delay_us), pause.map(Arc::from));
        self.ended(py, job, Ended::Postponed { delay, failure, pause }, callback)
    }

    /// A final attempt's callback has been told.
    fn settled(&self, py: Python<'_>, job: JobParts) -> PyResult<()> {
        self.tell(py, Report::Settled(job_of(job))).map(drop)
    }

    /// An attempt's body went home without an end.
    fn interrupted(&self, py: Python<'_>, job: JobParts) -> PyResult<()> {
        self.tell(py, Report::Interrupted(job_of(job))).map(drop)
    }

    /// Gives an attempt's permit back.
    fn yielded(&self, py: Python<'_>, job: JobParts) -> PyResult<()> {
        self.tell(py, Report::Yielded(job_of(job))).map(drop)
    }

    /// Wants it again: it comes by `fetch`, unless this is true: then it needs none any more.
    fn wanted(&self, py: Python<'_>, job: JobParts) -> PyResult<bool> {
        Ok(self.tell(py, Report::Wanted(job_of(job)))?.is_some())
    }

    /// Ends a poll with a ruling as `Polls.poll` takes it.
    fn polled(&self, py: Python<'_>, ticket: TicketParts, ruling: &Bound<'_, PyAny>) -> PyResult<()> {
        let (ticket, began) = ticket_of(ticket);
        match work::report(ticket, began, ruling)? {
            Some(report) => self.tell(py, report).map(drop),
            None => Ok(()),
        }
    }

    /// A poll went home without an answer.
    fn called_off(&self, py: Python<'_>, ticket: TicketParts) -> PyResult<()> {
        self.tell(py, Report::CalledOff(ticket_of(ticket).0)).map(drop)
    }

    /// The loop is closed: nothing more is taken to it.
    fn lose(&self, py: Python<'_>) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.lose_place(&self.core))
    }
}
