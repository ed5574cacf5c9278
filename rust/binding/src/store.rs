//! The store itself: kept, asked, copied.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::convert;
use crate::gil::free;
use crate::handle::Handle;

/// The store of one runner.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Store {
    pub handle: Arc<Handle>,
}

#[pymethods]
impl Store {
    /// Waits until everything sent to the store so far is kept.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.flush_all())?;
        Ok(())
    }

    /// Runs one read-only statement; rows as dicts.
    fn query<'py>(
        &self,
        py: Python<'py>,
        sql: &str,
        params: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let params = params.iter().map(convert::cell).collect::<PyResult<Vec<_>>>()?;
        let (columns, rows) = self.handle.stored(py, |runtime| {
            runtime.flush_all();
            runtime.store().query(sql, &params)
        })?;
        rows.into_iter().map(|cells| convert::row(py, &columns, cells)).collect()
    }

    /// Writes a copy of everything to a new file.
    fn export(&self, py: Python<'_>, path: &str) -> PyResult<()> {
        self.handle.stored(py, |runtime| {
            runtime.flush_all();
            runtime.store().export(path)
        })
    }
}
