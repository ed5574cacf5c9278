//! Decides what follows in one run: which tasks start, are tried again or skipped, and when the run is over.
//! Never waits, stores or calls anything. Invariant: a task is final at most once, and a run ends exactly when its
//! last task is final.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::context;
use crate::port::{RunEnd, RunStatus, TaskRecord, TaskStatus, Unfinished};
use crate::time::Wall;
use crate::workflow::Workflow;

/// A task whose attempt was cut off by the death of its process is tried at least once more, whatever its policy; after
/// so many attempts beyond the policy it is taken for the cause of the deaths and failed.
pub const INTERRUPTED_ATTEMPTS_MAX: u32 = 20;
/// The error of a run that somebody cancelled.
pub const CANCELLED: &str = "cancelled";

/// Where a task stands in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Some dependencies are not final.
    Blocked,
    /// To be started, or being attempted.
    Active,
    /// Waits for the delay before its next attempt.
    Delayed,
    /// Its last attempt is over; a callback is being told.
    Settling(TaskStatus),
    /// Decided for good.
    Final(TaskStatus),
}

/// When an attempt may begin. After a death it has to be on record first: a task that kills its process at once must be told from one
/// that only waited beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    AtOnce,
    AfterRecord,
    /// The record is on its way to the store.
    Recording,
}

#[derive(Debug, Clone)]
struct TaskState {
    phase: Phase,
    blocked_by: usize,
    /// Whether a worker has begun the attempt.
    taken: bool,
    begins: Begins,
    attempt: u32,
    input: Option<Arc<str>>,
    output: Option<Arc<str>>,
    error: Option<String>,
    started_at: Option<Wall>,
    /// A final record of an earlier life, for when its dependencies are final again.
    kept: Option<TaskRecord>,
}

/// One execution of a workflow, in memory.
#[derive(Debug, Clone)]
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
    initial: Arc<str>,
    tasks: Vec<TaskState>,
    unfinished: usize,
    halt: Option<(RunStatus, String)>,
    held_back: Vec<TaskRecord>,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// The body returned this context, as JSON text.
    Success(Arc<str>),
    /// The body failed with this error.
    Failure(String),
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
    /// Tasks that failed without another attempt, whose callback is to be told.
    pub callbacks: Vec<usize>,
    /// A task to start again after a delay.
    pub delayed: Option<(usize, Duration)>,
    /// The run's end.
    pub end: Option<RunEnd>,
}

impl TaskState {
    /// Makes the next attempt the one after what may have been in flight when a process died.
    fn follow(&mut self, kept: Option<&TaskRecord>) {
        self.attempt = kept.map_or(1, |record| record.attempt).saturating_add(1);
        self.started_at = kept.and_then(|record| record.started_at);
        self.error = kept.and_then(|record| record.error.clone());
        self.begins = Begins::AfterRecord;
    }

    /// Goes on where an owner that left cleanly had come to: nothing was cut off.
    fn go_on(&mut self, kept: &TaskRecord) {
        self.attempt = kept.attempt.max(1);
        self.started_at = kept.started_at;
        self.error = kept.error.clone();
    }
}

impl Run {
    /// A run that has just been decided.
    pub fn new(id: Uuid, workflow: Arc<Workflow>, initial: Arc<str>, created_at: Wall) -> Self {
        let graph = &workflow.graph;
        let tasks: Vec<TaskState> = (0..workflow.tasks.len())
            .map(|task| TaskState {
                phase: Phase::Blocked,
                blocked_by: graph.dependencies(task).len(),
                taken: false,
                begins: Begins::AtOnce,
                attempt: 1,
                input: None,
                output: None,
                error: None,
                started_at: None,
                kept: None,
            })
            .collect();
        let unfinished = tasks.len();
        Self {
            id,
            row: 0,
            workflow,
            created_at,
            life: 0,
            initial,
            tasks,
            unfinished,
            halt: None,
            held_back: Vec::new(),
        }
    }

    /// Decides the tasks that depend on nothing.
    pub fn begin(&mut self, now: Wall) -> Progress {
        let mut progress = Progress::default();
        for root in self.workflow.graph.roots() {
            self.decide(root, now, &mut progress);
        }
        self.conclude(now, &mut progress);
        progress
    }

    /// A run taken over from a runner that is gone, and what it needs to go on. Final tasks stay as they are; whatever
    /// may have been in flight gets the next attempt number.
    pub fn resume(unfinished: &Unfinished, workflow: Arc<Workflow>, now: Wall) -> (Self, Progress) {
        let initial: Arc<str> = unfinished.context.as_str().into();
        let mut run = Self::new(unfinished.id, Arc::clone(&workflow), initial, unfinished.created_at);
        run.row = unfinished.row;
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
                    run.tasks[task].follow(begun);
                }
            } else if let Some(begun) = records.get(id) {
                run.tasks[task].go_on(begun);
            }
        }
        for &task in workflow.graph.topological() {
            let state = &run.tasks[task];
            if state.blocked_by > 0 || state.phase != Phase::Blocked {
                continue;
            }
            match run.tasks[task].kept.take() {
                Some(kept) => drop(run.restore(task, &kept)),
                None => {
                    let begun = records.get(&*workflow.tasks[task].id).copied();
                    run.decide_again(task, begun, unfinished.interruptions, now, &mut progress);
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
    fn restore(&mut self, task: usize, kept: &TaskRecord) -> Vec<usize> {
        let input = self.input_of(task);
        let state = &mut self.tasks[task];
        state.output = Some(kept.context.clone().unwrap_or_else(|| Arc::clone(&input)));
        state.input = Some(input);
        state.error = kept.error.clone();
        state.attempt = kept.attempt;
        self.close(task, kept.status)
    }

    fn decide_again(
        &mut self,
        task: usize,
        kept: Option<&TaskRecord>,
        interruptions: u32,
        now: Wall,
        progress: &mut Progress,
    ) {
        self.decide(task, now, progress);
        if self.tasks[task].phase != Phase::Active || interruptions == 0 {
            return;
        }
        let allowed = self.workflow.tasks[task].retry.attempts_max.saturating_add(INTERRUPTED_ATTEMPTS_MAX);
        let state = &mut self.tasks[task];
        state.follow(kept);
        if state.attempt > allowed {
            state.error = Some(format!("its process died during each of {} attempts", state.attempt - 1));
            progress.jobs.retain(|&job| job != task);
            self.fail(task, now, progress);
        }
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

    /// The context that a started task works on, as JSON text.
    pub fn input(&self, task: usize) -> Arc<str> {
        let input = self.tasks[task].input.as_ref().expect("a started task has an input");
        Arc::clone(input)
    }

    /// The error of a task's last attempt; empty if there was none.
    pub fn error(&self, task: usize) -> &str {
        self.tasks[task].error.as_deref().unwrap_or("")
    }

    /// When the first of its tasks began.
    pub fn begun_at(&self) -> Option<Wall> {
        self.tasks.iter().filter_map(|state| state.started_at).min()
    }

    /// Tasks that are being attempted, or wait for their next attempt.
    pub fn active_tasks(&self) -> Vec<TaskRecord> {
        let is_active = |&task: &usize| {
            let state = &self.tasks[task];
            matches!(state.phase, Phase::Active | Phase::Delayed) && state.started_at.is_some()
        };
        (0..self.tasks.len())
            .filter(is_active)
            .map(|task| self.record(task, TaskStatus::Running, None))
            .collect()
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
        if state.begins == Begins::AfterRecord {
            state.begins = Begins::Recording;
            return Some(self.record(task, TaskStatus::Running, None));
        }
        state.taken = true;
        None
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
    ) -> (Ruling, Progress) {
        if !self.expects(task, attempt) {
            return (Ruling::Stale, Progress::default());
        }
        match ended {
            Ended::Success(output) => {
                let state = &mut self.tasks[task];
                state.output = Some(output);
                state.error = None;
                state.phase = Phase::Settling(TaskStatus::Completed);
                (Ruling::Final, Progress::default())
            }
            Ended::Failure(error) => self.attempt_failed(task, attempt, error, random),
        }
    }

    fn attempt_failed(
        &mut self,
        task: usize,
        attempt: u32,
        error: String,
        random: f64,
    ) -> (Ruling, Progress) {
        let policy = &self.workflow.tasks[task].retry;
        let again = self.halt.is_none() && policy.should_retry(attempt, &error);
        let delay = policy.delay(attempt, random);
        let state = &mut self.tasks[task];
        state.error = Some(error);
        if !again {
            state.phase = Phase::Settling(TaskStatus::Failed);
            return (Ruling::Final, Progress::default());
        }
        state.attempt += 1;
        state.taken = false;
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
        if self.halt.is_none() && self.unfinished > 0 {
            self.halt = Some((status, cause.to_owned()));
            for task in 0..self.tasks.len() {
                let state = &self.tasks[task];
                match state.phase {
                    Phase::Active if state.taken => {}
                    Phase::Delayed => self.fail(task, now, &mut progress),
                    Phase::Active if state.error.is_some() => self.fail(task, now, &mut progress),
                    Phase::Active => self.finish(task, TaskStatus::Skipped, now, &mut progress),
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

    fn input_of(&self, task: usize) -> Arc<str> {
        let graph = &self.workflow.graph;
        let output = |of: usize| {
            let output = self.tasks[of].output.as_ref().expect("a final task has an output");
            Arc::clone(output)
        };
        context::join(graph, &output, &self.initial, graph.dependencies(task))
    }

    /// Starts a task whose dependencies are all final, or skips it and whatever follows from that.
    fn decide(&mut self, task: usize, now: Wall, progress: &mut Progress) {
        if self.starts(task) {
            progress.jobs.push(task);
        } else {
            self.finish(task, TaskStatus::Skipped, now, progress);
        }
    }

    fn starts(&mut self, task: usize) -> bool {
        let input = self.input_of(task);
        let starts = self.halt.is_none() && self.may_run(task, &input);
        self.tasks[task].input = Some(input);
        if starts {
            self.tasks[task].phase = Phase::Active;
        }
        starts
    }

    fn may_run(&self, task: usize, input: &str) -> bool {
        match &self.workflow.tasks[task].rule {
            Some(rule) => {
                let context: Map<String, Value> =
                    context::parse(input).expect("a context was checked before it was kept");
                rule.holds(&context, &|id| self.status_of(id))
            }
            None => {
                let dependencies = self.workflow.graph.dependencies(task);
                let is = |status| move |&of: &usize| self.tasks[of].phase == Phase::Final(status);
                dependencies.is_empty()
                    || (dependencies.iter().any(is(TaskStatus::Completed))
                        && !dependencies.iter().any(is(TaskStatus::Failed)))
            }
        }
    }

    fn status_of(&self, id: &str) -> Option<TaskStatus> {
        let task = self.workflow.tasks.iter().position(|task| &*task.id == id)?;
        match self.tasks[task].phase {
            Phase::Final(status) => Some(status),
            _ => None,
        }
    }

    /// Fails a task that is given no other attempt; if it has a callback, that is told first.
    fn fail(&mut self, task: usize, now: Wall, progress: &mut Progress) {
        if self.workflow.tasks[task].has_failure_callback {
            self.tasks[task].phase = Phase::Settling(TaskStatus::Failed);
            progress.callbacks.push(task);
        } else {
            self.finish(task, TaskStatus::Failed, now, progress);
        }
    }

    /// Makes a task final and decides what waited for it. A list, not recursion: a chain of skips may be as long as the workflow.
    fn finish(&mut self, task: usize, status: TaskStatus, now: Wall, progress: &mut Progress) {
        self.make_final(task, status, now, progress);
        let mut decidable = VecDeque::from(self.close(task, status));
        while let Some(next) = decidable.pop_front() {
            if let Some(kept) = self.tasks[next].kept.take() {
                decidable.extend(self.restore(next, &kept));
            } else if self.starts(next) {
                progress.jobs.push(next);
            } else {
                self.make_final(next, TaskStatus::Skipped, now, progress);
                decidable.extend(self.close(next, TaskStatus::Skipped));
            }
        }
    }

    fn make_final(&mut self, task: usize, status: TaskStatus, now: Wall, progress: &mut Progress) {
        let state = &mut self.tasks[task];
        if status != TaskStatus::Completed {
            // A failed or skipped task passes on what it was given, so that every join has something to merge.
            state.output = state.input.clone();
        }
        if status == TaskStatus::Skipped {
            state.attempt = 0;
        }
        let record = self.record(task, status, Some(now));
        progress.records.push(record);
    }

    /// Marks a task final and returns the dependents that can be decided now.
    fn close(&mut self, task: usize, status: TaskStatus) -> Vec<usize> {
        let already = matches!(self.tasks[task].phase, Phase::Final(_));
        assert!(!already, "a final task became final again");
        self.tasks[task].phase = Phase::Final(status);
        self.unfinished -= 1;
        let workflow = Arc::clone(&self.workflow);
        let mut decidable = Vec::new();
        for &next in workflow.graph.dependents(task) {
            self.tasks[next].blocked_by -= 1;
            if self.tasks[next].blocked_by == 0 {
                decidable.push(next);
            }
        }
        decidable
    }

    fn conclude(&mut self, now: Wall, progress: &mut Progress) {
        if self.unfinished > 0 {
            self.hold_back(progress);
            return;
        }
        progress.records.splice(0..0, std::mem::take(&mut self.held_back));
        let (status, error) = self.verdict();
        let output = |of: usize| self.tasks[of].output.clone().expect("a final task has an output");
        let graph = &self.workflow.graph;
        let context = context::join(graph, &output, &self.initial, &graph.leaves());
        progress.end = Some(RunEnd { status, context, error, completed_at: now });
    }

    /// That a run is halted is known in memory only: what it left out must not be kept before its end, or whoever resumes it would
    /// complete it without.
    fn hold_back(&mut self, progress: &mut Progress) {
        if self.halt.is_some() {
            let records = std::mem::take(&mut progress.records);
            let (done, left_out) =
                records.into_iter().partition(|record| record.status == TaskStatus::Completed);
            progress.records = done;
            self.held_back.extend::<Vec<TaskRecord>>(left_out);
        }
    }

    fn verdict(&self) -> (RunStatus, Option<String>) {
        if let Some((status, cause)) = &self.halt {
            return (*status, Some(cause.clone()));
        }
        let failed: Vec<String> = (0..self.tasks.len())
            .filter(|&task| self.tasks[task].phase == Phase::Final(TaskStatus::Failed))
            .map(|task| format!("task '{}' failed: {}", self.workflow.tasks[task].id, self.error(task)))
            .collect();
        match failed.is_empty() {
            true => (RunStatus::Completed, None),
            false => (RunStatus::Failed, Some(failed.join("; "))),
        }
    }

    fn record(&self, task: usize, status: TaskStatus, completed_at: Option<Wall>) -> TaskRecord {
        let state = &self.tasks[task];
        let completed = status == TaskStatus::Completed;
        TaskRecord {
            name: Arc::clone(&self.workflow.tasks[task].id),
            status,
            attempt: state.attempt,
            context: completed.then(|| state.output.clone()).flatten(),
            error: if completed { None } else { state.error.clone() },
            started_at: state.started_at,
            completed_at,
        }
    }
}
