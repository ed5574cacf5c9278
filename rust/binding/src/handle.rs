//! The runtime that all of a runner's classes share, and the words that come into all of them.
//! Invariant: whoever wants the runtime is first asked for the process that opened it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use uuid::Uuid;

use cloaca_core::error::{Error, Kind, excerpt};
use cloaca_core::port::{Fault, Halt, Schedule, Store};
use cloaca_core::runtime::{Flush, Runtime};

use crate::bodies::Unneeded;
use crate::error;
use crate::fork::{is_forked, refuse_after_fork};
use crate::gil::free;
use crate::wait::{CALL_PATIENCE, apart, flush, left_to_look};
use crate::watch::Watch;

/// As good as for ever, and small enough to be added to any clock.
const SPAN_SECONDS_MAX: f64 = 1e9;

/// One opened runtime.
pub struct Handle {
    pub runtime: Arc<Runtime>,
    pub path: Option<PathBuf>,
    pub generation: u64,
    pub context_bytes_max: usize,
    pub unneeded: Arc<Unneeded>,
}

impl Handle {
    /// The runtime, in the process that opened it.
    pub fn runtime(&self, py: Python<'_>) -> PyResult<&Arc<Runtime>> {
        refuse_after_fork(py, self.generation)?;
        Ok(&self.runtime)
    }

    /// A run's watch as Python carries it.
    pub fn watched(&self, watch: Arc<cloaca_core::runtime::Watch>) -> Watch {
        Watch { watch, runtime: Arc::downgrade(&self.runtime), generation: self.generation }
    }

    /// What the store answers. Of one on a server, which may not, the main thread hears its signals meanwhile; a file is read at once.
    pub fn stored<T: Send + 'static>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&Runtime) -> Result<T, Fault> + Send + 'static,
    ) -> PyResult<T> {
        let runtime = self.runtime(py)?;
        if runtime.store().is_far() {
            return self.written(py, ask);
        }
        free(py, || ask(runtime))?.map_err(|fault| fault_of(py, runtime, fault))
    }

    /// The same for what writes: it waits its turn, the main thread hears its signals meanwhile, and the runner's end is its end.
    pub fn written<T: Send + 'static>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&Runtime) -> Result<T, Fault> + Send + 'static,
    ) -> PyResult<T> {
        let runtime = self.runtime(py)?;
        let patience = left_to_look().map_or(CALL_PATIENCE, |left| left.min(CALL_PATIENCE));
        let halt = runtime.halt().over(|| Halt::within(patience));
        let asked = Arc::clone(runtime);
        apart(py, &halt, move || ask(&asked))?.map_err(|fault| fault_of(py, runtime, fault))
    }

    /// The same for who looks at runs.
    pub fn shown<T: Send + 'static>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&Runtime) -> Result<T, Fault> + Send + 'static,
    ) -> PyResult<T> {
        flush(py, self.runtime(py)?, Runtime::show_begun)?;
        self.stored(py, ask)
    }

    /// The same for a question that may take as long as it likes, about what was sent before it.
    pub fn asked<T: Send + 'static>(
        &self,
        py: Python<'_>,
        flushing: impl FnOnce(&Runtime) -> Flush + Send,
        ask: impl FnOnce(&dyn Store, &Halt) -> Result<T, Fault> + Send + 'static,
    ) -> PyResult<T> {
        let runtime = self.runtime(py)?;
        flush(py, runtime, flushing)?;
        let halt = left_to_look().map_or_else(Halt::default, Halt::within);
        let asked = halt.clone();
        let runtime = Arc::clone(runtime);
        let answer = apart(py, &halt, move || runtime.ask(&asked, |store| ask(store, &asked)))?;
        answer.map_err(|e| error::raise(py, e))
    }

    /// The trigger's row.
    pub fn trigger_row(&self, py: Python<'_>, name: &str) -> PyResult<Option<Schedule>> {
        flush(py, self.runtime(py)?, Runtime::flushing)?;
        self.kept_trigger_row(py, name)
    }

    /// The same as it is kept.
    pub fn kept_trigger_row(&self, py: Python<'_>, name: &str) -> PyResult<Option<Schedule>> {
        let name = name.to_owned();
        self.stored(py, move |runtime| runtime.store().trigger(&name))
    }
}

/// The exception for a fault of the store. One that was closed under a call is the runner's.
fn fault_of(py: Python<'_>, runtime: &Runtime, fault: Fault) -> PyErr {
    match runtime.is_finished() {
        true => error::raise(py, Error::new(Kind::Runner, "the runner was shut down")),
        false => error::raise_fault(py, fault),
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if is_forked(self.generation) {
            // The threads and locks of a forked runtime belong to the parent: leak them here.
            std::mem::forget(Arc::clone(&self.runtime));
        }
    }
}

/// A span from seconds that the Python layer has checked; whatever else comes is cut to what fits.
pub fn span_of(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.clamp(0.0, SPAN_SECONDS_MAX)).unwrap_or(Duration::ZERO)
}

/// The id that a text stands for.
pub fn parse_id(py: Python<'_>, id: &str) -> PyResult<Uuid> {
    Uuid::parse_str(id).map_err(|_| {
        let text = format!("Invalid schedule ID '{}': it is not a UUID", excerpt(id));
        error::raise(py, Error::new(Kind::Schedule, text))
    })
}

/// A run's id, likewise.
pub fn parse_run_id(py: Python<'_>, id: &str) -> PyResult<Uuid> {
    Uuid::parse_str(id).map_err(|_| {
        let text = format!("run_id is '{}'; it must be the UUID of a run", excerpt(id));
        error::raise(py, Error::new(Kind::Workflow, text))
    })
}
