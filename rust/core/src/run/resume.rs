//! Takes a run over from a runner that is gone.
//! Invariant: final tasks stay as they are, and whatever may have been in flight gets the next attempt number.

use std::collections::HashMap;
use std::sync::Arc;

use crate::context::Bounds;
use crate::key::Epoch;
use crate::port::{RunStatus, TaskRecord, TaskStatus, Unfinished};
use crate::run::task::{Begins, Phase, Trying, cut_off};
use crate::run::{CANCELLED, Progress, Run};
use crate::time::{Now, Wall};
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
        interruptions_max: u32,
        now: Now,
    ) -> (Self, Progress) {
        let initial: Arc<str> = unfinished.context.as_str().into();
        let mut run = Self::new(unfinished.id, Arc::clone(&workflow), initial, bounds, unfinished.created_at);
        (run.row, run.is_limited) = (unfinished.row, unfinished.is_limited);
        run.trace = unfinished.trace.as_deref().map(Arc::from);
        run.is_fresh = unfinished.is_new() && unfinished.due_at.is_none();
        (run.priority, run.is_child, run.has_begun) =
            (unfinished.priority, unfinished.is_child, !unfinished.tasks.is_empty());
        (run.interruptions, run.interruptions_max) = (unfinished.interruptions, interruptions_max);
        let mut progress = Progress::default();
        let mut records: HashMap<&str, &TaskRecord> =
            unfinished.tasks.iter().map(|record| (&*record.name, record)).collect();
        for task in 0..workflow.tasks.len() {
            let id = &*workflow.tasks[task].id;
            if records.get(id).is_some_and(|record| record.status != TaskStatus::Running) {
                run.tasks[task].kept = records.remove(id).cloned();
            } else if unfinished.interruptions > 0 {
                // Under other edges it may have begun although it is blocked now.
                let is_changed = unfinished.is_mixed || *workflow.version != *unfinished.version;
                let begun = records.get(id).copied();
                if begun.is_some() || is_changed {
                    run.take_up(task, begun, unfinished.owner_before, now);
                }
            } else if let Some(&begun) = records.get(id) {
                run.take_up(task, Some(begun), unfinished.owner_before, now);
            }
        }
        let is_left = |record: &&&TaskRecord| {
            record.status == TaskStatus::Running && workflow.tasks.iter().all(|task| task.id != record.name)
        };
        // Not before the run's end: whoever still has the other declaration may go on with it.
        run.held_back.extend(records.values().filter(is_left).map(|&record| TaskRecord {
            status: TaskStatus::Skipped,
            error: Some(LEFT_BEHIND.to_owned()),
            completed_at: Some(now.wall),
            wait: None,
            rests_since: None,
            checkpoint: None,
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
                    if unfinished.interruptions > 0 {
                        run.take_up(task, begun, unfinished.owner_before, now);
                    }
                    run.decide(task, now.wall, &mut progress);
                }
            }
        }
        if unfinished.cancelled && run.unfinished == 0 {
            // Nothing is left that a cancel could stop, and yet somebody asked for it before the end.
            run.halt = Some((RunStatus::Cancelled, CANCELLED.to_owned()));
        }
        run.conclude(now.wall, &mut progress);
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
        state.postponed = kept.postponed;
        self.close(task, kept.status)
    }

    /// Takes up a task that is not final, with what its record says of its attempts.
    fn take_up(&mut self, task: usize, kept: Option<&TaskRecord>, owner: Option<Epoch>, now: Now) {
        let (is_once, has_died) = (self.fails_when_cut_off(task), self.interruptions > 0);
        let state = &mut self.tasks[task];
        match kept {
            Some(kept) if is_once => {
                state.is_cut_off = kept.wait.is_none();
                state.go_on(kept);
                if state.is_cut_off && has_died {
                    state.tries = vec![cut_off(Some(kept), owner, now.wall)];
                }
            }
            kept if has_died => state.follow(kept, owner, now.wall),
            Some(kept) => state.go_on(kept),
            None => {}
        }
        state.trying = state.started_at.map(|first| Trying::gone_on(first, now));
    }

    /// Fails a task that was decided to start but was cut off too often, or must not be attempted again once it was.
    pub(super) fn give_up_on(&mut self, task: usize, now: Wall, progress: &mut Progress) {
        let state = &mut self.tasks[task];
        // It was cut off by no more deaths than its run has seen: a runner that leaves kills nobody.
        let deaths = state.interrupted.min(self.interruptions);
        let cause = if state.is_cut_off {
            "an attempt of it was cut off, and on_interrupt is \"fail\"".to_owned()
        } else if state.begins == Begins::AfterRecord && deaths > self.interruptions_max {
            format!("its process died during each of {deaths} attempts")
        } else {
            return;
        };
        state.error = Some(cause);
        state.error_type = Some(INTERRUPTED.into());
        progress.jobs.retain(|&job| job != task);
        self.fail(task, now, progress);
    }
}
