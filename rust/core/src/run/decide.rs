//! Decides what follows when tasks are final: which start, which are skipped, and when the run is over.
//! Invariant: a task is decided once, when the last of its dependencies is final.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::port::{RunEnd, RunStatus, TaskRecord, TaskStatus};
use crate::rule::Rule;
use crate::run::look::At;
use crate::run::task::Phase;
use crate::run::{Progress, Run};
use crate::time::Wall;
use crate::tries::TIMEOUT;

/// So much of one task's error stands in its run's.
const ERROR_CHARS_MAX: usize = 1000;

/// Of a run's error that is longer, further tasks are only counted.
const ERROR_BYTES_MAX: usize = 12_000;

/// The kind of error of a run whose tasks left too much.
const TOO_LARGE: &str = "ContextError";

impl Run {
    /// Starts a task whose dependencies are all final, or skips it and whatever follows from that.
    pub(super) fn decide(&mut self, task: usize, now: Wall, progress: &mut Progress) {
        if self.is_skipped(task, now, progress) {
            self.finish(task, TaskStatus::Skipped, now, progress);
        }
    }

    /// What is to be skipped is left to the caller; a task that starts, or has to be looked at first, is on its way.
    fn is_skipped(&mut self, task: usize, now: Wall, progress: &mut Progress) -> bool {
        match self.may_run(task) {
            Some(may_run) => {
                let starts = self.halt.is_none() && may_run;
                if starts {
                    self.set_off(task, now, progress);
                }
                !starts
            }
            None if self.halt.is_some() => true,
            None => {
                self.enter(task, Phase::Looking);
                progress.looks.push(At::Task(task));
                false
            }
        }
    }

    /// None if what it is given has to be looked at first.
    fn may_run(&self, task: usize) -> Option<bool> {
        let Some(rule) = &self.workflow.tasks[task].rule else { return Some(self.may_follow(task)) };
        let holds = |context: &_| self.holds(rule, context);
        match rule.reads_context() {
            true => self.relay.look_at_once(task, holds),
            false => Some(holds(&Map::new())),
        }
    }

    fn may_follow(&self, task: usize) -> bool {
        let dependencies = self.workflow.graph.dependencies(task);
        let is = |status| move |&of: &usize| self.tasks[of].phase == Phase::Final(status);
        dependencies.is_empty()
            || (dependencies.iter().any(is(TaskStatus::Completed))
                && !dependencies.iter().any(is(TaskStatus::Failed)))
    }

    pub(super) fn holds(&self, rule: &Rule, context: &Map<String, Value>) -> bool {
        rule.holds(context, &|id| self.status_of(id))
    }

    fn status_of(&self, id: &str) -> Option<TaskStatus> {
        let task = self.workflow.tasks.iter().position(|task| &*task.id == id)?;
        match self.tasks[task].phase {
            Phase::Final(status) => Some(status),
            _ => None,
        }
    }

    /// Fails a task that is given no other attempt; if it has a callback, that is told first.
    pub(super) fn fail(&mut self, task: usize, now: Wall, progress: &mut Progress) {
        if let (None, Some((_, cause))) = (&self.tasks[task].error, &self.halt) {
            self.tasks[task].error = Some(cause.clone());
        }
        if self.workflow.tasks[task].has_failure_callback {
            self.enter(task, Phase::Settling(TaskStatus::Failed));
            progress.callbacks.push(task);
        } else {
            self.finish(task, TaskStatus::Failed, now, progress);
        }
    }

    /// Makes a task final and decides what waited for it. A list, not recursion: a chain of skips may be as long as the workflow.
    pub(super) fn finish(&mut self, task: usize, status: TaskStatus, now: Wall, progress: &mut Progress) {
        self.make_final(task, status, now, progress);
        let mut decidable = VecDeque::from(self.close(task, status));
        while let Some(next) = decidable.pop_front() {
            if let Some(kept) = self.tasks[next].kept.take() {
                decidable.extend(self.restore(next, &kept));
            } else if self.is_skipped(next, now, progress) {
                self.make_final(next, TaskStatus::Skipped, now, progress);
                decidable.extend(self.close(next, TaskStatus::Skipped));
            }
        }
    }

    fn make_final(&mut self, task: usize, status: TaskStatus, now: Wall, progress: &mut Progress) {
        let state = &mut self.tasks[task];
        if status != TaskStatus::Completed {
            // A failed or skipped task passes on what it was given.
            state.output = None;
        }
        let record = self.record(task, status, Some(now));
        progress.records.push(record);
    }

    /// Marks a task final and returns the dependents that can be decided now.
    pub(super) fn close(&mut self, task: usize, status: TaskStatus) -> Vec<usize> {
        let already = matches!(self.tasks[task].phase, Phase::Final(_));
        assert!(!already, "a final task became final again");
        self.enter(task, Phase::Final(status));
        self.relay.leave(task, self.tasks[task].output.take());
        self.unfinished -= 1;
        let workflow = Arc::clone(&self.workflow);
        let mut decidable = Vec::new();
        for &next in workflow.graph.dependents(task) {
            self.tasks[next].blocked_by -= 1;
            if self.tasks[next].blocked_by == 0 {
                decidable.push(next);
            }
        }
        decidable
    }

    pub(super) fn conclude(&mut self, now: Wall, progress: &mut Progress) {
        if self.unfinished > 0 {
            self.hold_back(progress);
            return;
        }
        let Some(last) = self.relay.last_at_once() else {
            if !std::mem::replace(&mut self.is_ending, true) {
                progress.looks.push(At::End);
            }
            return self.hold_back(progress);
        };
        self.is_ending = false;
        progress.records.splice(0..0, std::mem::take(&mut self.held_back));
        let (mut status, mut error) = self.verdict();
        let mut error_type = self.kind_of(status);
        let context = last.unwrap_or_else(|refusal| {
            if status == RunStatus::Completed {
                (status, error) = (RunStatus::Failed, Some(refusal));
                error_type = Some(TOO_LARGE.into());
            }
            Arc::clone(self.relay.initial())
        });
        progress.end = Some(RunEnd { status, context, error, error_type, completed_at: now });
    }

    /// That a run is halted is known in memory only: what it left out must not be kept before its end, or whoever resumes it would
    /// complete it without.
    fn hold_back(&mut self, progress: &mut Progress) {
        if self.halt.is_some() {
            let records = std::mem::take(&mut progress.records);
            let (done, left_out) =
                records.into_iter().partition(|record| record.status == TaskStatus::Completed);
            progress.records = done;
            self.held_back.extend::<Vec<TaskRecord>>(left_out);
        }
    }

    fn verdict(&self) -> (RunStatus, Option<String>) {
        if let Some((status, cause)) = &self.halt {
            return (*status, Some(cause.clone()));
        }
        let failed: Vec<usize> = (0..self.tasks.len())
            .filter(|&task| self.tasks[task].phase == Phase::Final(TaskStatus::Failed))
            .collect();
        match failed.is_empty() {
            true => (RunStatus::Completed, None),
            false => (RunStatus::Failed, Some(self.told(&failed))),
        }
    }

    /// The kind of error that a run's end is told by: of what ended it, or of the first task that failed.
    fn kind_of(&self, status: RunStatus) -> Option<Arc<str>> {
        match (status, &self.halt) {
            (RunStatus::Failed, Some(_)) => Some(TIMEOUT.into()),
            (RunStatus::Failed, None) => {
                let failed = self.tasks.iter().find(|state| state.phase == Phase::Final(TaskStatus::Failed));
                failed.and_then(|state| state.error_type.clone())
            }
            _ => None,
        }
    }

    /// What failed, with so much of each error as tells it from others: the whole stands with its task.
    fn told(&self, failed: &[usize]) -> String {
        let mut text = String::new();
        for (at, &task) in failed.iter().enumerate() {
            if text.len() > ERROR_BYTES_MAX {
                return format!("{text}; and {} more, which get_run shows", failed.len() - at);
            }
            let separator = if at == 0 { "" } else { "; " };
            let error = self.error(task);
            let (error, rest) = match error.char_indices().nth(ERROR_CHARS_MAX) {
                Some((end, _)) => (&error[..end], "… (get_run shows it whole)"),
                None => (error, ""),
            };
            let id = &self.workflow.tasks[task].id;
            write!(text, "{separator}task '{id}' failed: {error}{rest}")
                .expect("a string takes what it is given");
        }
        text
    }
}
