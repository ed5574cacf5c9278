//! Decides what follows in one run: which tasks start, are tried again or skipped, and when the run is over.
//! Never waits, stores or calls anything. Invariant: a task is final at most once, and a run ends exactly when its
//! last task is final.

mod checkpoint;
mod decide;
mod later;
mod look;
mod resume;
mod standing;
mod task;
mod told;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::context::{Bounds, Given, Relay};
use crate::grid::Wait;
use crate::key::RunRow;
use crate::meter::Slots;
use crate::port::{Failure, RunEnd, RunStatus, TaskRecord, TaskStatus, TryOutcome};
use crate::run::checkpoint::Checkpoint;
use crate::run::task::{Begins, Load, Phase, TaskState, Trying, over};
use crate::time::{Now, Wall};
use crate::urgency::Priority;
use crate::workflow::{OnInterrupt, Workflow};

pub use look::{At, Look, Looked};
pub use standing::{Doing, TaskStanding};
pub use told::Told;

/// The error of a run that somebody cancelled.
pub const CANCELLED: &str = "cancelled";

/// One execution of a workflow, in memory.
#[derive(Debug)]
pub struct Run {
    /// The public id.
    pub id: Uuid,
    /// The store's key, known after the first commit.
    pub row: RunRow,
    /// The workflow as it was when the run started.
    pub workflow: Arc<Workflow>,
    /// When it was decided.
    pub created_at: Wall,
    /// Tells it from the same run before it was opened again.
    pub life: u32,
    /// How urgent it is.
    pub priority: Priority,
    /// Whether another run has called it.
    pub is_child: bool,
    /// What the telemetry of whoever asked for it hands on to its bodies, as JSON text. It changes nothing.
    pub trace: Option<Arc<str>>,
    /// Whether it is at work as soon as it was asked for: nobody had it before, and it did not wait for a time.
    pub is_fresh: bool,
    /// Where its workflow's counts are. Kept by who counts.
    pub slots: Option<Arc<Slots>>,
    /// Whether limits of its workflow count it.
    pub is_limited: bool,
    /// Whether an attempt of it has begun, here or before.
    pub has_begun: bool,
    /// Whether it counts as work in hand. Kept by who counts.
    pub counts: bool,
    /// So many of its tasks could go on or do, and so many wait for their time or their permits.
    busy: usize,
    resting: usize,
    /// How often its owner died.
    interruptions: u32,
    /// A task that was cut off by more deaths than this is taken for their cause.
    interruptions_max: u32,
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
    /// The body wants to be called again later, which is no failure.
    Postponed {
        /// So much later.
        delay: Duration,
        /// What is told if it is not called again.
        failure: Failure,
        /// The limit under which no other attempt is to begin until then.
        pause: Option<Arc<str>>,
    },
    /// The place where the body ran is gone, and the body with it, while this process lives on.
    Lost {
        /// What is known of that.
        text: String,
        /// So often it may happen to a task before that is taken for the cause.
        deaths_max: u32,
    },
}

impl Ended {
    /// How an attempt is told that ended so, unless its time was over.
    pub fn outcome(&self) -> TryOutcome {
        match self {
            Self::Success(_) => TryOutcome::Completed,
            Self::Failure(failure) => failure.outcome,
            Self::Postponed { .. } => TryOutcome::Postponed,
            Self::Lost { .. } => TryOutcome::Interrupted,
        }
    }
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
    /// Tasks to start again after a delay.
    pub delayed: Vec<(usize, Duration)>,
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
                is_away: false,
                blocked_by: graph.dependencies(task).len(),
                taken: false,
                begins: match workflow.tasks[task].on_interrupt {
                    OnInterrupt::Retry => Begins::AtOnce,
                    OnInterrupt::Fail => Begins::AfterRecord,
                },
                is_cut_off: false,
                is_known: false,
                attempt: 1,
                interrupted: 0,
                place_deaths: 0,
                postponed: 0,
                wait: None,
                rests_since: None,
                checkpoint: Checkpoint::default(),
                output: None,
                error: None,
                error_type: None,
                started_at: None,
                trying: None,
                began_at: None,
                told: None,
                tries: Vec::new(),
                kept: None,
            })
            .collect();
        let unfinished = tasks.len();
        let relay = Arc::new(Relay::new(Arc::clone(&workflow), initial, bounds));
        Self {
            id,
            row: RunRow(0),
            priority: workflow.priority,
            is_child: false,
            trace: None,
            is_fresh: true,
            slots: None,
            is_limited: false,
            has_begun: false,
            counts: false,
            busy: 0,
            resting: 0,
            workflow,
            created_at,
            life: 0,
            interruptions: 0,
            interruptions_max: u32::MAX,
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

    /// When the attempt under way began, and its task.
    pub fn began_at(&self, task: usize) -> (Option<Wall>, Option<Wall>) {
        self.tasks.get(task).map_or((None, None), |state| (state.began_at, state.started_at))
    }

    /// How long it has waited for its first task, in microseconds; none if that has begun.
    pub fn waits_for_first(&self, now: Wall) -> Option<u64> {
        (!self.has_begun).then(|| u64::try_from(now.0.saturating_sub(self.created_at.0)).unwrap_or(0))
    }

    /// What it began with.
    pub fn initial(&self) -> &Arc<str> {
        self.relay.initial()
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
    pub fn started(&mut self, task: usize, now: Now) -> Option<TaskRecord> {
        self.has_begun = true;
        let state = &mut self.tasks[task];
        state.started_at.get_or_insert(now.wall);
        state.began_at.get_or_insert(now.wall);
        state.trying.get_or_insert_with(|| Trying::gone_on(now.wall, now));
        if state.begins == Begins::AfterRecord {
            state.begins = Begins::Recording;
            state.wait = None;
            state.is_known = true;
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
        now: Now,
    ) -> (Ruling, Progress) {
        if !self.expects(task, attempt) {
            return (Ruling::Stale, Progress::default());
        }
        if matches!(ended, Ended::Failure(_) | Ended::Lost { .. }) && self.is_cut_off(task, attempt) {
            return self.attempt_cut_off(task, now.wall);
        }
        match self.meant(task, ended) {
            Ended::Success(output) => {
                let state = &mut self.tasks[task];
                state.output = Some(output);
                (state.error, state.error_type) = (None, None);
                if attempt > 1 {
                    state.note(over(TryOutcome::Completed, now.wall));
                }
                self.enter(task, Phase::Settling(TaskStatus::Completed));
                (Ruling::Final, Progress::default())
            }
            Ended::Failure(failure) => self.attempt_failed(task, failure, random, now),
            Ended::Postponed { delay, failure, .. } => self.attempt_postponed(task, delay, failure, now),
            Ended::Lost { text, deaths_max } => self.attempt_lost(task, text, deaths_max, now.wall),
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
        let is_late = |&task: &usize| self.is_late(task) && !is_told(task);
        let open: Vec<usize> = (0..self.tasks.len()).filter(is_open).collect();
        let late: Vec<usize> = (0..self.tasks.len()).filter(is_late).collect();
        let mut records: Vec<TaskRecord> = open.into_iter().map(|task| self.cut_off(task, now)).collect();
        records.extend(late.into_iter().map(|task| {
            self.tasks[task].wait = Some(Wait::new(Duration::ZERO, now));
            self.record(task, TaskStatus::Running, None)
        }));
        records
    }

    /// Whether an attempt is on record as begun, or about to be, whose body was not called.
    fn is_late(&self, task: usize) -> bool {
        let state = &self.tasks[task];
        let is_to_begin = state.phase == Phase::Active && !state.taken && !state.is_cut_off;
        is_to_begin && state.begins != Begins::AfterRecord && self.fails_when_cut_off(task)
    }

    fn fails_when_cut_off(&self, task: usize) -> bool {
        self.workflow.tasks[task].on_interrupt == OnInterrupt::Fail
    }

    fn cut_off(&mut self, task: usize, now: Wall) -> TaskRecord {
        let name = &self.workflow.tasks[task].id;
        let state = &mut self.tasks[task];
        // What is held back is never written, but how its attempts ended is.
        if let Some(held) = self.held_back.iter_mut().find(|record| record.name == *name) {
            state.tries.append(&mut held.tries);
        }
        state.cut_off(now);
        state.is_cut_off = true;
        self.record(task, TaskStatus::Running, None)
    }

    /// Moves a task to another phase.
    fn enter(&mut self, task: usize, phase: Phase) {
        self.change(task, |state| (state.phase, state.is_away) = (phase, false));
    }

    fn change(&mut self, task: usize, change: impl FnOnce(&mut TaskState)) {
        let state = &mut self.tasks[task];
        let before = state.load();
        change(state);
        let after = state.load();
        self.busy = self.busy + usize::from(after == Load::Busy) - usize::from(before == Load::Busy);
        self.resting =
            self.resting + usize::from(after == Load::Resting) - usize::from(before == Load::Resting);
    }

    /// The body of an attempt gives its permit back, or has one again.
    pub fn deferred(&mut self, task: usize, attempt: u32, is_away: bool) {
        if self.expects(task, attempt) {
            self.change(task, |state| state.is_away = is_away);
        }
    }

    /// The record that a body waits, of one that has since `since` and does so still.
    pub fn rest_recorded(&mut self, task: usize, attempt: u32, since: Wall) -> Option<TaskRecord> {
        if !self.expects(task, attempt) || !self.tasks[task].is_away {
            return None;
        }
        let state = &mut self.tasks[task];
        // The record tells that it has begun, too.
        state.is_known = true;
        state.rests_since = Some(since);
        Some(self.record(task, TaskStatus::Running, None))
    }

    /// The record that it goes on, if one says that it waits.
    pub fn rest_over(&mut self, task: usize, attempt: u32) -> Option<TaskRecord> {
        let is_recorded = self.expects(task, attempt) && self.tasks[task].rests_since.take().is_some();
        is_recorded.then(|| self.record(task, TaskStatus::Running, None))
    }

    /// Whether all that is open of it waits: for its time, or for what it gave its permits back for.
    pub fn rests(&self) -> bool {
        self.busy == 0 && self.resting > 0
    }

    /// Whether it is as it was committed: nothing of it has begun, or is on its way to the store.
    pub fn is_untouched(&self) -> bool {
        let is_untouched = |state: &TaskState| match state.phase {
            Phase::Blocked => true,
            Phase::Active => !state.taken && state.attempt == 1 && state.begins != Begins::Recording,
            _ => false,
        };
        self.row != RunRow(0) && !self.has_begun && self.halt.is_none() && self.tasks.iter().all(is_untouched)
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
            self.enter(task, Phase::Active);
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
    /// Returns the attempts whose bodies run, for a caller that tells them.
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
                    Phase::Active | Phase::Looking if state.has_ended_before() => {
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
        let (completed, is_open) = (status == TaskStatus::Completed, status == TaskStatus::Running);
        TaskRecord {
            name: Arc::clone(&self.workflow.tasks[task].id),
            status,
            attempt: if status == TaskStatus::Skipped { 0 } else { state.attempt },
            interrupted: state.interrupted,
            postponed: state.postponed,
            wait: if is_open { state.wait } else { None },
            rests_since: if is_open && state.is_away { state.rests_since } else { None },
            checkpoint: if is_open { state.checkpoint.value.clone() } else { None },
            context: completed.then(|| state.output.clone()).flatten(),
            error: if completed { None } else { state.error.clone() },
            error_type: if completed { None } else { state.error_type.clone() },
            tries,
            started_at: state.started_at,
            completed_at,
        }
    }
}
