//! Judges the fires of a poll.
//! Invariant: every fire becomes a run or a reason in the tick's history.

use std::sync::Arc;

use crate::admit::{Admission, Overlap};
use crate::engine::hands::by_hand;
use crate::engine::line::Turn;
use crate::engine::{Declared, Effects, Engine, Fire, Note, Polled, Request, Then};
use crate::port::{Change, NewRun, Outcome, Stretch, TickChange};
use crate::time::Now;

impl Engine {
    pub(super) fn polled(&mut self, mut polled: Polled, now: Now, out: &mut Effects) {
        let Some(declared) = self.declared_in(polled.slot).cloned() else { return };
        let fires = std::mem::take(&mut polled.fires);
        let mut verdict = Verdict::of(&polled.reason);
        self.counts.fires += fires.len() as u64;
        let mut runs = Vec::with_capacity(fires.len());
        for fire in fires {
            match self.admit(&declared, polled.schedule, fire, now) {
                Ok(run) => runs.push(run),
                Err(refusal) => verdict = refusal,
            }
        }
        if !runs.is_empty() && verdict.outcome != Outcome::Error {
            verdict = Verdict { outcome: Outcome::Fire, reason: String::new(), note: None };
        }
        if verdict.outcome == Outcome::Error {
            self.counts.errors += 1;
            out.logs.extend(verdict.note.take());
        }
        if let Some(cause) = &polled.disable {
            let trigger = Arc::clone(&declared.row.name);
            out.logs.push(Note::TriggerDisabled { trigger, cause: cause.as_str().into() });
        }
        self.send_tick(polled, verdict, runs, out);
    }

    pub(super) fn admit(
        &mut self,
        trigger: &Declared,
        schedule: i64,
        fire: Fire,
        now: Now,
    ) -> Result<NewRun, Verdict> {
        let Declared { row, overlap } = trigger;
        let Some(workflow) = self.workflows.get(&row.workflow).cloned() else {
            return Err(Verdict::refused(self.unknown_workflow(&row.name, &row.workflow)));
        };
        let guard = (!row.allow_concurrent).then_some(fire.hash);
        let drop = |reason| Verdict { outcome: Outcome::Skip, reason, note: None };
        let refusal = match self.gate.admit(schedule, guard, *overlap) {
            Admission::Run => None,
            Admission::Duplicate { of } => {
                self.counts.deduplicated += 1;
                Some(format!("deduplicated: run {of} with an equal context is unfinished"))
            }
            Admission::Overlaps { with } => Some(format!("overlap: run {with} is unfinished")),
            Admission::QueueFull => Some("overlap: the queue is full".to_owned()),
        };
        if let Some(reason) = refusal {
            return Err(drop(reason));
        }
        let id = self.new_id(now.wall);
        self.gate.hold(schedule, guard, id);
        if overlap.waits() {
            self.turns
                .insert(id, Turn { kept: false, cancels: *overlap == Overlap::CancelRunning, resumed: None });
        }
        self.take_new(id, &workflow, &fire.context, now);
        let request = Request { id, context: fire.context, run_key: None };
        Ok(NewRun {
            schedule: Some(schedule),
            context_hash: Some(fire.hash),
            unique_hash: guard.is_some(),
            run_key: fire.run_key,
            waits: overlap.waits(),
            ..by_hand(&workflow, &request, now.wall)
        })
    }

    pub(super) fn send_tick(&self, polled: Polled, verdict: Verdict, fires: Vec<NewRun>, out: &mut Effects) {
        let Polled { slot, schedule, at, duration_us, cursor, mut history, disable, wait, .. } = polled;
        let wait_us = wait.map(|wait| i64::try_from(wait.as_micros()).unwrap_or(i64::MAX));
        history.push(Stretch {
            schedule,
            outcome: verdict.outcome,
            reason: verdict.reason.into(),
            count: 1,
            first_at: at,
            last_at: at,
            min_us: duration_us,
            max_us: duration_us,
            sum_us: duration_us,
        });
        let runs = fires.iter().map(|run| run.id).collect();
        let disables = disable.is_some().then_some(schedule);
        let then = Then::Tick { slot, runs, cursor: cursor.clone(), at, disables };
        let change = TickChange { schedule, epoch: self.epoch, cursor, at, fires, history, disable, wait_us };
        out.commits.push((Change::Tick(change), then));
    }

    pub(super) fn unknown_workflow(&self, by: &str, workflow: &str) -> Note {
        Note::UnknownWorkflow { by: by.into(), workflow: workflow.into(), known: self.workflow_names() }
    }
}

/// What a tick's row in the history says.
pub(super) struct Verdict {
    pub outcome: Outcome,
    pub reason: String,
    /// Who called the body has logged what it raised, with its traceback; what the engine refused is logged here.
    pub note: Option<Note>,
}

impl Verdict {
    fn of(reason: &Result<String, String>) -> Self {
        match reason {
            Ok(reason) => Self { outcome: Outcome::Skip, reason: reason.clone(), note: None },
            Err(error) => Self::error(error.clone()),
        }
    }

    fn error(reason: String) -> Self {
        Self { outcome: Outcome::Error, reason, note: None }
    }

    fn refused(note: Note) -> Self {
        Self { outcome: Outcome::Error, reason: note.to_string(), note: Some(note) }
    }
}
