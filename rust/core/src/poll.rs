//! Decides which trigger is polled next, and when. Reads no clock and calls nobody.
//! Invariant: at most one body of a trigger is in flight, and a poll that was given up (it timed out, was disabled or declared
//! again meanwhile) changes nothing when it returns.

mod place;
mod plan;
mod slot;
mod standing;
mod turn;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::cadence;
use crate::poll::slot::{Rest, Slot};
use crate::port::{Outcome, Stretch};
use crate::time::{Mono, Wall};
use crate::wheel::Wheel;

pub use plan::{Backoff, Plan, RESOLUTION};
pub use standing::{PollCounts, Standing, TickState};
pub use turn::{Ended, Finish, Overdue, Ticket, Turn};

/// Every trigger of a runner, by when it is due.
#[derive(Debug)]
pub struct Poller {
    wheel: Wheel,
    slots: Vec<Slot>,
    rests: Vec<Rest>,
    slot_of: HashMap<i64, u32>,
    /// Places of triggers that were declared again, for the next time.
    free: HashMap<Arc<str>, Vec<u32>>,
    /// Places of triggers that were withdrawn, and of whose polls none is in flight any more.
    vacated: Vec<u32>,
    per_interval: HashMap<u64, u64>,
    counts: PollCounts,
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
            slots: Vec::new(),
            rests: Vec::new(),
            slot_of: HashMap::new(),
            free: HashMap::new(),
            vacated: Vec::new(),
            per_interval: HashMap::new(),
            counts: PollCounts::default(),
            random: 0x9E37_79B9_7F4A_7C15,
        }
    }

    /// The next trigger to poll, or how long there is none.
    pub fn next(&mut self, now: Mono) -> Turn {
        let Some((slot, due)) = self.wheel.pop(now) else {
            let is_half_way = self.wheel.next_due().is_some_and(|due| due <= now);
            return if is_half_way { Turn::Again } else { Turn::Wait };
        };
        let state = &mut self.slots[slot as usize];
        if state.in_body {
            return self.give_up(slot);
        }
        let rest = &mut self.rests[slot as usize];
        if state.is_plain {
            state.last_beat = due;
        } else if rest.make_up.is_some() {
            rest.asked_at = Some(due);
        } else if rest.asked_at.is_none() {
            // A poll that was asked for lies beside the grid.
            state.last_beat = if rest.plan.jitter.is_zero() { due } else { rest.next_beat };
            rest.first = None;
            self.note(slot);
        }
        let late = now.0.saturating_sub(due.0);
        self.counts.late_sum_ns += late;
        self.counts.late_max_ns = self.counts.late_max_ns.max(late);
        Turn::Poll(self.begin(slot, due, now))
    }

    /// When to look again; none means when something changes.
    pub fn next_due(&self) -> Option<Mono> {
        self.wheel.next_due()
    }

    /// A poll out of turn; none while another of the same trigger is in flight or before its row is kept.
    pub fn poll_now(&mut self, slot: u32, now: Mono) -> Option<Ticket> {
        let (state, rest) = (&self.slots[slot as usize], &mut self.rests[slot as usize]);
        let is_busy = state.in_body || state.in_commit;
        if is_busy || rest.elsewhere || rest.retired || rest.waits_for.is_some() || rest.schedule.is_none() {
            return None;
        }
        rest.asked_at = Some(now);
        self.note(slot);
        self.wheel.cancel(slot);
        Some(self.begin(slot, now, now))
    }

    /// Wants a poll as soon as it may be: now, or after what is in flight, or when the trigger can be polled at all. Its grid stays.
    pub fn poll_soon(&mut self, slot: u32, now: Mono) {
        self.rests[slot as usize].is_wanted = true;
        self.note(slot);
        self.arm(slot, now);
    }

    fn begin(&mut self, slot: u32, due: Mono, now: Mono) -> Ticket {
        let state = &mut self.slots[slot as usize];
        state.in_body = true;
        state.serial = state.serial.wrapping_add(1);
        let serial = state.serial;
        if !state.is_plain
            && let Some(timeout) = self.rests[slot as usize].plan.timeout
        {
            self.wheel.arm(slot, now.after(timeout));
        }
        Ticket { slot, serial, due, ends: 0 }
    }

    fn give_up(&mut self, slot: u32) -> Turn {
        let state = &mut self.slots[slot as usize];
        state.serial = state.serial.wrapping_add(1);
        let timeout = self.rests[slot as usize].plan.timeout;
        let timeout = timeout.expect("only a poll with a time-out is armed while its body runs");
        self.counts.polls += 1;
        self.rests[slot as usize].pause = None;
        self.rests[slot as usize].given_up = true;
        let ended = self.end(slot, true);
        Turn::TimedOut(Overdue { slot, timeout, ended })
    }

    /// Notes that a body has returned. False if its poll was given up: nothing else may follow from it.
    fn returned(&mut self, ticket: Ticket, now: Mono) -> bool {
        let state = &mut self.slots[ticket.slot as usize];
        state.in_body = false;
        let is_current = state.serial == ticket.serial;
        if !state.is_plain {
            self.wheel.cancel(ticket.slot);
            let rest = &mut self.rests[ticket.slot as usize];
            rest.waits_from = rest.asked_at.take();
            rest.given_up = false;
            self.note(ticket.slot);
        }
        if !is_current {
            self.arm_or_make_room(ticket.slot, now);
        }
        is_current
    }

    /// Ends a poll that was a plain skip and arms the next. Returns a stretch of history that it closes.
    pub fn skipped(&mut self, ticket: Ticket, reason: &str, finish: Finish, now: Mono) -> Option<Stretch> {
        if !self.returned(ticket, now) {
            return None;
        }
        self.counts.polls += 1;
        self.counts.skips += 1;
        let slot = &mut self.slots[ticket.slot as usize];
        let is_plain = slot.is_plain && reason.is_empty() && finish.pause.is_none();
        let closed = match is_plain {
            true => {
                slot.quiet.add(finish.began, finish.took_us);
                None
            }
            false => self.skipped_for(ticket.slot, reason, finish),
        };
        self.arm_or_make_room(ticket.slot, now);
        closed
    }

    fn skipped_for(&mut self, slot: u32, reason: &str, finish: Finish) -> Option<Stretch> {
        let (state, rest) = (&mut self.slots[slot as usize], &mut self.rests[slot as usize]);
        let schedule = rest.schedule.expect("a polled trigger has a row");
        rest.failures = 0;
        rest.pause = finish.pause;
        // The poll at the start is kept at once: a process that dies soon would have it made again by each next one.
        let is_kept = rest.make_up.take().is_some() && rest.plan.polls_at_start;
        rest.has_streak = !reason.is_empty();
        let closed = match rest.has_streak {
            true => {
                let before = state.quiet.take(schedule);
                state.quiet.touch(finish.began);
                let ended = rest.streak.add(schedule, Outcome::Skip, reason, finish.began, finish.took_us);
                before.or(ended)
            }
            false => {
                state.quiet.add(finish.began, finish.took_us);
                rest.streak.take(schedule)
            }
        };
        self.note(slot);
        match is_kept {
            true => closed.or_else(|| self.take_quiet(slot)),
            false => closed,
        }
    }

    /// Ends a poll that was a skip and asks for a wait that is to be kept, as [`Poller::ended`] does.
    pub fn waited(&mut self, ticket: Ticket, finish: Finish, now: Mono) -> Option<Ended> {
        let ended = self.ended(ticket, false, finish, now)?;
        self.counts.skips += 1;
        Some(ended)
    }

    /// Ends a poll that was more than a plain skip; its trigger is not polled again until [`Poller::rearm`]. None if the poll was
    /// given up.
    pub fn ended(&mut self, ticket: Ticket, failed: bool, finish: Finish, now: Mono) -> Option<Ended> {
        if !self.returned(ticket, now) {
            return None;
        }
        self.counts.polls += 1;
        self.slots[ticket.slot as usize].quiet.touch(finish.began);
        self.rests[ticket.slot as usize].pause = finish.pause;
        Some(self.end(ticket.slot, failed))
    }

    fn end(&mut self, slot: u32, failed: bool) -> Ended {
        let history = self.take_quiet(slot).into_iter().collect();
        self.slots[slot as usize].in_commit = true;
        let rest = &mut self.rests[slot as usize];
        rest.failures = if failed { rest.failures.saturating_add(1) } else { 0 };
        rest.make_up = None;
        let schedule = rest.schedule.expect("a polled trigger has a row");
        let is_enough = failed && rest.plan.failures_max.is_some_and(|most| rest.failures >= most);
        let disable = is_enough.then(|| format!("{} polls in a row failed", rest.failures));
        let wait = Some(rest.pause()).filter(|wait| !wait.is_zero());
        self.note(slot);
        Ended { schedule, history, disable, wait }
    }

    /// A poll that leaves no trace: its body was called only to look.
    pub fn looked(&mut self, ticket: Ticket, now: Mono) {
        let waits_from = self.rests[ticket.slot as usize].waits_from;
        let is_current = self.returned(ticket, now);
        self.rests[ticket.slot as usize].waits_from = waits_from;
        if is_current {
            self.arm_or_make_room(ticket.slot, now);
        }
    }

    /// Lets a trigger be polled again after its tick was kept, with the cursor and the time of the fire that were kept.
    pub fn rearm(&mut self, slot: u32, cursor: Option<Arc<str>>, fired_at: Option<Wall>, now: Mono) {
        self.slots[slot as usize].in_commit = false;
        let rest = &mut self.rests[slot as usize];
        if cursor.is_some() {
            rest.cursor = cursor;
        }
        rest.fired_at = fired_at.or(rest.fired_at);
        self.arm_or_make_room(slot, now);
    }

    fn arm_or_make_room(&mut self, slot: u32, now: Mono) {
        self.arm(slot, now);
        if !self.slots[slot as usize].is_live {
            self.make_room(slot, now);
        }
    }

    fn arm(&mut self, slot: u32, now: Mono) {
        let state = &self.slots[slot as usize];
        if state.in_body || state.in_commit || !state.is_live {
            return;
        }
        if !state.is_plain && std::mem::take(&mut self.rests[slot as usize].is_wanted) {
            self.rests[slot as usize].asked_at = Some(now);
            self.note(slot);
            self.wheel.arm(slot, now);
        } else if state.is_plain {
            let (beat, missed) = cadence::next_beat(state.last_beat, state.interval_ns, now);
            self.counts.missed += missed;
            self.wheel.arm(slot, beat);
        } else {
            self.arm_timed(slot, now);
        }
    }

    fn arm_timed(&mut self, slot: u32, now: Mono) {
        let (state, rest) = (&self.slots[slot as usize], &mut self.rests[slot as usize]);
        if let Some(at) = rest.make_up {
            return self.wheel.arm(slot, at.max(now));
        }
        let pause = rest.pause();
        // A beat that falls on the end of the wait is not too early.
        let asked = rest.waits_from.max(rest.asked_at).unwrap_or(state.last_beat).max(state.last_beat);
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
        self.wheel.arm(slot, due);
    }
}

/// xorshift64*, in `[0, 1)`: jitter needs no better.
fn next_random(state: &mut u64) -> f64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
}
