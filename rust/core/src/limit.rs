//! What limits a workflow's runs: how many of them at once, how many starts, how many admissions, each for every value of a key. Pure.
//! Invariant: by one [`Rate`] at most `burst + t / interval` pass in any span `t`, whatever clock the stamp before came from.

mod key;
mod terms;

use std::time::Duration;

use crate::time::Wall;

pub use key::{KEY_CHARS_MAX, Key};
pub use terms::{Concurrency, Dropped, Keys, Limits, Overflow, Paced, Rule};

/// So many pass within a time, evenly spaced but for a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many, at least one.
    pub limit: u64,
    /// In which time.
    pub per: Duration,
    /// How many of them may pass at once, at least one.
    pub burst: u64,
}

/// What becomes of one that asks to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It passes. This is the stamp for the next one to ask.
    Now(Wall),
    /// It passes from then on, if no other does first.
    At(Wall),
}

impl Rate {
    /// The time from one to the next, in whole microseconds and at least one. Rounded up, so that never more pass than were asked for.
    pub fn interval_us(self) -> i64 {
        let interval = self.per.as_micros().div_ceil(u128::from(self.limit.max(1))).max(1);
        i64::try_from(interval).unwrap_or(i64::MAX)
    }

    /// Whether one passes at `now`, by the stamp that the last one left.
    ///
    /// This is GCRA: the stamp is the moment at which everything that passed so far would have come through without a burst. One further ahead
    /// than a burst allows was left by a clock that was ahead, or by another rate, and counts as a burst that was just used up; see also [`Self::cut`].
    pub fn turn(self, stamp: Option<Wall>, now: Wall) -> Turn {
        let interval = self.interval_us();
        let stamp = stamp.map_or(now.0, |stamp| self.cut(stamp, now).0.max(now.0));
        let first = stamp.saturating_sub(interval.saturating_mul(self.slack()));
        match first > now.0 {
            true => Turn::At(Wall(first)),
            false => Turn::Now(Wall(stamp.saturating_add(interval))),
        }
    }

    /// The stamp as it counts at `now`. It has to be kept where it differs, or each look would put the next turn off.
    pub fn cut(self, stamp: Wall, now: Wall) -> Wall {
        let most = self.interval_us().saturating_mul(self.slack().saturating_add(1));
        Wall(stamp.0.min(now.0.saturating_add(most)))
    }

    /// How many pass at once beside the first.
    fn slack(self) -> i64 {
        i64::try_from(self.burst.max(1) - 1).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(limit: u64, per_us: u64, burst: u64) -> Rate {
        Rate { limit, per: Duration::from_micros(per_us), burst }
    }

    /// Who keeps every moment at which one passed, and counts.
    struct Naive {
        passed: Vec<i64>,
    }

    impl Naive {
        /// Whether one more at `now` leaves every span within its bound.
        fn may(&self, rate: Rate, now: i64) -> bool {
            (0..self.passed.len()).all(|first| {
                let many = (self.passed.len() - first + 1) as u64;
                let span = (now - self.passed[first]) as u64;
                many <= rate.burst + span / rate.interval_us() as u64
            })
        }
    }

    proptest! {
        #[test]
        fn it_lets_pass_exactly_what_counting_would(
            limit in 1..20_u64, per_us in 1..10_000_u64, burst in 1..6_u64,
            steps in proptest::collection::vec(0..3_000_i64, 1..80),
        ) {
            let rate = rate(limit, per_us, burst);
            let (mut naive, mut stamp, mut now) = (Naive { passed: Vec::new() }, None, 1_000_000);
            for step in steps {
                now += step;
                match rate.turn(stamp, Wall(now)) {
                    Turn::Now(next) => {
                        prop_assert!(naive.may(rate, now), "at {now} one too many passed");
                        naive.passed.push(now);
                        stamp = Some(next);
                    }
                    Turn::At(at) => {
                        prop_assert!(!naive.may(rate, now), "at {now} one was held without need");
                        prop_assert!(at.0 > now);
                        prop_assert!(naive.may(rate, at.0) && !naive.may(rate, at.0 - 1), "{at:?} is not the first moment");
                    }
                }
            }
        }

        #[test]
        fn a_stamp_from_a_clock_that_was_ahead_holds_for_one_interval(
            limit in 1..20_u64, per_us in 1..10_000_u64, burst in 1..6_u64, ahead in 0..i64::MAX / 4,
        ) {
            let (rate, now) = (rate(limit, per_us, burst), Wall(1_000_000));
            let stamp = Wall(now.0 + ahead);
            match rate.turn(Some(stamp), now) {
                Turn::At(at) => prop_assert!(at.0 - now.0 <= rate.interval_us()),
                Turn::Now(next) => prop_assert!(rate.cut(next, now) == next),
            }
            let kept = rate.cut(stamp, now);
            let later = Wall(now.0 + rate.interval_us());
            prop_assert!(matches!(rate.turn(Some(kept), later), Turn::Now(_)), "a kept stamp does not hold for ever");
        }
    }

    #[test]
    fn what_does_not_divide_is_rounded_so_that_fewer_pass() {
        assert_eq!(rate(3, 1_000_000, 1).interval_us(), 333_334);
        assert_eq!(rate(10, 1, 1).interval_us(), 1);
    }

    #[test]
    fn nothing_overflows() {
        let rate = Rate { limit: 1, per: Duration::MAX, burst: u64::MAX };
        assert_eq!(rate.turn(None, Wall(5)), Turn::Now(Wall(i64::MAX)));
        assert!(matches!(rate.turn(Some(Wall(i64::MAX)), Wall(5)), Turn::Now(_)));
    }
}
