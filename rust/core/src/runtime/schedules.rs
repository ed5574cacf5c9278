//! Changes of schedules by this program: kept first, told to the engine then, and never undone by older news.
//! Invariant: of two changes, that which the store took later is told later.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use uuid::Uuid;

use crate::admit::Overlap;
use crate::cron::Cron;
use crate::engine::{Backfilled, Declared, Effects, Event, cron_context};
use crate::error::{Error, Kind, Result};
use crate::key::ScheduleKey;
use crate::poll::{Backoff, Plan};
use crate::port::{
    Catchup, Forgotten, NewCron, Origin, Renamed, Schedule, ScheduleKind, Skipped, Stored, TriggerRow,
    TriggerState,
};
use crate::runtime::park::{MutexGuard, lock};
use crate::runtime::watch::{News, Watch};
use crate::runtime::{RUNS_MAX, Runtime, Shared};
use crate::time::Wall;

/// A body of a cron that has not come back for so long is told of after ten times that.
const BODY_LONG: Duration = Duration::from_secs(60);

/// What this program declares of crons, by their names: who registers one of these takes it over, until that is deleted.
pub(super) type DeclaredCrons = HashMap<String, DeclaredCron>;

/// A cron as it was declared last.
#[derive(Debug)]
pub(super) struct DeclaredCron {
    workflow: String,
    expression: String,
    timezone: String,
    overlap: Overlap,
    catchup: Catchup,
    digest: i64,
    cron: Cron,
}

impl DeclaredCron {
    fn of(new: &NewCron<'_>) -> Option<Self> {
        Some(Self {
            workflow: new.workflow.to_owned(),
            expression: new.expression.to_owned(),
            timezone: new.timezone.to_owned(),
            overlap: new.overlap,
            catchup: new.catchup,
            digest: new.digest,
            cron: Cron::parse(new.expression, new.timezone).ok()?,
        })
    }

    fn anew<'a>(&'a self, name: &'a str, at: Wall) -> NewCron<'a> {
        NewCron {
            id: crate::key::new_id(),
            name,
            origin: Origin::Declared,
            digest: self.digest,
            workflow: &self.workflow,
            expression: &self.expression,
            timezone: &self.timezone,
            next_at: self.cron.next(at),
            context: None,
            overlap: self.overlap,
            catchup: self.catchup,
            at,
        }
    }

    /// Whether what is kept of it is another version, and that is not declared any more, or not the newest.
    fn is_due(&self, kept: &Schedule) -> bool {
        let is_other = kept.origin == Origin::Declared && kept.digest != Some(self.digest);
        is_other && kept.newest != kept.version
    }
}

/// The body that decides the moments of a cron.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CronBody {
    /// Its place in the poller.
    pub place: u32,
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
            return Err(self.shared.refusal());
        }
        let waits = overlap_of(cron) != Overlap::Allow;
        let mut runs = Vec::new();
        for (moment, contexts) in moments {
            let named = std::iter::once(Some(moment)).chain(std::iter::repeat(None));
            let run = |(context, moment)| Backfilled { id: crate::key::new_id(), moment, context };
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
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    pub fn withdraw_cron(&self, name: &str) -> Stored<()> {
        let mut declared = self.shared.turn();
        self.shared.store.withdraw_cron(self.shared.epoch, name)?;
        declared.remove(name);
        self.told(Event::CronWithdrawn(name.into()));
        Ok(())
    }

    /// Registers or declares a cron: makes it, or finds the one that it is. One that is declared may have a body that decides its moments.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    ///
    /// # Panics
    /// If the body's place is not the one that [`Runtime::reserve`] gave for it just now.
    pub fn put_cron(&self, cron: &NewCron<'_>, body: Option<CronBody>) -> Stored<Schedule> {
        let mut declared = self.shared.turn();
        let row = self.shared.store.put_cron(self.shared.epoch, cron)?;
        if cron.origin == Origin::Declared {
            declared.extend(DeclaredCron::of(cron).map(|known| (cron.name.to_owned(), known)));
        }
        match (cron.origin, body) {
            (Origin::Declared, Some(body)) => self.embody(cron, &row, body),
            (Origin::Declared, None) => self.told(Event::CronDeclared(row.clone(), cron.digest, None)),
            _ if self.shared.ready.load(Ordering::Acquire) => self.told(Event::Cron(row.clone())),
            // They are all read when the runner begins.
            _ => self.wake_others(),
        }
        Ok(row)
    }

    /// Declares a cron whose moments a body decides, as long as nothing that a call registered has taken it over.
    fn embody(&self, cron: &NewCron<'_>, row: &Schedule, body: CronBody) {
        let CronBody { place, backoff, allow_concurrent } = body;
        let plan = Plan {
            // Nothing beats: it only tells after how long a body that has not come back is told of.
            interval: BODY_LONG,
            jitter: Duration::ZERO,
            timeout: None,
            backoff,
            failures_max: None,
            polls_at_start: false,
            by_calendar: true,
            by_ends: false,
        };
        let declared = Declared {
            row: TriggerRow {
                name: row.name.as_str().into(),
                workflow: cron.workflow.into(),
                interval_us: 0,
                allow_concurrent,
                on_run: None,
                digest: cron.digest,
                origin_at: Wall(0),
            },
            overlap: cron.overlap,
        };
        let state = TriggerState {
            row: row.row,
            enabled: true,
            cursor: row.cursor.clone(),
            cursor_set: row.cursor_set,
            last_fired_at: row.last_fired_at,
            owner: row.owner,
            unfinished: Vec::new(),
            failures: 0,
            grid: None,
            asked: None,
            has_died: false,
            is_outdated: false,
            is_awaited: false,
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
            let history = polls.put(place, before, &declared.row.name, Arc::new(plan), now.mono);
            polls.poller.enable(place, &state, false, now);
            (history, idle)
        };
        engine.step(Event::History(history), now, &mut effects);
        engine.step(
            Event::CronDeclared(row.clone(), cron.digest, Some((place, declared))),
            now,
            &mut effects,
        );
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
        if row.origin == Origin::Declared
            && let Some(polled) = store.trigger(&row.name)?
        {
            // It is polled here perhaps, in a program that has not been deployed anew yet.
            self.shared.switch([(polled.row, polled.enabled)]);
            self.shared.wake_pollers();
        }
        self.reload_cron(id)?;
        Ok(done)
    }

    /// Deletes a cron, unless a program that lives declares it. A declaration that it had taken over goes on.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    pub fn delete_cron(&self, id: Uuid) -> Stored<Forgotten> {
        let declared = self.shared.turn();
        let Some(cron) = self.shared.store.cron(id)? else { return Ok(Forgotten::Gone(Vec::new())) };
        let deleted = self.shared.store.delete_cron(id)?;
        if matches!(deleted, Forgotten::Gone(_)) {
            self.told(Event::CronGone(cron.row));
            if cron.origin == Origin::Registered {
                self.shared.declare_left(&declared, &[cron.name])?;
            }
        }
        Ok(deleted)
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

    /// Gives the trigger and the crons of a name another one, unless it is in flight here: that counts still, and must not run beside a poll
    /// under the new name.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    pub fn rename(&self, from: &str, to: &str) -> Stored<Renamed> {
        let _turn = self.shared.turn();
        if lock(&self.shared.polls).poller.is_in_flight_as(from) {
            return Ok(Renamed::Polled { by: self.shared.epoch });
        }
        let renamed = self.shared.store.rename(self.shared.epoch, from, to)?;
        if let Renamed::Done(rows) = &renamed {
            rows.iter().for_each(|&row| self.told(Event::CronGone(row)));
        }
        Ok(renamed)
    }

    /// Switches a trigger's polling; false if there is none of that row.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    pub fn set_trigger_enabled(&self, row: ScheduleKey, enabled: bool) -> Stored<bool> {
        let _turn = self.shared.turn();
        let done = self.shared.store.set_enabled(row, enabled, None, self.now().wall)?;
        self.shared.schedules_changed();
        self.shared.switch([(row, enabled)]);
        self.shared.wake_pollers();
        self.wake_others();
        Ok(done)
    }

    /// Sets the cursor of a schedule, JSON text, beside its polls; false if there is no such row. A poll in flight that looked at the old one
    /// comes to nothing.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    pub fn set_cursor(&self, row: ScheduleKey, cursor: Option<&str>) -> Stored<bool> {
        let Some(cursor_set) = self.shared.store.set_cursor(row, cursor)? else { return Ok(false) };
        lock(&self.shared.polls).poller.set_cursor(row, cursor, cursor_set);
        self.shared.wake_pollers();
        self.wake_others();
        Ok(true)
    }

    /// Has whoever polls a trigger next poll it as soon as may be, in whatever process. False if it is switched off or no living owner has or declares
    /// it.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    pub fn ask_poll(&self, trigger: ScheduleKey) -> Stored<bool> {
        let is_declared = lock(&self.shared.polls).poller.place_of(trigger).is_some();
        // What is declared here no more may still be this owner's for a moment.
        let besides = (!is_declared).then_some(self.shared.epoch);
        let Some((owner, times)) = self.shared.store.ask_poll(trigger, besides)? else { return Ok(false) };
        if owner == Some(self.shared.epoch) {
            let now = self.now().mono;
            lock(&self.shared.polls).poller.asked(trigger, times, now);
            self.shared.wake_pollers();
        }
        self.wake_others();
        Ok(true)
    }

    /// The trigger is not told of its next end, or the first one of a run; none if there is no such end. A call that is under way about it comes to
    /// nothing.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    pub fn skip_end(&self, trigger: ScheduleKey, run: Option<Uuid>) -> Stored<Option<Skipped>> {
        let Some(skipped) = self.shared.store.skip_end(trigger, run, self.now().wall)? else {
            return Ok(None);
        };
        let cursor = skipped.cursor.as_deref();
        lock(&self.shared.polls).poller.set_cursor(trigger, cursor, skipped.cursor_set);
        self.shared.endings_came();
        self.wake_others();
        Ok(Some(skipped))
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
    /// Declares those crons of this program again of which another version was in force whose programs are gone, say. True if the store
    /// was asked: what was read of it is old then.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    pub(super) fn renew_crons(&self, kept: &[Schedule]) -> Stored<bool> {
        let declared = self.turn();
        let mut is_asked = false;
        for row in kept {
            if let Some(known) = declared.get(&row.name).filter(|known| known.is_due(row)) {
                self.store.put_cron(self.epoch, &known.anew(&row.name, self.now().wall))?;
                is_asked = true;
            }
        }
        Ok(is_asked)
    }

    /// Whether this program declares any cron.
    pub(super) fn has_crons(&self) -> bool {
        !self.turn().is_empty()
    }

    /// One change of a schedule at a time, from the store to the engine.
    fn turn(&self) -> MutexGuard<'_, DeclaredCrons> {
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
            let left = engine.crons_left(&crons);
            engine.step(Event::Crons(crons), now, &mut effects);
            self.carry_out(engine, effects);
            if !left.is_empty() {
                // What the store doesn't take now is left over at the next piece of news, too.
                let _ = self.declare_left(&self.turn(), &left);
            }
        }
        is_current
    }

    /// Declares crons of these names once more, as far as this program does: what had taken them over is deleted.
    fn declare_left(&self, declared: &DeclaredCrons, names: &[String]) -> Stored<()> {
        for name in names {
            let Some(known) = declared.get(name) else { continue };
            let row = self.store.put_cron(self.epoch, &known.anew(name, self.now().wall))?;
            self.schedules_changed();
            self.step(Event::CronDeclared(row, known.digest, None));
            self.store.wake_others(self.epoch);
        }
        Ok(())
    }

    /// Switches triggers as they were read, with the cursors that were set; false if something changed here meanwhile. Under the engine's lock: a row that arrives later
    /// must know that it may be older.
    pub(super) fn switch_as_read(&self, version: u64, triggers: &[Schedule]) -> bool {
        let now = self.now();
        let mut begun = Vec::new();
        let mut engine = lock(&self.engine);
        let is_current = self.schedules_version() == version;
        if is_current {
            engine.step(Event::News, now, &mut Effects::default());
            let poller = &mut lock(&self.polls).poller;
            for Schedule { row, enabled, cursor, cursor_set, asked, owner, failures, grid, .. } in triggers {
                let is_ours = *owner == Some(self.epoch);
                let kept = is_ours.then_some((*failures, grid.and_then(|grid| grid.wait)));
                poller.switch(*row, *enabled, kept, now);
                poller.set_cursor(*row, cursor.as_deref(), *cursor_set);
                if let Some(times) = asked.filter(|_| is_ours) {
                    begun.extend(poller.asked(*row, times, now.mono));
                }
            }
        }
        drop(engine);
        // What the store did not take as they began.
        for beginning in begun {
            let _ = self.store.begin_poll(self.epoch, beginning);
        }
        is_current
    }
}
