//! What a run has to know of a context before it goes on, where finding that out may take long: it is asked for, found out by whoever
//! holds up nobody with it, and told.
//! Invariant: what is told of a task that nobody waits for any more changes nothing.

use std::sync::Arc;

use serde_json::Map;
use uuid::Uuid;

use crate::context::Relay;
use crate::port::TaskStatus;
use crate::rule::Rule;
use crate::run::task::Phase;
use crate::run::{Progress, Run};
use crate::time::Wall;
use crate::workflow::Workflow;

/// Where a run looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// At what this task is given, because its rule asks.
    Task(usize),
    /// At what the last tasks left.
    End,
}

/// Something to be looked at.
#[derive(Debug)]
pub struct Look {
    /// Whose run it is.
    pub run: Uuid,
    /// Tells it from the same run before it was opened again.
    pub life: u32,
    at: At,
    workflow: Arc<Workflow>,
    relay: Arc<Relay>,
}

/// What was seen.
#[derive(Debug)]
pub struct Looked {
    /// Whose run it is.
    pub run: Uuid,
    /// Tells it from the same run before it was opened again.
    pub life: u32,
    at: At,
    /// Of a task what is left of its rule.
    rule: Option<Rule>,
}

impl Look {
    /// Takes the look. May take long: under no lock, and not with the interpreter in hand.
    pub fn take(&self) -> Looked {
        let rule = match self.at {
            At::Task(task) => {
                let rule = self.workflow.tasks[task].rule.as_ref();
                rule.map(|rule| self.relay.look(task, &|context| rule.resolved(context)))
            }
            At::End => {
                // The relay remembers.
                let _ = self.relay.last();
                None
            }
        };
        Looked { run: self.run, life: self.life, at: self.at, rule }
    }
}

impl Run {
    /// A look that this run asked for.
    pub fn look(&self, at: At) -> Look {
        let (workflow, relay) = (Arc::clone(&self.workflow), Arc::clone(&self.relay));
        Look { run: self.id, life: self.life, at, workflow, relay }
    }

    /// Goes on after a look.
    pub fn looked(&mut self, looked: &Looked, now: Wall) -> Progress {
        let mut progress = Progress::default();
        match looked.at {
            At::Task(task) if self.tasks[task].phase == Phase::Looking => {
                let starts = looked.rule.as_ref().is_none_or(|rule| self.holds(rule, &Map::new()));
                self.looked_at_task(task, starts, now, &mut progress);
                self.conclude(now, &mut progress);
            }
            At::End if self.is_ending => self.conclude(now, &mut progress),
            At::Task(_) | At::End => {}
        }
        progress
    }

    fn looked_at_task(&mut self, task: usize, starts: bool, now: Wall, progress: &mut Progress) {
        if starts {
            self.set_off(task, now, progress);
        } else {
            self.finish(task, TaskStatus::Skipped, now, progress);
        }
    }
}
