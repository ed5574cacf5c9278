//! What follows when a cron is due.
//! Invariant: a moment starts at most one run, and the newest are kept where too many were missed.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::json;

use crate::cron::Cron;
use crate::engine::crons::CronState;
use crate::engine::hands::by_hand;
use crate::engine::{Effects, Engine, Note, Request, Then};
use crate::port::{Change, CronMove, NewRun, Schedule, ScheduleKind};
use crate::time::{Now, Wall};

/// A wall clock that falls back by less is only held to the right time, as time servers do.
const CLOCK_BACK_US: i64 = 1_000_000;

impl Engine {
    pub(super) fn cron(&mut self, schedule: Schedule, now: Now, out: &mut Effects) {
        let ScheduleKind::Cron { expression, timezone, next_at } = &schedule.kind else { return };
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
                    Some(next) => self.crons.insert(CronState { schedule, cron, next }),
                    None => drop(self.crons.remove(row)),
                }
            }
            Err(error) => {
                out.logs.push(Note::CronLeftOut { cron: schedule.id, error: error.to_string() });
            }
        }
    }

    /// Takes notice of a clock that was put back. A clock that was ahead for a moment moved crons on to where it stood, and they would
    /// all be silent until then.
    pub(super) fn heed_clock(&mut self, now: Now, out: &mut Effects) {
        let ahead_us = now.wall.0.saturating_sub(i64::try_from(now.mono.0 / 1000).unwrap_or(i64::MAX));
        let is_back = ahead_us < self.wall_ahead_us.saturating_sub(CLOCK_BACK_US);
        if is_back || ahead_us > self.wall_ahead_us {
            self.wall_ahead_us = ahead_us;
        }
        if is_back {
            self.put_right(&self.crons.rows(), now, out);
        }
    }

    /// Lets crons run at what follows from now where they waited for longer. Moments that have run already are refused by the store.
    pub(super) fn put_right(&mut self, rows: &[i64], now: Now, out: &mut Effects) {
        let mut late: Option<(usize, Wall)> = None;
        for &row in rows {
            let Some((was, step)) = self.crons.put_right(row, now.wall) else { continue };
            late = Some(late.map_or((1, was), |(count, last)| (count + 1, last.max(was))));
            let change = Change::Start { epoch: self.epoch, runs: Vec::new(), cron: Some(step) };
            out.commits.push((change, Then::Start(Vec::new())));
        }
        if let Some((crons, until)) = late {
            out.logs.push(Note::ClockWasAhead { crons, until });
        }
    }

    /// Starts a run for every slot that has come, up to the bound of catching up: the newest are kept.
    pub(super) fn cron_due(&mut self, row: i64, now: Now, out: &mut Effects) {
        let mut state = self.crons.remove(row).expect("a due cron is known");
        let slots_max = usize::try_from(self.settings.catchup_max.max(1)).unwrap_or(usize::MAX);
        let (slots, has_older) = newest_slots(&state.cron, state.next, now.wall, slots_max);
        let next = slots.back().and_then(|&last| state.cron.next(last));
        if has_older {
            out.logs.push(Note::CronCatchUpBounded { cron: state.schedule.id, moments_max: slots_max });
        }
        let schedule = state.schedule.clone();
        if self.workflows.contains_key(&*schedule.workflow)
            && let ScheduleKind::Cron { next_at, .. } = &mut state.schedule.kind
        {
            *next_at = next;
        }
        if let Some(next) = next {
            state.next = next;
            self.crons.insert(state);
        }
        self.cron_fire(&schedule, slots, next, now, out);
    }

    pub(super) fn cron_fire(
        &mut self,
        schedule: &Schedule,
        slots: VecDeque<Wall>,
        next: Option<Wall>,
        now: Now,
        out: &mut Effects,
    ) {
        let workflow = self.workflows.get(&*schedule.workflow).cloned();
        let Some(workflow) = workflow else {
            self.counts.errors += 1;
            let by = match schedule.name.as_str() {
                "" => &format!("cron {}", schedule.id),
                name => name,
            };
            out.logs.push(self.unknown_workflow(by, &schedule.workflow));
            return;
        };
        let (mut ids, mut runs) = (Vec::new(), Vec::new());
        for slot in slots {
            let id = self.new_id(now.wall);
            let context = cron_context(schedule, slot);
            self.take_new(id, &workflow, &context, now);
            let run = by_hand(&workflow, &Request { id, context, run_key: None }, now.wall);
            runs.push(NewRun { schedule: Some(schedule.row), scheduled_at: Some(slot), ..run });
            ids.push(id);
        }
        let cron = Some(CronMove {
            row: schedule.row,
            seen: schedule.updated_at,
            next_at: next,
            last_at: Some(now.wall),
        });
        out.commits.push((Change::Start { epoch: self.epoch, runs, cron }, Then::Start(ids)));
    }
}

/// The newest slots from `first` to `now`, at most `slots_max`, and whether there were older ones. Looks back from `now` in growing steps: a
/// schedule of each second has a hundred million slots in three years.
fn newest_slots(cron: &Cron, first: Wall, now: Wall, slots_max: usize) -> (VecDeque<Wall>, bool) {
    let mut span_us: i64 = 60_000_000;
    loop {
        let from = Wall(now.0.saturating_sub(span_us));
        let reaches_first = from <= first;
        let mut slots = VecDeque::new();
        let mut next = if reaches_first { Some(first) } else { cron.next(from) };
        let mut count = 0_usize;
        while let Some(slot) = next.filter(|&slot| slot <= now) {
            count += 1;
            if slots.len() == slots_max {
                slots.pop_front();
            }
            slots.push_back(slot);
            next = cron.next(slot);
        }
        if reaches_first || count > slots_max {
            return (slots, count > slots_max);
        }
        span_us = span_us.saturating_mul(2);
    }
}

fn cron_context(schedule: &Schedule, slot: Wall) -> Arc<str> {
    let ScheduleKind::Cron { expression, timezone, .. } = &schedule.kind else {
        unreachable!("only crons have slots")
    };
    let context = json!({
        "scheduled_time": slot.rfc3339(),
        "schedule_id": schedule.id.to_string(),
        "schedule_timezone": timezone,
        "schedule_expression": expression,
    });
    context.to_string().into()
}
