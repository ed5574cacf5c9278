//! Attempts that are ready, the permits to run them, and the workers that wait for both.
//! Invariant: an attempt is taken only by a thread that can run it at once.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::context::Given;
use crate::engine::{Effects, Engine, Event, Job, RunStanding};
use crate::fault_point::{Step, around};
use crate::run::{Doing, Ended, Ruling, Run};
use crate::runtime::keeper::Order;
use crate::runtime::park::{lock, wait_on};
use crate::runtime::{Runtime, Shared};

/// Between two looks at whether the record of a resumed attempt is kept.
pub(super) const RECORD_PAUSE: Duration = Duration::from_micros(500);

/// A job with what its body needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// Which attempt of which task.
    pub job: Job,
    /// Names the Python function.
    pub body: u64,
    /// The task's id.
    pub task: Arc<str>,
    /// The context. To look at it may take long: then not with the interpreter in hand.
    pub context: Given,
    /// The error to report, if only the callback is to be called.
    pub error: String,
}

/// How an attempt begins that a worker has taken.
#[derive(Debug, Clone, PartialEq)]
pub enum Beginning {
    /// Its body is to be called now.
    Begun(Work),
    /// Not before it is on record: wait by [`Runtime::begin_recorded`].
    Recording,
    /// Nobody waits for it any more.
    Stale,
}

/// Why a worker that waited for a job goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// A job is ready; another worker may be faster.
    Ready,
    /// There was none for too long.
    Idle,
    /// The runner is closed.
    Closed,
}

#[derive(Default)]
pub(super) struct JobState {
    pub(super) ready: VecDeque<Job>,
    pub(super) running: HashSet<Job>,
    /// Attempts whose bodies wait without a slot.
    pub(super) away: HashSet<Job>,
    pub(super) idle: usize,
    /// Attempts that wait for a slot to go on with.
    pub(super) regaining: usize,
    pub(super) threads: usize,
    pub(super) spawning: bool,
    /// A worker is on its way to a job: until it is there, no other one is woken.
    pub(super) is_waking: bool,
    pub(super) closed: bool,
    /// The runner leaves as soon as the last body is home.
    pub(super) is_leaving: bool,
}

impl JobState {
    /// The attempts whose bodies are somewhere between their beginnings and their ends.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = &Job> {
        self.running.iter().chain(&self.away)
    }
}

/// What an attempt's body needs, if somebody still waits for it.
pub(super) fn work(engine: &Engine, job: Job) -> Option<Work> {
    if !engine.expects(job) {
        return None;
    }
    let run = engine.run(job.run)?;
    let task = job.task as usize;
    let spec = &run.workflow.tasks[task];
    Some(Work {
        job,
        body: spec.body,
        task: Arc::clone(&spec.id),
        context: run.given(task),
        error: run.error(task).to_owned(),
    })
}

impl Runtime {
    /// The next job, if one is ready and a slot is free. `was_woken` says that [`Runtime::wait_job`] has just found one. Never waits, so
    /// that a job is only taken by a thread that can run it.
    pub fn ready_job(&self, was_woken: bool) -> Option<Job> {
        let mut jobs = lock(&self.shared.jobs);
        if was_woken {
            jobs.is_waking = false;
        }
        let is_free = !jobs.closed && jobs.running.len() < self.shared.slots_max;
        let job = if is_free { jobs.ready.pop_front() } else { None };
        jobs.running.extend(job);
        self.shared.call_for_workers(&mut jobs);
        job
    }

    /// Waits at most `span` until a job is ready. Call detached.
    pub fn wait_job(&self, span: Duration) -> Waited {
        self.shared.move_on();
        let mut jobs = lock(&self.shared.jobs);
        let deadline = Instant::now() + span;
        loop {
            if jobs.closed {
                return Waited::Closed;
            }
            if !jobs.ready.is_empty() && jobs.running.len() < self.shared.slots_max {
                jobs.is_waking = true;
                return Waited::Ready;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Waited::Idle;
            }
            jobs.idle += 1;
            jobs = wait_on(&self.shared.jobs_wake, jobs, Some(left));
            jobs.idle -= 1;
            jobs.is_waking = false;
        }
    }

    /// Begins an attempt that was taken by [`Runtime::ready_job`].
    pub fn begin(&self, job: Job) -> Beginning {
        let beginning = around(Step::Attempt, || self.taken(job));
        if beginning == Beginning::Stale {
            self.release(job);
        }
        beginning
    }

    /// Begins it once it is on record; never if the runner closes before. Call detached.
    pub fn begin_recorded(&self, job: Job) -> Beginning {
        if self.is_recorded(job) {
            return self.begin(job);
        }
        self.release(job);
        Beginning::Stale
    }

    pub(super) fn taken(&self, job: Job) -> Beginning {
        let mut effects = Effects::default();
        let now = self.now();
        let mut engine = lock(&self.shared.engine);
        engine.step(Event::Taken(job), now, &mut effects);
        let beginning = match engine.is_recording(job) {
            true => Beginning::Recording,
            false => work(&engine, job).map_or(Beginning::Stale, Beginning::Begun),
        };
        self.shared.carry_out(engine, effects);
        beginning
    }

    /// Waits until an attempt is on record; false if the runner closes before.
    pub(super) fn is_recorded(&self, job: Job) -> bool {
        while lock(&self.shared.engine).is_recording(job) {
            let jobs = lock(&self.shared.jobs);
            if jobs.closed {
                return false;
            }
            drop(wait_on(&self.shared.closing_wake, jobs, Some(RECORD_PAUSE)));
        }
        true
    }

    /// A thread that takes jobs has come (+1) or goes (-1).
    pub fn worker_present(&self, present: bool) {
        let mut jobs = lock(&self.shared.jobs);
        if present {
            jobs.spawning = false;
            jobs.threads += 1;
        } else {
            jobs.threads -= 1;
            jobs.is_waking = false;
        }
    }

    /// Reports an attempt's end. After [`Ruling::Final`] with a callback, tell it and call [`Runtime::settled`].
    pub fn attempt_ended(&self, job: Job, ended: Ended, has_callback: bool) -> Ruling {
        let shared = &self.shared;
        let mut effects = Effects::default();
        let now = self.now();
        let mut engine = lock(&shared.engine);
        if shared.is_over.load(Ordering::Acquire) {
            // The writer is gone: whoever goes on with the run begins the next attempt.
            drop(engine);
            self.attempt_interrupted(job);
            return Ruling::Stale;
        }
        let ruling = around(Step::AttemptEnd, || {
            let ruling = engine.attempt_ended(job, ended, has_callback, now, &mut effects);
            shared.carry_out(engine, effects);
            ruling
        });
        if !(ruling == Ruling::Final && has_callback) {
            self.come_home(job);
        }
        ruling
    }

    /// The callback of a final attempt has been told.
    pub fn settled(&self, job: Job) {
        around(Step::Settle, || self.step(Event::Settled(job)));
        self.come_home(job);
    }

    /// Gives an attempt's slot back while it waits for its condition.
    pub fn yield_slot(&self, job: Job) {
        self.step(Event::Deferred(job, true));
        lock(&self.shared.jobs).away.insert(job);
        self.release(job);
    }

    /// Takes a slot again within `span`. Call detached.
    pub fn regain_slot(&self, job: Job, span: Duration) -> bool {
        let mut jobs = lock(&self.shared.jobs);
        let deadline = Instant::now() + span;
        while jobs.running.len() >= self.shared.slots_max && !jobs.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            jobs.regaining += 1;
            jobs = wait_on(&self.shared.slots_wake, jobs, Some(left));
            jobs.regaining -= 1;
        }
        jobs.running.insert(job);
        jobs.away.remove(&job);
        drop(jobs);
        self.step(Event::Deferred(job, false));
        true
    }

    /// Waits `span`, or until the runner closes; true if it does. Call detached.
    pub fn wait_closing(&self, span: Duration) -> bool {
        let deadline = Instant::now() + span;
        let mut jobs = lock(&self.shared.jobs);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if jobs.closed || left.is_zero() {
                return jobs.closed;
            }
            jobs = wait_on(&self.shared.closing_wake, jobs, Some(left));
        }
    }

    /// An attempt's body is home.
    pub(super) fn come_home(&self, job: Job) {
        lock(&self.shared.jobs).away.remove(&job);
        self.release(job);
    }

    pub(super) fn release(&self, job: Job) {
        let mut jobs = lock(&self.shared.jobs);
        jobs.running.remove(&job);
        self.shared.call_for_regainer(&jobs);
        self.shared.call_for_workers(&mut jobs);
        if jobs.closed {
            self.shared.jobs_done.notify_all();
        }
        let is_leaving = jobs.is_leaving && !jobs.away.contains(&job);
        drop(jobs);
        if is_leaving {
            self.shared.leave();
        }
    }

    pub(super) fn drain_jobs(&self, deadline: Instant, own: Option<Job>) -> bool {
        let shared = &self.shared;
        let mut jobs = lock(&shared.jobs);
        while jobs.in_flight().any(|job| Some(*job) != own) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            jobs = wait_on(&shared.jobs_done, jobs, Some(left));
        }
        true
    }

    /// An attempt's body went home without an end, because the runner closes or nobody waits for it: nothing is ruled, and whoever
    /// resumes the run begins it anew, with as many attempts left.
    pub fn attempt_interrupted(&self, job: Job) {
        self.step(Event::Interrupted(job));
        self.come_home(job);
    }

    /// The number of this runner among those of its store.
    pub fn epoch(&self) -> i64 {
        self.shared.epoch
    }

    /// Where a run stands, and whether a slot is free; none if this runner does not have it.
    pub fn run_standing(&self, id: Uuid) -> Option<(RunStanding, bool)> {
        let now = self.now();
        let mut standing = lock(&self.shared.engine).run_standing(id, now)?;
        let jobs = lock(&self.shared.jobs);
        if let RunStanding::InHand { tasks, .. } = &mut standing {
            let is_away =
                |number: usize| jobs.away.iter().any(|job| job.run == id && job.task as usize == number);
            let in_body = tasks.iter_mut().filter(|task| task.doing == Doing::InBody);
            in_body.filter(|task| is_away(task.number)).for_each(|task| task.doing = Doing::Deferred);
        }
        Some((standing, jobs.running.len() < self.shared.slots_max))
    }

    /// Whether an attempt is still waited for, and whether somebody asked for its run's end.
    pub fn attempt_stands(&self, job: Job) -> (bool, bool) {
        let engine = lock(&self.shared.engine);
        (engine.expects(job), engine.run(job.run).is_some_and(Run::is_halted))
    }
}

impl Shared {
    /// An attempt that gave its slot back may want one of those that are free now.
    pub(super) fn call_for_regainer(&self, jobs: &JobState) {
        if jobs.regaining > 0 {
            self.slots_wake.notify_one();
        }
    }

    /// One more worker for one more job that could start: woken if one idles, otherwise asked for.
    pub(super) fn call_for_workers(&self, jobs: &mut JobState) {
        let is_full = jobs.running.len() >= self.slots_max;
        if jobs.ready.is_empty() || is_full || jobs.is_waking || jobs.closed {
            return;
        }
        if jobs.idle > 0 {
            jobs.is_waking = true;
            self.jobs_wake.notify_one();
        } else if !jobs.spawning {
            jobs.spawning = true;
            self.order(Order::SpawnWorker);
        }
    }
}
