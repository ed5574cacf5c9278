//! Moments of crons that are not simply run: a body decides them, or what is unfinished of their cron does.
//! Invariant: of all owners one decides a moment at a time, and it is over only with the tick that says what came of it.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::admit::Overlap;
use crate::engine::crons::{Pending, Stage};
use crate::engine::hands::by_hand;
use crate::engine::line::Turn;
use crate::engine::moments::cron_context;
use crate::engine::stuck::reason_of;
use crate::engine::{Effects, Engine, MomentDue, Note, Polled, Request, Then};
use crate::key::ScheduleKey;
use crate::port::{
    Change, CronMove, Moment, NewRun, Origin, Outcome, Receipt, Schedule, ScheduleKind, Stretch, TickChange,
    TriggerState,
};
use crate::time::{Now, Wall};

/// Before a moment that failed is tried again, if nothing else is said.
const AGAIN: Duration = Duration::from_secs(1);

impl Engine {
    /// Whether a cron's moments are decided, and do not simply run.
    pub(super) fn is_decided(&self, schedule: &Schedule) -> bool {
        overlap_of(schedule) != Overlap::Allow || self.body_of(schedule).is_some()
    }

    /// The place of the body that decides a cron's moments, if the program declares one. What a call registered is data, whatever is
    /// declared by its name.
    fn body_of(&self, schedule: &Schedule) -> Option<u32> {
        if schedule.origin == Origin::Registered {
            return None;
        }
        let place = self.place_of(&schedule.name).filter(|_| !schedule.name.is_empty())?;
        (self.by_calendar.contains(&place) && !self.withdrawn.contains(&place)).then_some(place)
    }

    /// The store has said whether this owner decides a moment.
    pub(super) fn moment_answered(
        &mut self,
        row: ScheduleKey,
        number: u64,
        receipt: Receipt,
        now: Now,
        out: &mut Effects,
    ) {
        let pending = self.crons.pending(row);
        let is_asked = pending.is_some_and(|pending| pending.stage == Stage::Asked(number));
        match (receipt, pending) {
            (Receipt::Moment(Moment::Yours(state)), Some(pending)) if is_asked => {
                self.decide(pending, state, now, out);
            }
            // Asked for once more meanwhile: that answer is on its way.
            (Receipt::Moment(Moment::Yours(_)), Some(_)) => {}
            (Receipt::Moment(Moment::Yours(_)), None) => self.leave_moment(row, out),
            (Receipt::Fenced, _) => out.is_buried = true,
            // What was read of it was older than what this owner has decided since, say.
            (Receipt::Moment(Moment::Over { next_at }), Some(pending)) if is_asked => {
                self.crons.settle(row, next_at.max(pending.next));
            }
            (Receipt::Moment(Moment::Others), _) if is_asked => self.crons.wait_for_other(row, now.wall),
            _ if is_asked => self.moment_is_others(row, now),
            _ => {}
        }
    }

    /// A moment is not decided here. Should whose it is die over that, [`Engine::look_at_left_moments`] comes back to it.
    pub(super) fn moment_is_others(&mut self, row: ScheduleKey, now: Now) {
        let next = self.crons.get(row).and_then(|state| state.follows(now.wall));
        self.crons.settle(row, next);
    }

    /// An owner is gone that may have left moments undecided.
    pub(super) fn look_at_left_moments(&mut self) {
        for row in self.crons.rows() {
            if self.crons.get(row).is_some_and(|state| self.is_decided(&state.schedule)) {
                self.crons.look_again(row);
            }
        }
    }

    /// The body in a place will not be called for the moment that it was to decide.
    pub(super) fn call_off(&mut self, place: u32, out: &mut Effects) {
        if let Some(row) = self.crons.called_in(place) {
            self.crons.settle(row, None);
            self.leave_moment(row, out);
        }
    }

    pub(super) fn leave_moment(&self, row: ScheduleKey, out: &mut Effects) {
        out.commits.push((Change::LeaveMoment { epoch: self.epoch, row }, Then::LetGo(None)));
    }

    fn decide(&mut self, pending: Pending, mut state: TriggerState, now: Now, out: &mut Effects) {
        let row = state.row;
        let Some(schedule) = self.crons.get(row).map(|state| state.schedule.clone()) else {
            // It was switched off, or is declared no more.
            self.crons.settle(row, None);
            return self.leave_moment(row, out);
        };
        self.wait_for_others(row, std::mem::take(&mut state.unfinished));
        let (moment, context) = (pending.moment, cron_context(&schedule, pending.moment));
        match self.body_of(&schedule) {
            Some(place) => {
                self.crons.set_stage(row, Stage::Called(place));
                out.moments.push(MomentDue { place, row: state, moment, context });
            }
            None => self.decide_by_overlap(&schedule, &pending, &context, now, out),
        }
    }

    fn decide_by_overlap(
        &mut self,
        schedule: &Schedule,
        pending: &Pending,
        context: &Arc<str>,
        now: Now,
        out: &mut Effects,
    ) {
        let (row, overlap) = (schedule.row, overlap_of(schedule));
        self.crons.pass(row);
        self.counts.fires += 1;
        let name: Arc<str> = schedule.name.as_str().into();
        self.meter.fired(&name).fires += 1;
        let refusal = reason_of(self.gate.admit(row, None, overlap));
        let (fires, outcome): (Vec<NewRun>, _) = match (&refusal, self.workflows.get(&*schedule.workflow)) {
            (None, Some(workflow)) => {
                let workflow = Arc::clone(workflow);
                let id = self.new_id(now.wall);
                self.gate.hold(row, None, id);
                if overlap.waits() {
                    let cancels = overlap == Overlap::CancelRunning;
                    self.turns.insert(id, Turn { kept: false, cancels, resumed: None });
                }
                let run = by_hand(&workflow, &Request::of(id, Arc::clone(context)), now.wall);
                let run = self.take_or_send(run, &workflow, now, out);
                let scheduled_at = Some(pending.moment);
                let run = NewRun { schedule: Some(row), scheduled_at, waits: overlap.waits(), ..run };
                (vec![run], Outcome::Fire)
            }
            _ => {
                self.counts.dropped += 1;
                self.meter.fired(&name).dropped += 1;
                (Vec::new(), Outcome::Skip)
            }
        };
        let ids: Vec<Uuid> = fires.iter().map(|run| run.id).collect();
        let at = now.wall;
        let told = Stretch {
            schedule: row,
            outcome,
            reason: refusal.unwrap_or_default().into(),
            count: 1,
            first_at: at,
            last_at: at,
            min_us: 0,
            max_us: 0,
            sum_us: 0,
        };
        let last_at = (!fires.is_empty()).then_some(at);
        let change = TickChange {
            schedule: row,
            epoch: self.epoch,
            cursor: None,
            cursor_set: 0,
            at,
            overlap,
            room: None,
            dropped: u64::from(fires.is_empty()),
            fires,
            held_back: 0,
            history: vec![told],
            disable: None,
            wait_us: None,
            failures: 0,
            told: None,
            cron: Some(CronMove {
                row,
                seen: pending.seen,
                next_at: pending.next,
                last_at,
                decided: Some(pending.passage),
            }),
        };
        out.commits.push((Change::Tick(change), Then::Decided(ids)));
    }

    /// The moment for which the body of a cron was called that has just answered.
    pub(super) fn called_for(&self, row: ScheduleKey) -> Option<Wall> {
        let pending = self.crons.pending(row)?;
        matches!(pending.stage, Stage::Called(_)).then_some(pending.moment)
    }

    /// What becomes of the moment that a body has decided. One that failed is tried again, until the next one is there.
    pub(super) fn moment_over(
        &mut self,
        polled: &Polled,
        has_fires: bool,
        now: Now,
        out: &mut Effects,
    ) -> CronMove {
        let row = polled.schedule;
        let pending = self.crons.pending(row).expect("who was called for a moment has it pending");
        let (next_at, decided) = (pending.next, Some(pending.passage));
        let step = CronMove { row, seen: pending.seen, next_at, last_at: None, decided };
        let state = self.crons.get(row).filter(|state| state.schedule.updated_at == pending.seen);
        if polled.reason.is_err() || polled.wait.is_some() {
            let again_at = now.wall.after(polled.wait.unwrap_or(AGAIN));
            let follows = state.and_then(|state| state.cron.next(now.wall));
            if state.is_some() && follows.is_none_or(|follows| again_at < follows) {
                self.crons.set_stage(row, Stage::Failed(again_at));
                self.crons.look_again(row);
                // Since when it was called: what the history says of that call stands beside it.
                let last_at = has_fires.then_some(polled.at);
                return CronMove { next_at: Some(pending.moment), last_at, decided: None, ..step };
            }
            // One that its function has put off itself is no failure: the history says for how long.
            if let Some(state) = state.filter(|_| polled.reason.is_err()) {
                let (cron, name) = (state.schedule.id, state.schedule.name.as_str().into());
                out.logs.push(Note::MomentGivenUp { cron, name, moment: pending.moment });
            }
        }
        self.crons.pass(row);
        CronMove { last_at: has_fires.then_some(now.wall), ..step }
    }
}

fn overlap_of(schedule: &Schedule) -> Overlap {
    match &schedule.kind {
        ScheduleKind::Cron { terms, .. } => terms.overlap,
        ScheduleKind::Trigger { .. } => Overlap::Allow,
    }
}
