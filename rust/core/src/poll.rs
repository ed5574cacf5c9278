//! Decides which trigger is polled next, and when. Reads no clock and calls nobody.
//! Invariant: at most one body of a trigger is in flight, and a poll that was given up (it timed out, was disabled or declared
//! again meanwhile) changes nothing when it returns.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::cadence;
use crate::history::Streak;
use crate::port::{Outcome, Schedule, Stretch};
use crate::time::{Mono, Wall};
use crate::wheel::Wheel;

/// How finely polls are timed, in nanoseconds: the trade between lateness and the price of waking up.
pub const POLL_TICK_NS: u64 = 50_000;

/// How a trigger wants to be polled.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The trigger's name.
    pub name: Arc<str>,
    /// From one poll to the next.
    pub interval: Duration,
    /// Each poll comes later by a random share of this; at most the interval.
    pub jitter: Duration,
    /// A body that takes longer is given up.
    pub timeout: Option<Duration>,
    /// How long to wait after failures.
    pub backoff: Backoff,
    /// After so many failures in a row the trigger is disabled.
    pub failures_max: Option<u32>,
}

/// How long a trigger waits after polls that failed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// After the first failure.
    pub base: Duration,
    /// Growth from one failure to the next.
    pub factor: f64,
    /// No wait is longer.
    pub longest: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row.
    pub fn delay(&self, failures: u32) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        let grown = self.base.as_secs_f64() * self.factor.powf(f64::from(failures - 1));
        // `min` first: an overflow to infinity must become the longest wait, not a panic.
        Duration::from_secs_f64(grown.min(self.longest.as_secs_f64()).max(0.0))
    }
}

/// What a poller does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// Poll this trigger now.
    Poll(Ticket),
    /// A body took too long: its poll failed without it.
    TimedOut(Overdue),
    /// Nothing is due before [`Poller::next_due`].
    Wait,
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

/// A poll that was given up.
#[derive(Debug, Clone, PartialEq)]
pub struct Overdue {
    /// The trigger's place.
    pub slot: u32,
    /// How long it was waited for.
    pub timeout: Duration,
    /// What follows for its trigger.
    pub ended: Ended,
}

/// What a poll that was more than a plain skip leaves for the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// The trigger's row.
    pub schedule: i64,
    /// Quiet polls gathered before it.
    pub history: Vec<Stretch>,
    /// Why the trigger is to be disabled, if it is.
    pub disable: Option<String>,
}

/// What a trigger's function may know when it is polled.
#[derive(Debug, Clone, PartialEq)]
pub struct TickState {
    /// The cursor as JSON text.
    pub cursor: Option<Arc<str>>,
    /// When the poll was due.
    pub due: Mono,
    /// When the trigger last fired a run.
    pub fired_at: Option<Wall>,
    /// How many polls in a row have failed.
    pub failures: u32,
}

/// Where a trigger stands, for whoever asks why nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its body runs now.
    pub in_body: bool,
    /// How many polls in a row have failed.
    pub failures: u32,
    /// When it is polled next; none if not armed.
    pub due: Option<Mono>,
    /// Whether that wait is longer than its interval because of failures or its own wish.
    pub backs_off: bool,
    /// When it was last polled.
    pub last_at: Option<Wall>,
    /// Another owner polls it.
    pub elsewhere: bool,
}

/// What a poll's body came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// When it began.
    pub began: Wall,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// How long its function asked not to be called.
    pub pause: Option<Duration>,
}

/// What every quiet poll touches, close together: with many triggers the misses of the cache are what a poll costs.
#[derive(Debug)]
struct Slot {
    /// The store's row; none until it is kept.
    schedule: Option<i64>,
    serial: u64,
    interval_ns: u64,
    /// The beat of the last poll; `due` lies later by the jitter.
    last_beat: Mono,
    next_beat: Mono,
    /// When the poll in flight was due, or the last one.
    polled_due: Mono,
    due: Option<Mono>,
    last_at: Option<Wall>,
    failures: u32,
    in_body: bool,
    in_commit: bool,
    enabled: bool,
    /// Another owner polls it.
    elsewhere: bool,
    retired: bool,
    is_plain: bool,
    streak: Streak,
    rest: Box<Rest>,
}

#[derive(Debug)]
struct Rest {
    plan: Plan,
    pause: Option<Duration>,
    fired_at: Option<Wall>,
    cursor: Option<Arc<str>>,
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
    slot_of: HashMap<i64, u32>,
    per_interval: HashMap<u64, u64>,
    counts: PollCounts,
    random: u64,
}

impl Default for Poller {
    fn default() -> Self {
        Self {
            wheel: Wheel::new(POLL_TICK_NS),
            slots: Vec::new(),
            slot_of: HashMap::new(),
            per_interval: HashMap::new(),
            counts: PollCounts::default(),
            random: 0x9E37_79B9_7F4A_7C15,
        }
    }
}

impl Slot {
    /// How long the trigger is not to be polled, by its own wish or because of failures.
    fn pause(&self) -> Duration {
        if self.failures == 0 && self.is_plain {
            return Duration::ZERO;
        }
        self.rest.pause.unwrap_or_else(|| self.rest.plan.backoff.delay(self.failures))
    }

    fn note_pause(&mut self, pause: Option<Duration>) {
        if pause.is_some() || !self.is_plain {
            self.rest.pause = pause;
            let plan = &self.rest.plan;
            self.is_plain = pause.is_none() && plan.jitter.is_zero() && plan.timeout.is_none();
        }
    }
}

impl Poller {
    /// Makes room for a trigger and returns its slot. It is polled once [`Poller::enable`] names its row. The first poll comes one
    /// interval after `now`, later by its phase if other triggers share the interval.
    pub fn declare(&mut self, plan: Plan, now: Mono) -> u32 {
        let interval = u64::try_from(plan.interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        let sharing = self.per_interval.entry(interval).or_insert(0);
        let phase = cadence::phase(*sharing, interval);
        *sharing += 1;
        let start = Mono(now.0.saturating_add(phase));
        let is_plain = plan.jitter.is_zero() && plan.timeout.is_none();
        let rest = Rest { plan, pause: None, fired_at: None, cursor: None };
        self.slots.push(Slot {
            schedule: None,
            serial: 0,
            interval_ns: interval,
            last_beat: start,
            next_beat: start,
            polled_due: start,
            due: None,
            last_at: None,
            failures: 0,
            in_body: false,
            in_commit: false,
            enabled: true,
            elsewhere: false,
            retired: false,
            is_plain,
            streak: Streak::default(),
            rest: Box::new(rest),
        });
        u32::try_from(self.slots.len() - 1).expect("triggers are fewer than 2^32")
    }

    /// Gives a declared trigger its row and arms it if that says so, unless it is polled `elsewhere`.
    pub fn enable(&mut self, slot: u32, row: &Schedule, elsewhere: bool, now: Mono) {
        let state = &mut self.slots[slot as usize];
        if state.retired {
            return;
        }
        state.schedule = Some(row.row);
        state.enabled = row.enabled;
        state.elsewhere = elsewhere;
        state.rest.cursor = row.cursor.as_deref().map(Arc::from);
        state.rest.fired_at = row.last_fired_at;
        self.slot_of.insert(row.row, slot);
        self.arm(slot, now);
    }

    /// Switches the trigger with that row; false if there is none here. A poll in flight is given up.
    pub fn set_enabled(&mut self, schedule: i64, enabled: bool, now: Mono) -> bool {
        let Some(&slot) = self.slot_of.get(&schedule) else { return false };
        let state = &mut self.slots[slot as usize];
        if state.enabled == enabled {
            return true;
        }
        state.enabled = enabled;
        if enabled {
            state.failures = 0;
            self.arm(slot, now);
        } else {
            state.serial += 1;
            self.disarm(slot);
        }
        true
    }

    /// Forgets a trigger for good, because it was declared again or dropped.
    pub fn retire(&mut self, slot: u32) {
        let state = &mut self.slots[slot as usize];
        state.retired = true;
        state.serial += 1;
        self.disarm(slot);
    }

    /// The next trigger to poll, or how long there is none.
    pub fn next(&mut self, now: Mono) -> Turn {
        let Some((slot, due)) = self.wheel.pop(now) else { return Turn::Wait };
        if self.slots[slot as usize].in_body {
            return self.give_up(slot);
        }
        let late = now.0.saturating_sub(due.0);
        self.counts.late_sum_ns += late;
        self.counts.late_max_ns = self.counts.late_max_ns.max(late);
        let state = &mut self.slots[slot as usize];
        state.last_beat = state.next_beat;
        Turn::Poll(self.begin(slot, due, now))
    }

    /// When to look again; none means when something changes.
    pub fn next_due(&self) -> Option<Mono> {
        self.wheel.next_due()
    }

    /// A poll out of turn; none while another of the same trigger is in flight or before its row is kept.
    pub fn poll_now(&mut self, slot: u32, now: Mono) -> Option<Ticket> {
        let state = &self.slots[slot as usize];
        let is_busy = state.in_body || state.in_commit;
        if is_busy || state.elsewhere || state.retired || state.schedule.is_none() {
            return None;
        }
        self.disarm(slot);
        Some(self.begin(slot, now, now))
    }

    fn begin(&mut self, slot: u32, due: Mono, now: Mono) -> Ticket {
        let state = &mut self.slots[slot as usize];
        state.in_body = true;
        state.serial += 1;
        state.due = None;
        state.polled_due = due;
        let serial = state.serial;
        if !state.is_plain
            && let Some(timeout) = state.rest.plan.timeout
        {
            self.wheel.arm(slot, now.after(timeout));
        }
        Ticket { slot, serial, due }
    }

    fn give_up(&mut self, slot: u32) -> Turn {
        let state = &mut self.slots[slot as usize];
        state.serial += 1;
        let timeout =
            state.rest.plan.timeout.expect("only a poll with a time-out is armed while its body runs");
        self.counts.polls += 1;
        let ended = self.end(slot, true);
        Turn::TimedOut(Overdue { slot, timeout, ended })
    }

    /// Notes that a body has returned. False if its poll was given up: nothing else may follow from it.
    fn returned(&mut self, ticket: Ticket, now: Mono) -> bool {
        let state = &mut self.slots[ticket.slot as usize];
        state.in_body = false;
        if !state.is_plain {
            self.wheel.cancel(ticket.slot);
        }
        let state = &self.slots[ticket.slot as usize];
        if state.serial == ticket.serial {
            return true;
        }
        self.arm(ticket.slot, now);
        false
    }

    /// Ends a poll that was a plain skip and arms the next. Returns a stretch of history that it closes.
    pub fn skipped(&mut self, ticket: Ticket, reason: &str, finish: Finish, now: Mono) -> Option<Stretch> {
        if !self.returned(ticket, now) {
            return None;
        }
        self.counts.polls += 1;
        self.counts.skips += 1;
        let slot = &mut self.slots[ticket.slot as usize];
        slot.last_at = Some(finish.began);
        slot.failures = 0;
        slot.note_pause(finish.pause);
        let schedule = slot.schedule.expect("a polled trigger has a row");
        let closed = slot.streak.add(schedule, Outcome::Skip, reason, finish.began, finish.took_us);
        self.arm(ticket.slot, now);
        closed
    }

    /// Ends a poll that was more than a plain skip; its trigger is not polled again until [`Poller::rearm`]. None if the poll was
    /// given up.
    pub fn ended(&mut self, ticket: Ticket, failed: bool, finish: Finish, now: Mono) -> Option<Ended> {
        if !self.returned(ticket, now) {
            return None;
        }
        self.counts.polls += 1;
        let slot = &mut self.slots[ticket.slot as usize];
        slot.last_at = Some(finish.began);
        slot.note_pause(finish.pause);
        Some(self.end(ticket.slot, failed))
    }

    fn end(&mut self, slot: u32, failed: bool) -> Ended {
        let slot = &mut self.slots[slot as usize];
        slot.in_commit = true;
        slot.failures = if failed { slot.failures.saturating_add(1) } else { 0 };
        let schedule = slot.schedule.expect("a polled trigger has a row");
        let disable = slot
            .rest
            .plan
            .failures_max
            .filter(|&most| failed && slot.failures >= most)
            .map(|_| format!("{} polls in a row failed", slot.failures));
        Ended { schedule, history: slot.streak.take(schedule).into_iter().collect(), disable }
    }

    /// A poll that leaves no trace: its body was called only to look.
    pub fn looked(&mut self, ticket: Ticket, now: Mono) {
        if self.returned(ticket, now) {
            self.arm(ticket.slot, now);
        }
    }

    /// Stops polling a trigger that another owner polls now; [`Poller::enable`] takes it back.
    pub fn park(&mut self, slot: u32) {
        let state = &mut self.slots[slot as usize];
        state.elsewhere = true;
        state.in_commit = false;
        self.disarm(slot);
    }

    /// Lets a trigger be polled again after its tick was kept, with the cursor and the time of the fire that were kept.
    pub fn rearm(&mut self, slot: u32, cursor: Option<Arc<str>>, fired_at: Option<Wall>, now: Mono) {
        let state = &mut self.slots[slot as usize];
        state.in_commit = false;
        if cursor.is_some() {
            state.rest.cursor = cursor;
        }
        state.rest.fired_at = fired_at.or(state.rest.fired_at);
        self.arm(slot, now);
    }

    fn arm(&mut self, slot: u32, now: Mono) {
        let state = &mut self.slots[slot as usize];
        let is_idle = !state.in_body && !state.in_commit;
        if !is_idle || !state.enabled || state.elsewhere || state.retired || state.schedule.is_none() {
            return;
        }
        let (beat, missed) = match state.pause() {
            Duration::ZERO => cadence::next_beat(state.last_beat, state.interval_ns, now),
            // Beats that a wait leaves out on purpose are not missed.
            pause => (cadence::next_beat(state.last_beat, state.interval_ns, now.after(pause)).0, 0),
        };
        self.counts.missed += missed;
        let due = match state.is_plain {
            true => beat,
            false => beat.after(state.rest.plan.jitter.mul_f64(next_random(&mut self.random))),
        };
        state.next_beat = beat;
        state.due = Some(due);
        self.wheel.arm(slot, due);
    }

    fn disarm(&mut self, slot: u32) {
        self.wheel.cancel(slot);
        self.slots[slot as usize].due = None;
    }

    /// What the trigger's function may know now.
    pub fn tick_state(&self, slot: u32) -> TickState {
        let slot = &self.slots[slot as usize];
        TickState {
            cursor: slot.rest.cursor.clone(),
            due: slot.polled_due,
            fired_at: slot.rest.fired_at,
            failures: slot.failures,
        }
    }

    /// Where the trigger with that row stands; none if it is not declared here.
    pub fn standing(&self, schedule: i64) -> Option<Standing> {
        let slot = &self.slots[*self.slot_of.get(&schedule)? as usize];
        Some(Standing {
            in_body: slot.in_body,
            failures: slot.failures,
            due: slot.due,
            backs_off: slot.pause() > Duration::ZERO && slot.due.is_some(),
            last_at: slot.last_at,
            elsewhere: slot.elsewhere,
        })
    }

    /// The slot of the trigger with that row.
    pub fn slot_of(&self, schedule: i64) -> Option<u32> {
        self.slot_of.get(&schedule).copied()
    }

    /// The name of the trigger in that slot.
    pub fn name(&self, slot: u32) -> Arc<str> {
        Arc::clone(&self.slots[slot as usize].rest.plan.name)
    }

    /// Quiet polls gathered since they were last taken, of every trigger.
    pub fn take_history(&mut self) -> Vec<Stretch> {
        let take = |slot: &mut Slot| slot.schedule.and_then(|schedule| slot.streak.take(schedule));
        self.slots.iter_mut().filter_map(take).collect()
    }

    /// When the trigger with that row was last polled.
    pub fn last_poll_at(&self, schedule: i64) -> Option<Wall> {
        self.slot_of.get(&schedule).and_then(|&slot| self.slots[slot as usize].last_at)
    }

    /// Counts since the start.
    pub fn counts(&self) -> PollCounts {
        self.counts
    }

    /// Whether any trigger is being declared or polled, or its tick is being kept.
    pub fn is_busy(&self) -> bool {
        let is_busy = |slot: &Slot| slot.in_body || slot.in_commit || slot.schedule.is_none();
        self.slots.iter().any(|slot| !slot.retired && is_busy(slot))
    }
}

/// xorshift64*, in `[0, 1)`: jitter needs no better.
fn next_random(state: &mut u64) -> f64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
}
