//! What follows when a cron is due.
//! Invariant: a moment starts at most one run, and the newest are kept where too many were missed.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::json;

use crate::cron::Cron;
use crate::engine::crons::CronState;
use crate::engine::hands::by_hand;
use crate::engine::line::Turn;
use crate::engine::{Backfilled, Effects, Engine, Note, Request, Then};
use crate::key::ScheduleKey;
use crate::past::Passage;
use crate::port::{Catchup, Change, CronMove, NewRun, Origin, Schedule, ScheduleKind};
use crate::time::{Now, Wall};
use crate::workflow::Workflow;

/// A wall clock that falls back by less is only held to the right time, as time servers do.
const CLOCK_BACK_US: i64 = 1_000_000;

/// A moment that comes later than this was missed: nobody was there for it, or the machine slept.
const ON_TIME_US: i64 = 10_000_000;
/// So many lie in that span at most: a cron has no more than one a second.
const ON_TIME_MOMENTS_MAX: usize = 11;

impl Engine {
    pub(super) fn cron(&mut self, schedule: Schedule, now: Now, out: &mut Effects) {
        let ScheduleKind::Cron { expression, timezone, next_at, .. } = &schedule.kind else { return };
        self.crons.heed_origin(&schedule);
        if !self.settings.crons_enabled || !schedule.enabled || !self.crons.runs_here(&schedule) {
            self.crons.remove(schedule.row);
            return;
        }
        if self.crons.is_old_news(&schedule) {
            out.logs.push(Note::CronOfOldRelease { cron: schedule.id, name: schedule.name.as_str().into() });
        }
        match self.crons.read(expression, timezone) {
            Ok(cron) => {
                let next = next_at.or_else(|| cron.next(now.wall));
                let row = schedule.row;
                match next {
                    Some(next) => self.crons.insert(CronState::new(schedule, cron, next, now.wall)),
                    None => drop(self.crons.remove(row)),
                }
            }
            Err(error) => {
                out.logs.push(Note::CronLeftOut { cron: schedule.called(), error: error.to_string() });
            }
        }
    }

    /// Takes notice of a clock that was put back. A clock that was ahead for a moment moved crons on to where it stood, and they would
    /// all be silent until then.
    pub(super) fn heed_clock(&mut self, now: Now, out: &mut Effects) {
        let ahead_us = now.wall.0.saturating_sub(i64::try_from(now.mono.0 / 1000).unwrap_or(i64::MAX));
        let is_back = ahead_us < self.wall_ahead_us.saturating_sub(CLOCK_BACK_US);
        let is_forward = ahead_us > self.wall_ahead_us.saturating_add(CLOCK_BACK_US);
        if is_back || ahead_us > self.wall_ahead_us {
            self.wall_ahead_us = ahead_us;
        }
        if is_back || is_forward {
            self.note_times_left(now, out);
        }
        if is_back {
            self.put_right(&self.crons.rows(), now, out);
            // What was said to be open at a time of the other clock is looked at anew, and so is how long runs are to wait.
            out.is_open = true;
            out.is_due = true;
            self.look_for_seats(now, out);
        }
    }

    /// What is left of each run's time is on record by the clock: if that jumps, who goes on with the run must not take the jump for time that
    /// has passed.
    fn note_times_left(&self, now: Now, out: &mut Effects) {
        for (id, &timer) in &self.run_timer {
            let (Some(run), Some(due)) = (self.runs.get(id), self.timers.due(timer)) else { continue };
            let left_us = i64::try_from(due.0.saturating_sub(now.mono.0) / 1000).unwrap_or(i64::MAX);
            let change = Change::Timed { run: run.row, epoch: self.epoch, left_us, at: now.wall };
            out.commits.push((change, Then::Nothing));
        }
    }

    /// Lets crons run at what follows from now where they waited for longer. Moments that have run already are refused by the store.
    pub(super) fn put_right(&mut self, rows: &[ScheduleKey], now: Now, out: &mut Effects) {
        let mut late: Vec<(Wall, Arc<str>)> = Vec::new();
        for &row in rows {
            let Some((was, step)) = self.crons.put_right(row, now.wall) else { continue };
            let waited = self.crons.get(row).filter(|state| state.next < was);
            late.extend(waited.map(|state| (was, state.schedule.called())));
            let change = Change::Start { epoch: self.epoch, runs: Vec::new(), cron: Some(step) };
            out.commits.push((change, Then::Start(Vec::new())));
        }
        let others = late.len().saturating_sub(1);
        if let Some((until, cron)) = late.into_iter().max() {
            out.logs.push(Note::ClockWasAhead { cron, until, others, now: now.wall });
        }
    }

    /// Starts a run for every moment that has come, up to the bound of catching up: the newest are kept.
    pub(super) fn cron_due(&mut self, row: ScheduleKey, now: Now, out: &mut Effects) {
        let mut state = self.crons.remove(row).expect("a due cron is known");
        if self.crons.pending(row).is_none() {
            let moment = state.next;
            let (is_left, is_over) = self.crons.leave(&mut state, moment, now.wall);
            if is_over {
                out.doubtful.push(state.schedule.id);
            }
            if is_left {
                return self.crons.insert(state);
            }
        }
        let again = self.crons.tried_again(row);
        let first = state.first_left(again.unwrap_or(state.next), now.wall);
        let ScheduleKind::Cron { terms, .. } = &state.schedule.kind else { return };
        let moments_max = usize::try_from(self.settings.catchup_max).unwrap_or(usize::MAX);
        let catchup = match state.schedule.past.may_be_behind(now.wall) {
            true => Catchup::Nothing,
            false => terms.catchup,
        };
        let (moments, has_older) = due_moments(&state.cron, first, again, now.wall, catchup, moments_max);
        let last = moments.back().copied().unwrap_or(now.wall);
        let next = state.follows(last);
        let passage = state.passage(moments.front().copied().unwrap_or(last), last);
        if has_older {
            out.logs.push(Note::CronCatchUpBounded { cron: state.schedule.called(), moments_max });
        }
        let schedule = state.schedule.clone();
        let is_known = self.workflows.contains_key(&*schedule.workflow);
        if let Some(&moment) = moments.front().filter(|_| is_known && self.is_decided(&schedule)) {
            // One after another: what is decided of the next may depend on this one.
            state.next = moment;
            let seen = schedule.updated_at;
            let number = self.crons.ask(state, moment);
            let change = Change::TakeMoment { epoch: self.epoch, row, seen, moment };
            return out.commits.push((change, Then::Moment { row, number }));
        }
        if is_known && let ScheduleKind::Cron { next_at, .. } = &mut state.schedule.kind {
            *next_at = next;
            state.schedule.past.pass(passage);
        }
        if let Some(next) = next {
            state.next = next;
            self.crons.insert(state);
        }
        self.cron_fire(&schedule, moments, passage, next, now, out);
    }

    /// Starts runs of moments that have gone by, all or none. What waits stands behind what is unfinished here.
    pub(super) fn backfill(
        &mut self,
        workflow: &Arc<Workflow>,
        schedule: ScheduleKey,
        waits: bool,
        runs: Vec<Backfilled>,
        now: Now,
        out: &mut Effects,
    ) {
        let (mut ids, mut kept) = (Vec::new(), Vec::new());
        for Backfilled { id, moment, context } in runs {
            self.gate.hold(schedule, None, id);
            if waits {
                self.turns.insert(id, Turn { kept: false, cancels: false, resumed: None });
            }
            let run = by_hand(workflow, &Request::of(id, context), now.wall);
            let run = self.take_or_send(run, workflow, now, out);
            kept.push(NewRun { schedule: Some(schedule), scheduled_at: moment, waits, ..run });
            ids.push(id);
        }
        out.commits.push((Change::Start { epoch: self.epoch, runs: kept, cron: None }, Then::Start(ids)));
    }

    /// What a call has registered before `ready_at` for workflows that no living runner declares: by the name, or else the expression and
    /// the zone, with the workflow's.
    pub fn crons_deserted(&self, ready_at: Wall) -> Vec<(String, String)> {
        let is_known = |name: &str| self.workflows.contains_key(name) || self.elsewhere.contains(name);
        let deserted = self.crons.of_others_than(is_known);
        // A declaration is told of when it is made, and whose call has just registered one has been warned.
        let is_meant = |cron: &&Schedule| cron.origin != Origin::Declared && cron.created_at < ready_at;
        let told = |cron: &Schedule| (told_as(cron), cron.workflow.clone());
        deserted.filter(is_meant).map(told).collect()
    }

    pub(super) fn cron_fire(
        &mut self,
        schedule: &Schedule,
        moments: VecDeque<Wall>,
        passage: Passage,
        next: Option<Wall>,
        now: Now,
        out: &mut Effects,
    ) {
        let workflow = self.workflows.get(&*schedule.workflow).cloned();
        let Some(workflow) = workflow else {
            // A moment is whose program can run it.
            if self.elsewhere.contains(&*schedule.workflow) {
                return;
            }
            self.counts.errors += 1;
            self.meter.fired(&schedule.name.as_str().into()).errors += 1;
            out.logs.push(self.unknown_workflow(&told_as(schedule), &schedule.workflow));
            return;
        };
        let (mut ids, mut runs) = (Vec::new(), Vec::new());
        for moment in moments {
            let id = self.new_id(now.wall);
            let context = cron_context(schedule, moment);
            let run = by_hand(&workflow, &Request::of(id, context), now.wall);
            let run = self.take_or_send(run, &workflow, now, out);
            // So that whoever is to heed it later knows that it is unfinished.
            self.gate.hold(schedule.row, None, id);
            runs.push(NewRun { schedule: Some(schedule.row), scheduled_at: Some(moment), ..run });
            ids.push(id);
        }
        let cron = Some(CronMove {
            row: schedule.row,
            seen: schedule.updated_at,
            next_at: next,
            last_at: (!runs.is_empty()).then_some(now.wall),
            decided: Some(passage),
        });
        out.commits.push((Change::Start { epoch: self.epoch, runs, cron }, Then::Start(ids)));
    }
}

/// The moments from `first` to `now` that are to run, and whether more were missed than may be made up for. The one that is tried `again` was not missed.
fn due_moments(
    cron: &Cron,
    first: Wall,
    again: Option<Wall>,
    now: Wall,
    catchup: Catchup,
    moments_max: usize,
) -> (VecDeque<Wall>, bool) {
    match catchup {
        Catchup::All if moments_max > 0 => newest_moments(cron, first, now, moments_max),
        Catchup::Last if moments_max > 0 => (newest_moments(cron, first, now, 1).0, false),
        _ => {
            let (mut moments, _) = newest_moments(cron, first, now, ON_TIME_MOMENTS_MAX);
            let newest = moments.back().copied();
            moments.retain(|&moment| match Some(moment) == again {
                // Until the next one is there.
                true => again == newest,
                false => now.0.saturating_sub(moment.0) <= ON_TIME_US,
            });
            (moments, false)
        }
    }
}

/// The newest moments from `first` to `now`, at most `moments_max`, and whether there were older ones. Looks back from `now` in growing steps: a
/// schedule of each second has a hundred million moments in three years.
fn newest_moments(cron: &Cron, first: Wall, now: Wall, moments_max: usize) -> (VecDeque<Wall>, bool) {
    let mut span_us: i64 = 60_000_000;
    loop {
        let from = Wall(now.0.saturating_sub(span_us));
        let reaches_first = from <= first;
        let mut moments = VecDeque::new();
        let mut next = if reaches_first { Some(first) } else { cron.next(from) };
        let mut count = 0_usize;
        while let Some(moment) = next.filter(|&moment| moment <= now) {
            count += 1;
            if moments.len() == moments_max {
                moments.pop_front();
            }
            moments.push_back(moment);
            next = cron.next(moment);
        }
        if reaches_first || count > moments_max {
            return (moments, count > moments_max);
        }
        span_us = span_us.saturating_mul(2);
    }
}

/// What a moment's run begins with: what was registered with the cron, and which moment it is.
pub fn cron_context(schedule: &Schedule, moment: Wall) -> Arc<str> {
    let ScheduleKind::Cron { expression, timezone, terms, .. } = &schedule.kind else {
        unreachable!("only crons have moments")
    };
    let context = json!({
        "scheduled_time": moment.rfc3339(),
        "schedule_id": schedule.id.to_string(),
        "schedule_timezone": timezone,
        "schedule_expression": expression,
    });
    let moment = context.to_string();
    // As text: what numbers a program writes is not for us to read.
    match terms.context.as_deref().and_then(|given| given.strip_suffix('}')).filter(|given| given.len() > 1) {
        Some(given) => format!("{given},{}", &moment[1..]).into(),
        None => moment.into(),
    }
}

/// What people know a cron by.
fn told_as(cron: &Schedule) -> String {
    match &cron.kind {
        ScheduleKind::Cron { expression, timezone, .. } if cron.name.is_empty() => {
            format!("{expression} in {timezone}")
        }
        _ => cron.name.clone(),
    }
}
