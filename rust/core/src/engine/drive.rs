//! Drives the runs in hand: attempts, what follows from them, cancels and ends.
//! Invariant: records go to the store first, and what they allow follows from the receipt.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::engine::line::Turn;
use crate::engine::timers::Timer;
use crate::engine::{BEGINNING_SHOWN, Effects, Engine, Job, Note, Ready, Then};
use crate::port::{Change, RunChange, RunEnd, RunStatus, TryOutcome};
use crate::run::{At, CANCELLED, Ended, Looked, Progress, Ruling, Run, Told};
use crate::seat::{Kind, Pause, Until};
use crate::time::{Mono, Now, Wall};
use crate::urgency::Rank;

/// What a run's acknowledged records allow.
pub(super) struct Follows {
    pub jobs: Vec<usize>,
    pub looks: Vec<At>,
    pub delayed: Vec<(usize, Mono)>,
    pub end: Option<RunEnd>,
}

impl Engine {
    /// Rules on an attempt's end and keeps what follows. After [`Ruling::Final`] the caller tells the callback, if `has_callback`,
    /// and then sends [`Event::Settled`](crate::engine::Event::Settled); without one the task is settled here.
    pub fn attempt_ended(
        &mut self,
        job: Job,
        ended: Ended,
        has_callback: bool,
        now: Now,
        out: &mut Effects,
    ) -> Ruling {
        self.overdue_home(job, now, out);
        let random = self.next_random();
        let Some(run) = self.run_of(job) else { return Ruling::Stale };
        let pause = pause_of(run, job, &ended, now);
        let outcome = run.outcome(job.task as usize, job.attempt, &ended);
        let is_over_time =
            outcome == TryOutcome::TimedOut && run.is_over_time(job.task as usize, job.attempt);
        let began = run.began_at(job.task as usize);
        let (ruling, progress) = run.attempt_ended(job.task as usize, job.attempt, ended, random, now);
        if ruling == Ruling::Stale {
            return ruling;
        }
        if let Some(pause) = pause {
            self.hold_up(pause, out);
        }
        self.count_attempt(job, outcome, began, ruling, now);
        self.disarm_job(job);
        self.unseat(job, now, out);
        self.forget_beginning(job);
        self.follow(job.run, progress, now, out);
        match ruling {
            Ruling::Final if is_over_time => {
                // Who reports a success must not tell of one.
                self.tell_failure(job, now, out);
                return Ruling::Stale;
            }
            Ruling::Final if has_callback => self.arm_callback(job, now.mono),
            Ruling::Final => self.settled(job, now, out),
            Ruling::Retry | Ruling::Stale => {}
        }
        ruling
    }

    pub(super) fn count_attempt(
        &mut self,
        job: Job,
        outcome: TryOutcome,
        began: (Option<Wall>, Option<Wall>),
        ruling: Ruling,
        now: Now,
    ) {
        let Some(slots) = self.runs.get(&job.run).and_then(|run| run.slots.as_ref()) else { return };
        let counts = self.meter.task(slots, job.task as usize);
        // It is kept as failed: nothing is to come after it.
        let is_over = outcome == TryOutcome::Postponed && ruling == Ruling::Final;
        let outcome = if is_over { TryOutcome::Failed } else { outcome };
        counts.outcomes[outcome as usize] += 1;
        counts.retries += u64::from(ruling == Ruling::Retry && outcome != TryOutcome::Postponed);
        if let Some(began_at) = began.0 {
            counts.attempts.add(us_between(began_at, now.wall));
        }
        if let Some(began_at) = began.1.filter(|_| ruling == Ruling::Final) {
            counts.tasks.add(us_between(began_at, now.wall));
        }
    }

    pub(super) fn taken(&mut self, job: Job, now: Now, out: &mut Effects) {
        if job.callback_only {
            if self.run_of(job).is_some() {
                self.arm_callback(job, now.mono);
            }
            return;
        }
        let Some(run) = self.run_of(job) else { return };
        let task = job.task as usize;
        if !run.expects(task, job.attempt) {
            return;
        }
        if !run.workflow.tasks[task].limits.is_empty() && self.lacks_seats(job, now, out) {
            return;
        }
        let Some(run) = self.run_of(job) else { return };
        let waited = run.waits_for_first(now.wall).zip(run.slots.clone());
        let (row, begun) = (run.row, run.started(task, now));
        let executor = run.workflow.tasks[task].executor;
        if let Some((us, slots)) = waited {
            self.meter.run(&slots).wait.add(us);
        }
        self.arm_run(job.run, now.mono);
        match begun {
            None => {
                if job.attempt == 1 {
                    self.begun.push_back((now.mono.after(BEGINNING_SHOWN), job));
                }
                self.arm_job(job, now.mono);
            }
            Some(record) => {
                let change = RunChange { run: row, epoch: self.epoch, tasks: vec![record], end: None };
                let Job { run, life, attempt, .. } = job;
                out.commits
                    .push((Change::Run(change), Then::Recorded { run, life, task, attempt, executor }));
            }
        }
    }

    /// What is over before its beginning had to be on record wakes nobody for that. Those that ended out of turn wait for theirs.
    fn forget_beginning(&mut self, job: Job) {
        if self.begun.front().is_some_and(|&(_, first)| first == job) {
            self.begun.pop_front();
        }
    }

    /// Puts those attempts on record that were to be by `until` and still run.
    pub(super) fn record_beginnings(&mut self, until: Mono, out: &mut Effects) {
        while let Some(&(due, job)) = self.begun.front()
            && due <= until
        {
            self.begun.pop_front();
            let epoch = self.epoch;
            let Some(run) = self.run_of(job) else { continue };
            if let Some(record) = run.beginning(job.task as usize, job.attempt) {
                let change = RunChange { run: run.row, epoch, tasks: vec![record], end: None };
                out.commits.push((Change::Run(change), Then::Begun));
                self.begun_unkept += 1;
            }
        }
    }

    /// Takes an attempt's checkpoint and returns its number; none if nobody waits for that attempt.
    pub fn checkpoint(&mut self, job: Job, value: Arc<str>, out: &mut Effects) -> Option<u64> {
        let (epoch, task) = (self.epoch, job.task as usize);
        let run = self.run_of(job)?;
        let (number, record) = run.checkpoint(task, job.attempt, value)?;
        let change = RunChange { run: run.row, epoch, tasks: vec![record], end: None };
        let then = Then::Checkpointed { run: job.run, life: job.life, task, number };
        out.commits.push((Change::Run(change), then));
        Some(number)
    }

    fn interrupted_of(&mut self, job: Job, now: Now) -> Option<RunChange> {
        let epoch = self.epoch;
        let run = self.run_of(job)?;
        let record = run.interrupted(job.task as usize, job.attempt, now.wall)?;
        Some(RunChange { run: run.row, epoch, tasks: vec![record], end: None })
    }

    /// Nothing is ruled: whoever goes on with the run begins the next attempt.
    pub(super) fn interrupted(&mut self, job: Job, now: Now, out: &mut Effects) {
        self.overdue_home(job, now, out);
        self.disarm_job(job);
        self.unseat(job, now, out);
        let began = self.run_of(job).map_or((None, None), |run| run.began_at(job.task as usize));
        if let Some(change) = self.interrupted_of(job, now) {
            self.count_attempt(job, TryOutcome::Interrupted, began, Ruling::Stale, now);
            out.commits.push((Change::Run(change), Then::Nothing));
        }
    }

    /// Whoever goes on with what is in hand must not give a number twice.
    pub(super) fn leaving(&mut self, in_flight: &[Job], now: Now, out: &mut Effects) {
        self.record_beginnings(Mono(u64::MAX), out);
        self.unseat_idle(in_flight, now, out);
        let told: HashSet<(Uuid, usize)> = in_flight.iter().map(|job| (job.run, job.task as usize)).collect();
        for run in self.runs.values_mut() {
            let id = run.id;
            let tasks = run.left(|task| told.contains(&(id, task)), now.wall);
            if !tasks.is_empty() {
                let change = RunChange { run: run.row, epoch: self.epoch, tasks, end: None };
                out.commits.push((Change::Run(change), Then::Nothing));
            }
        }
    }

    pub(super) fn settled(&mut self, job: Job, now: Now, out: &mut Effects) {
        self.disarm_job(job);
        let Some(run) = self.run_of(job) else { return };
        let progress = run.settle(job.task as usize, now.wall);
        self.follow(job.run, progress, now, out);
    }

    pub(super) fn looked(&mut self, looked: &Looked, now: Now, out: &mut Effects) {
        let run = self.runs.get_mut(&looked.run).filter(|run| run.life == looked.life);
        let Some(run) = run else { return };
        let progress = run.looked(looked, now.wall);
        self.follow(looked.run, progress, now, out);
    }

    /// Ends a run on somebody's wish, whether it has begun, waits for its turn, or for its workflow.
    pub(super) fn cancel(&mut self, id: Uuid, now: Now, out: &mut Effects) {
        if self.runs.contains_key(&id) {
            let is_kept = self.turns.get(&id).is_some_and(|turn| turn.kept);
            let turn = if is_kept { self.turns.remove(&id) } else { None };
            let begins = match turn {
                None => false,
                Some(Turn { resumed: None, .. }) => true,
                Some(Turn { resumed: Some(mut progress), .. }) => {
                    // It had come to its end when it was taken over, but that is on no record.
                    if let Some(end) = &mut progress.end {
                        (end.status, end.error) = (RunStatus::Cancelled, Some(CANCELLED.to_owned()));
                        end.error_type = None;
                    }
                    self.follow(id, progress, now, out);
                    false
                }
            };
            self.halt(id, RunStatus::Cancelled, CANCELLED, now, out);
            if begins {
                self.begin(id, now, out);
            }
            return;
        }
        if self.others.contains(&id) {
            out.cancels.push(id);
            return;
        }
        let waiting = self.waiting.values_mut().find_map(|runs| {
            let place = runs.iter().position(|run| run.id == id)?;
            Some(runs.swap_remove(place))
        });
        if let Some(run) = waiting {
            let error = Some(CANCELLED.to_owned());
            let context = run.context.into();
            let (status, completed_at) = (RunStatus::Cancelled, now.wall);
            let end = RunEnd { status, context, error, error_type: None, completed_at };
            let tasks = Vec::new();
            let change = RunChange { run: run.row, epoch: self.epoch, tasks, end: Some(end.clone()) };
            let then = Then::Forgotten { run: id, created_at: run.created_at, end };
            out.commits.push((Change::Run(change), then));
        }
    }

    pub(super) fn halt(&mut self, id: Uuid, status: RunStatus, cause: &str, now: Now, out: &mut Effects) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let life = run.life;
        let (progress, active) = run.halt(status, cause, now.wall);
        self.follow(id, progress, now, out);
        // What has not begun never will.
        self.unseat_run(id, |engine, job| engine.expects(job), now, out);
        for (task, attempt) in active {
            let job = Job { run: id, task: task as u32, attempt, life, callback_only: false };
            let told = match status {
                RunStatus::Failed => Told::TimedOut(cause.to_owned()),
                _ => Told::Cancelled,
            };
            self.tell(job, told, None, now, out);
        }
    }

    /// Sends what a run's step asks for on its way: records first, jobs once they are kept.
    pub(super) fn follow(&mut self, id: Uuid, progress: Progress, now: Now, out: &mut Effects) {
        if self.runs.get(&id).is_some_and(|run| run.counts == run.rests()) {
            self.recount(id, out);
        }
        let Progress { records, jobs, mut looks, callbacks, delayed, end } = progress;
        for task in callbacks {
            out.jobs.push(self.placed(self.job(id, task, true)));
        }
        let delayed: Vec<(usize, Mono)> =
            delayed.into_iter().map(|(task, delay)| (task, now.mono.after(delay))).collect();
        if records.is_empty() && end.is_none() {
            out.jobs.extend(jobs.into_iter().map(|task| self.placed(self.job(id, task, false))));
            out.looks.extend(looks.into_iter().map(|at| self.runs[&id].look(at)));
            return self.arm_delayed(id, delayed);
        }
        let run = &self.runs[&id];
        // The end is written after these records anyway, and who shuts down waits for looks, but not for commits.
        let ends = looks.extract_if(.., |at| *at == At::End);
        out.looks.extend(ends.map(|at| run.look(at)));
        let (run, life) = (run.row, run.life);
        let change = RunChange { run, epoch: self.epoch, tasks: records, end: end.clone() };
        out.commits.push((Change::Run(change), Then::Progress { run: id, life, jobs, looks, delayed, end }));
    }

    /// Runs have ended by being asked to while nobody drove them; whoever asked counts them.
    pub fn count_cancelled(&mut self, runs: Vec<(String, Wall)>, at: Wall) {
        for (workflow, created_at) in runs {
            let took_us = self.count_end(RunStatus::Cancelled, created_at, at);
            self.meter.run_of(&workflow.into()).ended(RunStatus::Cancelled, took_us);
        }
    }

    /// Returns how long the run took, from its commit on.
    fn count_end(&mut self, status: RunStatus, created_at: Wall, completed_at: Wall) -> u64 {
        match status {
            RunStatus::Completed => self.counts.completed += 1,
            RunStatus::Cancelled => self.counts.cancelled += 1,
            _ => self.counts.failed += 1,
        }
        let took_us = u64::try_from(completed_at.0 - created_at.0).unwrap_or(0);
        self.counts.run_sum_us += took_us;
        self.counts.run_max_us = self.counts.run_max_us.max(took_us);
        took_us
    }

    pub(super) fn kept(&mut self, id: Uuid, follows: Follows, now: Now, out: &mut Effects) {
        let Some(run) = self.runs.get(&id) else { return };
        let slots = follows.end.as_ref().and_then(|_| run.slots.clone());
        let workflow = end_of_interest(&follows, self.tells_debug).then(|| Arc::clone(&run.workflow.name));
        let created_at = run.created_at;
        let Follows { jobs, looks, delayed, end } = follows;
        out.looks.extend(looks.into_iter().map(|at| run.look(at)));

        // Only now: an attempt must not begin before the record that tells its number.
        self.arm_delayed(id, delayed);
        out.jobs.extend(jobs.into_iter().map(|task| self.placed(self.job(id, task, false))));
        if let Some(end) = end {
            let took_us = self.count_end(end.status, created_at, end.completed_at);
            if let Some(slots) = slots {
                self.meter.run(&slots).ended(end.status, took_us);
            }
            out.logs.extend(workflow.map(|workflow| note_of(id, workflow, &end, took_us)));
            out.ended.push((id, created_at, end));
            self.drop_run(id, now, out);
        }
    }

    fn arm_delayed(&mut self, id: Uuid, delayed: Vec<(usize, Mono)>) {
        let life = self.runs[&id].life;
        for (task, due) in delayed {
            self.arm(due, Timer::Retry(id, task, life));
        }
    }

    /// A job of a run in hand with where it runs, and before and after what.
    pub(super) fn placed(&self, job: Job) -> Ready {
        let run = &self.runs[&job.run];
        let executor = run.workflow.tasks[job.task as usize].executor;
        Ready { executor, rank: Rank::of(run.priority, run.is_child, run.has_begun), job }
    }

    pub(super) fn job(&self, id: Uuid, task: usize, callback_only: bool) -> Job {
        let run = &self.runs[&id];
        let (attempt, life) = (run.attempt(task), run.life);
        Job { run: id, task: u32::try_from(task).expect("tasks are few"), attempt, life, callback_only }
    }
}

/// The calendar may have been set meanwhile: what seems to have ended before it began took no time.
fn us_between(from: Wall, until: Wall) -> u64 {
    u64::try_from(until.0.saturating_sub(from.0)).unwrap_or(0)
}

/// What an attempt's end holds up.
fn pause_of(run: &Run, job: Job, ended: &Ended, now: Now) -> Option<Pause> {
    let Ended::Postponed { delay, pause: Some(limit), .. } = ended else { return None };
    let by = format!("task '{}' of run {}", run.workflow.tasks[job.task as usize].id, run.id);
    let until = Until::At(now.wall.after(*delay));
    Some(Pause {
        kind: Kind::Limit,
        name: Arc::clone(limit),
        key: "".into(),
        until,
        since: now.wall,
        by: by.into(),
    })
}

/// Whether the log hears of a run's end: of one that completed only who wants to know everything.
fn end_of_interest(follows: &Follows, tells_debug: bool) -> bool {
    follows.end.as_ref().is_some_and(|end| tells_debug || end.status != RunStatus::Completed)
}

fn note_of(run: Uuid, workflow: Arc<str>, end: &RunEnd, took_us: u64) -> Note {
    match end.status {
        RunStatus::Completed => Note::RunCompleted { run, workflow, took: Duration::from_micros(took_us) },
        RunStatus::Cancelled => Note::RunCancelled { run, workflow },
        _ => Note::RunFailed { run, workflow, error: end.error.clone().unwrap_or_default() },
    }
}
