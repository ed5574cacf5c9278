//! What a Python thread holds of a run that it waits for. Any number of threads may wait on one.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use cloaca_core::error::{Error, Kind};
use cloaca_core::runtime;

use crate::error;
use crate::fork::refuse_after_fork;
use crate::gil::free;
use crate::handle::span_of;
use crate::hearer::Hearer;
use crate::wait;

/// One run on its way to its end.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Watch {
    pub watch: Arc<runtime::Watch>,
    /// Whose it is.
    pub runtime: Weak<runtime::Runtime>,
    pub generation: u64,
}

impl Watch {
    fn raise(&self, py: Python<'_>, refused: Error) -> PyErr {
        match self.watch.dropped() {
            Some(dropped) => error::raise_dropped(py, refused.message, &dropped),
            None => error::raise(py, refused),
        }
    }

    fn held_up(&self) -> Option<Error> {
        let why = self.runtime.upgrade()?.trouble()?;
        let text = format!(
            "run {} is not kept yet, {why}; it is kept, and runs, as soon as the store takes it and as long as this runner lives: to ask \
             once more starts another one, unless both have the same run_key",
            self.watch.id
        );
        Some(Error::new(Kind::Store, text))
    }
}

#[pymethods]
impl Watch {
    /// The run's id.
    #[getter]
    fn id(&self) -> String {
        self.watch.id.to_string()
    }

    /// The run that has this one's run key, which was therefore not started. To be asked once `wait_started` has returned.
    #[getter]
    fn stands_for(&self) -> Option<String> {
        self.watch.stands_for().map(|id| id.to_string())
    }

    /// `(status, started, ended, context_json, error)`, or `None` after `seconds`.
    #[pyo3(signature = (seconds=None))]
    fn wait<'py>(&self, py: Python<'py>, seconds: Option<f64>) -> PyResult<Option<Bound<'py, PyAny>>> {
        refuse_after_fork(py, self.generation)?;
        let watch = &self.watch;
        let began = Instant::now();
        let mut left = seconds.map(span_of);
        // What has ended already is told without giving the interpreter away.
        let mut slice = Duration::ZERO;
        let longest = wait::slice();
        loop {
            let ended = match slice.is_zero() {
                true => watch.ended(slice),
                false => free(py, || watch.ended(slice))?,
            };
            if let Some((started, end)) = ended.map_err(|e| self.raise(py, e))? {
                let parts = (
                    end.status.name(),
                    started.rfc3339(),
                    end.completed_at.rfc3339(),
                    &*end.context,
                    end.error,
                );
                return Ok(Some(parts.into_pyobject(py)?.into_any()));
            }
            py.check_signals()?;
            left = left.map(|left| left.saturating_sub(slice));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            if began.elapsed() >= wait::CALL_PATIENCE && !self.is_started(py)? {
                self.refuse_if_held_up(py)?;
            }
            slice = left.map_or(longest, |left| left.min(longest));
        }
    }

    /// Has the hearer, or without one `Runs.hear`, tell of the run's end, or of its commit; true if that has come already, and is not told.
    #[pyo3(signature = (start, hearer=None))]
    fn hear(&self, py: Python<'_>, start: bool, hearer: Option<&Hearer>) -> PyResult<bool> {
        refuse_after_fork(py, self.generation)?;
        // Nobody keeps its lock for long, and to give the interpreter away costs more.
        Ok(self.watch.hear(start, hearer.map(|hearer| &hearer.core)))
    }

    /// Whether the run is kept.
    fn is_started(&self, py: Python<'_>) -> PyResult<bool> {
        refuse_after_fork(py, self.generation)?;
        self.watch.started(Duration::ZERO).map_err(|e| self.raise(py, e))
    }

    /// Raises why the run is not kept, if its store takes nothing now.
    fn refuse_if_held_up(&self, py: Python<'_>) -> PyResult<()> {
        match free(py, || self.held_up())? {
            Some(held_up) => Err(error::raise(py, held_up)),
            None => Ok(()),
        }
    }

    /// Waits until the run is kept; where the store takes nothing, for a while.
    fn wait_started(&self, py: Python<'_>) -> PyResult<()> {
        refuse_after_fork(py, self.generation)?;
        let watch = &self.watch;
        let began = Instant::now();
        let mut is_started = watch.started(Duration::ZERO);
        while !is_started.map_err(|e| self.raise(py, e))? {
            py.check_signals()?;
            if began.elapsed() >= wait::CALL_PATIENCE {
                self.refuse_if_held_up(py)?;
            }
            is_started = free(py, || watch.started(wait::slice()))?;
        }
        Ok(())
    }
}
