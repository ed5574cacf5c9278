//! What waits for one executor, and the permits to run it there. Decides only whose turn it is.
//! Invariant: an attempt that is handed out has a permit, and no more are handed out than there are.

use std::array;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Job;
use crate::key::Ids;
use crate::pace::Pace;
use crate::time::Mono;
use crate::urgency::{RANKS, Rank};

/// Beside what has a permit, so much is claimed of what limits have held as ended in so long: to claim a few at a time would take longer than to
/// run them, and no seat is kept from others for longer.
const AHEAD: Duration = Duration::from_millis(10);

/// How an executor hears that there is something for it. Called on any thread, with no lock held, and not again before the executor has
/// asked: it must not wait, and needs no interpreter.
pub trait Waker: Send + Sync {
    /// Has [`Runtime::take_jobs`](crate::runtime::Runtime::take_jobs) called, on another thread.
    fn wake(&self);
}

/// What is ready: what is to go first, and of that what came first.
pub(super) struct Queue {
    by_rank: [VecDeque<Job>; RANKS],
    /// A bit for each rank of which there is something.
    filled: u32,
}

impl Queue {
    fn new() -> Self {
        Self { by_rank: array::from_fn(|_| VecDeque::new()), filled: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    pub(super) fn len(&self) -> usize {
        self.by_rank.iter().map(VecDeque::len).sum()
    }

    pub(super) fn push(&mut self, rank: Rank, job: Job) {
        self.by_rank[rank.place()].push_back(job);
        self.filled |= 1 << rank.place();
    }

    pub(super) fn pop_last(&mut self) -> Option<Job> {
        let last = u32::BITS.checked_sub(self.filled.leading_zeros() + 1)? as usize;
        self.pop_from(last, VecDeque::pop_back)
    }

    fn pop(&mut self) -> Option<Job> {
        self.pop_from(self.filled.trailing_zeros() as usize, VecDeque::pop_front)
    }

    fn pop_from(&mut self, rank: usize, pop: impl FnOnce(&mut VecDeque<Job>) -> Option<Job>) -> Option<Job> {
        let queue = self.by_rank.get_mut(rank)?;
        let job = pop(queue);
        if queue.is_empty() {
            self.filled &= !(1 << rank);
        }
        job
    }
}

/// What waits for one executor.
pub(super) struct Lane {
    permits_max: usize,
    /// Permits that are given out.
    pub(super) taken: usize,
    pub(super) ready: Queue,
    /// Attempts that hold a permit, and waited for their records.
    pub(super) recorded: VecDeque<Job>,
    /// Attempts that gave their permits back and want them again, before any other.
    pub(super) regaining: VecDeque<Job>,
    /// Attempts that want them again, too, and whose own threads wait for that.
    pub(super) claims: Ids<Job>,
    /// So many of its bodies were given up, and run on all the same.
    pub(super) overdue: usize,
    /// While so many do, no other begins.
    pub(super) overdue_max: usize,
    /// Attempts that were handed out, and whose bodies are to be stopped.
    pub(super) stopped: Vec<Job>,
    pub(super) waker: Option<Arc<dyn Waker>>,
    /// It was called, and has not come yet.
    pub(super) is_called: bool,
    /// Nothing begins: others may go on with what is this runner's.
    pub(super) is_hushed: bool,
    /// Of attempts, while more wait for permits than there are.
    pace: Pace,
}

impl Lane {
    pub(super) fn new(permits_max: usize) -> Self {
        Self {
            permits_max,
            taken: 0,
            ready: Queue::new(),
            recorded: VecDeque::new(),
            regaining: VecDeque::new(),
            claims: Ids::default(),
            overdue: 0,
            overdue_max: usize::MAX,
            stopped: Vec::new(),
            waker: None,
            is_called: false,
            is_hushed: false,
            pace: Pace::new(AHEAD),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.taken >= self.permits_max
    }

    /// Whether a permit is free that nobody goes on with.
    pub(super) fn has_room(&self) -> bool {
        let is_claimed = self.taken + self.claims.len() + self.regaining.len() >= self.permits_max;
        !is_claimed && !self.is_hushed && self.overdue < self.overdue_max
    }

    /// An attempt has ended while more wait for permits than there are.
    pub(super) fn note_end(&mut self, now: Mono) {
        self.pace.end(now);
    }

    /// For how many more there are permits, or will be at once.
    pub(super) fn spare(&mut self, now: Mono) -> usize {
        if self.is_hushed || self.overdue >= self.overdue_max {
            return 0;
        }
        self.most(now).saturating_sub(self.wanted())
    }

    /// Whether it is time to claim: a permit is free for which nothing is ready, or half of what is claimed at once is gone.
    pub(super) fn calls(&mut self, now: Mono) -> bool {
        let (wanted, most) = (self.wanted(), self.most(now));
        !self.is_hushed
            && self.overdue < self.overdue_max
            && (wanted < self.permits_max || wanted * 2 <= most)
    }

    /// So many are claimed at once.
    fn most(&mut self, now: Mono) -> usize {
        self.pace.roll(now);
        self.permits_max + self.pace.many()
    }

    fn wanted(&self) -> usize {
        self.taken + self.claims.len() + self.regaining.len() + self.ready.len()
    }

    /// An attempt wants no permit any more.
    pub(super) fn forgo(&mut self, job: Job) {
        self.claims.remove(&job);
        self.regaining.retain(|other| *other != job);
    }

    /// Whether an attempt could begin now.
    pub(super) fn has_work(&self) -> bool {
        let goes_on = !self.regaining.is_empty() && !self.is_full();
        goes_on || !self.recorded.is_empty() && !self.is_hushed || !self.ready.is_empty() && self.has_room()
    }

    /// The next one.
    pub(super) fn take(&mut self) -> Option<Job> {
        if !self.is_hushed
            && let Some(job) = self.recorded.pop_front()
        {
            return Some(job);
        }
        if !self.has_room() {
            return None;
        }
        let job = self.ready.pop()?;
        self.taken += 1;
        Some(job)
    }

    /// The next of those that want their permits again.
    pub(super) fn regain(&mut self) -> Option<Job> {
        if self.is_full() {
            return None;
        }
        let job = self.regaining.pop_front()?;
        self.taken += 1;
        Some(job)
    }

    /// Gives out nothing more.
    pub(super) fn close(&mut self) {
        self.permits_max = 0;
    }

    /// Whom to call, if there is something for it that it does not know of.
    pub(super) fn called(&mut self, closed: bool) -> Option<Arc<dyn Waker>> {
        if self.is_called || (closed || !self.has_work()) && self.stopped.is_empty() {
            return None;
        }
        let waker = self.waker.clone()?;
        self.is_called = true;
        Some(waker)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::urgency::Priority;

    const MS: u64 = 1_000_000;

    fn make_ready(lane: &mut Lane) {
        let job = Job { run: Uuid::nil(), task: 0, attempt: 1, life: 0, callback_only: false };
        lane.ready.push(Rank::of(Priority::default(), false, false), job);
    }

    fn lane(permits: usize, taken: usize) -> Lane {
        Lane { taken, ..Lane::new(permits) }
    }

    #[test]
    fn what_ends_slowly_is_claimed_for_the_permits_that_are_free() {
        let mut lane = lane(4, 3);
        lane.note_end(Mono(5 * MS));
        assert_eq!((lane.spare(Mono(30 * MS)), lane.calls(Mono(30 * MS))), (1, true));
        lane.taken = 4;
        assert_eq!((lane.spare(Mono(30 * MS)), lane.calls(Mono(30 * MS))), (0, false));
    }

    #[test]
    fn what_ends_fast_is_claimed_ahead_and_again_once_half_is_gone() {
        let mut lane = lane(4, 4);
        (0..20).for_each(|_| lane.note_end(Mono(15 * MS)));
        assert_eq!(lane.spare(Mono(16 * MS)), 20);
        (0..20).for_each(|_| make_ready(&mut lane));
        assert_eq!((lane.spare(Mono(25 * MS)), lane.calls(Mono(25 * MS))), (0, false));
        (0..12).for_each(|_| assert!(lane.ready.pop().is_some()));
        assert_eq!((lane.spare(Mono(25 * MS)), lane.calls(Mono(25 * MS))), (12, true));
        // Those that are there take longer, it seems.
        assert_eq!(lane.spare(Mono(60 * MS)), 0);
    }

    #[test]
    fn beside_too_many_overdue_bodies_nothing_is_claimed() {
        let mut lane = Lane { overdue: 2, overdue_max: 2, ..lane(4, 0) };
        assert_eq!((lane.spare(Mono(MS)), lane.calls(Mono(MS))), (0, false));
    }
}
