//! A poll out of turn, from its beginning to its end.
//! Invariant: it ends once. Whoever lets go of it without an answer, by whatever exception, has called it off: a trigger whose poll never ends is
//! never polled again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;

use cloaca_core::engine::{Foretold, Verdict};
use cloaca_core::poll::Ticket;
use cloaca_core::runtime::Runtime;
use cloaca_core::time::Now;

use crate::fork::is_forked;
use crate::gil::free;
use crate::handle::Handle;
use crate::wait::flush;
use crate::work;

/// A poll of a trigger out of turn, which has begun.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct PollNow {
    handle: Arc<Handle>,
    ticket: Ticket,
    began: Now,
    is_over: AtomicBool,
}

impl PollNow {
    /// The poll of that ticket.
    pub fn new(handle: &Arc<Handle>, ticket: Ticket, began: Now) -> Self {
        Self { handle: Arc::clone(handle), ticket, began, is_over: AtomicBool::new(false) }
    }

    /// Whether it is the caller's to end it now.
    fn ends(&self) -> bool {
        !self.is_over.swap(true, Ordering::AcqRel) && !is_forked(self.handle.generation)
    }
}

#[pymethods]
impl PollNow {
    /// Its ticket as plain numbers.
    #[getter]
    fn ticket(&self) -> work::TicketParts {
        work::parts_of(self.ticket, self.began)
    }

    /// What would become of fires that it decided, with the cursor that it set, as `(verdict, run, reason)`.
    fn foretell(
        &self,
        py: Python<'_>,
        fires: Vec<work::AskedParts>,
        cursor: Option<String>,
    ) -> PyResult<Vec<ToldParts>> {
        let fires = fires.into_iter().map(work::fire).collect();
        // What its trigger has fired before stands in the store, and not on its way there.
        flush(py, self.handle.runtime(py)?, Runtime::flushing)?;
        let (ticket, began) = (self.ticket, self.began);
        let told = self.handle.stored(py, move |runtime| runtime.rehearse(ticket, began, fires, cursor))?;
        Ok(told.into_iter().map(shown).collect())
    }

    /// Ends it without a trace, if it is not over.
    fn look(&self, py: Python<'_>) -> PyResult<()> {
        match self.ends() {
            true => free(py, || self.handle.runtime.poll_looked(self.ticket)),
            false => Ok(()),
        }
    }

    /// Ends it with what it decided, if it is not over.
    fn answer(&self, ruling: &Bound<'_, PyAny>) -> PyResult<()> {
        match self.ends() {
            true => work::finish_with(&self.handle.runtime, self.ticket, self.began, ruling),
            false => Ok(()),
        }
    }
}

/// `(verdict, run, reason)`.
pub type ToldParts = (&'static str, Option<String>, String);

/// As Python is told it.
pub fn shown(told: Foretold) -> ToldParts {
    (verdict(told.verdict), told.run.map(|run| run.to_string()), told.reason)
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Run => "run",
        Verdict::Queue => "queue",
        Verdict::Deduplicate => "deduplicate",
        Verdict::RefuseKey => "refuse_key",
        Verdict::Drop => "drop",
        Verdict::HoldBack => "hold_back",
        Verdict::Fail => "fail",
    }
}

impl Drop for PollNow {
    fn drop(&mut self) {
        if self.ends() {
            let end = || self.handle.runtime.poll_looked(self.ticket);
            // An interpreter that ends gives itself to nobody any more.
            if Python::try_attach(|py| drop(free(py, end))).is_none() {
                end();
            }
        }
    }
}
