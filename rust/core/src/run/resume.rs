//! Takes a run over from a runner that is gone.
//! Invariant: final tasks stay as they are, and whatever may have been in flight gets the next attempt number.

use std::collections::HashMap;
use std::sync::Arc;

use crate::context::Bounds;
use crate::port::{RunStatus, TaskRecord, TaskStatus, Unfinished};
use crate::run::task::{Begins, Phase};
use crate::run::{CANCELLED, INTERRUPTED_ATTEMPTS_MAX, Progress, Run};
use crate::time::Wall;
use crate::tries::INTERRUPTED;
use crate::workflow::Workflow;

/// What is told of a task that was begun under another declaration of its workflow.
const LEFT_BEHIND: &str = "its workflow has no task of this name any more";

impl Run {
    /// A run taken over from a runner that is gone, and what it needs to go on. Final tasks stay as they are; whatever
    /// may have been in flight gets the next attempt number.
    pub fn resume(
        unfinished: &Unfinished,
        workflow: Arc<Workflow>,
        bounds: Bounds,
        now: Wall,
    ) -> (Self, Progress) {
        let initial: Arc<str> = unfinished.context.as_str().into();
        let mut run = Self::new(unfinished.id, Arc::clone(&workflow), initial, bounds, unfinished.created_at);
        run.row = unfinished.row;
        run.interruptions = unfinished.interruptions;
        let mut progress = Progress::default();
        let mut records: HashMap<&str, &TaskRecord> =
            unfinished.tasks.iter().map(|record| (&*record.name, record)).collect();
        for task in 0..workflow.tasks.len() {
            let id = &*workflow.tasks[task].id;
            if records.get(id).is_some_and(|record| record.status != TaskStatus::Running) {
                run.tasks[task].kept = records.remove(id).cloned();
            } else if unfinished.interruptions > 0 {
                // Under other edges it may have begun although it is blocked now.
                let is_changed = *workflow.version != *unfinished.version;
                let begun = records.get(id).copied();
                if begun.is_some() || is_changed {
                    run.tasks[task].follow(begun, unfinished.owner_before, now);
                }
            } else if let Some(begun) = records.get(id) {
                run.tasks[task].go_on(begun);
            }
        }
        let is_left = |record: &&&TaskRecord| {
            record.status == TaskStatus::Running && workflow.tasks.iter().all(|task| task.id != record.name)
        };
        // Not before the run's end: whoever still has the other declaration may go on with it.
        run.held_back.extend(records.values().filter(is_left).map(|&record| TaskRecord {
            status: TaskStatus::Skipped,
            error: Some(LEFT_BEHIND.to_owned()),
            completed_at: Some(now),
            ..record.clone()
        }));
        for &task in workflow.graph.topological() {
            let state = &run.tasks[task];
            if state.blocked_by > 0 || state.phase != Phase::Blocked {
                continue;
            }
            match run.tasks[task].kept.take() {
                Some(kept) => drop(run.restore(task, &kept)),
                None => {
                    let begun = records.get(&*workflow.tasks[task].id).copied();
                    run.decide_again(task, begun, unfinished, now, &mut progress);
                }
            }
        }
        if unfinished.cancelled && run.unfinished == 0 {
            // Nothing is left that a cancel could stop, and yet somebody asked for it before the end.
            run.halt = Some((RunStatus::Cancelled, CANCELLED.to_owned()));
        }
        run.conclude(now, &mut progress);
        (run, progress)
    }

    /// Makes a task what it was, and returns the dependents that can be decided now.
    pub(super) fn restore(&mut self, task: usize, kept: &TaskRecord) -> Vec<usize> {
        let state = &mut self.tasks[task];
        state.output = kept.context.clone();
        state.error = kept.error.clone();
        state.error_type = kept.error_type.clone();
        state.attempt = kept.attempt;
        state.interrupted = kept.interrupted;
        self.close(task, kept.status)
    }

    fn decide_again(
        &mut self,
        task: usize,
        kept: Option<&TaskRecord>,
        unfinished: &Unfinished,
        now: Wall,
        progress: &mut Progress,
    ) {
        if unfinished.interruptions > 0 {
            self.tasks[task].follow(kept, unfinished.owner_before, now);
        }
        self.decide(task, now, progress);
        if self.tasks[task].phase == Phase::Active {
            self.give_up_on(task, now, progress);
        }
    }

    /// Fails a task that was decided to start but was cut off too often.
    pub(super) fn give_up_on(&mut self, task: usize, now: Wall, progress: &mut Progress) {
        let state = &mut self.tasks[task];
        // It was cut off by no more deaths than its run has seen: a runner that leaves kills nobody.
        let deaths = state.interrupted.min(self.interruptions);
        if state.begins == Begins::AfterRecord && deaths > INTERRUPTED_ATTEMPTS_MAX {
            state.error = Some(format!("its process died during each of {deaths} attempts"));
            state.error_type = Some(INTERRUPTED.into());
            progress.jobs.retain(|&job| job != task);
            self.fail(task, now, progress);
        }
    }
}
