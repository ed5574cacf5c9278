//! Decides what the end of a body means that was told to end, and what is ruled where it does not end.
//! Invariant: no attempt of a task follows one whose body still runs.

use std::time::Duration;

use crate::port::{Failure, TryOutcome};
use crate::run::task::{Phase, TaskState};
use crate::run::{CANCELLED, Ended, Progress, Ruling, Run};
use crate::time::Wall;
use crate::tries::INTERRUPTED;

/// The kind of error of a body that outlasts a cancel.
const CANCEL: &str = "CancelledError";

/// What is told of an attempt that ended because its runner was cut off.
pub(super) const CUT_OFF: &str =
    "the store was out of reach for so long that another runner could have gone on with its run";

/// Why a body was told to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Its time is over, or its run's: whatever it leaves, the attempt has failed.
    TimedOut(String),
    /// Somebody asked for the end of its run: what it leaves counts, and what it raises is no failure of its own.
    Cancelled,
    /// Others may take its runner for dead and begin the next attempt: what it leaves counts if they have not, and that it failed does not.
    CutOff,
}

impl Told {
    fn failure(&self, rest: &str) -> Failure {
        match self {
            Self::TimedOut(why) => Failure::timed_out(&format!("{why}{rest}")),
            Self::Cancelled => Failure {
                outcome: TryOutcome::Cancelled,
                error_type: CANCEL.into(),
                error: format!("{CANCEL}: {CANCELLED}{rest}"),
                traceback: None,
            },
            Self::CutOff => Failure {
                outcome: TryOutcome::Interrupted,
                error_type: INTERRUPTED.into(),
                error: format!("{CUT_OFF}{rest}"),
                traceback: None,
            },
        }
    }
}

impl Run {
    /// Tells the body of an attempt to end; false if nobody waits for that attempt, its body has not begun, or it was told already.
    pub fn tell_to_end(&mut self, task: usize, attempt: u32, told: Told) -> bool {
        if !self.is_in_body(task, attempt) {
            return false;
        }
        let state = &mut self.tasks[task];
        // What was asked for first holds; but who was cut off has no time to end in, and may be asked to again.
        let is_news = match &state.told {
            None => true,
            Some(Told::CutOff) => told != Told::CutOff,
            Some(_) => false,
        };
        if is_news {
            state.told = Some(told);
        }
        is_news
    }

    /// Whether an attempt has failed by its time, whatever its body leaves.
    pub fn is_over_time(&self, task: usize, attempt: u32) -> bool {
        // Hardly any was told.
        let is_told = |state: &TaskState| matches!(state.told, Some(Told::TimedOut(_)));
        self.tasks.get(task).is_some_and(is_told) && self.is_in_body(task, attempt)
    }

    /// Whether an attempt's body was told to end, or is to be soon.
    pub fn is_told(&self, task: usize) -> bool {
        self.is_halted() || self.tasks.get(task).is_some_and(|state| state.told.is_some())
    }

    /// How an attempt has failed whose body was told to end, and never began; none if it was not told.
    pub fn stopped(&self, task: usize, attempt: u32) -> Option<Failure> {
        let told = self.tasks.get(task)?.told.as_ref()?;
        self.is_in_body(task, attempt).then(|| told.failure(""))
    }

    /// Whether it counts for nothing that an attempt failed: its body was told to end because its runner was cut off.
    pub fn is_cut_off(&self, task: usize, attempt: u32) -> bool {
        let is_told = |state: &TaskState| matches!(state.told, Some(Told::CutOff));
        self.tasks.get(task).is_some_and(is_told) && self.is_in_body(task, attempt)
    }

    /// How an attempt's end is told; `ended` by what its body came to.
    pub fn outcome(&self, task: usize, attempt: u32, ended: &Ended) -> TryOutcome {
        let told = self.tasks.get(task).and_then(|state| state.told.as_ref());
        let told = told.filter(|_| self.is_in_body(task, attempt));
        match (told, ended) {
            (Some(Told::TimedOut(_)), _) => TryOutcome::TimedOut,
            (_, Ended::Success(_)) => TryOutcome::Completed,
            (Some(Told::Cancelled), _) => TryOutcome::Cancelled,
            (Some(Told::CutOff), Ended::Failure(_)) => TryOutcome::Interrupted,
            _ => ended.outcome(),
        }
    }

    /// What a body's end means: of one that is over its time, that it has failed by that, and of one that ended because its run was
    /// cancelled, that.
    pub(super) fn meant(&self, task: usize, ended: Ended) -> Ended {
        let told = match &self.tasks[task].told {
            Some(told @ (Told::TimedOut(_) | Told::Cancelled)) => told,
            _ => return ended,
        };
        let failure = match (told, ended) {
            (Told::Cancelled, Ended::Success(output)) => return Ended::Success(output),
            (Told::Cancelled, Ended::Failure(failure) | Ended::Postponed { failure, .. }) => {
                Failure { outcome: TryOutcome::Cancelled, ..failure }
            }
            (Told::Cancelled, Ended::Lost { text, .. }) => Failure { error: text, ..told.failure("") },
            // Where it was when it ended tells what it hung on.
            (_, Ended::Failure(failure) | Ended::Postponed { failure, .. }) => {
                Failure { traceback: failure.traceback, ..told.failure("") }
            }
            (_, Ended::Success(_) | Ended::Lost { .. }) => told.failure(""),
        };
        Ended::Failure(failure)
    }

    /// Rules on an attempt whose body was told to end, and has not within `grace`: its task fails for good, because a next attempt would
    /// begin beside it.
    pub fn overdue(&mut self, task: usize, attempt: u32, grace: Duration, now: Wall) -> (Ruling, Progress) {
        let told = self.tasks.get(task).and_then(|state| state.told.clone());
        let Some(told) = told.filter(|_| self.is_in_body(task, attempt)) else {
            return (Ruling::Stale, Progress::default());
        };
        let rest = format!("; {grace:?} later its body still runs, so that it is not attempted again");
        self.note_failure(task, told.failure(&rest), now);
        self.give_up_attempt(task)
    }

    fn is_in_body(&self, task: usize, attempt: u32) -> bool {
        self.expects(task, attempt) && self.tasks[task].taken && self.tasks[task].phase == Phase::Active
    }
}
