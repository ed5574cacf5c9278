//! How an event loop hears of the runs that it waits for, without a thread between. Invariant: to hear waits for nothing.

use std::sync::Arc;

use pyo3::prelude::*;

use cloaca_core::runtime;

use crate::handle::Handle;
use crate::way::Way;

/// What one event loop hears by.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Hearer {
    handle: Arc<Handle>,
    way: Way,
    number: i32,
    pub core: Arc<runtime::Hearer>,
}

impl Hearer {
    /// One that has a descriptor; none where there are none.
    pub fn new(handle: &Arc<Handle>) -> Option<Self> {
        let way = Way::new();
        let (number, core) = (way.number()?, runtime::Hearer::new(Box::new(way.clone())));
        Some(Self { handle: Arc::clone(handle), way, number, core })
    }
}

#[pymethods]
impl Hearer {
    /// The descriptor that is readable when there is something to hear.
    #[getter]
    fn descriptor(&self) -> i32 {
        self.number
    }

    /// The ids of the runs of which there is news.
    fn heard(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.handle.runtime(py)?;
        // First: what comes from here on wakes the loop again.
        self.way.hear();
        Ok(self.core.heard().iter().map(ToString::to_string).collect())
    }
}
