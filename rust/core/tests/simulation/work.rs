//! Runs tasks as the workers of runtime.rs do: one job at a time, with bodies that fail, hang, wait and come back too late.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cloaca_core::engine::{Effects, Event, Job};
use cloaca_core::port::{Failure, TaskStatus};
use cloaca_core::run::{Ended, Ruling};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::process::{Stage, Worker};
use crate::witness::{marks, own};
use crate::world::World;

/// A time-out rules within so much of its time, once the clock is looked at.
const TIMER_TICK: Duration = Duration::from_millis(2);
/// So many ended attempts may be delivered again.
const PAST_MAX: usize = 8;

impl World {
    /// A worker takes a job.
    pub fn take(&mut self, p: usize) -> bool {
        let process = &mut self.processes[p];
        if process.is_leaving {
            return false;
        }
        let is_kept =
            |worker: &Worker| worker.stage == Stage::Recording && !process.engine.is_recording(worker.job);
        if let Some(index) = process.workers.iter().position(is_kept) {
            let worker = process.workers.swap_remove(index);
            self.begin_job(p, worker.job);
            return true;
        }
        if process.slots_taken() >= self.scenario.slots_max {
            return false;
        }
        let Some(job) = process.ready.pop_front() else { return false };
        self.begin_job(p, job);
        true
    }

    fn begin_job(&mut self, p: usize, job: Job) {
        self.step(p, Event::Taken(job));
        let process = &self.processes[p];
        let is_recording = process.engine.is_recording(job) && !job.callback_only;
        if !is_recording && !process.engine.expects(job) {
            return;
        }
        let run = process.engine.run(job.run).expect("the engine waits for it");
        let task = job.task as usize;
        let spec = &run.workflow.tasks[task];
        let worker = Worker {
            job,
            task: Arc::clone(&spec.id),
            input: run.given(task).text(),
            stage: match job.callback_only {
                true => Stage::Callback,
                false if is_recording => Stage::Recording,
                false => Stage::Body,
            },
            is_given_up: false,
            since: self.now(p).mono,
        };
        self.note(|| format!("{p}: takes {job:?}"));
        match worker.stage {
            Stage::Callback => self.tell(job.run, &worker.task, TaskStatus::Failed),
            Stage::Body => self.body_starts(p, &worker),
            Stage::Recording | Stage::Deferred => {}
        }
        self.processes[p].workers.push(worker);
    }

    fn body_starts(&mut self, p: usize, worker: &Worker) {
        let process = &self.processes[p];
        let id = worker.job.run;
        let run = process.engine.run(id).expect("it was just found");
        let is_halted = run.is_halted() || process.halted.contains(&id);
        assert!(!is_halted, "a task of run {id} started after the run was halted");
        let due = process.retry_due.get(&(id, worker.job.task)).copied();
        assert!(due.is_none_or(|due| worker.since >= due), "a task of run {id} was tried again too early");
        if process.is_zombie {
            return;
        }
        let store = self.store.state();
        let kept =
            store.run(id).unwrap_or_else(|| panic!("a task of run {id} started before the run was kept"));
        assert_eq!(kept.owner, process.epoch, "a task of run {id} started, which is another's");
        let seen = self.witness.seen(id);
        seen.is_changed |= *kept.new.version != *run.workflow.version;
        if seen.life == 0 && !seen.is_changed {
            let ancestors = run.workflow.graph.ancestors(worker.job.task as usize);
            let names = ancestors.iter().map(|&task| &run.workflow.tasks[task].id);
            let completed = names.filter(|name| {
                kept.tasks
                    .iter()
                    .any(|record| record.name == **name && record.status == TaskStatus::Completed)
            });
            let left: HashSet<&str> = completed.map(|name| &**name).collect();
            assert_eq!(
                marks(&worker.input),
                own(&left),
                "task {} of run {id} gets what came before",
                worker.task
            );
        }
        if let Some(schedule) = kept.new.schedule.filter(|_| kept.waits) {
            let others = store.unfinished.iter().map(|&row| &store.runs[row as usize - 1]);
            let beside = others.filter(|other| {
                let is_in_line = other.new.schedule == Some(schedule) && other.waits && other.new.id != id;
                is_in_line && self.witness.has_begun(other)
            });
            let beside: Vec<Uuid> = beside.map(|other| other.new.id).collect();
            assert!(beside.is_empty(), "run {id} waits for its turn, but began beside {beside:?}");
        }
        self.witness.body_started(id, &worker.task, worker.job.attempt, &run.workflow, kept);
    }

    /// A context is looked at for a run that waits for that; now and then twice, or too late.
    pub fn look_at_context(&mut self, p: usize) -> bool {
        if self.processes[p].looks.is_empty() {
            return false;
        }
        let index = self.random.index(self.processes[p].looks.len());
        let look = self.processes[p].looks.swap_remove(index);
        let looked = look.take();
        if !self.is_calm && self.random.percent(10) {
            self.processes[p].looks.push(look);
        }
        self.note(|| format!("{p}: {looked:?}"));
        self.step(p, Event::Looked(looked));
        true
    }

    fn tell(&mut self, id: Uuid, task: &Arc<str>, status: TaskStatus) {
        self.witness.seen(id).told.insert((Arc::clone(task), status));
    }

    /// A body returns or raises.
    pub fn end_body(&mut self, p: usize) -> bool {
        let Some(index) = self.draw_worker(p, Stage::Body) else { return false };
        let mut worker = self.processes[p].workers.swap_remove(index);
        let Worker { job, is_given_up, .. } = worker;
        let has_failed = self.random.percent(self.scenario.body_failure_percent);
        let ended = match has_failed {
            true => Ended::Failure(Failure::raised("ValueError", "ValueError: boom".to_owned(), None)),
            false => Ended::Success(marked(&worker.input, &worker.task, job.attempt)),
        };
        let status = if has_failed { TaskStatus::Failed } else { TaskStatus::Completed };
        let run = self.processes[p].engine.run(job.run);
        let spec = run.and_then(|run| run.workflow.tasks.get(job.task as usize)).cloned();
        let has_callback = spec.as_ref().is_some_and(|spec| spec.has_failure_callback);
        if !has_failed && !is_given_up {
            self.witness.seen(job.run).successes.insert((Arc::clone(&worker.task), job.attempt));
        }
        let ruling = self.attempt_ended(p, job, ended, has_callback);
        self.note(|| format!("{p}: {job:?} ended, failed {has_failed}, late {is_given_up}: {ruling:?}"));
        assert!(!is_given_up || ruling == Ruling::Stale, "{job:?} was given up, and its outcome taken");
        let process = &mut self.processes[p];
        process.past.push(job);
        if process.past.len() > PAST_MAX {
            process.past.remove(0);
        }
        match ruling {
            Ruling::Final if has_callback => {
                worker.stage = Stage::Callback;
                process.workers.push(worker);
                self.tell(job.run, &self.processes[p].workers.last().expect("pushed").task.clone(), status);
            }
            Ruling::Final => {}
            Ruling::Retry => {
                let store = self.store.state();
                let record = store.run(job.run).and_then(|kept| {
                    kept.tasks
                        .iter()
                        .find(|record| record.name == worker.task)
                        .map(|record| record.interrupted)
                });
                let counted = job.attempt - record.unwrap_or(0);
                drop(store);
                let wait = spec.expect("it is tried again").retry.delay(counted, 0.0);
                let due = self.now(p).mono.after(wait);
                self.processes[p].retry_due.insert((job.run, job.task), due);
            }
            Ruling::Stale => {
                let is_gone = is_given_up || process.engine.run(job.run).is_none();
                assert!(is_gone, "the outcome of {job:?} was discarded, which nobody had given up");
            }
        }
        true
    }

    fn attempt_ended(&mut self, p: usize, job: Job, ended: Ended, has_callback: bool) -> Ruling {
        let now = self.now(p);
        let mut effects = Effects::default();
        let ruling = self.processes[p].engine.attempt_ended(job, ended, has_callback, now, &mut effects);
        self.carry_out(p, effects);
        ruling
    }

    /// A body waits for its condition without a slot, or goes on with one.
    pub fn defer(&mut self, p: usize) -> bool {
        if let Some(index) = self.draw_worker(p, Stage::Deferred) {
            let is_free = self.processes[p].slots_taken() < self.scenario.slots_max;
            if is_free {
                let since = self.now(p).mono;
                let worker = &mut self.processes[p].workers[index];
                (worker.stage, worker.since) = (Stage::Body, since);
                let job = worker.job;
                self.step(p, Event::Deferred(job, false));
            }
            return is_free;
        }
        let Some(index) = self.draw_worker(p, Stage::Body) else { return false };
        let worker = &mut self.processes[p].workers[index];
        worker.stage = Stage::Deferred;
        let job = worker.job;
        self.step(p, Event::Deferred(job, true));
        true
    }

    /// A callback returns.
    pub fn settle(&mut self, p: usize) -> bool {
        let Some(index) = self.draw_worker(p, Stage::Callback) else { return false };
        let worker = self.processes[p].workers.swap_remove(index);
        self.note(|| format!("{p}: callback of {:?} returned", worker.job));
        self.step(p, Event::Settled(worker.job));
        true
    }

    fn draw_worker(&mut self, p: usize, stage: Stage) -> Option<usize> {
        let workers = self.processes[p].workers.iter().enumerate();
        let found: Vec<usize> =
            workers.filter(|(_, worker)| worker.stage == stage).map(|(index, _)| index).collect();
        (!found.is_empty()).then(|| self.random.pick(&found))
    }

    /// Something is delivered twice, too late, or to the wrong door: nothing may come of it.
    pub fn noise(&mut self, p: usize) -> bool {
        if self.processes[p].past.is_empty() {
            return false;
        }
        let job = self.random.pick(&self.processes[p].past);
        let is_again = |other: &Job| other.run == job.run && other.task == job.task;
        let process = &self.processes[p];
        let lives =
            process.workers.iter().any(|worker| is_again(&worker.job)) || process.ready.iter().any(is_again);
        let unknown = Job { run: Uuid::from_u128(u128::from(self.random.next())), ..job };
        match self.random.below(4) {
            0 if !lives && self.witness.seen(job.run).life == 0 => {
                let ended = Ended::Failure(Failure::raised("Late", "late".to_owned(), None));
                assert_eq!(self.attempt_ended(p, job, ended, false), Ruling::Stale, "{job:?} ended twice");
            }
            1 if !lives => self.step(p, Event::Settled(job)),
            2 => {
                self.step(p, Event::Taken(unknown));
                self.step(p, Event::Settled(unknown));
                self.step(p, Event::Deferred(unknown, true));
            }
            _ => self.step(p, Event::Cancel(unknown.run)),
        }
        true
    }

    /// The timekeeper looks at the clock.
    pub fn clock(&mut self, p: usize) -> bool {
        let now = self.now(p);
        let process = &self.processes[p];
        let is_due = process.engine.next_wake(now).is_some_and(|left| left.is_zero());
        if !is_due || process.is_leaving || !process.recovery.is_ready {
            return false;
        }
        self.step(p, Event::Clock);
        let process = &self.processes[p];
        if process.engine.next_wake(now).is_some_and(|left| left.is_zero()) {
            // So many timers were near that the wheel wants to be asked once more.
            return true;
        }
        let most = self.scenario.settings.task_timeout + TIMER_TICK;
        for worker in
            process.workers.iter().filter(|worker| worker.stage == Stage::Body && !worker.is_given_up)
        {
            let is_ours = process.engine.run(worker.job.run).is_some();
            let took = now.mono.since(worker.since);
            assert!(took <= most || !is_ours, "{:?} runs for {took:?} and is not timed out", worker.job);
        }
        true
    }
}

/// The context that a body leaves: what it got, and its own mark.
fn marked(input: &str, task: &str, attempt: u32) -> Arc<str> {
    let mut context: Map<String, Value> = serde_json::from_str(input).expect("the engine hands out JSON");
    context.insert(task.to_owned(), attempt.into());
    Value::Object(context).to_string().into()
}
