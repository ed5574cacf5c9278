//! Which bodies nobody needs any more: a workflow that was declared again goes with the last run that follows it, and its bodies with it.
//! Invariant: a body that is named here is no workflow's any more, and no attempt's that is about to begin.

use std::sync::{Arc, Mutex, PoisonError};

use cloaca_core::workflow::{Tie, Workflow};

/// Bodies that may be let go of, by their numbers. There are no more than were declared.
#[derive(Debug, Default)]
pub struct Unneeded {
    bodies: Mutex<Vec<u64>>,
}

impl Unneeded {
    /// Those since the last time.
    pub fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.bodies.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same workflow, whose bodies are unneeded once it is.
    pub fn tied(self: &Arc<Self>, workflow: Workflow) -> Workflow {
        let numbers = workflow.tasks.iter().map(|task| task.body).collect();
        Workflow { tie: Some(Arc::new(Bodies { numbers, unneeded: Arc::clone(self) })), ..workflow }
    }
}

/// The bodies of one workflow.
#[derive(Debug)]
struct Bodies {
    numbers: Vec<u64>,
    unneeded: Arc<Unneeded>,
}

impl Tie for Bodies {}

impl Drop for Bodies {
    fn drop(&mut self) {
        let mut bodies = self.unneeded.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.append(&mut self.numbers);
    }
}
