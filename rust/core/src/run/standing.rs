//! Says where the tasks of a run stand, for who asks why it is not over. Pure: changes nothing.
//! Invariant: of a run that is not over each task that can go on is told, and none that is final or waits for another task.

use std::sync::Arc;

use crate::run::Run;
use crate::run::task::{Begins, Phase};
use crate::time::Wall;
use crate::workflow::Executor;

/// What an unfinished task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Whether it runs depends on contexts that are being read.
    Looked,
    /// Its attempt has not begun: it waits for a permit, or for a record to be kept.
    Queued,
    /// It waits for seats of limits.
    Limited,
    /// Its body is being called.
    InBody,
    /// Its body was told to end.
    Told,
    /// Its body waits for a condition, without a permit.
    Deferred,
    /// Its next attempt begins then; none while that is being kept.
    Retry(Option<Wall>),
    /// The same, because the last one wished for it.
    Postponed(Option<Wall>),
    /// Its last attempt is over, and a callback is being told.
    Settling,
}

/// Where an unfinished task stands that waits for no other task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskStanding {
    /// Its number in the workflow.
    pub number: usize,
    /// Its id.
    pub task: Arc<str>,
    /// What it does.
    pub doing: Doing,
    /// The limits that it waits for.
    pub limits: Vec<Arc<str>>,
    /// Where it runs.
    pub executor: Executor,
    /// The attempt under way or to come, from 1.
    pub attempt: u32,
    /// When its first attempt began.
    pub started_at: Option<Wall>,
    /// What went wrong in the attempt before.
    pub error: Option<String>,
}

impl Run {
    /// The tasks that the run's end waits for, and that wait for no other task. When a next attempt is due only its timer knows.
    pub fn standings(&self) -> Vec<TaskStanding> {
        let of = |number: usize| {
            let state = &self.tasks[number];
            let doing = match state.phase {
                Phase::Blocked | Phase::Final(_) => return None,
                Phase::Looking => Doing::Looked,
                Phase::Active if state.told.is_some() => Doing::Told,
                Phase::Active if state.taken && state.begins != Begins::Recording => Doing::InBody,
                Phase::Active => Doing::Queued,
                Phase::Delayed if state.error.is_none() => Doing::Postponed(None),
                Phase::Delayed => Doing::Retry(None),
                Phase::Settling(_) => Doing::Settling,
            };
            let spec = &self.workflow.tasks[number];
            let (task, executor, error) = (Arc::clone(&spec.id), spec.executor, state.error.clone());
            let (attempt, started_at) = (state.attempt, state.started_at);
            let limits = Vec::new();
            Some(TaskStanding { number, task, doing, limits, executor, attempt, started_at, error })
        };
        (0..self.tasks.len()).filter_map(of).collect()
    }

    /// Whether every task is final, and only the end itself is to be made and kept.
    pub fn is_at_its_end(&self) -> bool {
        self.unfinished == 0
    }
}
