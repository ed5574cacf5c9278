//! Decides which trigger is polled next, and when. Reads no clock and calls nobody.
//! Invariant: at most one body of a trigger is in flight, and a poll that was given up (it timed out, was disabled or declared
//! again meanwhile) changes nothing when it returns.
//! Longer than a room should be: a poll's way from its beginning to its end, over one state.

mod hot;
mod meter;
mod place;
mod plan;
mod standing;
mod turn;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::cadence;
use crate::key::ScheduleKey;
use crate::poll::hot::{Hot, Rest};
use crate::poll::meter::Gathered;
use crate::port::{Beginning, Outcome, Stretch};
use crate::time::{Mono, Wall};
use crate::wheel::Wheel;

pub use meter::{PollMeter, PollTally};
pub use plan::{Backoff, Plan, RESOLUTION};
pub use standing::{PollCounts, Standing, TickState};
pub use turn::{Died, Ended, Finish, Overdue, Ticket, Turn};

/// Every trigger of a runner, by when it is due.
#[derive(Debug)]
pub struct Poller {
    wheel: Wheel,
    hot: Vec<Hot>,
    rests: Vec<Rest>,
    placed: HashMap<ScheduleKey, u32>,
    /// How many polls others had asked for when the last one began that was asked for; at most one for each trigger.
    answered: HashMap<ScheduleKey, i64>,
    /// Places of triggers that were declared again, for the next time.
    free: HashMap<Arc<str>, Vec<u32>>,
    /// Places of triggers that were withdrawn or handed on, and of whose polls none is in flight any more; with whether they owe one.
    vacated: Vec<(u32, bool)>,
    per_interval: HashMap<u64, u64>,
    /// Whether triggers that share an interval are polled all at once.
    is_in_step: bool,
    counts: PollCounts,
    gathered: Gathered,
    random: u64,
}

impl Default for Poller {
    fn default() -> Self {
        Self::new(RESOLUTION)
    }
}

impl Poller {
    /// Without triggers; polls come at most `resolution` late by its doing.
    ///
    /// # Panics
    /// If `resolution` is zero.
    pub fn new(resolution: Duration) -> Self {
        Self {
            wheel: Wheel::new(u64::try_from(resolution.as_nanos()).unwrap_or(u64::MAX)),
            hot: Vec::new(),
            rests: Vec::new(),
            placed: HashMap::new(),
            answered: HashMap::new(),
            free: HashMap::new(),
            vacated: Vec::new(),
            per_interval: HashMap::new(),
            is_in_step: false,
            counts: PollCounts::default(),
            gathered: Gathered::default(),
            random: 0x9E37_79B9_7F4A_7C15,
        }
    }

    /// Has triggers that are declared from now on begin without a phase.
    pub fn in_step(mut self) -> Self {
        self.is_in_step = true;
        self
    }

    /// The next trigger to poll, or how long there is none.
    pub fn next(&mut self, now: Mono) -> Turn {
        let Some((place, due)) = self.wheel.pop(now) else {
            let is_half_way = self.wheel.next_due().is_some_and(|due| due <= now);
            return if is_half_way { Turn::Again } else { Turn::Wait };
        };
        let state = &mut self.hot[place as usize];
        if state.in_body {
            return self.give_up(place, now);
        }
        // Of what is plain the other half is not touched.
        if !state.is_plain && self.rests[place as usize].has_died {
            return self.count_death(place, now);
        }
        let state = &mut self.hot[place as usize];
        let rest = &mut self.rests[place as usize];
        if state.is_plain {
            state.last_beat = due;
        } else if rest.make_up.is_some() {
            rest.asked_at = Some(due);
        } else if rest.asked_at.is_none() {
            // A poll that was asked for lies beside the grid.
            state.last_beat = if rest.plan.jitter.is_zero() { due } else { rest.next_beat };
            rest.first = None;
            self.note(place);
        }
        let late = now.0.saturating_sub(due.0);
        self.counts.late_sum_ns += late;
        self.counts.late_max_ns = self.counts.late_max_ns.max(late);
        self.gathered.begun(late);
        Turn::Poll(self.begin(place, due, now))
    }

    /// When to look again; none means when something changes.
    pub fn next_due(&self) -> Option<Mono> {
        self.wheel.next_due()
    }

    /// A poll out of turn; none while another of the same trigger is in flight or before its row is kept.
    pub fn poll_now(&mut self, place: u32, now: Mono) -> Option<Ticket> {
        let (state, rest) = (&self.hot[place as usize], &mut self.rests[place as usize]);
        let is_busy = state.in_body || state.in_commit;
        if is_busy || rest.elsewhere || rest.retired || rest.waits_for.is_some() || rest.schedule.is_none() {
            return None;
        }
        rest.asked_at = Some(now);
        // It may only be looked at: what others asked for follows.
        rest.is_wanted |= rest.asked.is_some();
        self.note(place);
        self.wheel.cancel(place);
        let ticket = self.begin(place, now, now);
        // Who polls it by hand sees what becomes of it.
        self.rests[place as usize].beginning = None;
        Some(Ticket { is_noted: false, ..ticket })
    }

    /// Wants a poll as soon as it may be: now, or after what is in flight, or when the trigger can be polled at all. Its grid stays.
    pub fn poll_soon(&mut self, place: u32, now: Mono) {
        self.rests[place as usize].is_wanted = true;
        self.note(place);
        self.arm(place, now);
    }

    /// Another process has asked for so many polls of the trigger with that row by now. Each is heeded once, whatever the trigger was declared as
    /// meanwhile; those that came before the last was heard of are one.
    /// What came of one that has begun already, and that the store does not know of, is returned.
    pub fn asked(&mut self, schedule: ScheduleKey, times: i64, now: Mono) -> Option<Beginning> {
        let &place = self.placed.get(&schedule)?;
        if self.answered.get(&schedule).is_some_and(|&answered| answered >= times) {
            return Some(Beginning { row: schedule, answers: Some(times), is_call: false });
        }
        let rest = &mut self.rests[place as usize];
        if rest.asked.replace(times).is_none() {
            self.poll_soon(place, now);
        }
        None
    }

    /// What is to be written down before the body of the poll in flight in that place is called, if anything is. A process that it ends would leave no
    /// other trace.
    pub fn beginning(&self, place: u32) -> Option<Beginning> {
        let beginning = self.rests[place as usize].beginning?;
        (beginning.answers.is_some() || beginning.is_call).then_some(beginning)
    }

    /// Wants the poll that decides a moment of a cron, as [`Poller::poll_soon`] does. `context` is what a run of that begins with.
    pub fn ask(&mut self, place: u32, moment: Wall, context: Arc<str>, now: Mono) {
        self.rests[place as usize].moment = Some((moment, context));
        self.poll_soon(place, now);
    }

    fn begin(&mut self, place: u32, due: Mono, now: Mono) -> Ticket {
        let state = &mut self.hot[place as usize];
        state.in_body = true;
        state.serial = state.serial.wrapping_add(1);
        let serial = state.serial;
        if !state.is_plain
            && let Some(timeout) = self.rests[place as usize].plan.timeout
        {
            self.wheel.arm(place, now.after(timeout));
        }
        let mut is_noted = false;
        if !self.hot[place as usize].is_plain {
            let rest = &mut self.rests[place as usize];
            rest.shown = rest.ending.as_ref().map(|ending| ending.key);
            let answers = rest.asked.take_if(|_| !rest.is_wanted);
            let is_call = rest.shown.is_some() && !(rest.is_proven && rest.failures == 0);
            rest.beginning = rest.schedule.map(|row| Beginning { row, answers, is_call });
            rest.is_answer = answers.is_some();
            if let (Some(row), Some(times)) = (rest.schedule, answers) {
                self.answered.insert(row, times);
            }
            is_noted = self.beginning(place).is_some();
        }
        Ticket { place, serial, due, ends: 0, is_noted }
    }

    /// The process that called it about an end ended in the call: that failed.
    fn count_death(&mut self, place: u32, now: Mono) -> Turn {
        let rest = &mut self.rests[place as usize];
        let Some(ending) = rest.ending.clone() else { return Turn::Again };
        (rest.shown, rest.pause) = (Some(ending.key), None);
        rest.waits_from = Some(now);
        rest.asked_at = None;
        rest.is_wanted |= rest.asked.is_some();
        let ended = self.end(place, true, now);
        Turn::Died(Died { place, run: ending.run, ended })
    }

    fn give_up(&mut self, place: u32, now: Mono) -> Turn {
        let state = &mut self.hot[place as usize];
        let serial = state.serial;
        state.serial = serial.wrapping_add(1);
        let timeout = self.rests[place as usize].plan.timeout;
        let timeout = timeout.expect("only a poll with a time-out is armed while its body runs");
        self.counts.polls += 1;
        self.gathered.ended(u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX));
        self.gathered.polled(place, 1, 0);
        self.rests[place as usize].pause = None;
        self.rests[place as usize].given_up = true;
        let ended = self.end(place, true, now);
        Turn::TimedOut(Overdue { place, serial, timeout, ended })
    }

    /// Notes that a body has returned. False if its poll was given up, or was answered before: nothing else may follow from it.
    fn returned(&mut self, ticket: Ticket, now: Mono) -> bool {
        let state = &mut self.hot[ticket.place as usize];
        let is_current = state.in_body && state.serial == ticket.serial;
        let is_in_body = is_current || (state.in_body && self.rests[ticket.place as usize].given_up);
        if !is_in_body {
            // It was answered, and the next one may have begun.
            return false;
        }
        state.in_body = false;
        if !state.is_plain {
            self.wheel.cancel(ticket.place);
            let rest = &mut self.rests[ticket.place as usize];
            rest.waits_from = rest.asked_at.take();
            rest.given_up = false;
            self.note(ticket.place);
        }
        if !is_current {
            let is_set = self.rests[ticket.place as usize].cursor_seen.take().is_some();
            if is_set && self.is_by_ends(ticket.place) {
                self.forget_ends(ticket.place);
            }
            self.note(ticket.place);
            self.arm_or_make_room(ticket.place, now);
        }
        is_current
    }

    /// Ends a poll that was a plain skip and arms the next. Returns what of the history is not to wait until it is taken.
    pub fn skipped(&mut self, ticket: Ticket, reason: &str, finish: Finish, now: Mono) -> Vec<Stretch> {
        if !self.returned(ticket, now) {
            return Vec::new();
        }
        self.counts.polls += 1;
        self.counts.skips += 1;
        self.gathered.ended(finish.took_us);
        let place = &mut self.hot[ticket.place as usize];
        let is_plain = place.is_plain && reason.is_empty() && finish.pause.is_none();
        let history = match is_plain {
            true => {
                place.quiet.add(finish.began, finish.took_us);
                Vec::new()
            }
            false => self.skipped_for(ticket.place, reason, finish, now),
        };
        self.arm_or_make_room(ticket.place, now);
        history
    }

    fn skipped_for(&mut self, place: u32, reason: &str, finish: Finish, now: Mono) -> Vec<Stretch> {
        let goes_on = self.end_kept_wait(place, now);
        let (state, rest) = (&mut self.hot[place as usize], &mut self.rests[place as usize]);
        let schedule = rest.schedule.expect("a polled trigger has a row");
        // That it goes well again is kept at once: else it would count as failing after a restart.
        let is_recovered = std::mem::take(&mut rest.failures) > 0;
        // Who polls it out of turn ends what it waited for, also in the store.
        let waited = rest.waits_from.is_some() && rest.pause.is_some_and(|pause| !pause.is_zero());
        rest.cursor_seen = None;
        rest.pause = finish.pause;
        let is_answer = std::mem::take(&mut rest.is_answer);
        // The poll at the start is kept at once: a process that dies soon would have it made again by each next one.
        let is_kept = rest.make_up.take().is_some() && rest.plan.polls_at_start
            || is_recovered
            || waited
            || goes_on
            || is_answer;
        rest.has_streak = !reason.is_empty();
        match rest.has_streak {
            true => {
                if let Some(before) = state.quiet.take(schedule) {
                    rest.streak.end(Some(before));
                }
                state.quiet.touch(finish.began);
                rest.streak.add(schedule, Outcome::Skip, reason, finish.began, finish.took_us);
            }
            false => {
                rest.streak.end(None);
                state.quiet.add(finish.began, finish.took_us);
            }
        }
        let mut history = rest.streak.take_excess();
        self.note(place);
        self.told(place, &history);
        if is_kept {
            self.take_quiet(place, &mut history);
        }
        history
    }

    /// Ends a poll that was a skip and asks for a wait that is to be kept, as [`Poller::ended`] does.
    pub fn waited(&mut self, ticket: Ticket, finish: Finish, now: Mono) -> Option<Ended> {
        let ended = self.ended(ticket, false, finish, now)?;
        self.counts.skips += 1;
        self.gathered.polled(ticket.place, 0, 1);
        Some(ended)
    }

    /// Ends a poll that was more than a plain skip; its trigger is not polled again until [`Poller::rearm`]. None if the poll was
    /// given up.
    pub fn ended(&mut self, ticket: Ticket, failed: bool, finish: Finish, now: Mono) -> Option<Ended> {
        if !self.returned(ticket, now) {
            return None;
        }
        self.counts.polls += 1;
        self.gathered.ended(finish.took_us);
        self.gathered.polled(ticket.place, 1, 0);
        self.rests[ticket.place as usize].pause = finish.pause;
        let ended = self.end(ticket.place, failed, now);
        // Not before: this poll is none of the stretch that it ends.
        self.hot[ticket.place as usize].quiet.touch(finish.began);
        Some(ended)
    }

    fn end(&mut self, place: u32, failed: bool, now: Mono) -> Ended {
        let mut history = Vec::new();
        self.take_quiet(place, &mut history);
        if !failed {
            self.end_kept_wait(place, now);
        }
        self.hot[place as usize].in_commit = true;
        let rest = &mut self.rests[place as usize];
        // Somebody has skipped the end that it was about: its failure is nobody's, and what it wished for neither.
        let is_void = rest.plan.by_ends && rest.cursor_seen.is_some();
        rest.failures = if failed && !is_void { rest.failures.saturating_add(1) } else { 0 };
        rest.pause = rest.pause.filter(|_| !is_void);
        rest.make_up = None;
        if rest.plan.by_ends {
            // What came of this call stands above the one that ended its process, and above the wait that was taken over.
            (rest.has_died, rest.first) = (false, None);
        }
        let schedule = rest.schedule.expect("a polled trigger has a row");
        let is_enough = failed && rest.plan.failures_max.is_some_and(|most| rest.failures >= most);
        let disable = is_enough.then(|| format!("{} polls in a row failed", rest.failures));
        let wait = Some(rest.pause()).filter(|wait| !wait.is_zero());
        rest.cursor_sent = rest.cursor_seen.take().unwrap_or(rest.cursor_set);
        let (cursor_set, failures) = (rest.cursor_sent, rest.failures);
        // Who wants to be called again is told the same.
        let is_told = !failed && rest.pause.is_none();
        let about = rest.ending.as_ref().filter(|ending| is_told && rest.shown == Some(ending.key));
        let told = about.filter(|_| !is_void).map(|ending| ending.told());
        if is_void {
            self.forget_ends(place);
        }
        self.note(place);
        // A cron's moments lie on no grid; and of what was kept by another owner the wait counts from now on.
        let is_on_grid = !self.is_by_calendar(place) && self.rests[place as usize].first.is_none();
        let waits_from = is_on_grid.then(|| self.waits_from(place));
        Ended { schedule, cursor_set, told, history, disable, wait, waits_from, failures }
    }

    /// From when on a wait counts: the beat of the last poll, or when it was asked for.
    fn waits_from(&self, place: u32) -> Mono {
        let (state, rest) = (&self.hot[place as usize], &self.rests[place as usize]);
        rest.waits_from.max(rest.asked_at).unwrap_or(state.last_beat).max(state.last_beat)
    }

    /// A poll that leaves no trace: its body was called only to look.
    pub fn looked(&mut self, ticket: Ticket, now: Mono) {
        let waits_from = self.rests[ticket.place as usize].waits_from;
        let is_current = self.returned(ticket, now);
        self.rests[ticket.place as usize].waits_from = waits_from;
        // It has not been told.
        self.rests[ticket.place as usize].shown = None;
        self.rests[ticket.place as usize].cursor_seen = None;
        self.note(ticket.place);
        if is_current {
            self.arm_or_make_room(ticket.place, now);
        }
    }

    /// Lets a trigger be polled again after its tick was kept, with the cursor and the time of the fire that were kept.
    pub fn rearm(&mut self, place: u32, cursor: Option<Arc<str>>, fired_at: Option<Wall>, now: Mono) {
        self.hot[place as usize].in_commit = false;
        let rest = &mut self.rests[place as usize];
        // One that was set since then stands above what this tick left.
        if cursor.is_some() && rest.cursor_sent == rest.cursor_set {
            // A wish for no wait at all is that of a poll which had more to give. One that came no further would come no
            // further again.
            rest.is_wanted |= rest.pause == Some(Duration::ZERO);
            rest.cursor = cursor;
        }
        rest.fired_at = fired_at.or(rest.fired_at);
        rest.is_proven = rest.plan.by_ends && rest.failures == 0;
        self.note(place);
        self.arm_or_make_room(place, now);
    }

    /// Not all of what the last tick fired was taken. If it had more to give, that has no need to come at once.
    pub fn cut_short(&mut self, place: u32) {
        let rest = &mut self.rests[place as usize];
        rest.pause = rest.pause.filter(|pause| !pause.is_zero());
    }

    /// The end of a run that the last tick was about is not told again.
    pub fn heard(&mut self, place: u32) {
        let rest = &mut self.rests[place as usize];
        rest.told = rest.shown;
        let shown = rest.shown;
        rest.ending = rest.ending.take().filter(|ending| Some(ending.key) != shown);
    }

    /// Whether and when a trigger is told of an end again, or of the next one, is found out anew.
    pub fn forget_ends(&mut self, place: u32) {
        let rest = &mut self.rests[place as usize];
        (rest.ending, rest.shown, rest.told) = (None, None, None);
    }

    fn arm_or_make_room(&mut self, place: u32, now: Mono) {
        self.arm(place, now);
        if !self.hot[place as usize].is_live {
            self.make_room(place, now);
        }
    }

    fn arm(&mut self, place: u32, now: Mono) {
        let state = &self.hot[place as usize];
        if state.in_body || state.in_commit || !state.is_live {
            return;
        }
        let rest = &mut self.rests[place as usize];
        // Of ends of runs there may be none: the next one is told at once then.
        let has_cause = !rest.plan.by_ends || rest.ending.is_some();
        let is_wanted = rest.is_wanted || rest.asked_at.is_some();
        if !state.is_plain && has_cause && is_wanted {
            rest.is_wanted = false;
            rest.asked_at.get_or_insert(now);
            self.note(place);
            self.wheel.arm(place, now);
        } else if self.is_by_calendar(place) {
            self.wheel.cancel(place);
        } else if self.is_by_ends(place) {
            self.arm_for_end(place, now);
        } else if state.is_plain {
            let (beat, missed) = cadence::next_beat(state.last_beat, state.interval_ns, now);
            self.counts.missed += missed;
            self.wheel.arm(place, beat);
        } else {
            self.arm_timed(place, now);
        }
    }

    fn arm_for_end(&mut self, place: u32, now: Mono) {
        let (state, rest) = (&self.hot[place as usize], &self.rests[place as usize]);
        let Some(ending) = &rest.ending else { return self.wheel.cancel(place) };
        if rest.has_died {
            // That call is counted before any wait: whoever looks is told of it, and the pause that it is worth grows from now on.
            return self.wheel.arm(place, now);
        }
        let is_again = rest.shown == Some(ending.key);
        // What was answered came to nothing, say because nobody declares the workflow any more: that takes its time to change.
        let wait = Some(rest.pause()).filter(|pause| !pause.is_zero());
        let wait = wait.unwrap_or(if is_again { rest.plan.interval } else { Duration::ZERO });
        let from = rest.waits_from.unwrap_or(state.last_beat).max(state.last_beat);
        let due = if wait.is_zero() { now } else { from.after(wait) };
        let due = due.max(now).max(rest.first.unwrap_or(now));
        self.wheel.arm(place, due);
    }

    fn arm_timed(&mut self, place: u32, now: Mono) {
        let asked = self.waits_from(place);
        let (state, rest) = (&self.hot[place as usize], &mut self.rests[place as usize]);
        if let Some(at) = rest.make_up {
            return self.wheel.arm(place, at.max(now));
        }
        let pause = rest.pause();
        // A beat that falls on the end of the wait is not too early.
        let end = Mono(rest.first.map_or(asked, |_| now).after(pause).0.saturating_sub(1));
        let (beat, missed) = match rest.first {
            Some(first) if first > now.max(end) => (first, 0),
            first => cadence::next_beat(first.unwrap_or(state.last_beat), state.interval_ns, now.max(end)),
        };
        // Beats that a wait leaves out on purpose are not missed.
        if pause.is_zero() {
            self.counts.missed += missed;
        }
        let due = match rest.plan.jitter {
            Duration::ZERO => beat,
            jitter => beat.after(jitter.mul_f64(next_random(&mut self.random))),
        };
        rest.next_beat = beat;
        self.wheel.arm(place, due);
    }
}

/// xorshift64*, in `[0, 1)`: jitter needs no better.
fn next_random(state: &mut u64) -> f64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
}
