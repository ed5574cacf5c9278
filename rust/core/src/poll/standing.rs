//! What a poller tells of its triggers: to their functions, to whoever asks why nothing happens, and to the history.

use std::sync::Arc;
use std::time::Duration;

use crate::poll::slot::{Rest, Slot};
use crate::poll::{Poller, Ticket};
use crate::port::Stretch;
use crate::time::{Mono, Wall};

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
    /// Of a cron: the moment that the poll decides, and what a run of that begins with, as JSON text.
    pub moment: Option<(Wall, Arc<str>)>,
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
    /// Whether that wait began before this process did.
    pub goes_on: bool,
    /// When it was last polled.
    pub last_at: Option<Wall>,
    /// Another owner polls it.
    pub elsewhere: bool,
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

impl Poller {
    /// What the trigger's function may know now.
    pub fn tick_state(&self, slot: u32) -> TickState {
        let (state, rest) = (&self.slots[slot as usize], &self.rests[slot as usize]);
        TickState {
            cursor: rest.cursor.clone(),
            due: rest.asked_at.unwrap_or(state.last_beat),
            fired_at: rest.fired_at,
            failures: rest.failures,
            moment: rest.moment.clone(),
        }
    }

    /// Whether what is in that place is a cron's.
    pub fn is_by_calendar(&self, slot: u32) -> bool {
        !self.slots[slot as usize].is_plain && self.rests[slot as usize].plan.by_calendar
    }

    /// Whether a poll in that place is in flight, or its tick is being kept.
    pub fn is_at_work(&self, slot: u32) -> bool {
        let (state, rest) = (&self.slots[slot as usize], &self.rests[slot as usize]);
        state.in_body && !rest.given_up || state.in_commit
    }

    /// Where the trigger with that row stands; none if it is not declared here.
    pub fn standing(&self, schedule: i64) -> Option<Standing> {
        let slot = *self.slot_of.get(&schedule)?;
        let (state, rest) = (&self.slots[slot as usize], &self.rests[slot as usize]);
        let due = self.wheel.due(slot).filter(|_| !state.in_body);
        let pauses = !rest.pause().is_zero();
        // Without a kept wait the first beat comes within an interval.
        let interval = Duration::from_nanos(state.interval_ns.saturating_add(self.wheel.tick_ns()));
        let goes_on = !pauses && rest.first.is_some_and(|first| first > state.last_beat.after(interval));
        Some(Standing {
            in_body: state.in_body,
            failures: rest.failures,
            due,
            backs_off: due.is_some() && (pauses || goes_on),
            goes_on,
            last_at: state.quiet.last_at(),
            elsewhere: rest.elsewhere,
        })
    }

    /// How many polls in a row have failed so far. Costs nothing where none has.
    pub fn failing(&self, slot: u32) -> u32 {
        match self.slots[slot as usize].is_plain {
            true => 0,
            false => self.rests[slot as usize].failures,
        }
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

    /// The row, if it is kept, and the name of the trigger in that slot.
    pub fn row_and_name(&self, slot: u32) -> Option<(i64, Arc<str>)> {
        let rest = &self.rests[slot as usize];
        Some((rest.schedule?, Arc::clone(&rest.name)))
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

    pub(super) fn take_quiet(&mut self, slot: u32) -> Option<Stretch> {
        let (state, rest) = (&mut self.slots[slot as usize], &mut self.rests[slot as usize]);
        let schedule = rest.schedule?;
        rest.has_streak = false;
        let taken = state.quiet.take(schedule).or_else(|| rest.streak.take(schedule));
        self.note(slot);
        taken
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

    /// The rows of the triggers whose bodies are in flight.
    pub fn rows_in_body(&self) -> Vec<i64> {
        let in_body = self.slots.iter().zip(&self.rests).filter(|(slot, _)| slot.in_body);
        in_body.filter_map(|(_, rest)| rest.schedule).collect()
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
