//! A poll out of turn, from its beginning to its end.
//! Invariant: it ends once. Whoever lets go of it without an answer, by whatever exception, has called it off: a trigger whose poll never ends is
//! never polled again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use uuid::Uuid;

use cloaca_core::admit::Overlap;
use cloaca_core::engine::{Foretold, Verdict};
use cloaca_core::poll::Ticket;
use cloaca_core::runtime::foretell_of;
use cloaca_core::time::Now;

use crate::fork::is_forked;
use crate::gil::free;
use crate::handle::Handle;
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

    /// What would become of fires that it decided, and of which these runs have the run keys, as `(verdict, run, reason)`.
    fn foretell(
        &self,
        py: Python<'_>,
        fires: Vec<work::AskedParts>,
        holders: Vec<Option<String>>,
    ) -> PyResult<Vec<ToldParts>> {
        let holders = ids(&holders);
        let fires = fires.into_iter().map(work::fire).collect();
        let runtime = self.handle.runtime(py)?;
        let told = free(py, || runtime.foretell(self.ticket.place, self.began, fires, &holders))?;
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

/// What would become of fires of a trigger, without a runner: `held` are its unfinished runs, oldest first, each with the hash that it guards, and
/// `holders` those that have the fires' run keys. As `(verdict, run, reason)`.
#[pyfunction]
pub fn foretell(
    py: Python<'_>,
    trigger: &str,
    gate: (bool, String),
    fires: Vec<work::AskedParts>,
    holders: Vec<Option<String>>,
    held: Vec<(String, Option<[u8; 16]>)>,
) -> PyResult<Vec<ToldParts>> {
    let (allow_concurrent, overlap) = gate;
    let overlap = Overlap::from_name(&overlap).unwrap_or_default();
    let held = held.iter().filter_map(|(id, hash)| Some((Uuid::parse_str(id).ok()?, *hash))).collect();
    let (holders, fires) = (ids(&holders), fires.into_iter().map(work::fire).collect());
    let told = free(py, || foretell_of(trigger, (allow_concurrent, overlap), fires, &holders, held))?;
    Ok(told.into_iter().map(shown).collect())
}

/// `(verdict, run, reason)`.
type ToldParts = (&'static str, Option<String>, String);

fn shown(told: Foretold) -> ToldParts {
    (verdict(told.verdict), told.run.map(|run| run.to_string()), told.reason)
}

fn ids(texts: &[Option<String>]) -> Vec<Option<Uuid>> {
    texts.iter().map(|id| id.as_deref().and_then(|id| Uuid::parse_str(id).ok())).collect()
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
