//! What an engine counts by the names of what it drives, for who watches many of them.
//! Invariant: all of one kind together are what there was, whatever the names.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::limit::Rule;
use crate::meter::{Durations, NAMES_MAX, Named, Slots};
use crate::port::{RunStatus, TryOutcome};
use crate::workflow::{Task, Workflow};

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
    /// Ends of runs that it was told of; none of a trigger that is told of none.
    pub ends: Option<u64>,
}

/// What became of the calls for the ends of one workflow's runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallCounts {
    /// Calls that came back, whatever came of them.
    pub called: u64,
    /// Those that raised.
    pub failed: u64,
    /// Ends for which nothing is called any more, though no call went well.
    pub given_up: u64,
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
#[derive(Debug)]
pub struct Meter {
    counted: Counted,
    /// By the address of the declaration, which nobody else has while that is known here.
    slots: BTreeMap<usize, (Weak<Workflow>, Arc<Slots>)>,
}

/// What there was.
#[derive(Debug, Clone)]
pub struct Counted {
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
        let (runs, tasks) = (Named::new(NAMES_MAX), Named::new(TASKS_MAX));
        Self { counted: Counted { fires, runs, tasks, limited: BTreeMap::new() }, slots: BTreeMap::new() }
    }
}

impl Meter {
    /// What there was so far.
    pub fn counted(&self) -> &Counted {
        &self.counted
    }

    /// Where a workflow's counts are. It is told of from its declaration on: who watches would lose the first of what appears only with it.
    pub(super) fn slots(&mut self, workflow: &Arc<Workflow>) -> Arc<Slots> {
        let address = Arc::as_ptr(workflow) as usize;
        if let Some((_, slots)) = self.slots.get(&address) {
            return Arc::clone(slots);
        }
        self.slots.retain(|_, (known, _)| known.strong_count() > 0);
        let name = &workflow.name;
        let task = |task: &Task| self.counted.tasks.place(&(Arc::clone(name), Arc::clone(&task.id)));
        let tasks = workflow.tasks.iter().map(task).collect();
        let slots = Arc::new(Slots { run: self.counted.runs.place(name), tasks });
        self.slots.insert(address, (Arc::downgrade(workflow), Arc::clone(&slots)));
        slots
    }

    pub(super) fn fired(&mut self, trigger: &Arc<str>) -> &mut FireCounts {
        self.counted.fires.of(trigger)
    }

    pub(super) fn run(&mut self, slots: &Slots) -> &mut RunCounts {
        self.counted.runs.at(slots.run)
    }

    /// Of a workflow that need not be declared here.
    pub(super) fn run_of(&mut self, workflow: &Arc<str>) -> &mut RunCounts {
        self.counted.runs.of(workflow)
    }

    pub(super) fn task(&mut self, slots: &Slots, task: usize) -> &mut TaskCounts {
        self.counted.tasks.at(slots.tasks[task])
    }

    pub(super) fn limited(&mut self, rule: Rule) {
        *self.counted.limited.entry(rule.name()).or_default() += 1;
    }
}

impl RunCounts {
    pub(super) fn ended(&mut self, status: RunStatus, us: u64) {
        match status {
            RunStatus::Completed => self.completed.add(us),
            RunStatus::Cancelled => self.cancelled.add(us),
            _ => self.failed.add(us),
        }
    }
}
