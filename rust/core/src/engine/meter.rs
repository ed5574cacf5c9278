//! What an engine counts by the names of what it drives, for who watches many of them.
//! Invariant: all of one kind together are what there was, whatever the names.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::limit::Rule;
use crate::meter::{Durations, NAMES_MAX, Named};
use crate::port::{RunStatus, TryOutcome};
use crate::workflow::Workflow;

/// So many tasks, of all workflows together.
pub const TASKS_MAX: usize = 200;

/// What became of the fires of one trigger, or of what was asked for without one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FireCounts {
    /// Fires that polls asked for.
    pub fires: u64,
    /// Dropped because an equal one was unfinished or used up.
    pub deduplicated: u64,
    /// Dropped by overlap or limits.
    pub dropped: u64,
    /// Not tried, because one before them was dropped.
    pub held_back: u64,
    /// Polls that raised, and fires that could not start.
    pub errors: u64,
}

/// What became of one workflow's runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunCounts {
    /// That completed, from their commit to their end.
    pub completed: Durations,
    /// That failed.
    pub failed: Durations,
    /// That somebody ended.
    pub cancelled: Durations,
    /// From their commit to their first task.
    pub wait: Durations,
}

/// What became of the attempts of one task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// By their outcomes: completed, failed, timed out, interrupted, postponed.
    pub outcomes: [u64; TryOutcome::ALL.len()],
    /// So many were followed by another, because they failed.
    pub retries: u64,
    /// How long bodies took.
    pub attempts: Durations,
    /// How long tasks took, from their first attempt to their end.
    pub tasks: Durations,
}

/// All that is counted by names.
#[derive(Debug, Clone)]
pub struct Meter {
    /// By triggers; by the empty name what came without one.
    pub fires: Named<Arc<str>, FireCounts>,
    /// By workflows.
    pub runs: Named<Arc<str>, RunCounts>,
    /// By workflows and their tasks.
    pub tasks: Named<(Arc<str>, Arc<str>), TaskCounts>,
    /// Runs that a workflow's limits have dropped, by the rule.
    pub limited: BTreeMap<&'static str, u64>,
}

impl Default for Meter {
    fn default() -> Self {
        let mut fires: Named<Arc<str>, FireCounts> = Named::new(NAMES_MAX);
        fires.of(&"".into());
        Self { fires, runs: Named::new(NAMES_MAX), tasks: Named::new(TASKS_MAX), limited: BTreeMap::new() }
    }
}

impl Meter {
    /// A workflow and its tasks are told of from here on: who watches would lose the first of what appears only with it.
    pub(super) fn declared(&mut self, workflow: &Workflow) {
        self.runs.of(&workflow.name);
        workflow.tasks.iter().for_each(|task| {
            self.task(&workflow.name, &task.id);
        });
    }

    pub(super) fn fired(&mut self, trigger: &Arc<str>) -> &mut FireCounts {
        self.fires.of(trigger)
    }

    pub(super) fn waited(&mut self, workflow: &Arc<str>, us: u64) {
        self.runs.of(workflow).wait.add(us);
    }

    pub(super) fn run_ended(&mut self, workflow: &Arc<str>, status: RunStatus, us: u64) {
        let counts = self.runs.of(workflow);
        match status {
            RunStatus::Completed => counts.completed.add(us),
            RunStatus::Cancelled => counts.cancelled.add(us),
            _ => counts.failed.add(us),
        }
    }

    pub(super) fn limited(&mut self, rule: Rule) {
        *self.limited.entry(rule.name()).or_default() += 1;
    }

    pub(super) fn task(&mut self, workflow: &Arc<str>, task: &Arc<str>) -> &mut TaskCounts {
        self.tasks.of(&(Arc::clone(workflow), Arc::clone(task)))
    }
}
