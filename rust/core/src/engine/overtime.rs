//! Bodies whose time is over: told to end first, and given up if they do not.
//! Invariant: an attempt whose body still runs is followed by no other, and as soon as nobody waits for that body any more it is on record
//! until it has ended.

use std::sync::Arc;

use uuid::Uuid;

use crate::engine::{Effects, Engine, Job, Note, Then};
use crate::port::{Body, Change, RunStatus, TryOutcome};
use crate::run::{Ended, Ruling, Told};
use crate::time::Now;

impl Engine {
    /// How many bodies run for which nobody waits.
    pub fn bodies_overdue(&self) -> usize {
        self.overdue.len()
    }

    /// An attempt has taken as long as it may.
    pub(super) fn time_over(&mut self, job: Job, now: Now, out: &mut Effects) {
        let (timeout, grace) = (self.timeout_of(job), self.settings.timeout_grace);
        let Some(run) = self.run_of(job) else { return };
        let (workflow, task) =
            (Arc::clone(&run.workflow.name), Arc::clone(&run.workflow.tasks[job.task as usize].id));
        let note = Note::TaskTimedOut { run: job.run, workflow, task, attempt: job.attempt, timeout, grace };
        self.tell(job, Told::TimedOut(format!("timed out after {timeout:?}")), Some(note), now, out);
    }

    /// A run has taken as long as it may: its bodies have the same time to end as those that are over their own.
    pub(super) fn run_time_over(&mut self, id: Uuid, now: Now, out: &mut Effects) {
        if !self.runs.contains_key(&id) {
            return;
        }
        let (timeout, setting) = (self.timeout_of_run(id), self.grantor_of_time(id));
        let note = Note::RunTimedOut { run: id, workflow: self.workflow_of(id), timeout, setting };
        let (text, told) = (format!("workflow timed out after {timeout:?} ({setting})"), out.told.len());
        self.halt(id, RunStatus::Failed, &text, now, out);
        match out.told.get_mut(told) {
            // With what the first of its bodies does.
            Some((_, body)) => *body = Some(note),
            None => out.logs.push(note),
        }
    }

    /// Tells a body to end.
    pub(super) fn tell(&mut self, job: Job, told: Told, note: Option<Note>, now: Now, out: &mut Effects) {
        let Some(run) = self.run_of(job) else { return };
        if run.tell_to_end(job.task as usize, job.attempt, told) {
            out.told.push((job, note));
            self.arm_grace(job, now.mono);
            self.forgo_seats(job, now, out);
        }
    }

    /// Others may soon begin the next attempts of these, as nothing is heard of this runner: their bodies are told to end, which as many as
    /// do not know it yet hear of.
    pub(super) fn cut_off(&mut self, in_flight: Vec<Job>, now: Now, out: &mut Effects) {
        let mut bodies = 0;
        for job in in_flight {
            let Some(run) = self.run_of(job) else { continue };
            if run.tell_to_end(job.task as usize, job.attempt, Told::CutOff) {
                bodies += 1;
                out.told.push((job, None));
                self.forgo_seats(job, now, out);
            }
        }
        if bodies > 0 {
            out.logs.push(Note::CutOff { bodies });
        }
    }

    /// A body was told to end, and has not.
    pub(super) fn grace_over(&mut self, job: Job, now: Now, out: &mut Effects) {
        let (epoch, grace, place) = (self.epoch, self.settings.timeout_grace, job.task as usize);
        let Some(run) = self.run_of(job) else { return };
        let began = run.began_at(place);
        let outcome = run.stopped(place, job.attempt).map_or(TryOutcome::TimedOut, |told| told.outcome);
        let (ruling, progress) = run.overdue(place, job.attempt, grace, now.wall);
        if ruling == Ruling::Stale {
            return;
        }
        let (row, workflow) = (run.row, Arc::clone(&run.workflow.name));
        let task = Arc::clone(&run.workflow.tasks[place].id);
        let body = Body { run: row, epoch, task: Arc::clone(&task), attempt: job.attempt, at: now.wall };
        self.overdue.insert(job, body.clone());
        self.count_attempt(job, outcome, began, ruling, now);
        out.overdue.push(job);
        // Before the end of its run, from which on somebody may ask for another attempt.
        out.commits.push((Change::Overdue(body), Then::Nothing));
        out.logs.push(Note::BodyOverdue { run: job.run, workflow, task, attempt: job.attempt, grace });
        self.follow(job.run, progress, now, out);
        self.tell_failure(job, now, out);
    }

    pub(super) fn stopped(&mut self, job: Job, now: Now, out: &mut Effects) {
        let task = job.task as usize;
        let told = self.run_of(job).and_then(|run| {
            let failure = run.stopped(task, job.attempt)?;
            Some((failure, run.workflow.tasks[task].has_failure_callback))
        });
        let Some((failure, has_callback)) = told else { return self.interrupted(job, now, out) };
        let ruling = self.attempt_ended(job, Ended::Failure(failure), has_callback, now, out);
        if ruling == Ruling::Final && has_callback {
            // Nobody is at it yet: its time begins when somebody takes it.
            self.disarm_job(job);
            self.tell_failure(job, now, out);
        }
    }

    /// A task has failed by its time: its callback is told of that, whatever its body came to tell.
    pub(super) fn tell_failure(&mut self, job: Job, now: Now, out: &mut Effects) {
        let Some(run) = self.run_of(job) else { return };
        match run.workflow.tasks[job.task as usize].has_failure_callback {
            true => out.jobs.push(self.placed(Job { callback_only: true, ..job })),
            false => self.settled(job, now, out),
        }
    }

    /// A body is home that was given up, if it was.
    pub(super) fn overdue_home(&mut self, job: Job, now: Now, out: &mut Effects) {
        // Mostly there is none, and to look for it would cost each attempt.
        if self.overdue.is_empty() {
            return;
        }
        let Some(body) = self.overdue.remove(&job) else { return };
        self.unseat(job, now, out);
        let since = body.at;
        let (task, attempt) = (Arc::clone(&body.task), body.attempt);
        out.commits.push((Change::Returned(Body { at: now.wall, ..body }), Then::Nothing));
        out.logs.push(Note::BodyReturned { run: job.run, task, attempt, since });
    }
}
