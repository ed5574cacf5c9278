//! Decides which trigger is polled next, and when. Reads no clock and calls nobody.
//! Invariant: at most one body of a trigger is in flight, and a poll that was given up (it timed out, was disabled or declared
//! again meanwhile) changes nothing when it returns.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::cadence;
use crate::history::{Streak, Tally};
use crate::port::{Outcome, Stretch, TriggerState};
use crate::time::{Mono, Wall};
use crate::wheel::Wheel;

/// How finely polls are timed unless somebody wishes otherwise: the trade between lateness and the price of waking up.
pub const RESOLUTION: Duration = Duration::from_micros(50);

/// How a trigger wants to be polled. Triggers that want the same share one.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
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
    /// So many triggers are on the move in the wheel that it stops half-way: ask again at once.
    Again,
    /// Nothing is due before [`Poller::next_due`], which is later than now.
    Wait,
}

/// The right to poll a trigger once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The trigger's place.
    pub slot: u32,
    /// Tells this poll from a later one of the same trigger.
    pub serial: u32,
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

/// What every quiet poll touches, in one line of the cache: with many triggers its misses are what a poll costs.
#[derive(Debug)]
struct Slot {
    serial: u32,
    in_body: bool,
    in_commit: bool,
    /// Whether it is to be polled at all: its row is kept, and nothing in [`Rest`] stands against it.
    is_live: bool,
    /// Whether nothing else in [`Rest`] need be looked at: no jitter, time-out, failure, pause or reason.
    is_plain: bool,
    interval_ns: u64,
    /// The beat of the last poll; the poll is due later than that by the jitter.
    last_beat: Mono,
    quiet: Tally,
}

#[derive(Debug)]
struct Rest {
    name: Arc<str>,
    plan: Arc<Plan>,
    /// The store's row; none until it is kept.
    schedule: Option<i64>,
    enabled: bool,
    /// Another owner polls it.
    elsewhere: bool,
    retired: bool,
    /// The place of the same trigger as it was declared before, while its last poll is in flight: no two bodies of one trigger run at once.
    waits_for: Option<u32>,
    /// The place that waits for this one.
    successor: Option<u32>,
    /// Its body has not come back in time, and is not waited for.
    given_up: bool,
    failures: u32,
    pause: Option<Duration>,
    /// The beat for which it is armed, if jitter keeps that from being told from the due time.
    next_beat: Mono,
    /// When the poll out of turn was asked for that is in flight.
    asked_at: Option<Mono>,
    fired_at: Option<Wall>,
    cursor: Option<Arc<str>>,
    /// Skips with a reason; empty while [`Slot::quiet`] gathers.
    streak: Streak,
    has_streak: bool,
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
    rests: Vec<Rest>,
    slot_of: HashMap<i64, u32>,
    per_interval: HashMap<u64, u64>,
    counts: PollCounts,
    random: u64,
}

impl Default for Poller {
    fn default() -> Self {
        Self::new(RESOLUTION)
    }
}

impl Rest {
    /// How long the trigger is not to be polled, by its own wish or because of failures.
    fn pause(&self) -> Duration {
        self.pause.unwrap_or_else(|| self.plan.backoff.delay(self.failures))
    }

    fn is_live(&self) -> bool {
        self.schedule.is_some()
            && self.enabled
            && !self.elsewhere
            && !self.retired
            && self.waits_for.is_none()
    }

    fn is_plain(&self) -> bool {
        let is_timed = !self.plan.jitter.is_zero() || self.plan.timeout.is_some();
        let is_pausing = self.failures > 0 || self.pause.is_some();
        !(is_timed || is_pausing || self.has_streak || self.asked_at.is_some())
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
            per_interval: HashMap::new(),
            counts: PollCounts::default(),
            random: 0x9E37_79B9_7F4A_7C15,
        }
    }

    /// Makes room for a trigger and returns its slot. It is polled once [`Poller::enable`] names its row. The first poll comes one
    /// interval after `now`, later by its phase if other triggers share the interval, and by what is missing to a whole step of the clock.
    pub fn declare(&mut self, name: Arc<str>, plan: Arc<Plan>, now: Mono) -> u32 {
        let interval_ns = u64::try_from(plan.interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        let sharing = self.per_interval.entry(interval_ns).or_insert(0);
        let phase = cadence::phase(*sharing, interval_ns);
        let last_beat = cadence::origin(now, phase, self.wheel.tick_ns());
        *sharing += 1;
        let rest = Rest {
            name,
            plan,
            schedule: None,
            enabled: true,
            elsewhere: false,
            retired: false,
            waits_for: None,
            successor: None,
            given_up: false,
            failures: 0,
            pause: None,
            next_beat: last_beat,
            asked_at: None,
            fired_at: None,
            cursor: None,
            streak: Streak::default(),
            has_streak: false,
        };
        self.slots.push(Slot {
            serial: 0,
            in_body: false,
            in_commit: false,
            is_live: false,
            is_plain: rest.is_plain(),
            interval_ns,
            last_beat,
            quiet: Tally::default(),
        });
        self.rests.push(rest);
        u32::try_from(self.slots.len() - 1).expect("triggers are fewer than 2^32")
    }

    /// Puts a new declaration of a trigger in the place of an older one. A poll of that one in flight still counts whole; the new one is
    /// not polled before it is over.
    pub fn supersede(&mut self, old: u32, new: u32) {
        let (state, rest) = (&self.slots[old as usize], &mut self.rests[old as usize]);
        let is_busy = state.in_body && !rest.given_up || state.in_commit;
        let first = rest.waits_for.take().or(is_busy.then_some(old));
        rest.retired = true;
        if !state.in_body {
            self.wheel.cancel(old);
        }
        self.note(old);
        if let Some(first) = first {
            self.rests[first as usize].successor = Some(new);
            self.rests[new as usize].waits_for = Some(first);
            self.note(new);
        }
    }

    /// Nothing of an older declaration is in flight any more: the one that waits for it is polled, with what that left.
    fn make_room(&mut self, slot: u32, now: Mono) {
        let rest = &mut self.rests[slot as usize];
        let Some(new) = rest.successor.take() else { return };
        let (cursor, fired_at) = (rest.cursor.clone(), rest.fired_at);
        let next = &mut self.rests[new as usize];
        next.waits_for = None;
        if next.schedule.is_some() {
            next.cursor = cursor;
            next.fired_at = fired_at.or(next.fired_at);
        }
        self.note(new);
        self.arm(new, now);
    }

    /// Brings the hot half of a slot in line with the other.
    fn note(&mut self, slot: u32) {
        let rest = &self.rests[slot as usize];
        let state = &mut self.slots[slot as usize];
        state.is_live = rest.is_live();
        state.is_plain = rest.is_plain();
    }

    /// Gives a declared trigger its row and arms it if that says so, unless it is polled `elsewhere`. True if the row and what was
    /// switched here before disagree: then it is not polled until somebody has looked which of them is newer.
    pub fn enable(&mut self, slot: u32, row: &TriggerState, elsewhere: bool, now: Mono) -> bool {
        if self.rests[slot as usize].retired {
            return false;
        }
        let before = self.slot_of.get(&row.row).map(|&before| self.rests[before as usize].enabled);
        let enabled = row.enabled && before.unwrap_or(true);
        let rest = &mut self.rests[slot as usize];
        rest.schedule = Some(row.row);
        rest.enabled = enabled;
        rest.elsewhere = elsewhere;
        rest.cursor = row.cursor.as_deref().map(Arc::from);
        rest.fired_at = row.last_fired_at;
        self.slot_of.insert(row.row, slot);
        self.note(slot);
        match self.slots[slot as usize].is_live {
            true => self.arm(slot, now),
            false => self.give_way(slot),
        }
        before.is_some_and(|before| before != row.enabled)
    }

    /// Switches the trigger with that row; false if there is none here. A poll in flight still counts: it stops the next one.
    pub fn set_enabled(&mut self, schedule: i64, enabled: bool, now: Mono) -> bool {
        let Some(&slot) = self.slot_of.get(&schedule) else {
            return false;
        };
        let rest = &mut self.rests[slot as usize];
        if rest.enabled == enabled {
            return true;
        }
        rest.enabled = enabled;
        if enabled {
            rest.failures = 0;
            rest.pause = None;
        }
        self.note(slot);
        match enabled {
            true => self.arm(slot, now),
            // While its body runs, what is armed is its time-out.
            false if self.slots[slot as usize].in_body => {}
            false => self.wheel.cancel(slot),
        }
        true
    }

    /// Makes a poll in flight void, and arms no other.
    fn give_way(&mut self, slot: u32) {
        let state = &mut self.slots[slot as usize];
        state.serial = state.serial.wrapping_add(1);
        self.wheel.cancel(slot);
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
        let is_on_beat = state.is_plain || self.rests[slot as usize].plan.jitter.is_zero();
        state.last_beat = if is_on_beat { due } else { self.rests[slot as usize].next_beat };
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
        Ticket { slot, serial, due }
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
            self.rests[ticket.slot as usize].asked_at = None;
            self.rests[ticket.slot as usize].given_up = false;
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
        closed
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
        let schedule = rest.schedule.expect("a polled trigger has a row");
        let is_enough = failed && rest.plan.failures_max.is_some_and(|most| rest.failures >= most);
        let disable = is_enough.then(|| format!("{} polls in a row failed", rest.failures));
        self.note(slot);
        Ended { schedule, history, disable }
    }

    fn take_quiet(&mut self, slot: u32) -> Option<Stretch> {
        let (state, rest) = (&mut self.slots[slot as usize], &mut self.rests[slot as usize]);
        let schedule = rest.schedule?;
        rest.has_streak = false;
        let taken = state.quiet.take(schedule).or_else(|| rest.streak.take(schedule));
        self.note(slot);
        taken
    }

    /// A poll that leaves no trace: its body was called only to look.
    pub fn looked(&mut self, ticket: Ticket, now: Mono) {
        if self.returned(ticket, now) {
            self.arm_or_make_room(ticket.slot, now);
        }
    }

    /// Stops polling a trigger that another owner polls now; [`Poller::enable`] takes it back.
    pub fn park(&mut self, slot: u32) {
        self.rests[slot as usize].elsewhere = true;
        self.slots[slot as usize].in_commit = false;
        self.note(slot);
        self.wheel.cancel(slot);
        // Who polls it elsewhere has its cursor; the successor asks for it anew.
        if !self.slots[slot as usize].in_body
            && let Some(new) = self.rests[slot as usize].successor.take()
        {
            self.rests[new as usize].waits_for = None;
            self.note(new);
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
        if state.is_plain {
            let (beat, missed) = cadence::next_beat(state.last_beat, state.interval_ns, now);
            self.counts.missed += missed;
            self.wheel.arm(slot, beat);
        } else {
            self.arm_timed(slot, now);
        }
    }

    fn arm_timed(&mut self, slot: u32, now: Mono) {
        let (state, rest) = (&self.slots[slot as usize], &mut self.rests[slot as usize]);
        let pause = rest.pause();
        // A beat that falls on the end of the wait is not too early.
        let end = Mono(state.last_beat.after(pause).0.saturating_sub(1));
        let (beat, missed) = cadence::next_beat(state.last_beat, state.interval_ns, now.max(end));
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

    /// What the trigger's function may know now.
    pub fn tick_state(&self, slot: u32) -> TickState {
        let (state, rest) = (&self.slots[slot as usize], &self.rests[slot as usize]);
        TickState {
            cursor: rest.cursor.clone(),
            due: rest.asked_at.unwrap_or(state.last_beat),
            fired_at: rest.fired_at,
            failures: rest.failures,
        }
    }

    /// Where the trigger with that row stands; none if it is not declared here.
    pub fn standing(&self, schedule: i64) -> Option<Standing> {
        let slot = *self.slot_of.get(&schedule)?;
        let (state, rest) = (&self.slots[slot as usize], &self.rests[slot as usize]);
        let due = self.wheel.due(slot).filter(|_| !state.in_body);
        Some(Standing {
            in_body: state.in_body,
            failures: rest.failures,
            due,
            backs_off: due.is_some() && !rest.pause().is_zero(),
            last_at: state.quiet.last_at(),
            elsewhere: rest.elsewhere,
        })
    }

    /// Whether this very poll is still in its body.
    pub fn is_in_flight(&self, ticket: Ticket) -> bool {
        let state = &self.slots[ticket.slot as usize];
        state.in_body && state.serial == ticket.serial
    }

    /// How often the trigger in that slot is polled.
    pub fn interval(&self, slot: u32) -> Duration {
        Duration::from_nanos(self.slots[slot as usize].interval_ns)
    }

    /// The slot of the trigger with that row.
    pub fn slot_of(&self, schedule: i64) -> Option<u32> {
        self.slot_of.get(&schedule).copied()
    }

    /// The name of the trigger in that slot.
    pub fn name(&self, slot: u32) -> Arc<str> {
        Arc::clone(&self.rests[slot as usize].name)
    }

    /// Quiet polls gathered since they were last taken, of every trigger.
    pub fn take_history(&mut self) -> Vec<Stretch> {
        (0..self.slots.len()).filter_map(|slot| self.take_quiet(slot as u32)).collect()
    }

    /// The same of at most `many` places from `from` on, and where to go on; none at the end.
    pub fn take_history_from(&mut self, from: u32, many: u32) -> (Vec<Stretch>, Option<u32>) {
        let until = from.saturating_add(many).min(self.places());
        let taken = (from..until).filter_map(|slot| self.take_quiet(slot)).collect();
        (taken, Some(until).filter(|&until| until < self.places()))
    }

    /// The same of one trigger.
    pub fn take_history_of(&mut self, schedule: i64) -> Option<Stretch> {
        let slot = self.slot_of(schedule)?;
        self.take_quiet(slot)
    }

    /// How many places there are, retired ones included.
    pub fn places(&self) -> u32 {
        u32::try_from(self.slots.len()).expect("triggers are fewer than 2^32")
    }

    /// When the trigger with that row was last polled.
    pub fn last_poll_at(&self, schedule: i64) -> Option<Wall> {
        self.slot_of.get(&schedule).and_then(|&slot| self.slots[slot as usize].quiet.last_at())
    }

    /// Counts since the start.
    pub fn counts(&self) -> PollCounts {
        self.counts
    }

    /// How many bodies are in flight.
    pub fn in_body(&self) -> usize {
        self.slots.iter().filter(|slot| slot.in_body).count()
    }

    /// Whether any trigger is being declared or polled, or its tick is being kept.
    pub fn is_busy(&self) -> bool {
        let is_busy = |(slot, rest): (&Slot, &Rest)| {
            // Also a retired one: its last poll counts, and its successor waits for it.
            slot.in_body || slot.in_commit || (!rest.retired && rest.schedule.is_none())
        };
        self.slots.iter().zip(&self.rests).any(is_busy)
    }
}

/// xorshift64*, in `[0, 1)`: jitter needs no better.
fn next_random(state: &mut u64) -> f64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
}
