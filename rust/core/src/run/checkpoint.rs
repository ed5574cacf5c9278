//! What an attempt leaves for the next one of its task, should there be one.
//! Invariant: only the attempt that the run waits for leaves anything, and nothing outlives its task.

use std::sync::Arc;

use crate::port::{TaskRecord, TaskStatus};
use crate::run::Run;

/// A task's checkpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Checkpoint {
    /// As JSON text; what was given last, whether or not it is kept yet.
    pub(super) value: Option<Arc<str>>,
    /// How often one was given, and how many of those are kept.
    sent: u64,
    kept: u64,
}

impl Run {
    /// Takes an attempt's checkpoint: its number, and what is to be kept. None if nobody waits for that attempt.
    pub fn checkpoint(&mut self, task: usize, attempt: u32, value: Arc<str>) -> Option<(u64, TaskRecord)> {
        if !self.expects(task, attempt) {
            return None;
        }
        let state = &mut self.tasks[task];
        // The record tells that it has begun, too.
        state.is_known = true;
        state.checkpoint.value = Some(value);
        state.checkpoint.sent += 1;
        Some((state.checkpoint.sent, self.record(task, TaskStatus::Running, None)))
    }

    /// Notes that a checkpoint is kept.
    pub fn checkpoint_kept(&mut self, task: usize, number: u64) {
        let kept = &mut self.tasks[task].checkpoint.kept;
        *kept = number.max(*kept);
    }

    /// Whether it is.
    pub fn is_checkpoint_kept(&self, task: usize, number: u64) -> bool {
        self.tasks.get(task).is_some_and(|state| state.checkpoint.kept >= number)
    }

    /// What an attempt of the task gave last, as JSON text.
    pub fn checkpointed(&self, task: usize) -> Option<Arc<str>> {
        self.tasks[task].checkpoint.value.clone()
    }
}
