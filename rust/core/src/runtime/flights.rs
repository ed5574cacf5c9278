//! Polls that are in flight for longer than a poller waits for: since when, and whether that has been told.
//! Invariant: each is told at most once, and none is kept after its poll has ended.

use std::collections::HashMap;
use std::time::Duration;

use crate::time::{Mono, Now};

/// A poll is told to be long after this, or after so many of its trigger's intervals if that is longer.
pub(super) const LONG: Duration = Duration::from_secs(60);
pub(super) const LONG_INTERVALS: u32 = 10;

#[derive(Debug)]
struct Flight {
    began: Now,
    is_told: bool,
}

/// By the trigger's place.
#[derive(Debug, Default)]
pub(super) struct Flights {
    by_place: HashMap<u32, Flight>,
}

impl Flights {
    /// A poll goes on while others are begun.
    pub(super) fn note(&mut self, place: u32, began: Now) {
        self.by_place.entry(place).or_insert(Flight { began, is_told: false });
    }

    /// A poll has ended. Costs nothing while none is long.
    pub(super) fn ended(&mut self, place: u32) {
        if !self.by_place.is_empty() {
            self.by_place.remove(&place);
        }
    }

    /// When the poll of that place began, if it is known to be in flight.
    pub(super) fn began(&self, place: u32) -> Option<Now> {
        self.by_place.get(&place).map(|flight| flight.began)
    }

    /// The places whose polls are in flight.
    pub(super) fn places(&self) -> impl Iterator<Item = u32> {
        self.by_place.keys().copied()
    }

    /// Those that have been told to be too long, with when they began.
    pub(super) fn told(&self) -> impl Iterator<Item = (u32, Now)> {
        self.by_place
            .iter()
            .filter(|(_, flight)| flight.is_told)
            .map(|(&place, flight)| (place, flight.began))
    }

    /// Those that have become too long since the last look, with when they began.
    pub(super) fn too_long(&mut self, now: Mono, interval: impl Fn(u32) -> Duration) -> Vec<(u32, Now)> {
        let mut found = Vec::new();
        for (&place, flight) in &mut self.by_place {
            let limit = LONG.max(interval(place).saturating_mul(LONG_INTERVALS));
            if !flight.is_told && now.since(flight.began.mono) >= limit {
                flight.is_told = true;
                found.push((place, flight.began));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Now {
        Now { mono: Mono(seconds * SECOND), wall: Wall(0) }
    }

    #[test]
    fn a_long_poll_is_told_once() {
        let mut flights = Flights::default();
        flights.note(3, at(100));
        let mut told = |seconds| flights.too_long(at(seconds).mono, |_| Duration::from_secs(1)).len();
        assert_eq!([told(159), told(160), told(161), told(1000)], [0, 1, 0, 0]);
    }

    #[test]
    fn a_poll_of_a_slow_trigger_may_take_ten_intervals() {
        let mut flights = Flights::default();
        flights.note(3, at(0));
        let mut told = |seconds| flights.too_long(at(seconds).mono, |_| Duration::from_secs(60)).len();
        assert_eq!([told(599), told(600)], [0, 1]);
    }

    #[test]
    fn the_next_long_poll_of_a_trigger_is_told_anew() {
        let mut flights = Flights::default();
        for began in [0, 1000] {
            flights.note(3, at(began));
            assert_eq!(flights.told().count(), 0);
            assert_eq!(flights.too_long(at(began + 60).mono, |_| Duration::ZERO), [(3, at(began))]);
            assert_eq!(flights.told().collect::<Vec<_>>(), [(3, at(began))]);
            flights.ended(3);
            assert!(flights.began(3).is_none());
        }
    }

    #[test]
    fn a_poll_that_is_noted_again_began_when_it_began() {
        let mut flights = Flights::default();
        flights.note(3, at(1));
        flights.note(3, at(2));
        assert_eq!(flights.began(3), Some(at(1)));
    }
}
