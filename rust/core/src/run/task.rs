//! Where one task of a run stands in memory.
//! Invariant: a phase only moves forward, but for the next attempt of a task that is tried again.

use std::sync::Arc;

use crate::port::{Maker, TaskRecord, TaskStatus, Try, TryOutcome};
use crate::time::Wall;

/// Where a task stands in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Some dependencies are not final.
    Blocked,
    /// Whether it runs depends on what it is given, and somebody is looking at that.
    Looking,
    /// To be started, or being attempted.
    Active,
    /// Waits for the delay before its next attempt.
    Delayed,
    /// Its last attempt is over; a callback is being told.
    Settling(TaskStatus),
    /// Decided for good.
    Final(TaskStatus),
}

/// When an attempt may begin. After a death it has to be on record first: a task that kills its process at once must be told from one
/// that only waited beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    AtOnce,
    AfterRecord,
    /// The record is on its way to the store.
    Recording,
}

#[derive(Debug, Clone)]
pub(super) struct TaskState {
    pub(super) phase: Phase,
    pub(super) blocked_by: usize,
    /// Whether a worker has begun the attempt.
    pub(super) taken: bool,
    pub(super) begins: Begins,
    /// Whether the store knows that it has begun.
    pub(super) is_known: bool,
    pub(super) attempt: u32,
    /// So many attempts before were cut off.
    pub(super) interrupted: u32,
    /// What its last attempt returned, until it is final.
    pub(super) output: Option<Arc<str>>,
    pub(super) error: Option<String>,
    pub(super) error_type: Option<Arc<str>>,
    pub(super) started_at: Option<Wall>,
    /// When this attempt began.
    pub(super) began_at: Option<Wall>,
    /// Attempts that are over and on no record yet.
    pub(super) tries: Vec<Try>,
    /// A final record of an earlier life, for when its dependencies are final again.
    pub(super) kept: Option<TaskRecord>,
}

impl TaskState {
    /// Makes the next attempt the one after what may have been in flight when a process died.
    pub(super) fn follow(&mut self, kept: Option<&TaskRecord>, owner: Option<i64>, now: Wall) {
        let attempt = kept.map_or(1, |record| record.attempt);
        let started_at = kept.filter(|_| attempt == 1).and_then(|record| record.started_at);
        let maker = owner.map_or(Maker::Unknown, Maker::Owner);
        let cut_off = Try { attempt, started_at, maker, ..over(TryOutcome::Interrupted, now) };
        self.tries = vec![cut_off];
        self.attempt = kept.map_or(1, |record| record.attempt).saturating_add(1);
        self.interrupted = kept.map_or(0, |record| record.interrupted).saturating_add(1);
        self.started_at = kept.and_then(|record| record.started_at);
        self.error = kept.and_then(|record| record.error.clone());
        self.error_type = kept.and_then(|record| record.error_type.clone());
        self.begins = Begins::AfterRecord;
    }

    /// The attempts that count: those that its retry policy knows of.
    pub(super) fn counted(&self) -> u32 {
        self.attempt.saturating_sub(self.interrupted).max(1)
    }

    /// Goes on where an owner that left cleanly had come to: nothing was cut off.
    pub(super) fn go_on(&mut self, kept: &TaskRecord) {
        self.attempt = kept.attempt.max(1);
        self.is_known = true;
        self.interrupted = kept.interrupted;
        self.started_at = kept.started_at;
        self.error = kept.error.clone();
        self.error_type = kept.error_type.clone();
    }

    /// Notes how the attempt under way ended. One that completed at once needs no word of its own.
    pub(super) fn note(&mut self, known: Try) {
        let (attempt, started_at) = (self.attempt, self.began_at);
        self.tries.push(Try { attempt, started_at, ..known });
    }

    /// Gives the attempt under way up, and makes the next one that to come.
    pub(super) fn cut_off(&mut self, now: Wall) {
        // What a body left that nobody was told of is for nothing; an error stays one.
        self.tries.retain(|known| known.outcome != TryOutcome::Completed);
        if self.tries.iter().all(|known| known.attempt < self.attempt) {
            self.note(over(TryOutcome::Interrupted, now));
        }
        self.interrupted += 1;
        self.next_attempt();
    }

    /// The next attempt is to come.
    pub(super) fn next_attempt(&mut self) {
        self.attempt += 1;
        self.taken = false;
        self.began_at = None;
    }
}

/// An attempt that ended so, of which the rest is to be told.
pub(super) fn over(outcome: TryOutcome, ended_at: Wall) -> Try {
    Try {
        attempt: 0,
        started_at: None,
        ended_at,
        outcome,
        error_type: None,
        error: None,
        traceback: None,
        maker: Maker::Writer,
    }
}
