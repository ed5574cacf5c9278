//! Runs tasks as the workers of runtime.rs do: one job at a time, with bodies that fail, hang, wait and come back too late.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cloaca_core::engine::{Effects, Event, Job};
use cloaca_core::port::{Failure, TaskStatus};
use cloaca_core::run::{Ended, Ruling, Run};
use cloaca_core::seat::Seat;
use cloaca_core::workflow::OnInterrupt;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::process::{Process, Stage, Worker};
use crate::store::State;
use crate::witness::{Postponed, marks, own};
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
        if let Some(job) = process.recorded.pop_front() {
            let is_it = |worker: &Worker| worker.stage == Stage::Recording && worker.job == job;
            let index = process.workers.iter().position(is_it).expect("it waits with its permit");
            process.workers.swap_remove(index);
            self.begin_job(p, job);
            return true;
        }
        if process.permits_taken() >= self.scenario.permits_max {
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
        let is_waiting = self.store.state().run(job.run).is_some_and(|kept| kept.not_before.is_some());
        assert!(!is_waiting, "{job:?} begins, and its run waits for its time");
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
            told_at: None,
            is_given_up: false,
            since: self.now(p).mono,
            calls: HashMap::new(),
            awaits: None,
        };
        self.note(|| format!("{p}: takes {job:?}"));
        match worker.stage {
            Stage::Callback => self.tell(job.run, &worker.task, TaskStatus::Failed),
            Stage::Body => self.body_starts(p, &worker),
            Stage::Recording | Stage::Deferred => {}
        }
        self.processes[p].workers.push(worker);
        self.call_first(p);
    }

    fn body_starts(&mut self, p: usize, worker: &Worker) {
        let process = &self.processes[p];
        let id = worker.job.run;
        let run = process.engine.run(id).expect("it was just found");
        let is_halted = run.is_halted() || process.halted.contains(&id);
        assert!(!is_halted, "a task of run {id} started after the run was halted");
        let due = process.retry_due.get(&(id, worker.job.task)).copied();
        assert!(due.is_none_or(|due| worker.since >= due), "a task of run {id} was tried again too early");
        let (task, workflow) = (worker.job.task as usize, Arc::clone(&run.workflow));
        if workflow.tasks[task].on_interrupt == OnInterrupt::Fail {
            let version = self.store.state().run(id).map(|kept| Arc::clone(&kept.version));
            self.witness.seen(id).is_changed |= version.is_none_or(|version| version != workflow.version);
            self.witness.made_once(id, &worker.task, worker.job);
        }
        let process = &self.processes[p];
        if process.is_zombie {
            return;
        }
        let run = process.engine.run(id).expect("it was just found");
        let store = self.store.state();
        let kept =
            store.run(id).unwrap_or_else(|| panic!("a task of run {id} started before the run was kept"));
        for other in self.processes.iter().filter(|other| !other.is_zombie) {
            let is_beside = |other: &&Worker| {
                let is_of_task = other.job.run == id && other.task == worker.task;
                is_of_task && matches!(other.stage, Stage::Body | Stage::Deferred)
            };
            let beside = other.workers.iter().find(is_beside).map(|other| other.job);
            assert!(beside.is_none(), "{:?} begins beside {beside:?}, whose body still runs", worker.job);
        }
        assert_eq!(kept.owner, process.epoch, "a task of run {id} started, which is another's");
        self.has_seats(&store, process, worker);
        let record = kept.tasks.iter().find(|record| record.name == worker.task);
        let left = record.and_then(|record| record.checkpoint.clone());
        let given = run.checkpointed(worker.job.task as usize);
        assert_eq!(given, left, "task {} of run {id} begins with what was left for it", worker.task);
        let (now_ns, wall, clock) = (self.time_ns, self.wall(), self.wall_shifts);
        let seen = self.witness.seen(id);
        if let Some(wish) = seen.wishes.remove(&worker.task).filter(|wish| wish.clock == clock) {
            let is_due = wall >= wish.until || Duration::from_nanos(now_ns - wish.since_ns) >= wish.span;
            assert!(is_due, "task {} of run {id} asked for {wish:?}, and began at {wall:?}", worker.task);
        }
        seen.is_changed |= *kept.version != *run.workflow.version;
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
            let others = store.unfinished.iter().map(|&row| &store.runs[row.0 as usize - 1]);
            let beside = others.filter(|other| {
                // What is opened again waits also for what was to wait for nothing.
                let counts = other.waits || kept.is_again && other.place < kept.place;
                other.new.schedule == Some(schedule)
                    && other.new.id != id
                    && counts
                    && self.witness.has_begun(other)
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
        let Worker { job, told_at, is_given_up, .. } = worker;
        let is_lost = !self.is_calm && self.random.percent(self.scenario.body_lost_percent);
        let wish = if is_lost { None } else { self.wish() };
        let has_failed = is_lost || wish.is_some() || self.random.percent(self.scenario.body_failure_percent);
        let ended = match wish {
            _ if is_lost => Ended::Lost { text: "its place died".to_owned(), deaths_max: 2 },
            Some(delay) => Ended::Postponed {
                delay,
                failure: Failure::raised("RetryAfter", "RetryAfter: later".to_owned(), None),
                pause: None,
            },
            None if has_failed => {
                Ended::Failure(Failure::raised("ValueError", "ValueError: boom".to_owned(), None))
            }
            None => Ended::Success(marked(&worker.input, &worker.task, job.attempt)),
        };
        let status = if has_failed { TaskStatus::Failed } else { TaskStatus::Completed };
        let run = self.processes[p].engine.run(job.run);
        let spec = run.and_then(|run| run.workflow.tasks.get(job.task as usize)).cloned();
        let has_callback = spec.as_ref().is_some_and(|spec| spec.has_failure_callback);
        if !has_failed && !is_given_up {
            self.witness.seen(job.run).successes.insert((Arc::clone(&worker.task), job.attempt));
        }
        // What a body wishes that is over its time counts as little as what it leaves.
        let run = self.processes[p].engine.run(job.run);
        let is_over_time = run.is_some_and(|run| run.is_over_time(job.task as usize, job.attempt));
        let wish = wish.filter(|_| !is_over_time);
        let is_lost = is_lost && !is_over_time;
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
                self.witness.seen(job.run).over.insert((Arc::clone(&worker.task), job.attempt));
                let store = self.store.state();
                let record = store.run(job.run).and_then(|kept| {
                    kept.tasks
                        .iter()
                        .find(|record| record.name == worker.task)
                        .map(|record| record.interrupted + record.postponed)
                });
                // Of a run that others have by now more may be on record than who is taken for dead knows.
                let counted = job.attempt.saturating_sub(record.unwrap_or(0)).max(1);
                drop(store);
                let wait = match wish {
                    Some(wish) => wish,
                    // Later after each further death of its place.
                    None if is_lost => Duration::from_millis(100),
                    None => spec.expect("it is tried again").retry.delay(counted, 0.0),
                };
                let due = self.now(p).mono.after(wait);
                if let Some(span) = wish {
                    let (until, since_ns) = (self.wall().after(span), self.time_ns);
                    let wish = Postponed { until, span, since_ns, clock: self.wall_shifts };
                    self.witness
                        .seen(job.run)
                        .wished
                        .insert((Arc::clone(&worker.task), job.attempt + 1), wish);
                }
                self.processes[p].retry_due.insert((job.run, job.task), due);
            }
            Ruling::Stale => {
                let is_gone = told_at.is_some() || is_given_up || process.engine.run(job.run).is_none();
                assert!(is_gone, "the outcome of {job:?} was discarded, which nobody had given up");
            }
        }
        true
    }

    /// A body that waited goes on, if somebody waits for it still.
    fn goes_on(&self, p: usize, job: Job) {
        let process = &self.processes[p];
        let worker = process.workers.iter().find(|worker| worker.job == job).expect("it has just gone on");
        let counts = |run: &Run| {
            let task = job.task as usize;
            run.life == job.life && run.expects(task, job.attempt) && !run.is_told(task)
        };
        if !process.is_zombie && !worker.is_given_up && process.engine.run(job.run).is_some_and(counts) {
            self.has_seats(&self.store.state(), process, worker);
        }
    }

    /// Whoever is in a body under limits has a seat of each, and they are no more than there may be.
    fn has_seats(&self, store: &State, process: &Process, worker: &Worker) {
        let job = worker.job;
        let run = process.engine.run(job.run).expect("it is in hand");
        for limit in &run.workflow.tasks[job.task as usize].limits {
            let seat = Seat { run: run.row, task: Arc::clone(&worker.task), attempt: job.attempt };
            assert!(store.seats.has(&limit.name, &seat), "{job:?} is in its body without a seat");
            let most = limit.terms.concurrency.unwrap_or(u64::MAX);
            assert!(store.seats.taken(&limit.name) as u64 <= most, "{} is exceeded", limit.name);
        }
    }

    /// How long a body asks not to be called, if it does.
    fn wish(&mut self) -> Option<Duration> {
        let wishes = !self.is_calm && self.random.percent(self.scenario.body_postpones_percent);
        wishes.then(|| Duration::from_millis(self.random.pick(&[0, 20, 700, 7000])))
    }

    fn attempt_ended(&mut self, p: usize, job: Job, ended: Ended, has_callback: bool) -> Ruling {
        let now = self.now(p);
        let mut effects = Effects::default();
        let ruling = self.processes[p].engine.attempt_ended(job, ended, has_callback, now, &mut effects);
        self.carry_out(p, effects);
        ruling
    }

    /// A body waits for its condition without a place, or goes on with one.
    pub fn defer(&mut self, p: usize) -> bool {
        if let Some(index) = self.draw_waiting(p) {
            let job = self.processes[p].workers[index].job;
            match self.processes[p].seatless.insert(job, true) {
                None => drop(self.processes[p].seatless.remove(&job)),
                Some(true) => return false,
                Some(false) => {
                    self.step(p, Event::WantsSeats(job));
                    return true;
                }
            }
            let is_free = self.processes[p].permits_taken() < self.scenario.permits_max;
            if is_free {
                let since = self.now(p).mono;
                let worker = &mut self.processes[p].workers[index];
                (worker.stage, worker.since, worker.awaits) = (Stage::Body, since, None);
                let job = worker.job;
                self.step(p, Event::Deferred(job, false));
                self.goes_on(p, job);
            }
            return is_free;
        }
        if self.is_calm {
            return false;
        }
        let Some(index) = self.draw_worker(p, Stage::Body) else { return false };
        let worker = &mut self.processes[p].workers[index];
        worker.stage = Stage::Deferred;
        let job = worker.job;
        if self.random.percent(30) {
            // Its answer comes when the seats that it speaks of may have been given back.
            self.look_for_seats(p);
        }
        self.step(p, Event::Deferred(job, true));
        // Its condition may hold at once.
        if self.processes[p].seatless.contains_key(&job) && self.random.percent(50) {
            self.processes[p].seatless.insert(job, true);
            self.step(p, Event::WantsSeats(job));
        }
        true
    }

    /// A body leaves something for the next attempt of its task, whether or not somebody waits for it.
    pub fn leave_checkpoint(&mut self, p: usize) -> bool {
        let Some(index) = self.draw_worker(p, Stage::Body) else { return false };
        let Worker { job, is_given_up, .. } = self.processes[p].workers[index];
        self.witness.checkpoints += 1;
        let value = self.witness.checkpoints.to_string().into();
        let mut effects = Effects::default();
        let number = self.processes[p].engine.checkpoint(job, value, &mut effects);
        assert!(!(is_given_up && number.is_some()), "{job:?} was given up, and its checkpoint taken");
        self.carry_out(p, effects);
        true
    }

    /// A place stops a body that was told to end before that has begun.
    pub fn stop_body(&mut self, p: usize) -> bool {
        let is_told = |worker: &Worker| worker.stage == Stage::Body && worker.told_at.is_some();
        let workers = self.processes[p].workers.iter().enumerate();
        let told: Vec<usize> =
            workers.filter(|(_, worker)| is_told(worker)).map(|(index, _)| index).collect();
        if told.is_empty() {
            return false;
        }
        let index = self.random.pick(&told);
        let Worker { job, task, is_given_up, .. } = self.processes[p].workers.swap_remove(index);
        self.note(|| format!("{p}: {job:?} was stopped, late {is_given_up}"));
        if !is_given_up {
            self.witness.seen(job.run).over.insert((task, job.attempt));
        }
        self.step(p, Event::Stopped(job));
        let is_awaited = self.processes[p].engine.expects(job);
        assert!(!is_awaited, "{job:?} was stopped, and is still waited for");
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

    /// One whose body waits for nothing any more, or is to end.
    fn draw_waiting(&mut self, p: usize) -> Option<usize> {
        let may_go_on = |worker: &Worker| {
            let is_told = worker.told_at.is_some() || worker.is_given_up;
            worker.stage == Stage::Deferred && (is_told || worker.awaits.is_none())
        };
        let workers = self.processes[p].workers.iter().enumerate();
        let found: Vec<usize> =
            workers.filter(|(_, worker)| may_go_on(worker)).map(|(index, _)| index).collect();
        (!found.is_empty()).then(|| self.random.pick(&found))
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
        let settings = &self.scenario.settings;
        let most = settings.task_timeout.max(Duration::from_millis(700)) + TIMER_TICK;
        let grace = settings.timeout_grace + TIMER_TICK;
        for worker in
            process.workers.iter().filter(|worker| worker.stage == Stage::Body && !worker.is_given_up)
        {
            let is_ours = process.engine.run(worker.job.run).is_some();
            if let Some(told_at) = worker.told_at {
                let took = now.mono.since(told_at);
                assert!(
                    took <= grace || !is_ours,
                    "{:?} is to end for {took:?} and not given up",
                    worker.job
                );
                continue;
            }
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
