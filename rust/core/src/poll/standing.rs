//! What a poller tells of its triggers: to their functions, to whoever asks why nothing happens, and to the history.

use std::sync::Arc;
use std::time::Duration;

use crate::key::ScheduleKey;
use crate::poll::hot::{Hot, Rest};
use crate::poll::{Poller, Ticket};
use crate::port::{Ending, Stretch};
use crate::time::{Mono, Wall};

/// What a trigger's function may know when it is polled.
#[derive(Debug, Clone, PartialEq)]
pub struct TickState {
    /// The cursor as JSON text.
    pub cursor: Option<Arc<str>>,
    /// How often somebody had set it when the poll looked at it.
    pub cursor_set: i64,
    /// When the poll was due.
    pub due: Mono,
    /// When the trigger last fired a run.
    pub fired_at: Option<Wall>,
    /// How many polls in a row have failed.
    pub failures: u32,
    /// Of a cron: the moment that the poll decides, and what a run of that begins with, as JSON text.
    pub moment: Option<(Wall, Arc<str>)>,
    /// The end of a run that the poll is about.
    pub ending: Option<Arc<Ending>>,
}

/// Where a trigger stands, for whoever asks why nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its body runs now, that of an earlier declaration too.
    pub in_body: bool,
    /// An earlier declaration's last poll is in flight, for whose end it waits.
    pub waits_for_older: bool,
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
    pub fn tick_state(&self, place: u32) -> TickState {
        let (state, rest) = (&self.hot[place as usize], &self.rests[place as usize]);
        TickState {
            cursor: rest.cursor.clone(),
            cursor_set: rest.cursor_seen.unwrap_or(rest.cursor_set),
            due: rest.asked_at.unwrap_or(state.last_beat),
            fired_at: rest.fired_at,
            failures: rest.failures,
            moment: rest.moment.clone(),
            ending: rest.ending.clone().filter(|ending| rest.shown == Some(ending.key)),
        }
    }

    /// Whether what is in that place is a cron's.
    pub fn is_by_calendar(&self, place: u32) -> bool {
        !self.hot[place as usize].is_plain && self.rests[place as usize].plan.by_calendar
    }

    /// Whether a poll in that place is in flight, or its tick is being kept.
    pub fn is_at_work(&self, place: u32) -> bool {
        let (state, rest) = (&self.hot[place as usize], &self.rests[place as usize]);
        state.in_body && !rest.given_up || state.in_commit
    }

    /// Where the trigger with that row stands; none if it is not declared here.
    pub fn standing(&self, schedule: ScheduleKey) -> Option<Standing> {
        let place = *self.placed.get(&schedule)?;
        let (state, rest) = (&self.hot[place as usize], &self.rests[place as usize]);
        let is_in_body = self.hot[rest.waits_for.unwrap_or(place) as usize].in_body;
        let due = self.wheel.due(place).filter(|_| !state.in_body);
        let pauses = !rest.pause().is_zero();
        // Without a kept wait the first beat comes within an interval.
        let interval = Duration::from_nanos(state.interval_ns.saturating_add(self.wheel.tick_ns()));
        let goes_on = !pauses && rest.first.is_some_and(|first| first > state.last_beat.after(interval));
        Some(Standing {
            in_body: is_in_body,
            waits_for_older: rest.waits_for.is_some(),
            failures: rest.failures,
            due,
            backs_off: due.is_some() && (pauses || goes_on),
            goes_on,
            last_at: state.quiet.last_at(),
            elsewhere: rest.elsewhere,
        })
    }

    /// Where the body runs, if one does, of the trigger in that place: an earlier declaration's may hold it up.
    pub fn place_of_body(&self, place: u32) -> u32 {
        self.rests[place as usize].waits_for.unwrap_or(place)
    }

    /// How many polls in a row have failed so far. Costs nothing where none has.
    pub fn failing(&self, place: u32) -> u32 {
        match self.hot[place as usize].is_plain {
            true => 0,
            false => self.rests[place as usize].failures,
        }
    }

    /// Whether this very poll is still in its body.
    pub fn is_in_flight(&self, ticket: Ticket) -> bool {
        let state = &self.hot[ticket.place as usize];
        state.in_body && state.serial == ticket.serial
    }

    /// How often the trigger in that place is polled.
    pub fn interval(&self, place: u32) -> Duration {
        Duration::from_nanos(self.hot[place as usize].interval_ns)
    }

    /// The place of the trigger with that row.
    pub fn place_of(&self, schedule: ScheduleKey) -> Option<u32> {
        self.placed.get(&schedule).copied()
    }

    /// Whether what is in that place is an earlier declaration, for whose last poll the one in force waits.
    pub fn is_waited_for(&self, place: u32) -> bool {
        self.rests[place as usize].successor.is_some()
    }

    /// The row, if it is kept, and the name of the trigger in that place.
    pub fn row_and_name(&self, place: u32) -> Option<(ScheduleKey, Arc<str>)> {
        let rest = &self.rests[place as usize];
        Some((rest.schedule?, Arc::clone(&rest.name)))
    }

    /// The name of the trigger in that place.
    pub fn name(&self, place: u32) -> Arc<str> {
        Arc::clone(&self.rests[place as usize].name)
    }

    /// Whether a poll of that name is in its body, or what came of it is on its way to the store, also if it is declared no more.
    pub fn is_in_flight_as(&self, name: &str) -> bool {
        let places = self.rests.iter().zip(&self.hot);
        places.into_iter().any(|(rest, state)| *rest.name == *name && (state.in_body || state.in_commit))
    }

    /// Quiet polls gathered since they were last taken, of every trigger.
    pub fn take_history(&mut self) -> Vec<Stretch> {
        self.take_history_from(0, u32::MAX).0
    }

    /// The same of at most `many` places from `from` on, and where to go on; none at the end.
    pub fn take_history_from(&mut self, from: u32, many: u32) -> (Vec<Stretch>, Option<u32>) {
        let until = from.saturating_add(many).min(self.places());
        let mut taken = Vec::new();
        (from..until).for_each(|place| self.take_quiet(place, &mut taken));
        (taken, Some(until).filter(|&until| until < self.places()))
    }

    /// The same of the trigger in a place, and in those of its older declarations.
    pub fn take_history_of(&mut self, place: u32) -> Vec<Stretch> {
        let mut places = vec![place];
        while let Some(older) = places.last().and_then(|&newer| self.rests[newer as usize].older) {
            places.push(older);
        }
        let mut taken = Vec::new();
        places.into_iter().rev().for_each(|place| self.take_quiet(place, &mut taken));
        taken
    }

    pub(super) fn take_quiet(&mut self, place: u32, taken: &mut Vec<Stretch>) {
        let (state, rest) = (&mut self.hot[place as usize], &mut self.rests[place as usize]);
        let Some(schedule) = rest.schedule else { return };
        rest.has_streak = false;
        let before = taken.len();
        // What is counted now came after all that has a reason.
        taken.extend(rest.streak.take(schedule));
        taken.extend(state.quiet.take(schedule));
        self.note(place);
        self.told(place, &taken[before..]);
    }

    /// How many places there are, retired ones included.
    pub fn places(&self) -> u32 {
        u32::try_from(self.hot.len()).expect("triggers are fewer than 2^32")
    }

    /// When the trigger with that row was last polled.
    pub fn last_poll_at(&self, schedule: ScheduleKey) -> Option<Wall> {
        self.placed.get(&schedule).and_then(|&place| self.hot[place as usize].quiet.last_at())
    }

    /// Counts since the start.
    pub fn counts(&self) -> PollCounts {
        self.counts
    }

    /// The rows of the triggers whose bodies are in flight.
    pub fn rows_in_body(&self) -> Vec<ScheduleKey> {
        let in_body = self.hot.iter().zip(&self.rests).filter(|(place, _)| place.in_body);
        in_body.filter_map(|(_, rest)| rest.schedule).collect()
    }

    /// How many bodies are in flight.
    pub fn in_body(&self) -> usize {
        self.hot.iter().filter(|place| place.in_body).count()
    }

    /// Whether any trigger is being declared or polled, or its tick is being kept.
    pub fn is_busy(&self) -> bool {
        let is_busy = |(place, rest): (&Hot, &Rest)| {
            // Also a retired one: its last poll counts, and its successor waits for it.
            place.in_body || place.in_commit || (!rest.retired && rest.schedule.is_none())
        };
        self.hot.iter().zip(&self.rests).any(is_busy)
    }
}
