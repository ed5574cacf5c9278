//! The store itself: kept, asked, copied.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use cloaca_core::runtime::{Flush, Runtime};

use crate::convert;
use crate::handle::Handle;
use crate::wait::flush;

/// The store of one runner.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Store {
    pub handle: Arc<Handle>,
}

#[pymethods]
impl Store {
    /// Waits until everything sent to the store so far is kept.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        flush(py, self.handle.runtime(py)?, Runtime::flushing_all)
    }

    /// Runs one read-only statement; rows as dicts.
    fn query<'py>(
        &self,
        py: Python<'py>,
        sql: &str,
        params: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.rows(py, Runtime::flushing_all, sql, params)
    }

    /// The same without the polls that are not written down yet: to write them all down looks at every trigger.
    fn look<'py>(
        &self,
        py: Python<'py>,
        sql: &str,
        params: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.rows(py, Runtime::flushing, sql, params)
    }

    /// Writes a copy of everything to a new file.
    fn export(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        self.handle.asked(py, Runtime::flushing_all, move |store, halt| store.export(&path, halt))
    }
}

impl Store {
    fn rows<'py>(
        &self,
        py: Python<'py>,
        flushing: impl FnOnce(&Runtime) -> Flush + Send,
        sql: &str,
        params: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let params = params.iter().map(convert::cell).collect::<PyResult<Vec<_>>>()?;
        let sql = sql.to_owned();
        let (columns, rows) =
            self.handle.asked(py, flushing, move |store, halt| store.query(&sql, &params, halt))?;
        rows.into_iter().map(|cells| convert::row(py, &columns, cells)).collect()
    }
}
