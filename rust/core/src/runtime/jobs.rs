//! Attempts that are ready, the permits to run them, and the workers that wait for both.
//! Invariant: an attempt is taken only by a thread that can run it at once.
//! Longer than a room should be: all of it stands under one lock.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::context::Given;
use crate::engine::{Effects, Engine, Event, Job, Ready, RunStanding};
use crate::fault_point::{Step, around};
use crate::key::{ById, Epoch, Ids};
use crate::port::Failure;
use crate::run::{Doing, Ended, Ruling};
use crate::runtime::keeper::Order;
use crate::runtime::lanes::{Lane, Waker};
use crate::runtime::park::{lock, wait_on};
use crate::runtime::seats::Seatless;
use crate::runtime::{Runtime, Shared};
use crate::workflow::Executor;

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
    /// What an earlier attempt left for this one, as JSON text.
    pub checkpoint: Option<Arc<str>>,
    /// The error to report, if only the callback is to be called.
    pub error: String,
    /// What telemetry has handed on with the run, and whether that is fresh: see [`Run::is_fresh`](crate::run::Run::is_fresh).
    pub trace: (Option<Arc<str>>, bool),
}

/// What an executor is given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Taken {
    /// Attempts that have begun.
    pub begun: Vec<Work>,
    /// Attempts that wanted their permits again, and have them.
    pub regained: Vec<Job>,
    /// Attempts that were taken before, and whose bodies nobody waits for any more. One of them may be among those that have begun.
    pub stopped: Vec<Job>,
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

pub(super) struct JobState {
    /// By executor.
    pub(super) lanes: Vec<Lane>,
    /// Attempts whose bodies run, and where.
    pub(super) running: ById<Job, Executor>,
    /// Attempts whose bodies wait without a permit.
    pub(super) away: ById<Job, Executor>,
    /// For the ends of how many runs attempts wait.
    pub(super) waits: ById<Job, usize>,
    /// Attempts that waited for runs that have ended since, and that do not run again yet.
    pub(super) resuming: Ids<Job>,
    /// Attempts that gave their seats of limits back with their permits, and have not got them again.
    pub(super) seatless: ById<Job, Seatless>,
    /// Attempts that were given up, and where their bodies still run.
    pub(super) overdue: ById<Job, Executor>,
    /// The log knows that there are too many of them.
    pub(super) is_overdue_told: bool,
    pub(super) idle: usize,
    pub(super) threads: usize,
    pub(super) spawning: bool,
    /// A worker is on its way to a job: until it is there, no other one is woken.
    pub(super) is_waking: bool,
    pub(super) closed: bool,
    /// The runner leaves as soon as the last body is home.
    pub(super) is_leaving: bool,
}

impl JobState {
    /// So many attempts run at once in each executor.
    pub(super) fn new(permits: &[usize], overdue_max: usize) -> Self {
        let mut lanes: Vec<Lane> = permits.iter().map(|&permits_max| Lane::new(permits_max)).collect();
        if let Some(threads) = lanes.first_mut() {
            threads.overdue_max = overdue_max;
        }
        Self {
            lanes,
            running: ById::default(),
            away: ById::default(),
            waits: ById::default(),
            resuming: Ids::default(),
            seatless: ById::default(),
            overdue: ById::default(),
            is_overdue_told: false,
            idle: 0,
            threads: 0,
            spawning: false,
            is_waking: false,
            closed: false,
            is_leaving: false,
        }
    }

    /// The attempts whose bodies are somewhere between their beginnings and their ends.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = &Job> {
        self.running.keys().chain(self.away.keys())
    }

    /// What waits for an executor. One that this runner lacks was refused when its workflow was declared.
    pub(super) fn lane(&mut self, executor: Executor) -> &mut Lane {
        &mut self.lanes[executor.0 as usize]
    }

    /// Where an attempt's body runs or waits.
    pub(super) fn place(&self, job: Job) -> Option<Executor> {
        self.running.get(&job).copied().or_else(|| self.away.get(&job).copied())
    }

    /// What waits for the workers.
    pub(super) fn threads_lane(&mut self) -> &mut Lane {
        &mut self.lanes[0]
    }

    /// The next job of an executor that has a permit.
    pub(super) fn take(&mut self, executor: Executor) -> Option<Job> {
        if self.closed {
            return None;
        }
        let job = self.lane(executor).take()?;
        self.running.insert(job, executor);
        Some(job)
    }

    /// Up to `many` attempts that are ready and would begin last, the last first. They are in no queue any more.
    pub(super) fn take_last(&mut self, executors: Range<usize>, many: usize) -> Vec<Job> {
        let executors = executors.start.min(self.lanes.len())..executors.end.min(self.lanes.len());
        let mut last = Vec::new();
        for lane in &mut self.lanes[executors] {
            while last.len() < many
                && let Some(job) = lane.ready.pop_last()
            {
                last.push(job);
            }
        }
        last
    }

    /// Whether anything begins from here on; true if it was hushed and is so no more.
    pub(super) fn hush(&mut self, is_hushed: bool) -> bool {
        let was_hushed = self.lanes.first().is_some_and(|lane| lane.is_hushed);
        if was_hushed != is_hushed {
            self.lanes.iter_mut().for_each(|lane| lane.is_hushed = is_hushed);
        }
        was_hushed && !is_hushed
    }

    /// Gives an attempt's permit back, if it has one.
    pub(super) fn give_back(&mut self, job: Job) -> Option<Executor> {
        let executor = self.running.remove(&job)?;
        self.lane(executor).taken -= 1;
        Some(executor)
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
        checkpoint: run.checkpointed(task),
        error: run.error(task).to_owned(),
        trace: (run.trace.clone(), run.is_fresh),
    })
}

impl Runtime {
    /// The next job for a worker, if one is ready and a permit is free. `was_woken` says that [`Runtime::wait_job`] has just found one.
    /// Never waits, so that a job is only taken by a thread that can run it.
    pub fn ready_job(&self, was_woken: bool) -> Option<Job> {
        let is_silent = self.shared.store.is_silent(self.shared.epoch);
        let mut jobs = lock(&self.shared.jobs);
        if is_silent {
            jobs.hush(true);
        }
        if was_woken {
            jobs.is_waking = false;
        }
        let job = jobs.take(Executor::THREADS);
        self.shared.call_for_workers(&mut jobs);
        job
    }

    /// Waits at most `span` until a job is ready for a worker. Call detached.
    pub fn wait_job(&self, span: Duration) -> Waited {
        self.shared.move_on();
        let mut jobs = lock(&self.shared.jobs);
        let deadline = Instant::now() + span;
        loop {
            if jobs.closed {
                return Waited::Closed;
            }
            if jobs.threads_lane().has_work() {
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

    /// Begins an attempt that was taken by [`Runtime::ready_job`]. None if nobody waits for it any more, or not before it is on record:
    /// then it is ready again once it is, and keeps its permit until then.
    pub fn begin(&self, job: Job) -> Option<Work> {
        let mut begun = None;
        self.begin_each([job], |work| begun = Some(work));
        begun
    }

    /// Takes what is ready in an executor and has a permit, at most `max` attempts, and begins them; who gets as many asks again. Waits for
    /// the engine's lock and for nothing else.
    pub fn take_jobs(&self, executor: Executor, max: usize) -> Taken {
        let is_silent = self.shared.store.is_silent(self.shared.epoch);
        let mut jobs = lock(&self.shared.jobs);
        if is_silent {
            jobs.hush(true);
        }
        let lane = jobs.lane(executor);
        lane.is_called = false;
        let stopped = std::mem::take(&mut lane.stopped);
        let mut regained = Vec::new();
        while let Some(job) = jobs.lane(executor).regain() {
            jobs.lane(executor).claims.remove(&job);
            jobs.away.remove(&job);
            jobs.resuming.remove(&job);
            jobs.running.insert(job, executor);
            regained.push(job);
        }
        if !regained.is_empty() {
            // A thread of one of these bodies may ask for the same permit.
            self.shared.permits_wake.notify_all();
        }
        let mut found = Vec::new();
        while found.len() < max
            && let Some(job) = jobs.take(executor)
        {
            found.push(job);
        }
        drop(jobs);
        regained.iter().for_each(|&job| self.step(Event::Deferred(job, false)));
        let mut begun = Vec::with_capacity(found.len());
        if !found.is_empty() {
            self.begin_each(found, |work| begun.push(work));
        }
        Taken { begun, regained, stopped }
    }

    /// Has an executor told from now on, by a call, that [`Runtime::take_jobs`] would find something or that the runner closes. Told at once
    /// if that is so now.
    pub fn set_waker(&self, executor: Executor, waker: Arc<dyn Waker>) {
        let mut jobs = lock(&self.shared.jobs);
        jobs.lane(executor).waker = Some(Arc::clone(&waker));
        let calls = self.shared.call(&mut jobs);
        let is_closed = jobs.closed;
        drop(jobs);
        calls.iter().for_each(|waker| waker.wake());
        if is_closed {
            waker.wake();
        }
    }

    fn begin_each(&self, found: impl IntoIterator<Item = Job>, mut begun: impl FnMut(Work)) {
        let mut stale = Vec::new();
        around(Step::Attempt, || {
            let mut effects = Effects::default();
            let now = self.now();
            let mut engine = lock(&self.shared.engine);
            for job in found {
                engine.step(Event::Taken(job), now, &mut effects);
                if !job.callback_only && engine.is_recording(job) {
                    // Its permit waits for its record, and its body does not run.
                    lock(&self.shared.jobs).running.remove(&job);
                } else {
                    match work(&engine, job) {
                        Some(work) => begun(work),
                        None => stale.push(job),
                    }
                }
            }
            self.shared.carry_out(engine, effects);
        });
        stale.into_iter().for_each(|job| self.release(job));
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

    /// An attempt was broken off on its thread, whatever it has done there: fails it by that, unless it has ended or goes on in another
    /// executor. Of one that has ended nobody tells a callback any more.
    pub fn broken_off(&self, job: Job, failure: Failure) {
        let executor = lock(&self.shared.jobs).running.get(&job).copied();
        if executor.is_some_and(|executor| executor != Executor::THREADS) {
            return;
        }
        if self.attempt_ended(job, Ended::Failure(failure), false) == Ruling::Stale {
            self.settled(job);
        }
    }

    /// The callback of a final attempt has been told.
    pub fn settled(&self, job: Job) {
        around(Step::Settle, || self.step(Event::Settled(job)));
        self.come_home(job);
    }

    /// Gives an attempt's permit back while it waits for its condition.
    pub fn yield_permit(&self, job: Job) {
        self.step(Event::Deferred(job, true));
        {
            let mut jobs = lock(&self.shared.jobs);
            if let Some(&executor) = jobs.running.get(&job) {
                jobs.away.insert(job, executor);
            }
        }
        self.release(job);
    }

    /// Takes a permit again within `span`. Who is told that there is none keeps its claim to the next one, until it comes home. Several
    /// threads of a body may ask: they get one. Call detached.
    pub fn regain_permit(&self, job: Job, span: Duration) -> bool {
        self.shared.want_seats(job, false);
        let mut jobs = lock(&self.shared.jobs);
        let deadline = Instant::now() + span;
        let executor = loop {
            if jobs.running.contains_key(&job) {
                return true;
            }
            // Who is not away has been given up meanwhile, and may only hear of that.
            let executor = jobs.away.get(&job).copied();
            if let Some(executor) = executor.filter(|_| !jobs.lacks_seats(job)) {
                jobs.lane(executor).claims.insert(job);
                if jobs.closed || !jobs.lane(executor).is_full() {
                    break executor;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            jobs = wait_on(&self.shared.permits_wake, jobs, Some(left));
        };
        jobs.lane(executor).forgo(job);
        jobs.lane(executor).taken += 1;
        jobs.resuming.remove(&job);
        jobs.away.remove(&job);
        jobs.running.insert(job, executor);
        drop(jobs);
        self.step(Event::Deferred(job, false));
        true
    }

    /// Wants a permit again, for a body that has given its own back and does not wait here: it comes by [`Runtime::take_jobs`]. False if
    /// none will come: the body has one, or was given up.
    pub fn want_permit(&self, job: Job) -> bool {
        self.shared.want_seats(job, true);
        let mut jobs = lock(&self.shared.jobs);
        let Some(executor) = jobs.away.get(&job).copied() else { return false };
        if jobs.lacks_seats(job) || jobs.lane(executor).regaining.contains(&job) {
            // It comes once it has them, or it has them by now.
            return true;
        }
        jobs.lane(executor).regaining.push_back(job);
        let calls = self.shared.call(&mut jobs);
        drop(jobs);
        calls.iter().for_each(|waker| waker.wake());
        true
    }

    /// The body of an attempt goes on in another executor, beyond the permits of that if need be.
    pub fn move_to(&self, job: Job, executor: Executor) {
        let mut jobs = lock(&self.shared.jobs);
        if jobs.give_back(job).is_some() {
            jobs.running.insert(job, executor);
            jobs.lane(executor).taken += 1;
        }
        self.shared.call_for_regainer(&jobs);
        let calls = self.shared.call(&mut jobs);
        drop(jobs);
        calls.iter().for_each(|waker| waker.wake());
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
        {
            let mut jobs = lock(&self.shared.jobs);
            // Mostly nobody waits, and to look for it would cost each attempt.
            if !jobs.away.is_empty() || !jobs.waits.is_empty() {
                jobs.resuming.remove(&job);
                jobs.seatless.remove(&job);
                jobs.waits.remove(&job);
                if let Some(executor) = jobs.away.remove(&job) {
                    jobs.lane(executor).forgo(job);
                }
            }
            jobs.overdue_home(job);
        }
        self.release(job);
    }

    pub(super) fn release(&self, job: Job) {
        let mut jobs = lock(&self.shared.jobs);
        let executor = jobs.give_back(job);
        // Under the lock: who finds nothing at work must find that something is asked for.
        let is_wanted = self.shared.asks_for_permit(&mut jobs, executor);
        self.shared.call_for_regainer(&jobs);
        let calls = self.shared.call(&mut jobs);
        if jobs.closed {
            self.shared.jobs_done.notify_all();
        }
        let is_leaving = jobs.is_leaving && !jobs.away.contains_key(&job);
        let is_last = is_leaving && jobs.in_flight().next().is_none();
        drop(jobs);
        calls.iter().for_each(|waker| waker.wake());
        if is_wanted {
            self.shared.wake_liaison();
        }
        if is_leaving {
            self.shared.leave_late(is_last);
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

    /// An attempt's body will never begin, because it was stopped before.
    pub(super) fn attempt_stopped(&self, job: Job) {
        // Who closes has all of them stopped.
        let is_closing = self.shared.closing.load(Ordering::Acquire);
        self.step(if is_closing { Event::Interrupted(job) } else { Event::Stopped(job) });
        self.come_home(job);
    }

    /// The number of this runner among those of its store.
    pub fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    /// Where a run stands, and whether what waits for a permit finds one; none if this runner does not have it.
    pub fn run_standing(&self, id: Uuid) -> Option<(RunStanding, bool)> {
        let now = self.now();
        let mut standing = lock(&self.shared.engine).run_standing(id, now)?;
        let jobs = lock(&self.shared.jobs);
        let mut is_free = true;
        if let RunStanding::InHand { tasks, .. } = &mut standing {
            let is_away =
                |number: usize| jobs.away.keys().any(|job| job.run == id && job.task as usize == number);
            let in_body = tasks.iter_mut().filter(|task| task.doing == Doing::InBody);
            in_body.filter(|task| is_away(task.number)).for_each(|task| task.doing = Doing::Deferred);
            let mut queued = tasks.iter().filter(|task| task.doing == Doing::Queued);
            is_free = queued.all(|task| jobs.lanes[task.executor.0 as usize].has_room());
        }
        Some((standing, is_free))
    }

    /// Whether an attempt is still waited for, and whether its body is to end: its time is over, or its run's end was asked for.
    pub fn attempt_stands(&self, job: Job) -> (bool, bool) {
        let engine = lock(&self.shared.engine);
        (engine.expects(job), engine.run(job.run).is_some_and(|run| run.is_told(job.task as usize)))
    }
}

impl Shared {
    /// An attempt that gave its permit back may want one of those that are free now.
    pub(super) fn call_for_regainer(&self, jobs: &JobState) {
        if jobs.lanes.iter().any(|lane| !lane.claims.is_empty()) {
            self.permits_wake.notify_all();
        }
    }

    /// What a step asks for goes to where it runs.
    pub(super) fn hand_out(&self, ready: Vec<Ready>, recorded: Vec<(Executor, Job)>, released: Vec<Job>) {
        let mut jobs = lock(&self.jobs);
        for job in released {
            let executor = jobs.place(job);
            jobs.give_back(job);
            if let Some(executor) = executor {
                let lane = jobs.lane(executor);
                lane.regaining.retain(|other| *other != job);
                // Who has no waker has bodies that nobody can stop.
                if lane.waker.is_some() {
                    lane.stopped.push(job);
                }
            }
            self.call_for_regainer(&jobs);
        }
        ready.into_iter().for_each(|it| jobs.lane(it.executor).ready.push(it.rank, it.job));
        recorded.into_iter().for_each(|(executor, job)| jobs.lane(executor).recorded.push_back(job));
        let calls = self.call(&mut jobs);
        drop(jobs);
        calls.iter().for_each(|waker| waker.wake());
    }

    /// What was kept from beginning begins.
    pub(super) fn break_silence(&self) {
        let mut jobs = lock(&self.jobs);
        if jobs.hush(false) {
            let calls = self.call(&mut jobs);
            drop(jobs);
            calls.iter().for_each(|waker| waker.wake());
            self.ask_for_limited();
        }
    }

    /// One more worker for one more job that could start: woken if one idles, otherwise asked for.
    pub(super) fn call_for_workers(&self, jobs: &mut JobState) {
        if jobs.is_waking || jobs.closed || !jobs.threads_lane().has_work() {
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

    /// The same for each executor. Those that come back are to be called once no lock is held.
    #[must_use]
    pub(super) fn call(&self, jobs: &mut JobState) -> Vec<Arc<dyn Waker>> {
        self.call_for_workers(jobs);
        let closed = jobs.closed;
        jobs.lanes.iter_mut().filter_map(|lane| lane.called(closed)).collect()
    }
}
