//! Decides when a trigger is due next. Invariant: due times lie on `start + phase + n * interval` with n ≥ 1, so that no poll's
//! lateness moves the next; what was missed is counted and skipped, never made up for in a burst.

use std::time::Duration;

use crate::error::{Error, Kind, Result, excerpt};
use crate::time::Mono;

/// The shortest poll interval.
pub const INTERVAL_MIN: Duration = Duration::from_millis(1);
/// The longest poll interval: ten years.
pub const INTERVAL_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// The beat of one trigger, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cadence {
    /// When it was declared.
    pub start: Mono,
    /// Its share of the interval, so that triggers with equal intervals are not due together.
    pub phase: u64,
    /// From one due time to the next.
    pub interval: u64,
}

impl Cadence {
    /// The first due time after `now` and after `last_due`, and how many were missed between.
    pub fn next(&self, last_due: Mono, now: Mono) -> (Mono, u64) {
        let base = self.start.0.saturating_add(self.phase);
        let beats = |at: Mono| at.0.saturating_sub(base) / self.interval;
        let last = beats(last_due);
        let next = beats(now).max(last) + 1;
        let due = base.saturating_add(self.interval.saturating_mul(next));
        (Mono(due), next - last - 1)
    }
}

/// The `k`-th trigger's share of an interval: van der Corput's sequence, which spreads evenly whatever the number of triggers.
pub fn phase(k: u64, interval_ns: u64) -> u64 {
    ((u128::from(k.reverse_bits()) * u128::from(interval_ns)) >> 64) as u64
}

/// A duration such as `100ms`, `5s`, `1h30m`, `1.5s` or `2d`.
///
/// # Errors
/// [`Kind::Trigger`] for anything else, and for less than [`INTERVAL_MIN`] or more than [`INTERVAL_MAX`].
pub fn parse_interval(text: &str) -> Result<Duration> {
    let refuse = |why: String| Err(Error::new(Kind::Trigger, why));
    let Some(seconds) = seconds_of(text.trim()) else {
        let shown = excerpt(text);
        return refuse(format!(
            r#"poll_interval "{shown}" is not a duration; write it like "100ms", "5s", "1m" or "1h30m""#
        ));
    };
    if seconds > INTERVAL_MAX.as_secs_f64() {
        return refuse(format!("poll_interval is {}; the largest is ten years", excerpt(text)));
    }
    let interval = Duration::from_secs_f64(seconds);
    if interval < INTERVAL_MIN {
        return refuse(format!("poll_interval is {}; the smallest is 1ms", excerpt(text)));
    }
    Ok(interval)
}

fn seconds_of(mut text: &str) -> Option<f64> {
    let mut seconds = 0.0;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = text[..digits].parse().ok()?;
        let rest = &text[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit_end] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return None,
            };
        text = &rest[unit_end..];
    }
    Some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Cadence = Cadence { start: Mono(1000), phase: 5, interval: 100 };

    #[test]
    fn the_first_poll_comes_one_interval_after_the_start() {
        assert_eq!(BEAT.next(Mono(1005), Mono(1005)), (Mono(1105), 0));
    }

    #[test]
    fn lateness_does_not_move_the_next_poll() {
        assert_eq!(BEAT.next(Mono(1105), Mono(1190)), (Mono(1205), 0));
    }

    #[test]
    fn missed_slots_are_counted_and_skipped() {
        assert_eq!(BEAT.next(Mono(1105), Mono(1450)), (Mono(1505), 3));
    }

    #[test]
    fn phases_spread_over_the_interval_from_zero() {
        assert_eq!([0, 1, 2, 3].map(|k| phase(k, 100)), [0, 50, 25, 75]);
    }

    #[test]
    fn durations_are_read_and_bad_ones_explained() {
        let milliseconds = |text| parse_interval(text).unwrap().as_millis();
        assert_eq!(["100ms", "1.5s", "1h30m", "2d"].map(milliseconds), [100, 1500, 5_400_000, 172_800_000]);
        assert!(
            parse_interval("0s").unwrap_err().message.contains("poll_interval is 0s; the smallest is 1ms")
        );
        for bad in ["", "abc", "5", "s", "5x", "-1s", "1..2s"] {
            assert!(parse_interval(bad).is_err(), "{bad}");
        }
    }
}
