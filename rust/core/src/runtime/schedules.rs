//! Changes of schedules by this program: kept first, told to the engine then, and never undone by older news.
//! Invariant: of two changes, that which the store took later is told later.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use uuid::Uuid;

use crate::admit::Overlap;
use crate::cron::Cron;
use crate::engine::{Backfilled, Declared, Effects, Event, cron_context};
use crate::error::{Error, Kind, Result};
use crate::poll::{Backoff, Plan};
use crate::port::{Forgotten, NewCron, Origin, Schedule, ScheduleKind, Stored, TriggerRow, TriggerState};
use crate::runtime::park::{MutexGuard, lock};
use crate::runtime::watch::{News, Watch};
use crate::runtime::{RUNS_MAX, Runtime, Shared};
use crate::time::Wall;

/// A body of a cron that has not come back for so long is told of after ten times that.
const BODY_LONG: Duration = Duration::from_secs(60);

/// The body that decides the moments of a cron.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CronBody {
    /// Its place in the poller.
    pub slot: u32,
    /// When a moment is tried again for which it failed.
    pub backoff: Backoff,
    /// Whether every fire starts a run.
    pub allow_concurrent: bool,
}

impl Runtime {
    /// The moments of a cron from `start` on and before `end`, the first `many`, each with what a run of it begins with.
    pub fn moments(cron: &Schedule, start: Wall, end: Wall, many: usize) -> Vec<(Wall, Arc<str>)> {
        let ScheduleKind::Cron { expression, timezone, .. } = &cron.kind else { return Vec::new() };
        let Ok(read) = Cron::parse(expression, timezone) else { return Vec::new() };
        // What follows a moment is later than it.
        let first = read.next(Wall(start.0.saturating_sub(1)));
        let all = std::iter::successors(first, |&moment| read.next(moment));
        let all = all.take_while(|&moment| moment < end).take(many);
        all.map(|moment| (moment, cron_context(cron, moment))).collect()
    }

    /// Starts runs for moments of a cron that have gone by, in one transaction, with the context that each is to have; the first of a
    /// moment only if that has no run. Returns a watch on each: see [`Watch::stands_for`].
    ///
    /// # Errors
    /// [`Kind::Workflow`] for an unknown workflow, [`Kind::Runner`] when closed.
    pub fn backfill(&self, cron: &Schedule, moments: Vec<(Wall, Vec<Arc<str>>)>) -> Result<Vec<Arc<Watch>>> {
        let workflow = self.workflow(&cron.workflow)?;
        if self.shared.closing.load(Ordering::Acquire) {
            return Err(Error::new(Kind::Runner, "the runner is shut down"));
        }
        let waits = overlap_of(cron) != Overlap::Allow;
        let mut runs = Vec::new();
        for (moment, contexts) in moments {
            let named = std::iter::once(Some(moment)).chain(std::iter::repeat(None));
            let run = |(context, moment)| Backfilled { id: Uuid::now_v7(), moment, context };
            runs.extend(contexts.into_iter().zip(named).map(run));
        }
        if lock(&self.shared.engine).runs_unfinished() + runs.len() > RUNS_MAX {
            let text = format!("{RUNS_MAX} runs are unfinished; wait for some to end");
            return Err(Error::new(Kind::Runner, text));
        }
        let watches: Vec<Arc<Watch>> = runs.iter().map(|run| Watch::new(run.id, News::Sent)).collect();
        lock(&self.shared.watches).extend(watches.iter().map(|watch| (watch.id, Arc::clone(watch))));
        self.step(Event::Backfill { workflow, schedule: cron.row, waits, runs });
        self.shared.lose_late();
        Ok(watches)
    }

    /// This program declares the cron of that name no more: it runs where others do.
    pub fn withdraw_cron(&self, name: &str) {
        let _turn = self.shared.turn();
        self.shared.schedules_changed();
        self.step(Event::CronWithdrawn(name.into()));
    }

    /// Registers or declares a cron: makes it, or finds the one that it is. One that is declared may have a body that decides its moments.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    ///
    /// # Panics
    /// If the body's place is not the one that [`Runtime::reserve`] gave for it just now.
    pub fn put_cron(&self, cron: &NewCron<'_>, body: Option<CronBody>) -> Stored<Schedule> {
        let _turn = self.shared.turn();
        let row = self.shared.store.put_cron(cron)?;
        match (cron.origin, body) {
            (Origin::Declared, Some(body)) => self.embody(&row, body),
            (Origin::Declared, None) => self.told(Event::CronDeclared(row.clone(), None)),
            _ if self.shared.ready.load(Ordering::Acquire) => self.told(Event::Cron(row.clone())),
            // They are all read when the runner begins.
            _ => self.wake_others(),
        }
        Ok(row)
    }

    /// Declares a cron whose moments a body decides.
    fn embody(&self, row: &Schedule, body: CronBody) {
        let CronBody { slot, backoff, allow_concurrent } = body;
        let plan = Plan {
            // Nothing beats: it only tells after how long a body that has not come back is told of.
            interval: BODY_LONG,
            jitter: Duration::ZERO,
            timeout: None,
            backoff,
            failures_max: None,
            polls_at_start: false,
            by_calendar: true,
        };
        let declared = Declared {
            row: TriggerRow {
                name: row.name.as_str().into(),
                workflow: row.workflow.as_str().into(),
                interval_us: 0,
                allow_concurrent,
                origin_at: Wall(0),
            },
            overlap: overlap_of(row),
        };
        let state = TriggerState {
            row: row.row,
            enabled: true,
            cursor: row.cursor.clone(),
            last_fired_at: row.last_fired_at,
            owner: row.owner,
            others: Vec::new(),
            grid: None,
        };
        let now = self.now();
        let mut effects = Effects::default();
        self.shared.schedules_changed();
        let mut engine = lock(&self.shared.engine);
        let (history, idle) = {
            let mut polls = lock(&self.shared.polls);
            self.shared.begin_polling(&mut polls);
            let before = engine.place_of(&row.name);
            let idle = before.filter(|&before| !polls.poller.is_at_work(before));
            let history = polls.put(slot, before, &declared.row.name, Arc::new(plan), now.mono);
            polls.poller.enable(slot, &state, false, now);
            (history, idle)
        };
        engine.step(Event::History(history.into_iter().collect()), now, &mut effects);
        engine.step(Event::CronDeclared(row.clone(), Some((slot, declared))), now, &mut effects);
        if let Some(idle) = idle {
            engine.step(Event::CalledOff(idle), now, &mut effects);
        }
        self.shared.carry_out(engine, effects);
        self.wake_others();
    }

    /// Replaces a cron's expression and zone; false if there is none with that id.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    pub fn update_cron(&self, id: Uuid, expression: &str, timezone: &str, cron: &Cron) -> Stored<bool> {
        let _turn = self.shared.turn();
        let now = self.now().wall;
        let done = self.shared.store.update_cron(id, expression, timezone, cron.next(now), now)?;
        self.reload_cron(id)?;
        Ok(done)
    }

    /// Switches a cron; false if there is none with that id.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    pub fn set_cron_enabled(&self, id: Uuid, enabled: bool) -> Stored<bool> {
        let _turn = self.shared.turn();
        let store = &self.shared.store;
        let Some(row) = store.cron(id)? else { return Ok(false) };
        let now = self.now().wall;
        if let ScheduleKind::Cron { expression, timezone, .. } = &row.kind
            && let Ok(cron) = Cron::parse(expression, timezone)
            && enabled
            && !row.enabled
        {
            // Moments of the time when it was off are not made up for.
            store.update_cron(id, expression, timezone, cron.next(now), now)?;
        }
        let done = store.set_enabled(row.row, enabled, None, now)?;
        self.reload_cron(id)?;
        Ok(done)
    }

    /// Deletes a cron; false if there is none with that id.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    pub fn delete_cron(&self, id: Uuid) -> Stored<bool> {
        let _turn = self.shared.turn();
        let Some(row) = self.shared.store.cron(id)? else { return Ok(false) };
        let done = self.shared.store.delete_cron(id)?;
        self.told(Event::CronGone(row.row));
        Ok(done)
    }

    /// Deletes what is kept of the trigger and the crons of that name, but for their runs.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    pub fn forget(&self, name: &str) -> Stored<Forgotten> {
        let _turn = self.shared.turn();
        let forgotten = self.shared.store.forget(self.shared.epoch, name)?;
        if let Forgotten::Gone(rows) = &forgotten {
            rows.iter().for_each(|&row| self.told(Event::CronGone(row)));
        }
        Ok(forgotten)
    }

    /// Switches a trigger's polling; false if there is none of that row.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    pub fn set_trigger_enabled(&self, row: i64, enabled: bool) -> Stored<bool> {
        let _turn = self.shared.turn();
        let done = self.shared.store.set_enabled(row, enabled, None, self.now().wall)?;
        self.shared.schedules_changed();
        self.shared.switch([(row, enabled)]);
        self.shared.wake_pollers();
        self.wake_others();
        Ok(done)
    }

    fn reload_cron(&self, id: Uuid) -> Stored<()> {
        // Before the runner begins its crons are not read yet, and none of them is to run.
        match self.shared.store.cron(id)?.filter(|_| self.shared.ready.load(Ordering::Acquire)) {
            Some(row) => self.told(Event::Cron(row)),
            None => self.wake_others(),
        }
        Ok(())
    }

    fn told(&self, event: Event) {
        self.shared.schedules_changed();
        self.step(event);
        self.wake_others();
    }
}

fn overlap_of(cron: &Schedule) -> Overlap {
    match &cron.kind {
        ScheduleKind::Cron { terms, .. } => terms.overlap,
        ScheduleKind::Trigger { .. } => Overlap::Allow,
    }
}

impl Shared {
    /// One change of a schedule at a time, from the store to the engine.
    fn turn(&self) -> MutexGuard<'_, ()> {
        lock(&self.schedules)
    }

    /// What was read of schedules before this is not to be believed any more.
    pub(super) fn schedules_changed(&self) {
        self.schedules_version.fetch_add(1, Ordering::AcqRel);
    }

    /// Which version of all schedules is about to be read.
    pub(super) fn schedules_version(&self) -> u64 {
        self.schedules_version.load(Ordering::Acquire)
    }

    /// Replaces all crons by what was read of them; false if something changed here meanwhile.
    pub(super) fn replace_crons(&self, version: u64, crons: Vec<Schedule>) -> bool {
        let mut effects = Effects::default();
        let now = self.now();
        let mut engine = lock(&self.engine);
        let is_current = self.schedules_version() == version;
        if is_current {
            engine.step(Event::Crons(crons), now, &mut effects);
            self.carry_out(engine, effects);
        }
        is_current
    }

    /// Switches triggers as they were read; false if something changed here meanwhile. Under the engine's lock: a row that arrives later
    /// must know that it may be older.
    pub(super) fn switch_as_read(
        &self,
        version: u64,
        triggers: impl IntoIterator<Item = (i64, bool)>,
    ) -> bool {
        let now = self.now();
        let mut engine = lock(&self.engine);
        let is_current = self.schedules_version() == version;
        if is_current {
            engine.step(Event::News, now, &mut Effects::default());
            let poller = &mut lock(&self.polls).poller;
            for (row, enabled) in triggers {
                poller.set_enabled(row, enabled, now.mono);
            }
        }
        is_current
    }
}
