//! What waits for one executor, and the permits to run it there. Decides only whose turn it is.
//! Invariant: an attempt that is handed out has a permit, and no more are handed out than there are.

use std::array;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::engine::Job;
use crate::key::Ids;
use crate::urgency::{RANKS, Rank};

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
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.taken >= self.permits_max
    }

    /// Whether a permit is free that nobody goes on with.
    pub(super) fn has_room(&self) -> bool {
        let is_claimed = self.taken + self.claims.len() + self.regaining.len() >= self.permits_max;
        !is_claimed && self.overdue < self.overdue_max
    }

    /// How many permits are free for which nothing is ready.
    pub(super) fn spare(&self) -> usize {
        let wanted = self.taken + self.claims.len() + self.regaining.len() + self.ready.len();
        if self.overdue < self.overdue_max { self.permits_max.saturating_sub(wanted) } else { 0 }
    }

    /// An attempt wants no permit any more.
    pub(super) fn forgo(&mut self, job: Job) {
        self.claims.remove(&job);
        self.regaining.retain(|other| *other != job);
    }

    /// Whether an attempt could begin now.
    pub(super) fn has_work(&self) -> bool {
        let goes_on = !self.regaining.is_empty() && !self.is_full();
        goes_on || !self.recorded.is_empty() || !self.ready.is_empty() && self.has_room()
    }

    /// The next one.
    pub(super) fn take(&mut self) -> Option<Job> {
        if let Some(job) = self.recorded.pop_front() {
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
