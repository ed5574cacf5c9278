//! What pollers enter, and whoever polls out of turn.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use cloaca_core::admit::Overlap;
use cloaca_core::engine::Declared;
use cloaca_core::error::{Error, Kind};
use cloaca_core::poll::{Backoff, Plan};
use cloaca_core::port::{CHAIN_MAX, OnRun, Outcomes, Page, ScheduleKind, Stretch, TriggerRow};
use cloaca_core::time::Wall;
use cloaca_core::version;

use crate::gil::free;
use crate::handle::{Handle, parse_id};
use crate::poll_now::PollNow;
use crate::wait::{self, flush};
use crate::{convert, error, work};

/// What triggers of one kind have in common, as the Python layer declares it; spans are in microseconds.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct KindParts {
    workflow: String,
    /// The workflow of whose ends it is told, and of which, as a sum; none of what is polled.
    on_run: Option<(String, i64)>,
    interval: u64,
    allow_concurrent: bool,
    jitter: u64,
    poll_at_start: bool,
    timeout: Option<u64>,
    /// `(base, factor, longest)`.
    backoff: (u64, f64, u64),
    failures_max: Option<u32>,
    overlap: String,
    /// What tells its versions apart.
    version: String,
}

impl KindParts {
    fn plan(&self) -> Plan {
        let (base, factor, longest) = self.backoff;
        Plan {
            interval: Duration::from_micros(self.interval),
            jitter: Duration::from_micros(self.jitter),
            polls_at_start: self.poll_at_start,
            by_calendar: false,
            by_ends: self.on_run.is_some(),
            timeout: self.timeout.map(Duration::from_micros),
            backoff: Backoff {
                base: Duration::from_micros(base),
                factor,
                longest: Duration::from_micros(longest),
            },
            failures_max: self.failures_max,
        }
    }

    /// Adds the triggers of these names, which share what can be shared.
    fn declare(
        self,
        names: &[Bound<'_, PyString>],
        triggers: &mut Vec<(Arc<Plan>, Declared)>,
    ) -> PyResult<()> {
        let plan = Arc::new(self.plan());
        let overlap = Overlap::from_name(&self.overlap).unwrap_or_default();
        let on_run = self.on_run.map(|(workflow, outcomes)| OnRun {
            workflow: workflow.into(),
            outcomes: Outcomes::from_bits(outcomes),
        });
        // What is told of ends is never due by itself.
        let interval_us = match on_run {
            Some(_) => 0,
            None => i64::try_from(self.interval).unwrap_or(i64::MAX),
        };
        let allow_concurrent = self.allow_concurrent;
        let digest = version::digest(&self.version);
        let workflow: Arc<str> = self.workflow.into();
        for name in names {
            let (name, workflow) = (Arc::from(name.to_str()?), Arc::clone(&workflow));
            let on_run = on_run.clone();
            let row = TriggerRow {
                name,
                workflow,
                interval_us,
                allow_concurrent,
                on_run,
                digest,
                origin_at: Wall(0),
            };
            triggers.push((Arc::clone(&plan), Declared { row, overlap }));
        }
        Ok(())
    }
}

/// `(cursor, scheduled_at, last_fired_at, failures, last_error, moment)`; the last is what the run of a cron's moment begins with.
type TickParts = (Option<String>, String, Option<String>, u32, Option<String>, Option<String>);

/// `(run, status, ended_at, is_too_deep, kept)`, the last of which is `(context, error)`.
type EndingParts = (String, &'static str, String, bool, Option<(Option<String>, Option<String>)>);

/// `(failures, polled_since, outcome, reason, is_put_off, refused)`.
type Deciding = (u32, Option<String>, Option<String>, Option<String>, bool, Option<String>);

/// The triggers that one runner polls.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Polls {
    pub handle: Arc<Handle>,
}

#[pymethods]
impl Polls {
    /// Declares triggers, as kinds with the names of theirs, and returns the first one's place in the list of bodies; the others
    /// follow it.
    fn declare_triggers(
        &self,
        py: Python<'_>,
        kinds: Vec<(KindParts, Vec<Bound<'_, PyString>>)>,
        places: Vec<u32>,
    ) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        let mut triggers = Vec::with_capacity(kinds.iter().map(|(_, names)| names.len()).sum());
        for (kind, names) in kinds {
            kind.declare(&names, &mut triggers)?;
        }
        free(py, || runtime.declare(&places, triggers))
    }

    /// Gives the keeper each failed poll of the triggers in these places.
    fn hear(&self, py: Python<'_>, places: Vec<u32>) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.hear(places))
    }

    /// Gives the keeper the polls of the triggers in these places that are over their time, to stop them.
    fn stoppable(&self, py: Python<'_>, places: Vec<u32>) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.stoppable(places))
    }

    /// Ends a poll that went on in another process, with a ruling as `poll` takes it.
    fn ended(&self, py: Python<'_>, ticket: work::TicketParts, ruling: &Bound<'_, PyAny>) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        let (ticket, began) = work::ticket_of(ticket);
        match work::report(ticket, began, ruling)? {
            Some(report) => free(py, || runtime.heed(report)).map(drop),
            None => Ok(()),
        }
    }

    /// Ends it without a trace.
    fn called_off(&self, py: Python<'_>, ticket: work::TicketParts) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.poll_looked(work::ticket_of(ticket).0))
    }

    /// How many failed polls the keeper was, or is to be, given.
    fn failures_given(&self, py: Python<'_>) -> PyResult<u64> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.failures_given())
    }

    /// Polls the trigger of that name no more.
    fn withdraw(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.withdraw(name))
    }

    /// The places for triggers of these names, which are to be declared next.
    fn reserve(&self, py: Python<'_>, names: Vec<String>) -> PyResult<Vec<u32>> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.reserve(&names))
    }

    /// Polls until sent home. `skip` is the answer that means nothing to do; anything else goes to `slow`. What comes out of `rest`, which
    /// does nothing, is raised; then this is to be called again.
    fn poll(
        &self,
        py: Python<'_>,
        bodies: &Bound<'_, PyList>,
        skip: &Bound<'_, PyAny>,
        slow: &Bound<'_, PyAny>,
        rest: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        work::poll_loop(py, self.handle.runtime(py)?, bodies, skip, slow, rest, self.handle.generation)
    }

    /// What the body of the trigger in a place may know that is being called.
    fn tick_state(&self, py: Python<'_>, place: u32) -> PyResult<TickParts> {
        let (state, due, error) = self.handle.runtime(py)?.tick_state(place);
        let cursor = state.cursor.as_deref().map(str::to_owned);
        Ok((
            cursor,
            due.rfc3339(),
            state.fired_at.map(Wall::rfc3339),
            state.failures,
            error.as_deref().map(str::to_owned),
            state.moment.as_ref().map(|(_, context)| context.as_ref().to_owned()),
        ))
    }

    /// The end of a run that the body of the trigger in a place is called for: the run, how it ended and when, whether it is one too many of a
    /// chain, and its final context and its error if it has been opened again since. `None` if there is none.
    fn ending(&self, py: Python<'_>, place: u32) -> PyResult<Option<EndingParts>> {
        let found = self.handle.stored(py, move |runtime| runtime.ending_in(place))?;
        Ok(found.map(|ending| {
            let kept = ending.kept.map(|kept| (kept.context, kept.error));
            let is_too_deep = ending.depth >= CHAIN_MAX;
            (ending.run.to_string(), ending.status.name(), ending.ended_at.rfc3339(), is_too_deep, kept)
        }))
    }

    /// How many runs of the trigger in a place are unfinished.
    fn unfinished(&self, py: Python<'_>, place: u32) -> PyResult<usize> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.unfinished_of(place))
    }

    /// A poll of a trigger out of turn, which has begun; `None` while another of its polls is in flight, `False` if it is not declared here.
    fn poll_now(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyAny>> {
        let runtime = self.handle.runtime(py)?;
        let row = self.handle.trigger_row(py, name)?;
        let row = row.map(|row| row.row);
        let begin =
            |row| runtime.poll_now(row).map(|(ticket, began)| PollNow::new(&self.handle, ticket, began));
        let polled = free(py, || row.filter(|&row| runtime.standing(row).is_some()).map(begin))?;
        Ok(match polled {
            None => false.into_pyobject(py)?.to_owned().into_any().unbind(),
            Some(None) => py.None(),
            Some(Some(begun)) => Py::new(py, begun)?.into_any(),
        })
    }

    /// Wants a poll of the trigger in a place as soon as it may be.
    fn poll_soon(&self, py: Python<'_>, place: u32) -> PyResult<()> {
        let runtime = self.handle.runtime(py)?;
        free(py, || runtime.poll_soon(place))
    }

    /// Waits until what the trigger's polls have left so far is kept.
    fn flush(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        flush(py, self.handle.runtime(py)?, |runtime| runtime.flushing_trigger(name))
    }

    /// Waits until what a poll out of turn has fired is kept.
    fn keep(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let kept = wait::keep(py, self.handle.runtime(py)?, |runtime| runtime.flushing_trigger(name))?;
        kept.map_err(|why| {
            let text = format!(
                "what trigger '{name}' has fired is not kept yet, {why}; it is kept, and its runs run, as soon as the store takes it and \
                 as long as this runner lives: to tick once more polls it again"
            );
            error::raise(py, Error::new(Kind::Store, text))
        })
    }

    /// The place of the trigger whose body asks, on a thread that polls.
    #[staticmethod]
    fn here() -> Option<u32> {
        work::place_here()
    }

    /// `(failures, polled_since, outcome, reason, is_put_off, refused)` of a cron whose function decides its moments here, or whose overlap does;
    /// the outcome, the reason and whether that is put off, and still to come, are of its newest moment. The last is of any cron: why the store
    /// refuses what became of its moments.
    fn deciding(&self, py: Python<'_>, id: &str) -> PyResult<Option<Deciding>> {
        let runtime = self.handle.runtime(py)?;
        let id = parse_id(py, id)?;
        let Some(row) = self.handle.stored(py, move |runtime| runtime.store().cron(id))? else {
            return Ok(None);
        };
        let page = Page { limit: 1, offset: 0 };
        let newest = self.handle.stored(py, move |runtime| runtime.store().history(row.row, page))?;
        // What has run since was not decided: its function takes no moment any more, say.
        let is_newest = |tick: &&Stretch| row.last_at.is_none_or(|last_at| tick.last_at >= last_at);
        let newest = newest.first().filter(is_newest);
        let (standing, refused) = free(py, || (runtime.standing(row.row), runtime.cron_refused(row.row)))?;
        let (failures, since) =
            standing.map_or((0, None), |(standing, _, since)| (standing.failures, since.map(Wall::rfc3339)));
        let outcome = newest.map(|newest| newest.outcome.name().to_owned());
        let next_at = match row.kind {
            ScheduleKind::Cron { next_at, .. } => next_at,
            ScheduleKind::Trigger { .. } => None,
        };
        let is_put_off = newest.zip(next_at).is_some_and(|(newest, next_at)| newest.last_at >= next_at);
        let reason = newest.map(|newest| newest.reason.to_string());
        Ok(Some((failures, since, outcome, reason, is_put_off, refused)))
    }

    /// Where a trigger stands: its row with `standing`, a dict, or `None` if it is not polled here.
    fn standing<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
        let runtime = self.handle.runtime(py)?;
        let Some(row) = self.handle.trigger_row(py, name)? else { return Ok(None) };
        let (standing, last) = free(py, || (runtime.standing(row.row), runtime.last_polls([row.row])))?;
        let dict = convert::trigger(py, &row, last[0])?;
        dict.set_item("disabled_cause", &row.disabled_cause)?;
        dict.set_item("standing", standing.map(|found| convert::standing(py, found)).transpose()?)?;
        Ok(Some(dict))
    }
}
