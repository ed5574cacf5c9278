//! Decides whether a task is attempted again after an attempt that left nothing, and when.
//! Invariant: an attempt whose wait is kept begins only once a record says that this is over.

use std::time::Duration;

use crate::grid::Wait;
use crate::port::{Failure, TaskStatus, Try, TryOutcome};
use crate::run::task::{Begins, Phase, over};
use crate::run::told::CUT_OFF;
use crate::run::{Progress, Ruling, Run};
use crate::time::{Mono, Now, Wall};
use crate::tries::INTERRUPTED;

/// A wait for the next attempt that is at least as long goes on after a restart. One that a body wished for always does.
const WAIT_KEPT: Duration = Duration::from_secs(5);

/// After the first death of a place its task is attempted again so much later, and five times as late after each further one: what makes
/// places anew needs a moment, and may need more.
const PLACE_PAUSE: Duration = Duration::from_millis(100);
const PLACE_PAUSE_FACTOR: u32 = 5;
const PLACE_PAUSE_MAX: Duration = Duration::from_secs(60);

impl Run {
    pub(super) fn attempt_failed(
        &mut self,
        task: usize,
        failure: Failure,
        random: f64,
        now: Now,
    ) -> (Ruling, Progress) {
        let policy = &self.workflow.tasks[task].retry;
        let counted = self.tasks[task].counted();
        let delay = policy.delay(counted, random);
        let may = self.halt.is_none() && policy.should_retry(counted, &failure.error);
        let again = may && self.has_time(task, delay, now.mono);
        self.note_failure(task, failure, now.wall);
        if !again {
            return self.give_up_attempt(task);
        }
        let is_kept = delay >= WAIT_KEPT || self.fails_when_cut_off(task);
        let wait = is_kept.then(|| Wait::new(delay, now.wall));
        self.attempt_later(task, delay, wait)
    }

    pub(super) fn attempt_postponed(
        &mut self,
        task: usize,
        delay: Duration,
        mut failure: Failure,
        now: Now,
    ) -> (Ruling, Progress) {
        if self.halt.is_some() || !self.has_time(task, delay, now.mono) {
            if self.halt.is_none() {
                failure.error.push_str(", and by then the time for its attempts is over");
            }
            self.note_failure(task, failure, now.wall);
            return self.give_up_attempt(task);
        }
        let state = &mut self.tasks[task];
        state.postponed = state.postponed.saturating_add(1);
        (state.error, state.error_type) = (None, None);
        state.note(over(TryOutcome::Postponed, now.wall));
        self.attempt_later(task, delay, Some(Wait::new(delay, now.wall)))
    }

    /// An attempt whose place died is cut off, as by the death of this process: it uses up none of its attempts.
    pub(super) fn attempt_lost(
        &mut self,
        task: usize,
        text: String,
        deaths_max: u32,
        now: Wall,
    ) -> (Ruling, Progress) {
        let fails = self.fails_when_cut_off(task);
        let state = &mut self.tasks[task];
        state.interrupted = state.interrupted.saturating_add(1);
        state.place_deaths = state.place_deaths.saturating_add(1);
        let deaths = state.place_deaths;
        state.note(Try {
            error_type: Some(INTERRUPTED.into()),
            error: Some(text.clone()),
            ..over(TryOutcome::Interrupted, now)
        });
        let cause = if fails {
            format!("an attempt of it was cut off, and on_interrupt is \"fail\": {text}")
        } else if deaths > deaths_max {
            format!("the place where it ran was lost during each of {deaths} attempts, last: {text}")
        } else if self.halt.is_some() {
            text
        } else {
            let factor = PLACE_PAUSE_FACTOR.saturating_pow(deaths - 1);
            return self.attempt_later(task, PLACE_PAUSE.saturating_mul(factor).min(PLACE_PAUSE_MAX), None);
        };
        (state.error, state.error_type) = (Some(cause), Some(INTERRUPTED.into()));
        self.give_up_attempt(task)
    }

    /// An attempt whose runner was cut off is made again, and uses up none of its attempts.
    pub(super) fn attempt_cut_off(&mut self, task: usize, now: Wall) -> (Ruling, Progress) {
        let fails = self.fails_when_cut_off(task);
        let state = &mut self.tasks[task];
        state.interrupted = state.interrupted.saturating_add(1);
        state.note(Try {
            error_type: Some(INTERRUPTED.into()),
            error: Some(CUT_OFF.to_owned()),
            ..over(TryOutcome::Interrupted, now)
        });
        if !fails && self.halt.is_none() {
            return self.attempt_later(task, Duration::ZERO, None);
        }
        let cause = match fails {
            true => format!("an attempt of it was cut off, and on_interrupt is \"fail\": {CUT_OFF}"),
            false => CUT_OFF.to_owned(),
        };
        let state = &mut self.tasks[task];
        (state.error, state.error_type) = (Some(cause), Some(INTERRUPTED.into()));
        self.give_up_attempt(task)
    }

    pub(super) fn note_failure(&mut self, task: usize, failure: Failure, now: Wall) {
        let Failure { outcome, error_type, error, traceback } = failure;
        let state = &mut self.tasks[task];
        let (kind, text) = (Some(error_type), Some(error));
        (state.error_type, state.error) = (kind.clone(), text.clone());
        state.note(Try { error_type: kind, error: text, traceback, ..over(outcome, now) });
    }

    /// Whether an attempt may begin after that delay, as far as the time since the first one goes.
    fn has_time(&self, task: usize, delay: Duration, now: Mono) -> bool {
        let since_first = self.tasks[task].trying.map_or(Duration::ZERO, |trying| trying.so_far(now));
        self.workflow.tasks[task].retry.has_time(since_first.saturating_add(delay))
    }

    pub(super) fn give_up_attempt(&mut self, task: usize) -> (Ruling, Progress) {
        self.enter(task, Phase::Settling(TaskStatus::Failed));
        (Ruling::Final, Progress::default())
    }

    fn attempt_later(&mut self, task: usize, delay: Duration, wait: Option<Wait>) -> (Ruling, Progress) {
        let state = &mut self.tasks[task];
        state.next_attempt();
        state.wait = wait;
        if wait.is_some() {
            state.begins = Begins::AfterRecord;
        }
        self.enter(task, Phase::Delayed);
        let records = vec![self.record(task, TaskStatus::Running, None)];
        (Ruling::Retry, Progress { records, delayed: vec![(task, delay)], ..Progress::default() })
    }

    /// Starts a task whose time has come, or waits for that.
    pub(super) fn set_off(&mut self, task: usize, now: Wall, progress: &mut Progress) {
        let left = self.tasks[task].wait.map_or(Duration::ZERO, |wait| wait.left(now));
        if left.is_zero() {
            self.enter(task, Phase::Active);
            progress.jobs.push(task);
            self.give_up_on(task, now, progress);
        } else {
            self.enter(task, Phase::Delayed);
            progress.delayed.push((task, left));
        }
    }
}
