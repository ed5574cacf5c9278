//! Decides what follows in one run: which tasks start, are tried again or skipped, and when the run is over.
//! Never waits, stores or calls anything. Invariant: a task is final at most once, and a run ends exactly when its
//! last task is final.

mod decide;
mod look;
mod resume;
mod standing;
mod task;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::context::{Bounds, Given, Relay};
use crate::port::{Failure, RunEnd, RunStatus, TaskRecord, TaskStatus, Try, TryOutcome};
use crate::run::task::{Begins, Phase, TaskState, over};
use crate::time::Wall;
use crate::workflow::Workflow;

pub use look::{At, Look, Looked};
pub use standing::{Doing, TaskStanding};

/// A task whose attempt was cut off by the death of its process is tried at least once more, whatever its policy; after
/// so many attempts beyond the policy it is taken for the cause of the deaths and failed.
pub const INTERRUPTED_ATTEMPTS_MAX: u32 = 20;
/// The error of a run that somebody cancelled.
pub const CANCELLED: &str = "cancelled";

/// One execution of a workflow, in memory.
#[derive(Debug)]
pub struct Run {
    /// The public id.
    pub id: Uuid,
    /// The store's key, known after the first commit.
    pub row: i64,
    /// The workflow as it was when the run started.
    pub workflow: Arc<Workflow>,
    /// When it was decided.
    pub created_at: Wall,
    /// Tells it from the same run before it was opened again.
    pub life: u32,
    /// How often its owner died.
    interruptions: u32,
    relay: Arc<Relay>,
    tasks: Vec<TaskState>,
    unfinished: usize,
    halt: Option<(RunStatus, String)>,
    held_back: Vec<TaskRecord>,
    /// All tasks are final, and what the last of them left is being looked at.
    is_ending: bool,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// The body returned this context, as JSON text.
    Success(Arc<str>),
    /// The body failed, or was given up.
    Failure(Failure),
}

/// What an ended attempt means for its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// The outcome is final: tell the callback, then settle.
    Final,
    /// Another attempt follows.
    Retry,
    /// Nobody waits for this attempt any more; its outcome is discarded.
    Stale,
}

/// What one step of a run asks for. Records commit first; then the jobs may start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// New states to keep.
    pub records: Vec<TaskRecord>,
    /// Tasks to start, once the records are kept.
    pub jobs: Vec<usize>,
    /// What has to be looked at before the run goes on; a task's context once the records are kept.
    pub looks: Vec<At>,
    /// Tasks that failed without another attempt, whose callback is to be told.
    pub callbacks: Vec<usize>,
    /// A task to start again after a delay.
    pub delayed: Option<(usize, Duration)>,
    /// The run's end.
    pub end: Option<RunEnd>,
}

impl Run {
    /// A run that has just been decided.
    pub fn new(
        id: Uuid,
        workflow: Arc<Workflow>,
        initial: Arc<str>,
        bounds: Bounds,
        created_at: Wall,
    ) -> Self {
        let graph = &workflow.graph;
        let tasks: Vec<TaskState> = (0..workflow.tasks.len())
            .map(|task| TaskState {
                phase: Phase::Blocked,
                blocked_by: graph.dependencies(task).len(),
                taken: false,
                begins: Begins::AtOnce,
                is_known: false,
                attempt: 1,
                interrupted: 0,
                output: None,
                error: None,
                error_type: None,
                started_at: None,
                began_at: None,
                tries: Vec::new(),
                kept: None,
            })
            .collect();
        let unfinished = tasks.len();
        let relay = Arc::new(Relay::new(Arc::clone(&workflow), initial, bounds));
        Self {
            id,
            row: 0,
            workflow,
            created_at,
            life: 0,
            interruptions: 0,
            relay,
            tasks,
            unfinished,
            halt: None,
            held_back: Vec::new(),
            is_ending: false,
        }
    }

    /// Decides the tasks that depend on nothing.
    pub fn begin(&mut self, now: Wall) -> Progress {
        let mut progress = Progress::default();
        let workflow = Arc::clone(&self.workflow);
        for &root in workflow.graph.roots() {
            self.decide(root, now, &mut progress);
        }
        self.conclude(now, &mut progress);
        progress
    }

    /// Whether this attempt is the one that the run waits for.
    pub fn expects(&self, task: usize, attempt: u32) -> bool {
        let is_expected = |state: &TaskState| {
            state.phase == Phase::Active && state.attempt == attempt && state.begins != Begins::Recording
        };
        self.tasks.get(task).is_some_and(is_expected)
    }

    /// The number of the attempt under way or to come.
    pub fn attempt(&self, task: usize) -> u32 {
        self.tasks[task].attempt
    }

    /// The context that a started task works on.
    pub fn given(&self, task: usize) -> Given {
        Given::new(Arc::clone(&self.relay), task)
    }

    /// The error of a task's last attempt; empty if there was none.
    pub fn error(&self, task: usize) -> &str {
        self.tasks[task].error.as_deref().unwrap_or("")
    }

    /// Whether somebody asked for the run's end.
    pub fn is_halted(&self) -> bool {
        self.halt.is_some()
    }

    /// Notes that a worker is about to begin an attempt. None if it may; otherwise what has to be kept first: the worker waits for that and
    /// asks again, so that nothing else is on record as begun meanwhile.
    pub fn started(&mut self, task: usize, now: Wall) -> Option<TaskRecord> {
        let state = &mut self.tasks[task];
        state.started_at.get_or_insert(now);
        state.began_at.get_or_insert(now);
        if state.begins == Begins::AfterRecord {
            state.begins = Begins::Recording;
            return Some(self.record(task, TaskStatus::Running, None));
        }
        state.taken = true;
        None
    }

    /// The record of an attempt that has begun, if it is still under way and the store knows nothing of it.
    pub fn beginning(&mut self, task: usize, attempt: u32) -> Option<TaskRecord> {
        let state = &self.tasks[task];
        // Every later attempt is on record since the one before it ended.
        let is_news = attempt == 1 && state.taken && !state.is_known && self.expects(task, attempt);
        is_news.then(|| {
            self.tasks[task].is_known = true;
            self.record(task, TaskStatus::Running, None)
        })
    }

    /// Whether the record of an attempt's beginning is on its way to the store.
    pub fn is_recording(&self, task: usize) -> bool {
        self.tasks.get(task).is_some_and(|state| state.begins == Begins::Recording)
    }

    /// Notes that what [`Run::started`] asked for is kept.
    pub fn recorded(&mut self, task: usize) {
        let state = &mut self.tasks[task];
        if state.begins == Begins::Recording {
            state.begins = Begins::AtOnce;
        }
    }

    /// Rules on an attempt. After [`Ruling::Final`] the task waits for [`Run::settle`]; after [`Ruling::Retry`]
    /// the progress says when it starts again.
    pub fn attempt_ended(
        &mut self,
        task: usize,
        attempt: u32,
        ended: Ended,
        random: f64,
        now: Wall,
    ) -> (Ruling, Progress) {
        if !self.expects(task, attempt) {
            return (Ruling::Stale, Progress::default());
        }
        match ended {
            Ended::Success(output) => {
                let state = &mut self.tasks[task];
                state.output = Some(output);
                (state.error, state.error_type) = (None, None);
                if attempt > 1 {
                    state.note(over(TryOutcome::Completed, now));
                }
                state.phase = Phase::Settling(TaskStatus::Completed);
                (Ruling::Final, Progress::default())
            }
            Ended::Failure(failure) => self.attempt_failed(task, failure, random, now),
        }
    }

    /// Notes that an attempt's body went home without an end. What is to be kept of it: the number of the next attempt, which whoever goes
    /// on with the run begins; none if nobody waited for it.
    pub fn interrupted(&mut self, task: usize, attempt: u32, now: Wall) -> Option<TaskRecord> {
        self.expects(task, attempt).then(|| self.cut_off(task, now))
    }

    /// What is to be kept when its runner leaves: an attempt that is over, but on no record, because its callback is not told or its run is
    /// halted, is over for nothing.
    pub fn left(&mut self, is_told: impl Fn(usize) -> bool, now: Wall) -> Vec<TaskRecord> {
        let is_held_back = |task: usize| {
            let name = &self.workflow.tasks[task].id;
            self.held_back.iter().any(|record| record.name == *name && record.started_at.is_some())
        };
        let is_open = |&task: &usize| match self.tasks[task].phase {
            // Of a halted run only what completed is kept once its callback is home.
            Phase::Settling(status) => {
                !is_told(task) || self.halt.is_some() && status != TaskStatus::Completed
            }
            Phase::Final(_) => is_held_back(task),
            _ => false,
        };
        let open: Vec<usize> = (0..self.tasks.len()).filter(is_open).collect();
        open.into_iter().map(|task| self.cut_off(task, now)).collect()
    }

    fn cut_off(&mut self, task: usize, now: Wall) -> TaskRecord {
        let name = &self.workflow.tasks[task].id;
        let state = &mut self.tasks[task];
        // What is held back is never written, but how its attempts ended is.
        if let Some(held) = self.held_back.iter_mut().find(|record| record.name == *name) {
            state.tries.append(&mut held.tries);
        }
        state.cut_off(now);
        self.record(task, TaskStatus::Running, None)
    }

    fn attempt_failed(
        &mut self,
        task: usize,
        failure: Failure,
        random: f64,
        now: Wall,
    ) -> (Ruling, Progress) {
        let Failure { outcome, error_type, error, traceback } = failure;
        let policy = &self.workflow.tasks[task].retry;
        let counted = self.tasks[task].counted();
        let again = self.halt.is_none() && policy.should_retry(counted, &error);
        let delay = policy.delay(counted, random);
        let state = &mut self.tasks[task];
        let (kind, text) = (Some(error_type), Some(error));
        (state.error_type, state.error) = (kind.clone(), text.clone());
        state.note(Try { error_type: kind, error: text, traceback, ..over(outcome, now) });
        if !again {
            state.phase = Phase::Settling(TaskStatus::Failed);
            return (Ruling::Final, Progress::default());
        }
        state.next_attempt();
        state.phase = Phase::Delayed;
        let record = self.record(task, TaskStatus::Running, None);
        let progress =
            Progress { records: vec![record], delayed: Some((task, delay)), ..Progress::default() };
        (Ruling::Retry, progress)
    }

    /// The delay before a task's next attempt is over.
    pub fn delay_over(&mut self, task: usize, now: Wall) -> Progress {
        let mut progress = Progress::default();
        if self.tasks[task].phase != Phase::Delayed {
            return progress;
        }
        if self.halt.is_some() {
            self.fail(task, now, &mut progress);
            self.conclude(now, &mut progress);
        } else {
            self.tasks[task].phase = Phase::Active;
            progress.jobs.push(task);
        }
        progress
    }

    /// Makes a settling task final and decides what depended on it.
    pub fn settle(&mut self, task: usize, now: Wall) -> Progress {
        let mut progress = Progress::default();
        if let Phase::Settling(status) = self.tasks[task].phase {
            self.finish(task, status, now, &mut progress);
            self.conclude(now, &mut progress);
        }
        progress
    }

    /// Asks for the run's end: what has not started is skipped, what waits for another attempt fails, what runs may end.
    /// Returns the running tasks too, for a caller that will not wait for them.
    pub fn halt(&mut self, status: RunStatus, cause: &str, now: Wall) -> (Progress, Vec<(usize, u32)>) {
        let mut progress = Progress::default();
        // A run that has concluded has sent its end: a second one would be refused, and look like a takeover.
        if self.halt.is_none() && (self.unfinished > 0 || self.is_ending) {
            self.halt = Some((status, cause.to_owned()));
            for task in 0..self.tasks.len() {
                let state = &self.tasks[task];
                match state.phase {
                    Phase::Active if state.taken => {}
                    Phase::Delayed => self.fail(task, now, &mut progress),
                    Phase::Active | Phase::Looking if state.error.is_some() => {
                        self.fail(task, now, &mut progress)
                    }
                    Phase::Active | Phase::Looking => {
                        self.finish(task, TaskStatus::Skipped, now, &mut progress);
                    }
                    Phase::Blocked | Phase::Settling(_) | Phase::Final(_) => {}
                }
            }
            self.conclude(now, &mut progress);
        }
        let active = |(task, state): (usize, &TaskState)| {
            (state.phase == Phase::Active).then_some((task, state.attempt))
        };
        (progress, self.tasks.iter().enumerate().filter_map(active).collect())
    }

    fn record(&mut self, task: usize, status: TaskStatus, completed_at: Option<Wall>) -> TaskRecord {
        let state = &mut self.tasks[task];
        let mut tries = std::mem::take(&mut state.tries);
        if status == TaskStatus::Skipped && state.started_at.is_none() {
            // It may have begun, but that is on no record: what was left out is told to have had no attempt.
            tries.clear();
        }
        let completed = status == TaskStatus::Completed;
        TaskRecord {
            name: Arc::clone(&self.workflow.tasks[task].id),
            status,
            attempt: if status == TaskStatus::Skipped { 0 } else { state.attempt },
            interrupted: state.interrupted,
            context: completed.then(|| state.output.clone()).flatten(),
            error: if completed { None } else { state.error.clone() },
            error_type: if completed { None } else { state.error_type.clone() },
            tries,
            started_at: state.started_at,
            completed_at,
        }
    }
}
