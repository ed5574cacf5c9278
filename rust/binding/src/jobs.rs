//! What workers enter: they take jobs, and tell how each attempt ends.

use std::sync::Arc;

use pyo3::prelude::*;
use uuid::Uuid;

use cloaca_core::context::LIGHT_BYTES_MAX;
use cloaca_core::engine::Job;
use cloaca_core::port::Failure;
use cloaca_core::run::{Ended, Ruling};
use cloaca_core::runtime::{Beginning, Waited};

use crate::gil::{free, quick};
use crate::handle::{Handle, span_of};

/// A job as Python carries it: `(run, task, attempt, callback_only, life)`.
pub type JobParts = (u128, u32, u32, bool, u32);

/// The job that its parts stand for.
pub fn job_of(job: JobParts) -> Job {
    let (run, task, attempt, callback_only, life) = job;
    Job { run: Uuid::from_u128(run), task, attempt, life, callback_only }
}

/// The attempts of one runner.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Jobs {
    pub handle: Arc<Handle>,
}

#[pymethods]
impl Jobs {
    /// A worker thread has come or goes.
    fn worker_present(&self, py: Python<'_>, present: bool) -> PyResult<()> {
        self.handle.runtime(py)?.worker_present(present);
        Ok(())
    }

    /// The next job as `(job, body, task_id, context_json, error)`; `None` when idle too long; `False` when closed.
    fn take_job(&self, py: Python<'_>, seconds: f64) -> PyResult<Py<PyAny>> {
        let runtime = self.handle.runtime(py)?;
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

    /// The workflow of an attempt's run, for the log; empty once the run is not in hand any more.
    fn workflow_of(&self, py: Python<'_>, job: JobParts) -> PyResult<String> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.workflow_of(job_of(job).run).to_string())
    }

    /// A final attempt's callback has been told.
    fn settled(&self, py: Python<'_>, job: JobParts) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        quick(py, runtime, || runtime.settled(job_of(job)))?;
        Ok(())
    }

    /// Gives an attempt's slot back.
    fn yield_slot(&self, py: Python<'_>, job: JobParts) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.yield_slot(job_of(job)))?;
        Ok(())
    }

    /// Takes a slot again; false if none was free in time.
    fn regain_slot(&self, py: Python<'_>, job: JobParts, seconds: f64) -> PyResult<bool> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.regain_slot(job_of(job), span_of(seconds)))
    }

    /// An attempt's body went home without an end.
    fn interrupted(&self, py: Python<'_>, job: JobParts) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.attempt_interrupted(job_of(job)))
    }

    /// `(waited_for, halted)`: whether an attempt is still waited for, and whether its run is to end.
    fn attempt_stands(&self, py: Python<'_>, job: JobParts) -> PyResult<(bool, bool)> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.attempt_stands(job_of(job)))
    }
}
