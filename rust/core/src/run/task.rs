//! Where one task of a run stands in memory.
//! Invariant: a phase only moves forward, but for the next attempt of a task that is tried again.

use std::sync::Arc;
use std::time::Duration;

use crate::grid::Wait;
use crate::key::Epoch;
use crate::port::{Maker, TaskRecord, TaskStatus, Try, TryOutcome};
use crate::run::checkpoint::Checkpoint;
use crate::run::told::Told;
use crate::time::{Mono, Now, Wall};

/// Where a task stands in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Some dependencies are not final.
    Blocked,
    /// Whether it runs depends on what it is given, and somebody is looking at that.
    Looking,
    /// To be started, or being attempted.
    Active,
    /// Waits until its next attempt may begin.
    Delayed,
    /// Its last attempt is over; a callback is being told.
    Settling(TaskStatus),
    /// Decided for good.
    Final(TaskStatus),
}

/// When an attempt may begin. After a death it has to be on record first: a task that kills its process at once must be told from one
/// that only waited beside it. So it has to after a wait that outlives the process: the record says that this is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    AtOnce,
    AfterRecord,
    /// The record is on its way to the store.
    Recording,
}

/// How long a task has been tried. Within a process's life the machine's clock has no say: it may be set meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trying {
    /// So long, as far as the calendar tells, before this process took it up.
    before: Duration,
    /// Since when by this process's own clock.
    since: Mono,
}

impl Trying {
    /// A task whose first attempt began at `first`, as its record says. One that began in the future begins now.
    pub(super) fn gone_on(first: Wall, now: Now) -> Self {
        let before_us = u64::try_from(now.wall.0.saturating_sub(first.0)).unwrap_or(0);
        Self { before: Duration::from_micros(before_us), since: now.mono }
    }

    /// How long it is now.
    pub(super) fn so_far(self, now: Mono) -> Duration {
        self.before.saturating_add(now.since(self.since))
    }
}

/// What a task means to whoever has its run in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// It could go on, or does.
    Busy,
    /// It waits for its time, or for what it gave its permit back for.
    Resting,
    /// It waits for others of its run, or is over.
    None,
}

#[derive(Debug, Clone)]
pub(super) struct TaskState {
    pub(super) phase: Phase,
    /// Whether its body has given its permit back.
    pub(super) is_away: bool,
    pub(super) blocked_by: usize,
    /// Whether a worker has begun the attempt.
    pub(super) taken: bool,
    pub(super) begins: Begins,
    /// Whether its last attempt was cut off, and it goes on elsewhere or, where it is to fail then, not at all.
    pub(super) is_cut_off: bool,
    /// Whether the store knows that it has begun.
    pub(super) is_known: bool,
    pub(super) attempt: u32,
    /// So many attempts before were cut off.
    pub(super) interrupted: u32,
    /// So many of those by the death of the place where they ran, as far as this process has seen.
    pub(super) place_deaths: u32,
    /// So many ended with the wish to be made again later.
    pub(super) postponed: u32,
    /// What its next attempt waits for, if that outlives this process.
    pub(super) wait: Option<Wait>,
    /// Since when its body has given its permit back, if that is on record or on its way there.
    pub(super) rests_since: Option<Wall>,
    pub(super) checkpoint: Checkpoint,
    /// What its last attempt returned, until it is final.
    pub(super) output: Option<Arc<str>>,
    pub(super) error: Option<String>,
    pub(super) error_type: Option<Arc<str>>,
    pub(super) started_at: Option<Wall>,
    /// Since its first attempt began, or its process took it up.
    pub(super) trying: Option<Trying>,
    /// When this attempt began.
    pub(super) began_at: Option<Wall>,
    /// Why its body was told to end, if it was.
    pub(super) told: Option<Told>,
    /// Attempts that are over and on no record yet.
    pub(super) tries: Vec<Try>,
    /// A final record of an earlier life, for when its dependencies are final again.
    pub(super) kept: Option<TaskRecord>,
}

impl TaskState {
    pub(super) fn load(&self) -> Load {
        match self.phase {
            Phase::Active if self.is_away => Load::Resting,
            Phase::Delayed => Load::Resting,
            Phase::Looking | Phase::Active | Phase::Settling(_) => Load::Busy,
            Phase::Blocked | Phase::Final(_) => Load::None,
        }
    }

    /// Makes the next attempt the one after what may have been in flight when a process died.
    pub(super) fn follow(&mut self, kept: Option<&TaskRecord>, owner: Option<Epoch>, now: Wall) {
        if let Some(waits) = kept.filter(|record| record.wait.is_some()) {
            // That attempt has not begun.
            return self.go_on(waits);
        }
        self.tries = vec![cut_off(kept, owner, now)];
        self.attempt = kept.map_or(1, |record| record.attempt).saturating_add(1);
        // What only waited was the cause of no death.
        let rested = kept.is_some_and(|record| record.rests_since.is_some());
        let (interrupted, postponed) = kept.map_or((0, 0), |record| (record.interrupted, record.postponed));
        self.interrupted = interrupted.saturating_add(u32::from(!rested));
        self.postponed = postponed.saturating_add(u32::from(rested));
        self.checkpoint.value = kept.and_then(|record| record.checkpoint.clone());
        self.started_at = kept.and_then(|record| record.started_at);
        self.error = kept.and_then(|record| record.error.clone());
        self.error_type = kept.and_then(|record| record.error_type.clone());
        self.begins = Begins::AfterRecord;
    }

    /// The attempts that count: those that its retry policy knows of.
    pub(super) fn counted(&self) -> u32 {
        self.attempt.saturating_sub(self.interrupted).saturating_sub(self.postponed).max(1)
    }

    /// Whether an attempt of it is over already, so that it cannot be left out any more.
    pub(super) fn has_ended_before(&self) -> bool {
        self.error.is_some() || self.postponed > 0
    }

    /// Goes on where an owner that left cleanly had come to: nothing was cut off.
    pub(super) fn go_on(&mut self, kept: &TaskRecord) {
        self.attempt = kept.attempt.max(1);
        self.is_known = true;
        self.interrupted = kept.interrupted;
        self.postponed = kept.postponed;
        self.wait = kept.wait;
        self.checkpoint.value = kept.checkpoint.clone();
        if self.wait.is_some() {
            self.begins = Begins::AfterRecord;
        }
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
        self.rests_since = None;
        self.began_at = None;
        self.told = None;
    }
}

/// What is told of an attempt of which nothing was on record: a beginning is put there within milliseconds.
const NOT_KNOWN_TO_HAVE_BEGUN: &str =
    "its process died before it was on record that it began: it never did, or a moment before";

/// And of one that waited, which is no fault of its.
const RESTED: &str = "its process died while it waited without a slot";

/// What may have been in flight when the process of that owner died.
pub(super) fn cut_off(kept: Option<&TaskRecord>, owner: Option<Epoch>, now: Wall) -> Try {
    let attempt = kept.map_or(1, |record| record.attempt);
    let started_at = kept.filter(|_| attempt == 1).and_then(|record| record.started_at);
    let maker = owner.map_or(Maker::Unknown, Maker::Owner);
    let error = match kept {
        None => Some(NOT_KNOWN_TO_HAVE_BEGUN.to_owned()),
        Some(record) => record.rests_since.map(|_| RESTED.to_owned()),
    };
    Try { attempt, started_at, maker, error, ..over(TryOutcome::Interrupted, now) }
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
