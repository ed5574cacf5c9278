//! Triggers and crons as the store knows them.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use cloaca_core::admit::Overlap;
use cloaca_core::cron::Cron;
use cloaca_core::poll::Backoff;
use cloaca_core::port::{
    Catchup, NewCron, Origin, Page, RunFilter, Schedule, ScheduleFilter, Stored, Stretch,
};
use cloaca_core::runtime::{CronBody, Runtime};
use cloaca_core::time::Wall;
use cloaca_core::version;

use crate::client::{HeldParts, held_of, stood_in};
use crate::convert::{forgotten_of, renamed_of};
use crate::gil::free;
use crate::handle::{Handle, parse_id};
use crate::poll_now::{ToldParts, shown};
use crate::wait::flush;
use crate::watch::Watch;
use crate::{convert, error, work};

/// A cron as the Python layer asks for it. Without a name it is known by its workflow, expression and zone.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct CronParts {
    name: String,
    is_declared: bool,
    workflow: String,
    expression: String,
    timezone: String,
    context: Option<String>,
    overlap: String,
    catchup: String,
    /// What tells its versions apart.
    version: String,
    body: Option<BodyParts>,
}

/// The body that decides a cron's moments; spans are in microseconds.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct BodyParts {
    place: u32,
    /// `(base, factor, longest)`.
    backoff: (u64, f64, u64),
    allow_concurrent: bool,
}

impl BodyParts {
    fn body(self) -> CronBody {
        let (base, factor, longest) = self.backoff;
        let [base, longest] = [base, longest].map(Duration::from_micros);
        let backoff = Backoff { base, factor, longest };
        CronBody { place: self.place, backoff, allow_concurrent: self.allow_concurrent }
    }
}

/// The triggers and crons of one store.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Schedules {
    pub handle: Arc<Handle>,
}

#[pymethods]
impl Schedules {
    /// Triggers in the order of their registration.
    fn triggers<'py>(
        &self,
        py: Python<'py>,
        enabled_only: bool,
        limit: u64,
        offset: u64,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let page = Page { limit, offset };
        flush(py, self.handle.runtime(py)?, Runtime::flushing)?;
        let rows = self.handle.stored(py, move |runtime| {
            runtime.store().schedules(ScheduleFilter::Triggers, enabled_only, page)
        })?;
        self.with_outlooks(py, rows)
    }

    /// The trigger of that name.
    fn trigger<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some(row) = self.handle.trigger_row(py, name)? else { return Ok(None) };
        Ok(self.with_outlooks(py, vec![row])?.pop())
    }

    /// Switches a trigger; false if there is none of that name.
    fn set_trigger_enabled(&self, py: Python<'_>, name: &str, enabled: bool) -> PyResult<bool> {
        let Some(row) = self.handle.trigger_row(py, name)? else { return Ok(false) };
        self.handle.written(py, move |runtime| runtime.set_trigger_enabled(row.row, enabled))
    }

    /// The cursor of a trigger or a cron, as JSON text in a tuple; `None` if there is none of that name.
    fn cursor(&self, py: Python<'_>, name: &str, is_cron: bool) -> PyResult<Option<(Option<String>,)>> {
        Ok(self.named(py, name, is_cron)?.map(|row| (row.cursor,)))
    }

    /// Sets it; false if there is none of that name.
    fn set_cursor(
        &self,
        py: Python<'_>,
        name: &str,
        is_cron: bool,
        cursor: Option<String>,
    ) -> PyResult<bool> {
        let Some(row) = self.named(py, name, is_cron)? else { return Ok(false) };
        self.handle.written(py, move |runtime| runtime.set_cursor(row.row, cursor.as_deref()))
    }

    /// What would become of fires of a moment of a declared cron, as `(verdict, run, reason)`; `held` are its unfinished runs, each with the hash that it
    /// guards. Changes nothing.
    fn foretell_moment(
        &self,
        py: Python<'_>,
        name: &str,
        gate: (bool, String),
        fires: Vec<work::AskedParts>,
        held: Vec<HeldParts>,
    ) -> PyResult<Vec<ToldParts>> {
        flush(py, self.handle.runtime(py)?, Runtime::flushing)?;
        let Some(cron) = self.named(py, name, true)? else { return Ok(Vec::new()) };
        let trigger = stood_in(name, &cron.workflow.as_str().into(), gate);
        let (held, fires) = (held_of(&held), fires.into_iter().map(work::fire).collect());
        let told = self
            .handle
            .stored(py, move |runtime| runtime.rehearse_moment(&trigger, cron.row, &held, fires))?;
        Ok(told.unwrap_or_default().into_iter().map(shown).collect())
    }

    /// Asks whoever polls a trigger next for a poll; false if it is off or no living runner declares it.
    fn ask_poll(&self, py: Python<'_>, name: &str) -> PyResult<bool> {
        let Some(row) = self.handle.trigger_row(py, name)? else { return Ok(false) };
        self.handle.written(py, move |runtime| runtime.ask_poll(row.row))
    }

    /// Takes the next end away that a trigger is to be told of, or the first one of a run. The run, or `None` if there is no such end.
    #[pyo3(signature = (name, run = None))]
    fn skip_end(&self, py: Python<'_>, name: &str, run: Option<&str>) -> PyResult<Option<String>> {
        let Some(row) = self.handle.trigger_row(py, name)? else { return Ok(None) };
        let run = run.map(|run| parse_id(py, run)).transpose()?;
        let skipped = self.handle.written(py, move |runtime| runtime.skip_end(row.row, run))?;
        Ok(skipped.map(|end| end.run.to_string()))
    }

    /// The runs that a trigger fired, newest first; `None` if there is no such trigger.
    fn trigger_runs<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        limit: u64,
        offset: u64,
    ) -> PyResult<Option<(String, Vec<Bound<'py, PyDict>>)>> {
        let Some(row) = self.row_of(py, name)? else { return Ok(None) };
        let filter = RunFilter { trigger: Some(name.to_owned()), ..RunFilter::default() };
        let runs =
            self.handle.shown(py, move |runtime| runtime.store().runs(&filter, Page { limit, offset }))?;
        let runs = runs.iter().map(|run| convert::run(py, run)).collect::<PyResult<_>>()?;
        Ok(Some((row.id.to_string(), runs)))
    }

    /// What was decided under a name, by polls or of moments, as stretches of equal outcomes, newest first.
    fn ticks<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        limit: u64,
    ) -> PyResult<Option<Vec<Bound<'py, PyDict>>>> {
        flush(py, self.handle.runtime(py)?, |runtime| runtime.flushing_trigger(name))?;
        let polled = self.handle.kept_trigger_row(py, name)?.map(|row| row.row);
        let cron = self.cron_of(py, name)?.map(|row| row.row);
        let page = Page { limit, offset: 0 };
        // It may have been polled before it was a cron, or the other way round.
        let mut rows = self.handle.stored(py, move |runtime| {
            let both = [polled, cron].into_iter().flatten();
            both.map(|row| runtime.store().history(row, page)).collect::<Stored<Vec<_>>>()
        })?;
        let is_known = !rows.is_empty();
        let mut rows: Vec<Stretch> = rows.drain(..).flatten().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.last_at));
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let shown = rows.iter().map(|row| convert::stretch(py, row)).collect::<PyResult<Vec<_>>>()?;
        Ok(is_known.then_some(shown))
    }

    /// Makes a cron schedule, or finds the one that is meant; returns its id.
    fn put_cron(&self, py: Python<'_>, parts: CronParts) -> PyResult<String> {
        let cron = Cron::parse(&parts.expression, &parts.timezone).map_err(|e| error::raise(py, e))?;
        let schedule = self.handle.written(py, move |runtime| {
            let now = runtime.now().wall;
            let new = NewCron {
                id: cloaca_core::key::new_id(),
                name: &parts.name,
                origin: if parts.is_declared { Origin::Declared } else { Origin::Registered },
                digest: version::digest(&parts.version),
                workflow: &parts.workflow,
                expression: &parts.expression,
                timezone: &parts.timezone,
                next_at: cron.next(now),
                context: parts.context.as_deref(),
                overlap: Overlap::from_name(&parts.overlap).unwrap_or_default(),
                catchup: Catchup::from_name(&parts.catchup).unwrap_or_default(),
                at: now,
            };
            runtime.put_cron(&new, parts.body.map(BodyParts::body))
        })?;
        Ok(schedule.id.to_string())
    }

    /// This program declares the cron of that name no more.
    fn withdraw_cron(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let name = name.to_owned();
        self.handle.written(py, move |runtime| runtime.withdraw_cron(&name))
    }

    /// Crons in the order of their registration.
    fn crons<'py>(
        &self,
        py: Python<'py>,
        enabled_only: bool,
        limit: u64,
        offset: u64,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let page = Page { limit, offset };
        let rows = self.handle.stored(py, move |runtime| {
            runtime.store().schedules(ScheduleFilter::Crons, enabled_only, page)
        })?;
        rows.iter().map(|row| convert::cron(py, row)).collect()
    }

    /// The cron with that id.
    fn cron<'py>(&self, py: Python<'py>, id: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.cron_row(py, id)?.map(|row| convert::cron(py, &row)).transpose()
    }

    /// The cron of that name.
    fn cron_named<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
        let row = self.cron_of(py, name)?;
        row.map(|row| convert::cron(py, &row)).transpose()
    }

    /// Replaces a cron's expression and zone; false if there is none with that id.
    fn update_cron(&self, py: Python<'_>, id: &str, expression: &str, timezone: &str) -> PyResult<bool> {
        let id = parse_id(py, id)?;
        let cron = Cron::parse(expression, timezone).map_err(|e| error::raise(py, e))?;
        let [expression, timezone] = [expression, timezone].map(str::to_owned);
        self.handle.written(py, move |runtime| runtime.update_cron(id, &expression, &timezone, &cron))
    }

    /// Switches a cron; false if there is none with that id.
    fn set_cron_enabled(&self, py: Python<'_>, id: &str, enabled: bool) -> PyResult<bool> {
        let id = parse_id(py, id)?;
        self.handle.written(py, move |runtime| runtime.set_cron_enabled(id, enabled))
    }

    /// The moments of a cron from one time on and before another, in microseconds, the first `many`, each with what a run of it begins
    /// with; `None` if there is no such cron.
    fn moments(
        &self,
        py: Python<'_>,
        id: &str,
        start_us: i64,
        end_us: i64,
        many: usize,
    ) -> PyResult<Option<Vec<(i64, String)>>> {
        let Some(cron) = self.cron_row(py, id)? else { return Ok(None) };
        let moments = free(py, || Runtime::moments(&cron, Wall(start_us), Wall(end_us), many))?;
        let shown = moments.into_iter().map(|(moment, context)| (moment.0, context.as_ref().to_owned()));
        Ok(Some(shown.collect()))
    }

    /// Starts runs for moments of a cron that have gone by, with their contexts; returns a watch on each.
    fn backfill(
        &self,
        py: Python<'_>,
        id: &str,
        moments: Vec<(i64, Vec<String>)>,
    ) -> PyResult<Option<Vec<Watch>>> {
        let Some(cron) = self.cron_row(py, id)? else { return Ok(None) };
        let contexts = |contexts: Vec<String>| contexts.into_iter().map(Arc::from).collect();
        let moments = moments.into_iter().map(|(at, texts)| (Wall(at), contexts(texts))).collect();
        let runtime = self.handle.runtime(py)?;
        let watches = free(py, || runtime.backfill(&cron, moments))?.map_err(|e| error::raise(py, e))?;
        Ok(Some(watches.into_iter().map(|watch| self.handle.watched(watch)).collect()))
    }

    /// Deletes a cron: whether there was one with that id, and whose number forbids it.
    fn delete_cron(&self, py: Python<'_>, id: &str) -> PyResult<(bool, Option<i64>)> {
        let id = parse_id(py, id)?;
        Ok(forgotten_of(self.handle.written(py, move |runtime| runtime.delete_cron(id))?))
    }

    /// Deletes what is kept of a name: whether there was anything, and whose number forbids it.
    fn forget(&self, py: Python<'_>, name: &str) -> PyResult<(bool, Option<i64>)> {
        flush(py, self.handle.runtime(py)?, Runtime::flushing_all)?;
        let name = name.to_owned();
        Ok(forgotten_of(self.handle.written(py, move |runtime| runtime.forget(&name))?))
    }

    /// Gives what is kept of a name another one: whether there was anything, whose number forbids it, and whether the other name is taken.
    fn rename(&self, py: Python<'_>, name: &str, new_name: &str) -> PyResult<(bool, Option<i64>, bool)> {
        flush(py, self.handle.runtime(py)?, Runtime::flushing_all)?;
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        Ok(renamed_of(self.handle.written(py, move |runtime| runtime.rename(&name, &new_name))?))
    }

    /// The runs that a cron started, newest first; `None` if there is no such cron.
    fn cron_runs<'py>(
        &self,
        py: Python<'py>,
        id: &str,
        limit: u64,
        offset: u64,
    ) -> PyResult<Option<Vec<Bound<'py, PyDict>>>> {
        let Some(row) = self.cron_row(py, id)? else { return Ok(None) };
        let filter = RunFilter { schedule: Some(row.row), ..RunFilter::default() };
        let runs =
            self.handle.shown(py, move |runtime| runtime.store().runs(&filter, Page { limit, offset }))?;
        runs.iter().map(|run| convert::run(py, run)).collect::<PyResult<Vec<_>>>().map(Some)
    }

    /// `(total, successful, lost)` cron runs since a time in microseconds.
    fn cron_stats(&self, py: Python<'_>, since_us: i64) -> PyResult<(u64, u64, u64)> {
        let stats = self.handle.stored(py, move |runtime| runtime.store().cron_stats(Wall(since_us)))?;
        Ok((stats.total, stats.successful, stats.lost))
    }
}

impl Schedules {
    fn with_outlooks<'py>(&self, py: Python<'py>, rows: Vec<Schedule>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let (rows, last, outlooks) = self.handle.stored(py, move |runtime| {
            let last = runtime.last_polls(rows.iter().map(|row| row.row));
            let outlooks = runtime.outlooks(&rows)?;
            Ok((rows, last, outlooks))
        })?;
        let shown = rows.iter().zip(last).zip(outlooks).map(|((row, last), outlook)| {
            let dict = convert::trigger(py, row, last)?;
            convert::outlook(&dict, &outlook)?;
            Ok(dict)
        });
        shown.collect()
    }

    fn cron_row(&self, py: Python<'_>, id: &str) -> PyResult<Option<Schedule>> {
        let id = parse_id(py, id)?;
        self.handle.stored(py, move |runtime| runtime.store().cron(id))
    }

    fn cron_of(&self, py: Python<'_>, name: &str) -> PyResult<Option<Schedule>> {
        let name = name.to_owned();
        self.handle.stored(py, move |runtime| runtime.store().cron_named(&name))
    }

    fn named(&self, py: Python<'_>, name: &str, is_cron: bool) -> PyResult<Option<Schedule>> {
        match is_cron {
            true => self.cron_of(py, name),
            false => self.handle.trigger_row(py, name),
        }
    }

    /// What is polled under a name, or else runs by the calendar.
    fn row_of(&self, py: Python<'_>, name: &str) -> PyResult<Option<Schedule>> {
        match self.handle.trigger_row(py, name)? {
            Some(row) => Ok(Some(row)),
            None => self.cron_of(py, name),
        }
    }
}
