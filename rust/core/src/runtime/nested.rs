//! Attempts that wait for the ends of other runs, without a permit meanwhile.
//! Invariant: who has nothing left to wait for is the next to get a permit, before any attempt begins; and until it has one, a clock that
//! is moved by hand stands.

use crate::engine::Job;
use crate::runtime::park::lock;
use crate::runtime::{Runtime, Shared, Watch};

impl Runtime {
    /// An attempt is about to wait for that run without its permit, and wants one again as soon as it has ended, if it waits for no other by
    /// then. False if it has ended already.
    pub fn wait_for_run(&self, job: Job, run: &Watch) -> bool {
        let mut watch = lock(&run.state);
        if watch.news.is_last() {
            return false;
        }
        watch.go_on.push(job);
        *lock(&self.shared.jobs).waits.entry(job).or_default() += 1;
        true
    }

    /// It waits for that run no longer, whether or not that has ended.
    pub fn waited_for_run(&self, job: Job, run: &Watch) {
        let mut watch = lock(&run.state);
        let found = watch.go_on.iter().position(|&other| other == job);
        if let Some(place) = found {
            watch.go_on.swap_remove(place);
            lock(&self.shared.jobs).waits_less(job);
        }
        drop(watch);
        let mut jobs = lock(&self.shared.jobs);
        if jobs.running.contains_key(&job) {
            jobs.resuming.remove(&job);
        }
    }
}

impl crate::runtime::jobs::JobState {
    /// An attempt waits for one run less; true if it waits for none any more.
    fn waits_less(&mut self, job: Job) -> bool {
        let Some(waits) = self.waits.get_mut(&job) else { return true };
        *waits -= 1;
        let is_last = *waits == 0;
        if is_last {
            self.waits.remove(&job);
        }
        is_last
    }
}

impl Shared {
    /// The run is over, and who waited for nothing else goes on.
    pub(super) fn go_on_after(&self, run: &Watch) {
        let waiting = std::mem::take(&mut lock(&run.state).go_on);
        if waiting.is_empty() {
            return;
        }
        let mut jobs = lock(&self.jobs);
        for job in waiting {
            if !jobs.waits_less(job) {
                continue;
            }
            let Some(executor) = jobs.place(job) else { continue };
            jobs.resuming.insert(job);
            // A body that is pumped asks by itself, and its permit is handed to it.
            // Nor does one that needs seats first, which would keep the permit from whoever has them.
            let is_away = jobs.away.contains_key(&job) && !jobs.seatless.contains_key(&job);
            if is_away && jobs.lane(executor).waker.is_none() {
                jobs.lane(executor).claims.insert(job);
            }
        }
    }
}
