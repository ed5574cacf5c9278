//! Decides whether a task is attempted again after an attempt that left nothing, and when.
//! Invariant: an attempt whose wait is kept begins only once a record says that this is over.

use std::time::Duration;

use crate::grid::Wait;
use crate::port::{Failure, TaskStatus, Try, TryOutcome};
use crate::run::task::{Begins, Phase, over};
use crate::run::{Progress, Ruling, Run};
use crate::time::Wall;

/// A wait for the next attempt that is at least as long goes on after a restart. One that a body wished for always does.
const WAIT_KEPT: Duration = Duration::from_secs(5);

impl Run {
    pub(super) fn attempt_failed(
        &mut self,
        task: usize,
        failure: Failure,
        random: f64,
        now: Wall,
    ) -> (Ruling, Progress) {
        let policy = &self.workflow.tasks[task].retry;
        let counted = self.tasks[task].counted();
        let delay = policy.delay(counted, random);
        let may = self.halt.is_none() && policy.should_retry(counted, &failure.error);
        let again = may && self.has_time(task, delay, now);
        self.note_failure(task, failure, now);
        if !again {
            return self.give_up_attempt(task);
        }
        let is_kept = delay >= WAIT_KEPT || self.fails_when_cut_off(task);
        let wait = is_kept.then(|| Wait::new(delay, now));
        self.attempt_later(task, delay, wait)
    }

    pub(super) fn attempt_postponed(
        &mut self,
        task: usize,
        delay: Duration,
        mut failure: Failure,
        now: Wall,
    ) -> (Ruling, Progress) {
        if self.halt.is_some() || !self.has_time(task, delay, now) {
            if self.halt.is_none() {
                failure.error.push_str(", and by then the time for its attempts is over");
            }
            self.note_failure(task, failure, now);
            return self.give_up_attempt(task);
        }
        let state = &mut self.tasks[task];
        state.postponed = state.postponed.saturating_add(1);
        (state.error, state.error_type) = (None, None);
        state.note(over(TryOutcome::Postponed, now));
        self.attempt_later(task, delay, Some(Wait::new(delay, now)))
    }

    fn note_failure(&mut self, task: usize, failure: Failure, now: Wall) {
        let Failure { outcome, error_type, error, traceback } = failure;
        let state = &mut self.tasks[task];
        let (kind, text) = (Some(error_type), Some(error));
        (state.error_type, state.error) = (kind.clone(), text.clone());
        state.note(Try { error_type: kind, error: text, traceback, ..over(outcome, now) });
    }

    /// Whether an attempt may begin after that delay, as far as the time since the first one goes.
    fn has_time(&self, task: usize, delay: Duration, now: Wall) -> bool {
        let began = self.tasks[task].started_at.unwrap_or(now);
        let since_first = Duration::from_micros(u64::try_from(now.0 - began.0).unwrap_or(0));
        self.workflow.tasks[task].retry.has_time(since_first.saturating_add(delay))
    }

    fn give_up_attempt(&mut self, task: usize) -> (Ruling, Progress) {
        self.tasks[task].phase = Phase::Settling(TaskStatus::Failed);
        (Ruling::Final, Progress::default())
    }

    fn attempt_later(&mut self, task: usize, delay: Duration, wait: Option<Wait>) -> (Ruling, Progress) {
        let state = &mut self.tasks[task];
        state.next_attempt();
        state.phase = Phase::Delayed;
        state.wait = wait;
        if wait.is_some() {
            state.begins = Begins::AfterRecord;
        }
        let records = vec![self.record(task, TaskStatus::Running, None)];
        (Ruling::Retry, Progress { records, delayed: vec![(task, delay)], ..Progress::default() })
    }

    /// Starts a task whose time has come, or waits for that.
    pub(super) fn set_off(&mut self, task: usize, now: Wall, progress: &mut Progress) {
        let left = self.tasks[task].wait.map_or(Duration::ZERO, |wait| wait.left(now));
        if left.is_zero() {
            self.tasks[task].phase = Phase::Active;
            progress.jobs.push(task);
            self.give_up_on(task, now, progress);
        } else {
            self.tasks[task].phase = Phase::Delayed;
            progress.delayed.push((task, left));
        }
    }
}
