//! Decides which trigger is polled next, and when. Reads no clock and calls nobody.
//! Invariant: at most one poll of a trigger is in flight, and a poll that was given up changes nothing when it returns.

use std::collections::HashMap;
use std::time::Duration;

use crate::cadence::{self, Cadence};
use crate::history::Streak;
use crate::port::{Outcome, Stretch};
use crate::time::{Mono, Wall};
use crate::wheel::Wheel;

/// How finely polls are timed, in nanoseconds: the trade between lateness and the price of waking up.
pub const POLL_TICK_NS: u64 = 50_000;

/// What a poller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Poll this trigger now.
    Poll(Ticket),
    /// Nothing is due before this moment; none means until something changes.
    Wait(Option<Mono>),
}

/// The right to poll a trigger once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The trigger's place.
    pub slot: u32,
    /// Tells this poll from a later one of the same trigger.
    pub serial: u64,
    /// When it was due.
    pub due: Mono,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Declared, but its row is not kept yet.
    Unborn,
    /// Armed in the wheel.
    Armed,
    /// Being polled, or its tick is being committed.
    Busy,
    /// Disabled or replaced.
    Off,
}

#[derive(Debug)]
struct Slot {
    state: State,
    serial: u64,
    schedule: i64,
    cadence: Cadence,
    last_due: Mono,
    last_at: Option<Wall>,
    failures: u32,
    enabled: bool,
    streak: Streak,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PollCounts {
    /// Polls that ended.
    pub polls: u64,
    /// Those that were a plain skip.
    pub skips: u64,
    /// Due times that passed while a trigger was still being polled.
    pub missed: u64,
    /// How late polls began, together, in nanoseconds.
    pub late_sum_ns: u64,
    /// The worst of it.
    pub late_max_ns: u64,
}

/// Every trigger of a runner, by when it is due.
#[derive(Debug)]
pub struct Poller {
    wheel: Wheel,
    slots: Vec<Slot>,
    per_interval: HashMap<u64, u64>,
    counts: PollCounts,
}

impl Default for Poller {
    fn default() -> Self {
        Self {
            wheel: Wheel::new(POLL_TICK_NS),
            slots: Vec::new(),
            per_interval: HashMap::new(),
            counts: PollCounts::default(),
        }
    }
}

impl Poller {
    /// Makes room for a trigger and returns its slot. It is polled once [`Poller::enable`] names its row. The first poll comes one
    /// interval after `now`, later by its phase if other triggers share the interval.
    pub fn declare(&mut self, interval: Duration, now: Mono) -> u32 {
        let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        let sharing = self.per_interval.entry(interval_ns).or_insert(0);
        let phase = cadence::phase(*sharing, interval_ns);
        *sharing += 1;
        self.slots.push(Slot {
            state: State::Unborn,
            serial: 0,
            schedule: 0,
            cadence: Cadence { start: now, phase, interval: interval_ns },
            last_due: Mono(now.0.saturating_add(phase)),
            last_at: None,
            failures: 0,
            enabled: true,
            streak: Streak::default(),
        });
        u32::try_from(self.slots.len() - 1).expect("triggers are fewer than 2^32")
    }

    /// Gives a declared trigger its row and arms it if `enabled`.
    pub fn enable(&mut self, slot: u32, schedule: i64, enabled: bool, now: Mono) {
        let state = &mut self.slots[slot as usize];
        if state.state == State::Off {
            return;
        }
        state.schedule = schedule;
        state.enabled = enabled;
        if state.state == State::Unborn {
            state.state = State::Armed;
        }
        if enabled && state.state == State::Armed {
            self.arm_next(slot, now);
        }
    }

    /// Switches the trigger with that row; false if there is none here.
    pub fn set_enabled(&mut self, schedule: i64, enabled: bool, now: Mono) -> bool {
        let live = |slot: &Slot| slot.schedule == schedule && slot.state != State::Off;
        let Some(slot) = self.slots.iter().position(live) else { return false };
        let slot = slot as u32;
        let state = &mut self.slots[slot as usize];
        state.enabled = enabled;
        match (state.state, enabled) {
            (State::Armed, true) => self.arm_next(slot, now),
            (State::Armed, false) => self.wheel.cancel(slot),
            // A poll in flight must find its ticket void when it comes back; it is armed again at its end.
            (State::Busy, _) | (State::Unborn | State::Off, _) => {}
        }
        true
    }

    /// Forgets a trigger for good, because it was declared again or dropped.
    pub fn retire(&mut self, slot: u32) {
        self.slots[slot as usize].state = State::Off;
        self.wheel.cancel(slot);
    }

    /// The next trigger to poll, or how long there is none.
    pub fn next(&mut self, now: Mono) -> Turn {
        let Some((slot, due)) = self.wheel.pop(now) else { return Turn::Wait(self.wheel.next_due()) };
        let state = &mut self.slots[slot as usize];
        state.state = State::Busy;
        state.serial += 1;
        state.last_due = due;
        let late = now.0.saturating_sub(due.0);
        self.counts.late_sum_ns += late;
        self.counts.late_max_ns = self.counts.late_max_ns.max(late);
        Turn::Poll(Ticket { slot, serial: state.serial, due })
    }

    /// Whether this poll is the one that its trigger waits for.
    pub fn is_current(&self, ticket: Ticket) -> bool {
        let slot = &self.slots[ticket.slot as usize];
        slot.serial == ticket.serial && slot.state == State::Busy
    }

    /// Ends a poll that was a plain skip and arms the next. Returns a stretch of history that it closes.
    pub fn skipped(
        &mut self,
        ticket: Ticket,
        reason: &str,
        began: Wall,
        took: Duration,
        now: Mono,
    ) -> Option<Stretch> {
        if !self.is_current(ticket) {
            return None;
        }
        self.counts.polls += 1;
        self.counts.skips += 1;
        let slot = &mut self.slots[ticket.slot as usize];
        slot.last_at = Some(began);
        slot.failures = 0;
        let closed = slot.streak.add(slot.schedule, Outcome::Skip, reason, began, took.as_micros() as u64);
        self.rearm(ticket.slot, now);
        closed
    }

    /// Ends a poll that was more than a plain skip; the trigger stays busy until [`Poller::rearm`]. Returns its row and the quiet
    /// polls gathered before it; none if the poll was given up.
    pub fn ended(&mut self, ticket: Ticket, began: Wall, failed: bool) -> Option<(i64, Vec<Stretch>)> {
        if !self.is_current(ticket) {
            return None;
        }
        self.counts.polls += 1;
        let slot = &mut self.slots[ticket.slot as usize];
        slot.last_at = Some(began);
        slot.failures = if failed { slot.failures.saturating_add(1) } else { 0 };
        Some((slot.schedule, slot.streak.take(slot.schedule).into_iter().collect()))
    }

    /// Arms a busy trigger's next poll.
    pub fn rearm(&mut self, slot: u32, now: Mono) {
        let state = &mut self.slots[slot as usize];
        if state.state != State::Busy {
            return;
        }
        state.state = State::Armed;
        if state.enabled {
            self.arm_next(slot, now);
        }
    }

    fn arm_next(&mut self, slot: u32, now: Mono) {
        let state = &mut self.slots[slot as usize];
        let (due, missed) = state.cadence.next(state.last_due, now);
        self.counts.missed += missed;
        self.wheel.arm(slot, due);
    }

    /// Quiet polls gathered since they were last taken, of every trigger.
    pub fn take_history(&mut self) -> Vec<Stretch> {
        self.slots.iter_mut().filter_map(|slot| slot.streak.take(slot.schedule)).collect()
    }

    /// When the trigger with that row was last polled.
    pub fn last_poll_at(&self, schedule: i64) -> Option<Wall> {
        self.slots.iter().filter(|slot| slot.schedule == schedule).filter_map(|slot| slot.last_at).max()
    }

    /// How many polls in a row have failed.
    pub fn failures(&self, slot: u32) -> u32 {
        self.slots[slot as usize].failures
    }

    /// Counts since the start.
    pub fn counts(&self) -> PollCounts {
        self.counts
    }

    /// Whether any trigger was ever declared.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

