//! Runs that somebody here waits for and others drive: their ends are looked for in the store.
//! Invariant: who waits is told once, whoever drives the run by then; what nobody waits for any more is not looked for.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use crate::client::Client;
use crate::port::{ListedRun, RunEnd, Stored};
use crate::runtime::liaison::OTHERS_CHUNK;
use crate::runtime::park::lock;
use crate::runtime::watch::{News, Watch};
use crate::runtime::{Runtime, Shared};

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

impl Shared {
    pub(super) fn look_for_ends_of(&self, runs: impl IntoIterator<Item = Uuid>) {
        lock(&self.elsewhere).extend(runs);
        // It may sleep for longer than who waits for a run has patience.
        self.wake_liaison();
    }

    /// For how many runs of others somebody may be waiting.
    pub(super) fn awaited(&self) -> u32 {
        u32::try_from(lock(&self.elsewhere).len()).unwrap_or(u32::MAX)
    }

    /// Tells those who wait for runs that are over by now.
    pub(super) fn look_elsewhere(&self) {
        for runs in self.awaited_elsewhere().chunks(OTHERS_CHUNK) {
            let Ok(ended) = self.store.ended(runs) else { return };
            if ended.is_empty() {
                continue;
            }
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
        }
    }

    /// Runs that somebody waits for, and whose ends have not been told.
    fn awaited_elsewhere(&self) -> Vec<Uuid> {
        if lock(&self.elsewhere).is_empty() {
            return Vec::new();
        }
        let watches = lock(&self.watches);
        let mut elsewhere = lock(&self.elsewhere);
        // One of the two holders is this table.
        elsewhere.retain(|id| watches.get(id).is_some_and(|watch| Arc::strong_count(watch) > 1));
        // What is still on its way to the store is not in it.
        let is_kept = |id: &&Uuid| matches!(lock(&watches[*id].state).news, News::Started);
        elsewhere.iter().filter(is_kept).copied().collect()
    }
}

/// By run id.
pub(super) type Elsewhere = BTreeSet<Uuid>;

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
