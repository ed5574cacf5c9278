//! What an executor beside the workers is fed by: it is called when there is something for it, and takes that in batches.
//! Invariant: who waits here has given the interpreter away, and who calls needs none.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use cloaca_core::runtime::{Taken, Waker, Work};
use cloaca_core::workflow::Executor;

use crate::gil::free;
use crate::handle::{Handle, span_of};
use crate::jobs::{JobParts, parts_of};

/// Rung when there is something; stays so until somebody has heard.
#[derive(Default)]
pub struct Bell {
    is_rung: Mutex<bool>,
    wake: Condvar,
}

impl Bell {
    /// Waits at most `span`; whether it was rung.
    pub fn heard_within(&self, span: Duration) -> bool {
        let deadline = Instant::now() + span;
        let mut is_rung = self.is_rung.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_rung {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            is_rung = self.wake.wait_timeout(is_rung, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::take(&mut *is_rung)
    }
}

impl Waker for Bell {
    fn wake(&self) {
        *self.is_rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_one();
    }
}

/// The attempts of one executor.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Pump {
    handle: Arc<Handle>,
    executor: Executor,
    bell: Arc<Bell>,
}

impl Pump {
    /// From now on its bell is rung for that executor.
    pub fn open(py: Python<'_>, handle: &Arc<Handle>, executor: Executor) -> PyResult<Self> {
        let bell = Arc::new(Bell::default());
        let runtime = handle.runtime(py)?;
        let waker = Arc::clone(&bell) as Arc<dyn Waker>;
        free(py, || runtime.set_waker(executor, waker))?;
        Ok(Self { handle: Arc::clone(handle), executor, bell })
    }
}

#[pymethods]
impl Pump {
    /// Waits at most `seconds` until there is something to take; false if there was nothing, `None` once the runner closes.
    fn wait(&self, py: Python<'_>, seconds: f64) -> PyResult<Option<bool>> {
        let runtime = self.handle.runtime(py)?;
        free(py, || {
            let is_rung = self.bell.heard_within(span_of(seconds));
            if runtime.wait_closing(Duration::ZERO) { None } else { Some(is_rung) }
        })
    }

    /// `(begun, stopped)`: at most `max` attempts that begin now, each as `Jobs.take_job` gives it, with its body out of `tasks`, and those taken before whose bodies are to
    /// be stopped. Who gets `max` asks again. Never waits for work.
    fn take<'py>(
        &self,
        py: Python<'py>,
        max: usize,
        tasks: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let runtime = self.handle.runtime(py)?;
        let (begun, stopped) = free(py, || {
            let Taken { begun, stopped, .. } = runtime.take_jobs(self.executor, max);
            // To look at a context may take long.
            let begun: Vec<(Work, Arc<str>)> = begun
                .into_iter()
                .map(|work| (work.context.text(), work))
                .map(|(text, work)| (work, text))
                .collect();
            (begun, stopped)
        })?;
        let begun = begun
            .into_iter()
            .map(|(work, context)| work_parts(work, &context, tasks))
            .collect::<PyResult<Vec<_>>>()?;
        let stopped: Vec<JobParts> = stopped.into_iter().map(parts_of).collect();
        (begun, stopped).into_pyobject(py)
    }
}

/// `(job, task, task_id, context_json, error, checkpoint_json, trace)`, with the task that its body's number stands for in `tasks`.
pub fn work_parts<'py>(
    work: Work,
    context: &str,
    tasks: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyTuple>> {
    let job = parts_of(work.job);
    // It is still there: what the work is given is its run's, and as long as somebody has that, its workflow's bodies are needed.
    let task = tasks.as_any().get_item(work.body)?;
    let trace = (work.trace.0.as_deref(), work.trace.1);
    let parts = (job, task, &*work.task, context, work.error.as_str(), work.checkpoint.as_deref(), trace);
    parts.into_pyobject(tasks.py())
}
