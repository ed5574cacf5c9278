//! What was seen from outside of every run, and the promises that it is held against. Knows the store and the bodies that ran,
//! never the engine's mind.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cloaca_core::admit::Overlap;
use cloaca_core::engine::Job;
use cloaca_core::key::{Epoch, ScheduleKey};
use cloaca_core::port::{
    ContextHash, NewRun, Parent, RunEnd, RunStatus, TaskRecord, TaskStatus, Try, TryOutcome,
};
use cloaca_core::time::Wall;
use cloaca_core::workflow::Workflow;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::store::{Kept, State};

/// What a trigger's source knows of a fire, whatever the engine made of it.
#[derive(Clone)]
pub struct Wish {
    pub item: u64,
    /// None if equal contexts may run side by side.
    pub guard: Option<ContextHash>,
    pub key: Option<(String, Option<Wall>)>,
    pub overlap: Overlap,
}

/// A body's wish to be called again later.
#[derive(Debug)]
pub struct Postponed {
    pub until: Wall,
    pub span: Duration,
    pub since_ns: u64,
    /// How often the wall clock had been set.
    pub clock: u64,
}

/// One run, as seen in its present life: a run that is opened again begins another.
#[derive(Default)]
pub struct Seen {
    pub wish: Option<Wish>,
    pub life: u32,
    /// Attempts whose bodies began, by task.
    pub bodies: HashMap<Arc<str>, Vec<u32>>,
    /// The owner under which the last of them began.
    driver: Option<Epoch>,
    /// Outcomes that a callback was told, or that had none to tell.
    pub told: HashSet<(Arc<str>, TaskStatus)>,
    pub successes: HashSet<(Arc<str>, u32)>,
    /// Attempts after which another may follow.
    pub over: HashSet<(Arc<str>, u32)>,
    /// Attempts of tasks that must not be made twice.
    pub once: HashSet<(Arc<str>, u32)>,
    /// Before which attempts of tasks, whether or not it is kept.
    pub wished: HashMap<(Arc<str>, u32), Postponed>,
    /// What tasks left for their next attempts, as kept.
    pub left: HashMap<Arc<str>, u64>,
    /// Of tasks that wait by their own wish, which is kept.
    pub wishes: HashMap<Arc<str>, Postponed>,
    pub records: HashMap<Arc<str>, (TaskStatus, u32)>,
    /// Somebody asked for its end.
    pub is_cancelled: bool,
    /// Somebody asked for its end in time.
    pub must_not_complete: bool,
    /// It went on under other edges and rules than it began with.
    pub is_changed: bool,
    /// Of all lives.
    pub ends: Vec<RunStatus>,
}

#[derive(Default)]
pub struct Witness {
    /// How many were left.
    pub checkpoints: u64,
    pub runs: HashMap<Uuid, Seen>,
    /// Every start under a run key: schedule, key, when it expires.
    keys: HashMap<(ScheduleKey, String), Option<Wall>>,
    pub bodies: u64,
    /// How many ran on although they were given up.
    pub overdue: u64,
    pub fires: u64,
    /// How many runs bodies have started, and how many clients have offered.
    pub children: u64,
    pub offers: u64,
    /// How often a later attempt called for what an earlier one had started.
    pub called_again: u64,
    /// What the bodies of tasks have called for, whatever the engine made of it.
    called: HashMap<Uuid, (Arc<str>, Parent)>,
    /// Of each call of a task the run that it started.
    child_of: HashMap<(Arc<str>, Parent), Uuid>,
    /// Runs that the store will never take.
    pub refused: HashSet<Uuid>,
}

impl Witness {
    pub fn seen(&mut self, id: Uuid) -> &mut Seen {
        self.runs.entry(id).or_default()
    }

    /// A body is about to start a run.
    pub fn called(&mut self, id: Uuid, workflow: &Arc<str>, parent: Parent) {
        self.called.insert(id, (Arc::clone(workflow), parent));
    }

    /// A run was committed that somebody asked for.
    pub fn asked_run_started(&mut self, new: &NewRun) {
        let Some(call) = self.called.get(&new.id) else { return };
        self.children += 1;
        let (_, parent) = call;
        assert_eq!(new.parent.as_deref(), Some(parent), "by what run {} was started", new.id);
        if parent.call.is_some() {
            let before = self.child_of.insert(call.clone(), new.id);
            assert_eq!(before, None, "{call:?} started a second run, {}", new.id);
        }
    }

    /// A run that was asked for is not kept, because another one stands for it.
    pub fn is_same_call(&mut self, id: Uuid, of: Uuid) {
        self.called_again += 1;
        let call =
            self.called.get(&id).unwrap_or_else(|| panic!("run {id} has no key, and {of} stands for it"));
        assert_eq!(self.child_of.get(call), Some(&of), "what stands for {id}, which is {call:?}");
    }

    /// A fired run was committed.
    pub fn run_started(&mut self, new: &NewRun, at: Wall, store: &State) {
        self.fires += 1;
        let schedule = new.schedule.expect("a fired run has a schedule");
        let wish = self.runs[&new.id].wish.clone().expect("a fired run was wished for");
        self.stands_alone(new, wish.overlap, store);
        assert_eq!(
            new.waits,
            wish.overlap.waits(),
            "run {} waits for its turn as its overlap policy says",
            new.id
        );
        if let Some((key, expires_at)) = wish.key {
            let before = self.keys.insert((schedule, key.clone()), expires_at);
            let is_free = before.is_none_or(|before| before.is_some_and(|expired_at| expired_at <= at));
            assert!(
                is_free,
                "run key '{key}' of trigger row {schedule} started a second run within its life"
            );
        }
        let Some(guard) = wish.guard else { return };
        let unfinished = store.unfinished.iter().map(|&row| &store.runs[row.0 as usize - 1].new);
        for other in unfinished.filter(|other| other.schedule == new.schedule && other.id != new.id) {
            let is_equal = self.runs[&other.id].wish.as_ref().is_some_and(|wish| wish.guard == Some(guard));
            assert!(
                !is_equal,
                "runs {} and {} of one trigger are unfinished with one hash",
                other.id, new.id
            );
        }
    }

    /// Whoever drives the other runs of its trigger, or has opened them again, a fire is dropped as its overlap policy says.
    fn stands_alone(&self, new: &NewRun, overlap: Overlap, store: &State) {
        let most = match overlap {
            Overlap::Skip => 0,
            Overlap::BufferOne => 1,
            Overlap::Allow | Overlap::Queue | Overlap::CancelRunning => return,
        };
        let unfinished = store.unfinished.iter().map(|&row| &store.runs[row.0 as usize - 1].new);
        let beside = unfinished.filter(|other| {
            let is_equal = other.schedule == new.schedule && other.workflow == new.workflow;
            is_equal && other.id != new.id
        });
        let beside: Vec<Uuid> = beside.map(|other| other.id).collect();
        assert!(beside.len() <= most, "run {} was fired with overlap {overlap:?} beside {beside:?}", new.id);
    }

    /// A body is about to begin.
    pub fn body_started(
        &mut self,
        id: Uuid,
        task: &Arc<str>,
        attempt: u32,
        workflow: &Workflow,
        kept: &Kept,
    ) {
        self.bodies += 1;
        assert!(kept.end.is_none(), "a task of run {id} started after the run's end was committed");
        let record = kept.tasks.iter().find(|record| record.name == *task);
        if let Some(record) = record {
            let is_open = record.status == TaskStatus::Running;
            assert!(is_open, "task {task} of run {id} started after it was committed as {:?}", record.status);
        }
        let is_kept = attempt == 1 || record.is_some_and(|record| record.attempt == attempt);
        assert!(is_kept, "attempt {attempt} of task {task} of run {id} started before its record was kept");
        let position = workflow.tasks.iter().position(|found| found.id == *task).expect("it is in there");
        for &before in workflow.graph.dependencies(position) {
            let name = &workflow.tasks[before].id;
            let status = kept.tasks.iter().find(|record| record.name == *name).map(|record| record.status);
            let is_final = status.is_some_and(|status| status != TaskStatus::Running);
            assert!(is_final, "task {task} of run {id} started before {name} was committed as final");
        }
        let seen = self.seen(id);
        seen.driver = Some(kept.owner);
        let attempts = seen.bodies.entry(Arc::clone(task)).or_default();
        assert!(!attempts.contains(&attempt), "attempt {attempt} of task {task} of run {id} began twice");
        attempts.push(attempt);
    }

    /// The body of a task is about to begin that must not begin again once it was cut off, whoever lives and whoever is taken for dead.
    pub fn made_once(&mut self, id: Uuid, task: &Arc<str>, job: Job) {
        let seen = self.seen(id);
        if seen.is_changed || seen.life > 0 {
            return;
        }
        let attempt = job.attempt;
        assert!(seen.once.insert((Arc::clone(task), attempt)), "{job:?} begins again");
        let mut before = seen.once.iter().filter(|(of, before)| of == task && *before < attempt);
        assert!(
            before.all(|before| seen.over.contains(before)),
            "{job:?} begins, and nobody knows of the end of the one before"
        );
    }

    /// Whether any body of a run has begun under its present owner.
    pub fn has_begun(&self, kept: &Kept) -> bool {
        self.runs.get(&kept.new.id).is_some_and(|seen| seen.driver == Some(kept.owner))
    }

    /// A task's new state was committed.
    pub fn task_kept(&mut self, id: Uuid, record: &TaskRecord, workflow: &Workflow, interruptions: u32) {
        let seen = self.seen(id);
        let TaskRecord { name, status, attempt, .. } = record;
        if let Some((before, last)) = seen.records.insert(Arc::clone(name), (*status, *attempt)) {
            assert_eq!(
                before,
                TaskStatus::Running,
                "task {name} of run {id} was final and is now {status:?}"
            );
            let is_later = *status == TaskStatus::Skipped || *attempt >= last;
            assert!(is_later, "task {name} of run {id} fell back from attempt {last} to {attempt}");
        }
        let Some(spec) = workflow.tasks.iter().find(|task| task.id == *name) else {
            assert_eq!(*status, TaskStatus::Skipped, "task {name} of run {id} is none of its workflow's");
            return;
        };
        let left =
            record.checkpoint.as_ref().map_or(0, |left| left.parse().expect("the simulation wrote it"));
        match status {
            TaskStatus::Running => {
                let before = seen.left.insert(Arc::clone(name), left).unwrap_or(0);
                assert!(left >= before, "task {name} of run {id} had left {before}, and now {left}");
            }
            _ => assert_eq!(left, 0, "task {name} of run {id} is over, and its checkpoint kept"),
        }
        if record.wait.is_some() {
            let wish = seen.wished.remove(&(Arc::clone(name), *attempt));
            seen.wishes.extend(wish.map(|wish| (Arc::clone(name), wish)));
        }
        let outcome = (Arc::clone(name), *status);
        match status {
            TaskStatus::Running => {}
            TaskStatus::Completed => {
                let success = (Arc::clone(name), *attempt);
                assert!(
                    seen.successes.contains(&success),
                    "task {name} of run {id} completed out of nothing"
                );
            }
            TaskStatus::Failed => {}
            TaskStatus::Skipped => {
                let is_same = !seen.is_changed && interruptions + record.interrupted == 0;
                let has_begun = is_same && seen.bodies.contains_key(name);
                assert!(!has_begun, "task {name} of run {id} began, but is taken for skipped");
            }
        }
        if matches!(status, TaskStatus::Completed | TaskStatus::Failed) && spec.has_failure_callback {
            assert!(
                seen.told.contains(&outcome),
                "no callback was told that task {name} of run {id} {status:?}"
            );
        }
    }

    /// Of a task that is over every attempt is kept once, but for one that completed at once.
    pub fn tries_kept(&self, kept: &Kept, record: &TaskRecord) {
        if !matches!(record.status, TaskStatus::Completed | TaskStatus::Failed) {
            return;
        }
        let of_task = |(task, known): &(Arc<str>, Try)| (*task == record.name).then_some(known.clone());
        let tries: Vec<Try> = kept.tries.iter().filter_map(of_task).collect();
        let told = format!("task {} of run {} ended as {record:?} after {tries:?}", record.name, kept.new.id);
        for (known, number) in tries.iter().zip(1..) {
            assert_eq!(known.attempt, number, "{told}");
        }
        let count = tries.len() as u32;
        let last = tries.last().map(|known| known.outcome);
        match record.status {
            TaskStatus::Completed if record.attempt == 1 => assert_eq!(count, 0, "{told}"),
            TaskStatus::Completed => {
                assert_eq!((count, last), (record.attempt, Some(TryOutcome::Completed)), "{told}");
            }
            // One more may have been on its way, and not have begun.
            _ => assert!(count == record.attempt || count + 1 == record.attempt, "{told}"),
        }
    }

    /// A run's end was committed.
    pub fn run_kept(&mut self, id: Uuid, end: &RunEnd, workflow: &Workflow, kept: &Kept) {
        let seen = self.seen(id);
        seen.ends.push(end.status);
        let status_of = |name: &str| {
            let record = kept.tasks.iter().find(|record| &*record.name == name);
            record.map(|record| record.status).filter(|&status| status != TaskStatus::Running)
        };
        let statuses: Vec<TaskStatus> = workflow
            .tasks
            .iter()
            .map(|task| {
                status_of(&task.id).unwrap_or_else(|| panic!("run {id} ended before its task {}", task.id))
            })
            .collect();
        let is_halted = seen.is_cancelled
            || end.error.as_ref().is_some_and(|error| error.starts_with("workflow timed out"));
        match end.status {
            RunStatus::Completed => {
                assert!(!statuses.contains(&TaskStatus::Failed), "run {id} completed with a failed task");
                assert!(!seen.must_not_complete, "run {id} completed although it was cancelled before");
            }
            RunStatus::Failed => {
                let is_sound = is_halted || statuses.contains(&TaskStatus::Failed);
                assert!(is_sound, "run {id} failed without a failed task");
            }
            RunStatus::Cancelled => assert!(seen.is_cancelled, "nobody cancelled run {id}"),
            other => panic!("run {id} ended as {other:?}"),
        }
        if !seen.is_changed {
            Self::tasks_ran_as_they_should(id, workflow, &statuses, is_halted, kept);
            let completed = |&task: &usize| statuses[task] == TaskStatus::Completed;
            let left: HashSet<&str> =
                (0..statuses.len()).filter(completed).map(|task| &*workflow.tasks[task].id).collect();
            assert_eq!(
                marks(&end.context),
                own(&left),
                "the final context of run {id} holds what its tasks left"
            );
        }
    }

    fn tasks_ran_as_they_should(
        id: Uuid,
        workflow: &Workflow,
        statuses: &[TaskStatus],
        is_halted: bool,
        kept: &Kept,
    ) {
        for (task, status) in statuses.iter().enumerate() {
            let ran = *status != TaskStatus::Skipped;
            let should = should_run(workflow, task, statuses, kept);
            let is_sound = if is_halted { should || !ran } else { should == ran };
            assert!(
                is_sound,
                "task {} of run {id} is {status:?}, run {ran}, should {should}",
                workflow.tasks[task].id
            );
        }
    }

    /// A final run was opened again, and of its tasks before these stay: those that completed, and that come after no other but such as completed or
    /// were skipped.
    pub fn reopened(
        &mut self,
        id: Uuid,
        before: &[TaskRecord],
        stay: &[TaskRecord],
        workflow: Option<&Workflow>,
    ) {
        if let Some(workflow) = workflow {
            let status =
                |name: &str| before.iter().find(|record| &*record.name == name).map(|record| record.status);
            for (task, spec) in workflow.tasks.iter().enumerate() {
                let ancestors = workflow.graph.ancestors(task);
                let mut above = ancestors.iter().map(|&of| status(&workflow.tasks[of].id));
                let is_settled =
                    above.all(|status| matches!(status, Some(TaskStatus::Completed | TaskStatus::Skipped)));
                let should = is_settled && status(&spec.id) == Some(TaskStatus::Completed);
                let stays = stay.iter().any(|record| record.name == spec.id);
                assert_eq!(stays, should, "task {} of run {id}, opened again", spec.id);
            }
        }
        let seen = self.seen(id);
        seen.driver = None;
        seen.life += 1;
        seen.bodies.clear();
        seen.told.clear();
        seen.successes.clear();
        seen.wishes.clear();
        seen.over.clear();
        seen.once.clear();
        seen.left.clear();
        seen.records.retain(|name, _| stay.iter().any(|record| record.name == *name));
        seen.is_cancelled = false;
        seen.must_not_complete = false;
    }
}

/// The rule of a task, or the fate of its dependencies, in the plainest words.
fn should_run(workflow: &Workflow, task: usize, statuses: &[TaskStatus], kept: &Kept) -> bool {
    let dependencies = workflow.graph.dependencies(task);
    match &workflow.tasks[task].rule {
        Some(rule) => {
            let place = |id: &str| workflow.tasks.iter().position(|found| &*found.id == id);
            let mut context: Map<String, Value> =
                serde_json::from_str(&kept.new.context).expect("the simulation wrote it");
            let before = workflow.graph.ancestors(task).into_iter();
            for of in before.filter(|&of| statuses[of] == TaskStatus::Completed) {
                context.insert(workflow.tasks[of].id.to_string(), Value::Null);
            }
            rule.holds(&context, &|id| place(id).map(|place| statuses[place]))
        }
        None => {
            let completed = dependencies.iter().filter(|&&of| statuses[of] == TaskStatus::Completed).count();
            let failed = dependencies.iter().filter(|&&of| statuses[of] == TaskStatus::Failed).count();
            dependencies.is_empty() || (completed > 0 && failed == 0)
        }
    }
}

/// Which tasks have left their mark in a context: each body adds a key named like its task.
pub fn marks(context: &str) -> HashSet<String> {
    let context: Map<String, Value> = serde_json::from_str(context).expect("a context is an object");
    context.keys().filter(|key| key.starts_with('t')).cloned().collect()
}

pub fn own(names: &HashSet<&str>) -> HashSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
