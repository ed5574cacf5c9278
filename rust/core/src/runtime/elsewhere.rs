//! Runs that somebody here waits for and others drive: their ends are looked for in the store.
//! Invariant: who waits is told once, whoever drives the run by then; what nobody waits for any more is not looked for.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use uuid::Uuid;

use crate::client::Client;
use crate::engine::Request;
use crate::port::{ListedRun, RunEnd, Stored};
use crate::runtime::liaison::ENDS_CHUNK;
use crate::runtime::park::lock;
use crate::runtime::watch::{News, Watch};
use crate::runtime::{Runtime, Shared};
use crate::time::Wall;

impl Runtime {
    /// A watch on a run of the store that is not over, whoever drives it. Its end is told some time after it is kept.
    pub fn watch_anywhere(&self, id: Uuid) -> Arc<Watch> {
        if let Some(watch) = self.watch(id) {
            return watch;
        }
        let watch = {
            let mut watches = lock(&self.shared.watches);
            Arc::clone(watches.entry(id).or_insert_with(|| Watch::new(id, News::Started)))
        };
        self.shared.look_for_ends_of([id]);
        self.shared.lose_late();
        watch
    }

    /// Opens runs that failed or were cancelled again, for others to drive; for each whether it is open, or why it cannot be. What was sent
    /// before should be kept: see [`Runtime::flushing`].
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store: then none of them is open.
    pub fn reopen_each(&self, ids: &[Uuid]) -> Stored<Vec<Result<bool, String>>> {
        Client::new(Arc::clone(&self.shared.store)).retry_each(ids, self.shared.now().wall)
    }
}

impl Runtime {
    /// Runs that wait for their time are nobody's, and come to whoever is there then. Whether there are such among these.
    pub(super) fn look_for_delayed(&self, requests: &[Request]) -> bool {
        let now = self.now().wall;
        let due =
            |request: &Request| request.urgency.due.map(|due| due.instant(now)).filter(|due| *due > now);
        let delayed = requests.iter().filter_map(|request| due(request).map(|due| (due, request.id)));
        let mut delayed = delayed.peekable();
        let is_any = delayed.peek().is_some();
        if is_any {
            lock(&self.shared.elsewhere).wait(delayed.map(|(due, id)| (id, due)));
        }
        is_any
    }
}

impl Shared {
    /// Counts those of these runs that ended with being asked to. What is driven here is counted when its end is kept, and must not be yet.
    pub(super) fn count_cancelled(&self, asked: &[Uuid], at: Wall) {
        if let Ok(cancelled) = self.store.cancelled_at(asked, at) {
            lock(&self.engine).count_cancelled(cancelled, at);
        }
    }

    /// Those of these runs that this runner does not have may have ended by being asked to.
    pub(super) fn look_for_cancelled(&self, asked: &[Uuid]) {
        let engine = lock(&self.engine);
        let gone: Vec<Uuid> = asked.iter().copied().filter(|&id| engine.run(id).is_none()).collect();
        drop(engine);
        if !gone.is_empty() {
            self.look_for_ends_of(gone);
            // What a limit has counted may let another one begin.
            self.ask_for_limited();
        }
    }

    /// Those of these runs for which somebody waits may end elsewhere.
    pub(super) fn look_for_awaited(&self, mut runs: Vec<Uuid>) {
        let watches = lock(&self.watches);
        runs.retain(|id| watches.contains_key(id));
        drop(watches);
        if !runs.is_empty() {
            self.look_for_ends_of(runs);
        }
    }

    pub(super) fn look_for_ends_of(&self, runs: impl IntoIterator<Item = Uuid>) {
        let mut elsewhere = lock(&self.elsewhere);
        for id in runs {
            elsewhere.later.remove(&id);
            elsewhere.now.insert(id);
        }
        drop(elsewhere);
        // It may sleep for longer than who waits for a run has patience.
        self.wake_liaison();
    }

    /// For how many runs of others somebody may be waiting.
    pub(super) fn awaited(&self) -> u32 {
        u32::try_from(lock(&self.elsewhere).now.len()).unwrap_or(u32::MAX)
    }

    /// Tells those who wait for runs that are over by now, some of them each time; of those that wait for their time only if `has_news`, as
    /// nothing but a cancel ends one. True if most of them were over: then others will be.
    pub(super) fn look_elsewhere(&self, has_news: bool) -> bool {
        let runs = self.awaited_elsewhere(has_news);
        // The rule, and looked at all the time: over a network each question costs.
        if runs.is_empty() {
            return false;
        }
        let Ok(ended) = self.store.ended(&runs) else { return false };
        if ended.is_empty() {
            return false;
        }
        let are_many = ended.len() * 2 > runs.len();
        // Before anybody is told: who waits for a run may poll at once.
        self.read_ends();
        let last = ended.into_iter().filter_map(|id| {
            let news = match self.store.run(id).ok()? {
                Some((run, _)) => News::Ended(end_of(run)?),
                None => News::Forgotten,
            };
            Some((id, news))
        });
        // Read first: those who are told of others must not wait for it.
        self.tell_watches(Vec::new(), last.collect::<Vec<_>>());
        are_many
    }

    /// Runs that somebody waits for, that are not in hand, and whose ends have not been told: the next of them, and of those that wait for
    /// their time.
    fn awaited_elsewhere(&self, has_news: bool) -> Vec<Uuid> {
        let now = self.now().wall;
        if lock(&self.elsewhere).is_at_rest(now, has_news) {
            return Vec::new();
        }
        let engine = lock(&self.engine);
        let mut watches = lock(&self.watches);
        let mut elsewhere = lock(&self.elsewhere);
        elsewhere.come_due(now);
        let mut found = elsewhere.now_after();
        if has_news {
            found.extend(elsewhere.later_after());
        }
        found.retain(|id| {
            // One of the two holders is this table, which nobody else clears of what ends where nobody here hears of it.
            let Some(watch) = watches.get(id).filter(|watch| Arc::strong_count(watch) > 1) else {
                watches.remove(id);
                elsewhere.forget(id);
                return false;
            };
            // What is still on its way to the store is not in it.
            engine.run(*id).is_none() && matches!(lock(&watch.state).news, News::Started)
        });
        found
    }
}

/// Runs of others that somebody waits for.
#[derive(Default)]
pub(super) struct Elsewhere {
    pub now: BTreeSet<Uuid>,
    /// With when they are due: before that little can happen to them, and there may be very many.
    later: BTreeMap<Uuid, Wall>,
    /// None is due before.
    later_due: Option<Wall>,
    /// The last of each that was looked at.
    last_now: Uuid,
    last_later: Uuid,
}

impl Elsewhere {
    pub fn contains(&self, id: &Uuid) -> bool {
        self.now.contains(id) || self.later.contains_key(id)
    }

    fn wait(&mut self, delayed: impl Iterator<Item = (Uuid, Wall)>) {
        for (id, due) in delayed {
            self.later.insert(id, due);
            self.later_due = Some(self.later_due.map_or(due, |known| known.min(due)));
        }
    }

    fn is_at_rest(&self, now: Wall, has_news: bool) -> bool {
        let is_none_due = self.later_due.is_none_or(|due| due > now);
        self.now.is_empty() && is_none_due && (!has_news || self.later.is_empty())
    }

    fn come_due(&mut self, now: Wall) {
        if self.later_due.is_some_and(|due| due <= now) {
            self.now.extend(self.later.iter().filter(|(_, due)| **due <= now).map(|(id, _)| id));
            self.later.retain(|_, due| *due > now);
            self.later_due = self.later.values().min().copied();
        }
    }

    fn forget(&mut self, id: &Uuid) {
        self.now.remove(id);
        self.later.remove(id);
    }

    /// Some of them, each time other ones, until all have been looked at.
    fn now_after(&mut self) -> Vec<Uuid> {
        let behind = self.now.range(..=self.last_now);
        let ahead = self.now.range((Bound::Excluded(self.last_now), Bound::Unbounded));
        let found: Vec<Uuid> = ahead.chain(behind).take(ENDS_CHUNK).copied().collect();
        self.last_now = found.last().copied().unwrap_or(self.last_now);
        found
    }

    /// The same of those that are not due.
    fn later_after(&mut self) -> Vec<Uuid> {
        let behind = self.later.range(..=self.last_later);
        let ahead = self.later.range((Bound::Excluded(self.last_later), Bound::Unbounded));
        let found: Vec<Uuid> = ahead.chain(behind).take(ENDS_CHUNK).map(|(id, _)| *id).collect();
        self.last_later = found.last().copied().unwrap_or(self.last_later);
        found
    }
}

/// When a run was created, and its end, if it has one.
fn end_of(run: ListedRun) -> Option<(crate::time::Wall, RunEnd)> {
    let end = RunEnd {
        status: run.status,
        context: run.final_context.as_deref().unwrap_or("{}").into(),
        error: run.error,
        error_type: run.error_type.map(Arc::from),
        completed_at: run.completed_at?,
    };
    Some((run.created_at, end))
}
