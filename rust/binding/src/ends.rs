//! Ends of runs that the program's callbacks are told of: handed out to the thread that calls those, and taken back with what came of each.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;

use cloaca_core::key::EndKey;
use cloaca_core::port::{End, Settled};
use cloaca_core::runtime::PutOff;
use cloaca_core::time::Wall;

use crate::gil::free;
use crate::handle::{Handle, span_of};

/// An end as Python carries it: `(key, run, workflow, number, status, ended_at, tries, is_given_up)`.
type EndParts = (i64, String, String, u32, &'static str, Option<String>, u32, bool);

/// What a runner tells its program's callbacks.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Ends {
    pub handle: Arc<Handle>,
}

#[pymethods]
impl Ends {
    /// Somebody wants to be told of the ends of this workflow's runs from now on.
    fn open(&self, py: Python<'_>, workflow: &str) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.open_tellings(workflow))
    }

    /// At most `limit` ends that are due, each as `(key, run, workflow, number, status, ended_at, tries, is_given_up)`; empty if there are none within `seconds`, `None` once
    /// the runner closes.
    #[pyo3(signature = (limit, seconds=None))]
    fn take(&self, py: Python<'_>, limit: u64, seconds: Option<f64>) -> PyResult<Option<Vec<EndParts>>> {
        let runtime = self.handle.runtime(py)?;
        let found = free(py, || runtime.next_ends(limit, seconds.map(span_of)))?;
        let parts = |end: End| {
            let is_given_up = runtime.is_given_up(&end);
            let End { key, run, workflow, number, status, ended_at, tries, .. } = end;
            (
                key.0,
                run.to_string(),
                workflow,
                number,
                status.name(),
                ended_at.map(Wall::rfc3339),
                tries,
                is_given_up,
            )
        };
        Ok(found.map(|ends| ends.into_iter().map(parts).collect()))
    }

    /// Whether what was handed out is still this runner's to tell: it can say that it lives, so that nobody else does.
    fn is_current(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(!self.handle.runtime(py)?.is_silent())
    }

    /// A call takes so long that it leaves its place to another; whether no more of its workflow are made until one comes home.
    fn overdue(&self, py: Python<'_>, key: i64) -> PyResult<bool> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.end_overdue(EndKey(key)))
    }

    /// An end was told.
    fn told(&self, py: Python<'_>, key: i64) -> PyResult<()> {
        self.settle(py, key, Settled::Called)
    }

    /// Its process died in each of so many calls.
    fn given_up(&self, py: Python<'_>, key: i64) -> PyResult<()> {
        self.settle(py, key, Settled::GivenUp(None))
    }

    /// Nobody is to be told of it any more.
    fn withdrawn(&self, py: Python<'_>, key: i64) -> PyResult<()> {
        self.settle(py, key, Settled::Withdrawn)
    }

    /// There is no such callback in this program any more: whoever declares it is to call it.
    fn given_back(&self, py: Python<'_>, key: i64) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.end_given_back(EndKey(key)))
    }

    /// A call about an end has failed, and asks for a pause of at least so many microseconds. When it is made again, in microseconds since 1970; `None` if
    /// it is not.
    fn failed(&self, py: Python<'_>, key: i64, error: &str, wish_us: u64) -> PyResult<Option<i64>> {
        let runtime = self.handle.runtime(py)?;
        let wish = Duration::from_micros(wish_us);
        Ok(match free(py, || runtime.end_failed(EndKey(key), error, wish))? {
            Some(PutOff::Until(due)) => Some(due.0),
            Some(PutOff::GivenUp) | None => None,
        })
    }
}

impl Ends {
    fn settle(&self, py: Python<'_>, key: i64, settled: Settled) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.end_told(EndKey(key), settled))
    }
}
