//! What a poller counts for who watches it. Invariant: a quiet poll pays for a sum and two comparisons, because what it gathers for the
//! history is counted when that is taken.

use std::sync::Arc;

use crate::meter::{Durations, NAMES_MAX, SHORT_US};
use crate::poll::Poller;
use crate::port::Stretch;

/// How one trigger's polls ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PollTally {
    /// All of them.
    pub polls: u64,
    /// Those that were a skip.
    pub skips: u64,
}

/// What is known of polls beside [`PollCounts`](crate::poll::PollCounts).
#[derive(Debug, Clone, Default)]
pub struct PollMeter {
    /// How late polls began.
    pub late: Durations,
    /// How long they took.
    pub took: Durations,
    /// By the names of those triggers that were declared first.
    pub triggers: Vec<(Arc<str>, PollTally)>,
}

/// What has gathered so far.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    late: Durations,
    took: Durations,
    took_sum_us: u64,
    begun: u64,
    /// By places, of the first of them.
    places: Vec<PollTally>,
}

impl Gathered {
    pub(super) fn begun(&mut self, late_ns: u64) {
        self.begun += 1;
        if late_ns > SHORT_US * 1000 {
            self.late.add(late_ns / 1000);
        }
    }

    pub(super) fn ended(&mut self, took_us: u64) {
        self.took_sum_us = self.took_sum_us.saturating_add(took_us);
        if took_us > SHORT_US {
            self.took.add(took_us);
        }
    }

    /// So many polls of a place that no history tells of as skips.
    pub(super) fn polled(&mut self, place: u32, polls: u64, skips: u64) {
        let place = place as usize;
        if place >= NAMES_MAX {
            return;
        }
        if self.places.len() <= place {
            self.places.resize(place + 1, PollTally::default());
        }
        self.places[place].polls += polls;
        self.places[place].skips += skips;
    }
}

impl Poller {
    /// Counts what is taken of a place for the history.
    pub(super) fn told(&mut self, place: u32, stretches: &[Stretch]) {
        for Stretch { count, .. } in stretches {
            self.gathered.polled(place, *count, *count);
        }
    }

    /// What there was since the start.
    pub fn meter(&self) -> PollMeter {
        let Gathered { late, took, took_sum_us, begun, places } = &self.gathered;
        let mut triggers: Vec<(Arc<str>, PollTally)> = Vec::new();
        for (place, (state, rest)) in self.hot.iter().zip(&self.rests).enumerate().take(NAMES_MAX) {
            let mut tally = places.get(place).copied().unwrap_or_default();
            let quiet = state.quiet.count() + rest.streak.count();
            tally = PollTally { polls: tally.polls + quiet, skips: tally.skips + quiet };
            // One that was declared again has several places.
            match triggers.iter_mut().find(|(name, _)| *name == rest.name) {
                Some((_, sum)) => {
                    *sum = PollTally { polls: sum.polls + tally.polls, skips: sum.skips + tally.skips };
                }
                None => triggers.push((Arc::clone(&rest.name), tally)),
            }
        }
        PollMeter {
            late: late.with_short(*begun, self.counts.late_sum_ns / 1000),
            took: took.with_short(self.counts.polls, *took_sum_us),
            triggers,
        }
    }
}
