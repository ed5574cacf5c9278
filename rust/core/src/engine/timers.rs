//! Timers of runs and attempts: which are armed, and what follows when one goes off.
//! Invariant: an armed timer has one purpose, and what is over has none armed.

use std::sync::Arc;

use uuid::Uuid;

use crate::engine::{Effects, Engine, Job, Note};
use crate::port::RunStatus;
use crate::run::Ruling;
use crate::time::{Mono, Now};

#[derive(Debug, Clone, Copy)]
pub(super) enum Timer {
    Retry(Uuid, usize, u32),
    CallbackTimeout(Job),
    TaskTimeout(Job),
    RunTimeout(Uuid),
}

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
                    let timeout = self.settings.task_timeout;
                    let names = self.run_of(job).map(|run| {
                        (
                            Arc::clone(&run.workflow.name),
                            Arc::clone(&run.workflow.tasks[job.task as usize].id),
                        )
                    });
                    let ruling = self.give_up(job, &format!("timed out after {timeout:?}"), now, out);
                    if let Some((workflow, task)) = names.filter(|_| ruling != Ruling::Stale) {
                        let (run, attempt, is_last) = (job.run, job.attempt, ruling == Ruling::Final);
                        out.logs.push(Note::TaskTimedOut { run, workflow, task, attempt, timeout, is_last });
                    }
                }
                Timer::RunTimeout(id) => {
                    self.run_timer.remove(&id);
                    let timeout = self.settings.workflow_timeout;
                    if self.runs.contains_key(&id) {
                        out.logs.push(Note::RunTimedOut { run: id, workflow: self.workflow_of(id), timeout });
                    }
                    let text = format!("workflow timed out after {timeout:?}");
                    self.halt(id, RunStatus::Failed, &text, now, out);
                }
            }
        }
        self.record_beginnings(now.mono, out);
        for row in self.crons.due(now.wall) {
            self.cron_due(row, now, out);
        }
    }

    /// A run's time begins with its first body here: neither in line nor while it waits for a slot does it pass.
    pub(super) fn arm_run(&mut self, id: Uuid, now: Mono) {
        if self.run_timer.contains_key(&id) {
            return;
        }
        let timer = self.arm(now.after(self.settings.workflow_timeout), Timer::RunTimeout(id));
        self.run_timer.insert(id, timer);
    }

    pub(super) fn arm_job(&mut self, job: Job, now: Mono) {
        self.disarm_job(job);
        let timer = self.arm(now.after(self.settings.task_timeout), Timer::TaskTimeout(job));
        self.job_timer.insert(job, timer);
    }

    /// A callback has as long as a body; a run must not wait for one that hangs.
    pub(super) fn arm_callback(&mut self, job: Job, now: Mono) {
        self.disarm_job(job);
        let timer = self.arm(now.after(self.settings.task_timeout), Timer::CallbackTimeout(job));
        self.job_timer.insert(job, timer);
    }

    pub(super) fn disarm_job(&mut self, job: Job) {
        if let Some(timer) = self.job_timer.remove(&job) {
            self.disarm(timer);
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
