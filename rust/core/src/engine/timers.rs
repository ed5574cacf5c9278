//! Timers of runs and attempts: which are armed, and what follows when one goes off.
//! Invariant: an armed timer has one purpose, and what is over has none armed.

use std::time::Duration;

use uuid::Uuid;

use crate::engine::{Effects, Engine, Job, Note, Then};
use crate::key::RunRow;
use crate::port::{Change, RunChange, Spent};
use crate::time::{Mono, Now, Wall};

#[derive(Debug, Clone, Copy)]
pub(super) enum Timer {
    Retry(Uuid, usize, u32),
    CallbackTimeout(Job),
    TaskTimeout(Job),
    /// Of a body that was told to end.
    Grace(Job),
    RunTimeout(Uuid),
    /// Of a body that waits without a permit.
    Rest(Job),
}

/// A body that has waited so long without a permit is put on record as one that waits.
const REST_RECORDED_AFTER: Duration = Duration::from_secs(5);

impl Engine {
    pub(super) fn clock(&mut self, now: Now, out: &mut Effects) {
        while let Some((timer, _)) = self.timers.pop(now.mono) {
            let payload = self.timer_of[timer as usize].take();
            self.timer_free.push(timer);
            match payload.expect("an armed timer has a purpose") {
                Timer::CallbackTimeout(job) => {
                    self.job_timer.remove(&job);
                    out.logs
                        .push(Note::CallbackGivenUp { run: job.run, workflow: self.workflow_of(job.run) });
                    out.released.push(job);
                    self.settled(job, now, out);
                }
                Timer::Retry(id, task, life) => {
                    let Some(run) = self.runs.get_mut(&id).filter(|run| run.life == life) else { continue };
                    let progress = run.delay_over(task, now.wall);
                    self.follow(id, progress, now, out);
                }
                Timer::TaskTimeout(job) => {
                    self.job_timer.remove(&job);
                    self.time_over(job, now, out);
                }
                Timer::Grace(job) => {
                    self.job_timer.remove(&job);
                    self.grace_over(job, now, out);
                }
                Timer::RunTimeout(id) => {
                    self.run_timer.remove(&id);
                    self.run_time_over(id, now, out);
                }
                Timer::Rest(job) => {
                    self.resting.remove(&job);
                    self.record_rest(job, now, out);
                }
            }
        }
        self.record_beginnings(now.mono, out);
        self.look_for_due(now, out);
        self.look_for_open_seats(now, out);
        self.look_at_pauses(now, out);
        if self.drains {
            return;
        }
        for row in self.crons.due(now.wall) {
            self.cron_due(row, now, out);
        }
    }

    /// A run's time begins with its first body: neither in line nor while that waits for a permit does it pass.
    pub(super) fn arm_run(&mut self, id: Uuid, now: Mono) {
        if !self.run_timer.contains_key(&id) {
            self.arm_run_for(id, self.timeout_of_run(id), now);
        }
    }

    /// How long a run may take: what its workflow says, or else this runner.
    pub(super) fn timeout_of_run(&self, id: Uuid) -> Duration {
        let own = self.runs.get(&id).and_then(|run| run.workflow.timeout);
        own.unwrap_or(self.settings.workflow_timeout)
    }

    /// Who says so, in words.
    pub(super) fn grantor_of_time(&self, id: Uuid) -> &'static str {
        match self.runs.get(&id).and_then(|run| run.workflow.timeout) {
            Some(_) => "timeout of the workflow",
            None => "workflow_timeout_seconds",
        }
    }

    /// The time of a run that had begun elsewhere goes on here with what is left of it.
    pub(super) fn go_on_with_time(
        &mut self,
        id: Uuid,
        run: RunRow,
        spent: Spent,
        now: Now,
        out: &mut Effects,
    ) {
        let left = spent.left(self.timeout_of_run(id));
        self.arm_run_for(id, left, now.mono);
        let left_us = i64::try_from(left.as_micros()).unwrap_or(i64::MAX);
        let change = Change::Timed { run, epoch: self.epoch, left_us, at: now.wall };
        out.commits.push((change, Then::Nothing));
    }

    fn arm_run_for(&mut self, id: Uuid, left: Duration, now: Mono) {
        let timer = self.arm(now.after(left), Timer::RunTimeout(id));
        self.run_timer.insert(id, timer);
    }

    pub(super) fn arm_job(&mut self, job: Job, now: Mono) {
        self.disarm_job(job);
        let timer = self.arm(now.after(self.timeout_of(job)), Timer::TaskTimeout(job));
        self.job_timer.insert(job, timer);
    }

    /// A callback has as long as a body; a run must not wait for one that hangs.
    pub(super) fn arm_callback(&mut self, job: Job, now: Mono) {
        self.disarm_job(job);
        let timer = self.arm(now.after(self.timeout_of(job)), Timer::CallbackTimeout(job));
        self.job_timer.insert(job, timer);
    }

    /// How long an attempt of that task may take.
    pub(super) fn timeout_of(&self, job: Job) -> Duration {
        let run = self.runs.get(&job.run);
        let own = run.and_then(|run| run.workflow.tasks.get(job.task as usize)?.timeout);
        own.unwrap_or(self.settings.task_timeout)
    }

    pub(super) fn arm_grace(&mut self, job: Job, now: Mono) {
        self.disarm_job(job);
        let timer = self.arm(now.after(self.settings.timeout_grace), Timer::Grace(job));
        self.job_timer.insert(job, timer);
    }

    /// Whether a body was told to end, and has time left for that.
    pub fn is_in_grace(&self, job: Job) -> bool {
        let timer = self.job_timer.get(&job).and_then(|&timer| self.timer_of[timer as usize]);
        matches!(timer, Some(Timer::Grace(_)))
    }

    pub(super) fn disarm_job(&mut self, job: Job) {
        // Mostly there is none, and to look for it would cost each attempt.
        if !self.paused.is_empty() {
            self.paused.remove(&job);
        }
        self.disarm_rest(job);
        if let Some(timer) = self.job_timer.remove(&job) {
            self.disarm(timer);
        }
    }

    /// A body gives its permit back, or has one again.
    pub(super) fn deferred(&mut self, job: Job, is_away: bool, now: Now, out: &mut Effects) {
        match is_away {
            true => {
                self.pause_job(job, now.mono);
                let timer = self.arm(now.mono.after(REST_RECORDED_AFTER), Timer::Rest(job));
                if let Some(timer) = self.resting.insert(job, timer) {
                    self.disarm(timer);
                }
            }
            false => {
                self.resume_job(job, now.mono);
                self.disarm_rest(job);
            }
        }
        let (epoch, task) = (self.epoch, job.task as usize);
        let Some(run) = self.run_of(job) else { return self.disarm_rest(job) };
        if !is_away && let Some(record) = run.rest_over(task, job.attempt) {
            let change = RunChange { run: run.row, epoch, tasks: vec![record], end: None };
            out.commits.push((Change::Run(change), Then::Nothing));
        }
        if let Some(run) = self.run_of(job) {
            run.deferred(task, job.attempt, is_away);
            self.recount(job.run, out);
        }
    }

    /// It waits still: from here on a death of this process is none of its fault, and who asks from outside can tell.
    fn record_rest(&mut self, job: Job, now: Now, out: &mut Effects) {
        let since = Wall(now.wall.0.saturating_sub(REST_RECORDED_AFTER.as_micros() as i64));
        let epoch = self.epoch;
        let Some(run) = self.run_of(job) else { return };
        if let Some(record) = run.rest_recorded(job.task as usize, job.attempt, since) {
            let change = RunChange { run: run.row, epoch, tasks: vec![record], end: None };
            out.commits.push((Change::Run(change), Then::Nothing));
        }
    }

    fn disarm_rest(&mut self, job: Job) {
        if !self.resting.is_empty()
            && let Some(timer) = self.resting.remove(&job)
        {
            self.disarm(timer);
        }
    }

    /// The time of an attempt stands still while it waits without a permit; not what is left to it once it was told to end.
    fn pause_job(&mut self, job: Job, now: Mono) {
        let Some(&timer) = self.job_timer.get(&job) else { return };
        let Some(purpose) = self.timer_of[timer as usize] else { return };
        if !matches!(purpose, Timer::Grace(_)) {
            let left = self.timers.due(timer).map_or(Duration::ZERO, |due| due.since(now));
            self.disarm_job(job);
            self.paused.insert(job, (purpose, left));
        }
    }

    /// It has a permit again, and what was left of its time.
    fn resume_job(&mut self, job: Job, now: Mono) {
        if let Some((purpose, left)) = self.paused.remove(&job) {
            let timer = self.arm(now.after(left), purpose);
            self.job_timer.insert(job, timer);
        }
    }

    pub(super) fn arm(&mut self, due: Mono, timer: Timer) -> u32 {
        let id = self.timer_free.pop().unwrap_or_else(|| {
            self.timer_of.push(None);
            u32::try_from(self.timer_of.len() - 1).expect("timers are fewer than 2^32")
        });
        self.timer_of[id as usize] = Some(timer);
        self.timers.arm(id, due);
        id
    }

    pub(super) fn disarm(&mut self, timer: u32) {
        self.timers.cancel(timer);
        self.timer_of[timer as usize] = None;
        self.timer_free.push(timer);
    }
}
