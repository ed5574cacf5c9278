//! What workers enter: they take jobs, and tell how each attempt ends.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use uuid::Uuid;

use cloaca_core::context::LIGHT_BYTES_MAX;
use cloaca_core::engine::Job;
use cloaca_core::port::{Failure, Line};
use cloaca_core::run::{Ended, Ruling};
use cloaca_core::runtime::{Runtime, Waited};
use cloaca_core::time::Wall;
use cloaca_core::workflow::Executor;

use crate::call::{call, call0};
use crate::carrier::Carrier;
use crate::fork::is_forked;
use crate::gil::{free, quick};
use crate::handle::{Handle, span_of};
use crate::pump::{Pump, work_parts};
use crate::wait::SIGNALS_EVERY;
use crate::watch::Watch;

/// A job as Python carries it: `(run, task, attempt, callback_only, life)`.
pub type JobParts = (u128, u32, u32, bool, u32);

/// The job that its parts stand for.
pub fn job_of(job: JobParts) -> Job {
    let (run, task, attempt, callback_only, life) = job;
    Job { run: Uuid::from_u128(run), task, attempt, life, callback_only }
}

/// The parts of a job.
pub fn parts_of(job: Job) -> JobParts {
    let Job { run, task, attempt, life, callback_only } = job;
    (run.as_u128(), task, attempt, callback_only, life)
}

thread_local! {
    /// Whether this thread counts among the workers.
    static IS_PRESENT: Cell<bool> = const { Cell::new(false) };
    /// The job that this thread was given last, and it as Python has it: so that none is lost, whatever is thrown into the thread, wherever.
    static IN_HAND: Cell<Option<(Job, Py<PyTuple>)>> = const { Cell::new(None) };
    /// Whether this thread was woken for a job and has not looked for it yet: until it does nobody else is woken.
    static IS_WOKEN: Cell<bool> = const { Cell::new(false) };
}

/// The attempts of one runner.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Jobs {
    pub handle: Arc<Handle>,
}

#[pymethods]
impl Jobs {
    /// This worker thread has come or goes; twice is fine.
    fn worker_present(&self, py: Python<'_>, present: bool) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        if IS_PRESENT.replace(present) != present {
            runtime.worker_present(present);
        }
        Ok(())
    }

    /// The next job as `(job, task, task_id, context_json, error, checkpoint_json, trace)`, with the task that its body's number stands for in `tasks`;
    /// `None` when idle too long; `False` when closed. `rest` does nothing: out of it comes what was thrown into this thread while it waited, before
    /// there is a job that would be lost. `thrown` is what came out of the thread since its last job: `struck` is told of that with the job, which
    /// ends by it if it has not ended.
    fn take_job(
        &self,
        py: Python<'_>,
        seconds: f64,
        tasks: &Bound<'_, PyDict>,
        rest: &Bound<'_, PyAny>,
        thrown: Option<(Bound<'_, PyAny>, Bound<'_, PyAny>)>,
    ) -> PyResult<Py<PyAny>> {
        let runtime = self.handle.runtime(py)?;
        if let Some((struck, error)) = thrown {
            self.break_off(runtime, &struck, error)?;
        }
        IN_HAND.set(None);
        let work = loop {
            let Some(job) = runtime.ready_job(IS_WOKEN.replace(false)) else {
                match free(py, || runtime.wait_job(span_of(seconds)))? {
                    Waited::Ready => IS_WOKEN.set(true),
                    Waited::Idle => return Ok(py.None()),
                    Waited::Closed => return Ok(false.into_pyobject(py)?.to_owned().into_any().unbind()),
                }
                call0(rest)?;
                continue;
            };
            if let Some(work) = quick(py, runtime, || runtime.begin(job))? {
                break work;
            }
        };
        let job = work.job;
        let context = match work.context.text_at_once() {
            Some(context) => context,
            None => free(py, || work.context.text())?,
        };
        let found = work_parts(work, &context, tasks)?.unbind();
        IN_HAND.set(Some((job, found.clone_ref(py))));
        Ok(found.into_any())
    }

    /// What an executor beside the workers takes its attempts from. One for each executor.
    fn pump(&self, py: Python<'_>, executor: u32) -> PyResult<Pump> {
        Pump::open(py, &self.handle, Executor(executor))
    }

    /// What an event loop is fed by, as that executor. One for each loop.
    fn carrier(&self, executor: u32) -> Carrier {
        Carrier::new(&self.handle, Executor(executor))
    }

    /// The body of an attempt goes on in another executor.
    fn move_to(&self, py: Python<'_>, job: JobParts, executor: u32) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.move_to(job_of(job), Executor(executor)))
    }

    /// An attempt returned `context` (JSON text). True if it counts; with a callback, `settled` must follow.
    fn succeeded(
        &self,
        py: Python<'_>,
        job: JobParts,
        context: String,
        has_callback: bool,
    ) -> PyResult<bool> {
        let runtime = self.handle.runtime(py)?;
        let is_light = context.len() <= LIGHT_BYTES_MAX;
        let end = || runtime.attempt_ended(job_of(job), Ended::Success(context.into()), has_callback);
        let ruling = if is_light { quick(py, runtime, end)? } else { free(py, end)? };
        Ok(ruling == Ruling::Final)
    }

    /// An attempt failed with an exception of that class. True if that is final; with a callback, `settled` must follow then.
    fn failed(
        &self,
        py: Python<'_>,
        job: JobParts,
        error_type: &str,
        text: String,
        traceback: Option<String>,
        has_callback: bool,
    ) -> PyResult<bool> {
        let runtime = self.handle.runtime(py)?;
        let ended = Ended::Failure(Failure::raised(error_type, text, traceback));
        let ruling = free(py, || runtime.attempt_ended(job_of(job), ended, has_callback))?;
        Ok(ruling == Ruling::Final)
    }

    /// An attempt is to be made again `delay_us` later, and until then none under the limit `pause`, if that is given. True if it is not, and has failed with `text`; with a callback, `settled` must
    /// follow then.
    #[allow(clippy::too_many_arguments, reason = "each is a word of the report")]
    #[pyo3(signature = (job, delay_us, text, traceback, has_callback, pause=None))]
    fn postponed(
        &self,
        py: Python<'_>,
        job: JobParts,
        delay_us: u64,
        text: String,
        traceback: Option<String>,
        has_callback: bool,
        pause: Option<String>,
    ) -> PyResult<bool> {
        let runtime = self.handle.runtime(py)?;
        let failure = Failure::raised("RetryAfter", text, traceback);
        let (delay, pause) = (Duration::from_micros(delay_us), pause.map(Arc::from));
        let ended = Ended::Postponed { delay, failure, pause };
        let ruling = free(py, || runtime.attempt_ended(job_of(job), ended, has_callback))?;
        Ok(ruling == Ruling::Final)
    }

    /// The place where an attempt ran is gone. True if the task has failed by that; with a callback, `settled` must follow then.
    fn lost(
        &self,
        py: Python<'_>,
        job: JobParts,
        text: String,
        deaths_max: u32,
        has_callback: bool,
    ) -> PyResult<bool> {
        let runtime = self.handle.runtime(py)?;
        let ended = Ended::Lost { text, deaths_max };
        let ruling = free(py, || runtime.attempt_ended(job_of(job), ended, has_callback))?;
        Ok(ruling == Ruling::Final)
    }

    /// Keeps `value` (JSON text) for the next attempt. False if it is not kept: nobody waits for this one, or the runner closes.
    fn checkpoint(&self, py: Python<'_>, job: JobParts, value: String) -> PyResult<bool> {
        let runtime = self.handle.runtime(py)?;
        let sent = free(py, || runtime.checkpoint(job_of(job), value.into()))?;
        let Some(sent) = sent else { return Ok(false) };
        loop {
            if let Some(is_kept) = free(py, || runtime.checkpoint_kept(&sent, SIGNALS_EVERY))? {
                return Ok(is_kept);
            }
            py.check_signals()?;
        }
    }

    /// Keeps a line that a body of the run logged, soon: see `Runtime::log`.
    #[expect(clippy::too_many_arguments, reason = "each is a part of the line")]
    fn log(
        &self,
        py: Python<'_>,
        run: u128,
        bytes_max: u64,
        task: Option<&str>,
        attempt: Option<u32>,
        callback: Option<&str>,
        at_us: i64,
        level: i64,
        logger: String,
        text: String,
        error: Option<String>,
    ) -> PyResult<()> {
        let (task, callback) = (task.map(Arc::from), callback.map(Arc::from));
        let line = Line { task, attempt, callback, at: Wall(at_us), level, logger, text, error };
        self.handle.runtime(py)?.log(Uuid::from_u128(run), bytes_max, line);
        Ok(())
    }

    /// Counts lines that a body of the run logged, and that are kept nowhere.
    fn left_out(&self, py: Python<'_>, run: u128, bytes_max: u64, lines: u64) -> PyResult<()> {
        self.handle.runtime(py)?.left_out(Uuid::from_u128(run), bytes_max, lines);
        Ok(())
    }

    /// The workflow of an attempt's run, for the log; empty once the run is not in hand any more.
    fn workflow_of(&self, py: Python<'_>, job: JobParts) -> PyResult<String> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.workflow_of(job_of(job).run).to_string())
    }

    /// What an attempt's run began with, JSON text; none once the run is not in hand any more.
    fn began_with(&self, py: Python<'_>, job: JobParts) -> PyResult<Option<String>> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.began_with(job_of(job).run).map(|began| began.to_string()))
    }

    /// A final attempt's callback has been told.
    fn settled(&self, py: Python<'_>, job: JobParts) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        quick(py, runtime, || runtime.settled(job_of(job)))?;
        Ok(())
    }

    /// Gives an attempt's permit back.
    fn yield_permit(&self, py: Python<'_>, job: JobParts) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.yield_permit(job_of(job)))?;
        Ok(())
    }

    /// Takes a permit again; false if none was free in time.
    fn regain_permit(&self, py: Python<'_>, job: JobParts, seconds: f64) -> PyResult<bool> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.regain_permit(job_of(job), span_of(seconds)))
    }

    /// An attempt is about to wait for that run without its permit; false if it has ended already.
    fn wait_for_run(&self, py: Python<'_>, job: JobParts, watch: &Watch) -> PyResult<bool> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.wait_for_run(job_of(job), &watch.watch))
    }

    /// It waits for that run no longer.
    fn waited_for_run(&self, py: Python<'_>, job: JobParts, watch: &Watch) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.waited_for_run(job_of(job), &watch.watch))
    }

    /// An attempt's body went home without an end.
    fn interrupted(&self, py: Python<'_>, job: JobParts) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.attempt_interrupted(job_of(job)))
    }

    /// Whether an attempt's end would still count.
    fn is_current(&self, py: Python<'_>, job: JobParts) -> PyResult<bool> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.is_current(job_of(job)))
    }

    /// Whether an attempt's body is to end.
    fn is_to_end(&self, py: Python<'_>, job: JobParts) -> PyResult<bool> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.is_to_end(job_of(job)))
    }

    /// `(waited_for, told)`: whether an attempt is still waited for, and whether its body is to end.
    fn attempt_stands(&self, py: Python<'_>, job: JobParts) -> PyResult<(bool, bool)> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.attempt_stands(job_of(job)))
    }
}

impl Jobs {
    /// Says what was thrown into this thread, and ends the job that it has in hand. What comes meanwhile is let go of: the job ends all the same.
    #[inline(never)]
    fn break_off(
        &self,
        runtime: &Runtime,
        struck: &Bound<'_, PyAny>,
        error: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = struck.py();
        let (job, found) = IN_HAND.take().unzip();
        let kind =
            error.get_type().name().map_or_else(|_| "an exception".to_owned(), |name| name.to_string());
        let told = (error, found).into_pyobject(py);
        let _ = told.and_then(|told| call(struck, told));
        match job {
            Some(job) if !is_forked(self.handle.generation) => {
                let failure = Failure::raised(&kind, "its thread was struck".to_owned(), None);
                free(py, || runtime.broken_off(job, failure))
            }
            _ => Ok(()),
        }
    }
}
