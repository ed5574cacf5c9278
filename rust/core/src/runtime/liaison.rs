//! What asks the store about other owners and about what grows old: news, vacancies, recovery, cancels, pruning.
//! Invariant: it never runs on a thread that anything in this process waits for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use uuid::Uuid;

use crate::engine::{Event, Level};
use crate::port::{Fault, Page, Schedule, ScheduleFilter};
use crate::runtime::Shared;
use crate::runtime::keeper::Order;
use crate::runtime::park::lock;
use crate::time::Wall;

/// So many unfinished runs are taken over at once, so that the first can start early.
pub(super) const CLAIM_CHUNK: u64 = 200;

/// Between two attempts to read unfinished runs from a store that does not let itself be read.
pub(super) const RECOVERY_PAUSE: Duration = Duration::from_millis(10);

/// Old rows are deleted in steps of so many, so that no step holds up the writer.
pub(super) const PRUNE_CHUNK: u64 = 500;

/// Between two steps while there is more to delete.
pub(super) const PRUNE_PAUSE: Duration = Duration::from_millis(100);

/// Between two looks for what has grown too old.
pub(super) const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// So many triggers are switched at once by news from another process.
pub(super) const NEWS_CHUNK: usize = 1000;

/// Of runs that others drive so many are looked at together, whether they are over.
pub(super) const OTHERS_CHUNK: usize = 1000;

impl Shared {
    /// Takes over what owners left that are gone; true if others live. `known` holds those that lived at the last look; none before the
    /// first that succeeded.
    pub(super) fn look_for_vacancy(&self, recovery: bool, known: &mut Option<Vec<i64>>) -> bool {
        let Ok(siblings) = self.store.bury(self.epoch) else { return true };
        let is_gone = |epoch: &i64| !siblings.living.contains(epoch);
        if siblings.buried > 0 || known.as_ref().is_none_or(|known| known.iter().any(is_gone)) {
            if recovery {
                self.recover();
            }
            self.step(Event::Vacancy);
        }
        let has_siblings = !siblings.living.is_empty();
        *known = Some(siblings.living);
        has_siblings
    }

    /// Asks other owners for the ends of runs that a trigger of this one wants to be over.
    pub(super) fn ask_for_ends(&self) {
        let runs = std::mem::take(&mut *lock(&self.cancels));
        if runs.is_empty() {
            return;
        }
        for id in runs {
            if self.store.request_cancel(self.epoch, id, self.now().wall).is_err() {
                lock(&self.cancels).push(id);
            }
        }
        self.store.wake_others(self.epoch);
    }

    /// Lets those go on who wait for runs of others that are over by now; returns the last that was looked at.
    pub(super) fn look_at_others(&self, last: Uuid) -> Uuid {
        let others = lock(&self.engine).others_after(last, OTHERS_CHUNK);
        if others.is_empty() {
            return last;
        }
        if let Ok(ended) = self.store.ended(&others)
            && !ended.is_empty()
        {
            self.step(Event::OthersEnded(ended));
        }
        others.last().copied().unwrap_or(last)
    }

    /// Forgets a little of what is older than `retention`; returns how long to wait before the next look.
    pub(super) fn prune(&self, retention: Duration, now: Wall) -> Duration {
        let before = Wall(now.0.saturating_sub(i64::try_from(retention.as_micros()).unwrap_or(i64::MAX)));
        match self.store.prune(before, now, PRUNE_CHUNK) {
            Ok(rows) if rows >= PRUNE_CHUNK => PRUNE_PAUSE,
            _ => PRUNE_EVERY,
        }
    }

    /// Another process changed something that is kept in memory here.
    pub(super) fn read_news(&self) -> std::result::Result<(), Fault> {
        let triggers = self.all_schedules(ScheduleFilter::Triggers)?;
        for some in triggers.chunks(NEWS_CHUNK) {
            self.switch(some.iter().map(|trigger| (trigger.row, trigger.enabled)));
        }
        self.wake_pollers();
        let crons = self.all_schedules(ScheduleFilter::Crons)?;
        self.step(Event::CronsGone);
        crons.into_iter().for_each(|cron| self.step(Event::Cron(cron)));
        let cancelled = self.store.cancel_requests(self.epoch)?;
        cancelled.into_iter().for_each(|id| self.step(Event::Cancel(id)));
        Ok(())
    }

    pub(super) fn recover(&self) {
        let mut after = 0;
        while !self.closing.load(Ordering::Acquire) {
            let workflows = lock(&self.engine).workflow_names();
            match self.store.claim_runs(self.epoch, after, CLAIM_CHUNK, &workflows) {
                Ok(runs) => {
                    let Some(last) = runs.last() else { return };
                    after = last.row;
                    self.step(Event::Claimed(runs));
                }
                Err(Fault::Passing(_)) => std::thread::sleep(RECOVERY_PAUSE),
                Err(Fault::Final(text)) => {
                    let text = format!("unfinished runs cannot be resumed: {text}");
                    return self.order(Order::Log(Level::Error, text));
                }
            }
        }
    }

    pub(super) fn load_crons(&self) {
        let crons = self.all_schedules(ScheduleFilter::Crons).unwrap_or_default();
        crons.into_iter().for_each(|cron| self.step(Event::Cron(cron)));
    }

    pub(super) fn all_schedules(&self, filter: ScheduleFilter) -> std::result::Result<Vec<Schedule>, Fault> {
        let mut page = Page { limit: 1000, offset: 0 };
        let mut all = Vec::new();
        loop {
            let found = self.store.schedules(filter, false, page)?;
            if found.is_empty() {
                return Ok(all);
            }
            page.offset += page.limit;
            all.extend(found);
        }
    }
}
