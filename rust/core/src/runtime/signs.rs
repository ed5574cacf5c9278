//! The signs of life that a runner writes. Invariant: a runner that only lives writes its time and nothing else, and no poll writes for this.

use std::time::Duration;

use crate::grid::CATCH_UP_US;
use crate::key::ScheduleKey;
use crate::port::{Minute, Sign};
use crate::runtime::Shared;
use crate::runtime::park::lock;
use crate::time::{Mono, Now, Wall};

/// That this runner lives and polls is noted so often, but not before it has caught up with what was missed.
pub(super) const SEEN_EVERY: Duration = Duration::from_secs(5);
const SEEN_FIRST: Duration = Duration::from_micros(CATCH_UP_US.unsigned_abs());

/// What it did is noted so often.
const COUNTED_EVERY: Duration = Duration::from_secs(60);

/// What the next sign of life says.
pub(super) struct Signs {
    pub(super) due: Mono,
    count_due: Mono,
    /// What the last one said.
    long: Vec<(ScheduleKey, Wall)>,
}

impl Signs {
    /// Whose time stands still is seen when it ends, and does not die.
    pub(super) fn new(now: Mono, is_manual: bool) -> Self {
        let due = if is_manual { Mono(u64::MAX) } else { now.after(SEEN_FIRST) };
        Self { due, count_due: now.after(COUNTED_EVERY), long: Vec::new() }
    }
}

impl Shared {
    /// Notes that this runner lives, with what is news, if it is time to.
    pub(super) fn give_sign(&self, signs: &mut Signs, now: Now) {
        if now.mono < signs.due {
            return;
        }
        self.heed_clock();
        let long = self.long_polls();
        let counted = (now.mono >= signs.count_due).then(|| self.counted_since());
        let sign = Sign {
            minute: counted.map(|(_, minute)| minute).filter(|minute| *minute != Minute::default()),
            long: (long != signs.long).then(|| long.clone()),
        };
        // What cannot be noted now can be in a moment; until then somebody may poll once more than needed.
        if self.store.seen(self.epoch, now.wall, &sign).is_ok() {
            signs.long = long;
            if let Some((all, _)) = counted {
                *lock(&self.counted) = all;
                signs.count_due = now.mono.after(COUNTED_EVERY);
            }
        }
        signs.due = now.mono.after(SEEN_EVERY);
    }

    /// Goes by the store's clock, if it has one.
    fn heed_clock(&self) {
        if let Ok(Some(ahead_us)) = self.store.clock_ahead_us() {
            self.clock.set_ahead(ahead_us);
        }
    }

    /// The last sign, with what has come since the one before; nobody's poll is in its body for long any more.
    pub(super) fn last_sign(&self) -> Sign {
        let (_, minute) = self.counted_since();
        Sign { minute: Some(minute).filter(|minute| *minute != Minute::default()), long: None }
    }

    /// What there was so far, and what of it no sign has told.
    fn counted_since(&self) -> (Minute, Minute) {
        let polls = lock(&self.polls).poller.counts();
        let counts = lock(&self.engine).counts();
        let all = Minute {
            polls: polls.polls,
            fires: counts.fires,
            errors: counts.errors,
            started: counts.started,
            completed: counts.completed,
            failed: counts.failed,
            cancelled: counts.cancelled,
        };
        (all, all.since(&lock(&self.counted)))
    }

    fn long_polls(&self) -> Vec<(ScheduleKey, Wall)> {
        let polls = lock(&self.polls);
        let mut long: Vec<(ScheduleKey, Wall)> = polls
            .flights
            .told()
            .filter_map(|(place, began)| Some((polls.poller.row_and_name(place)?.0, began.wall)))
            .collect();
        long.sort_unstable_by_key(|&(row, _)| row);
        long
    }
}
