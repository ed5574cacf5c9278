//! What grows too old: what is asked for, what was found, and from when on anything may go.
//! Invariant: a clock that jumped ahead, and a file that has just been upgraded, make nothing go for an hour.

use std::time::Duration;

use crate::key::{RunRow, ScheduleKey};
use crate::time::Wall;

/// After an upgrade, or a jump of the clock, nothing is forgotten for so long.
pub const SPARED_FOR: Duration = Duration::from_secs(3600);

/// A store whose last sign of life is older than this, and than what is to be kept, was closed for long, or the clock is wrong.
pub const JUMP: Duration = Duration::from_secs(30 * 86_400);

/// What may be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Old {
    /// Run keys whose time is over by now.
    pub now: Wall,
    /// Runs that became final before; none keeps them all.
    pub runs_before: Option<Wall>,
    /// Stretches of history that ended before.
    pub ticks_before: Wall,
    /// Of one trigger's history, what is older than so many stretches.
    pub ticks_max: u64,
}

/// What was found to be so, by the store's keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Runs.
    pub runs: Vec<RunRow>,
    /// Stretches of history.
    pub ticks: Vec<i64>,
    /// Run keys, by the schedule's row.
    pub keys: Vec<(ScheduleKey, String)>,
}

impl Found {
    /// How much that is.
    pub fn len(&self) -> usize {
        self.runs.len() + self.ticks.len() + self.keys.len()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes at most `limit` off.
    pub fn take(&mut self, limit: usize) -> Self {
        let runs = self.runs.split_off(self.runs.len().saturating_sub(limit));
        let left = limit - runs.len();
        let ticks = self.ticks.split_off(self.ticks.len().saturating_sub(left));
        let left = left - ticks.len();
        let keys = self.keys.split_off(self.keys.len().saturating_sub(left));
        Self { runs, ticks, keys }
    }
}

/// What a store knows of the time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spared {
    /// Nothing is forgotten before, if somebody said so.
    pub until: Option<Wall>,
    /// The newest thing in it that does not come from who asks.
    pub last_sign: Option<Wall>,
}

impl Spared {
    /// Until when nothing is forgotten; none if it may begin. `first` says that nobody who asks has looked before, `jumped` that the clock did
    /// so since. A moment further away than [`SPARED_FOR`] was noted by a clock that was wrong.
    pub fn until(self, now: Wall, kept: Duration, first: bool, jumped: bool) -> Option<Wall> {
        let spared = now.after(SPARED_FOR);
        let is_late = first && self.last_sign.is_some_and(|sign| now > sign.after(kept.max(JUMP)));
        let has_jumped = jumped || is_late;
        match self.until {
            Some(until) if until > now => Some(until.min(spared)),
            _ if has_jumped => Some(spared),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;
    const HOUR: i64 = 3_600_000_000;
    const KEPT: Duration = Duration::from_secs(90 * 86_400);

    fn until(until: Option<i64>, last_sign: Option<i64>, now: i64, first: bool) -> Option<i64> {
        let spared = Spared { until: until.map(Wall), last_sign: last_sign.map(Wall) };
        spared.until(Wall(now), KEPT, first, false).map(|until| until.0)
    }

    #[test]
    fn a_store_that_was_alive_lately_forgets_at_once() {
        assert_eq!(until(None, Some(10 * DAY), 100 * DAY, true), None);
        assert_eq!(until(None, None, 100 * DAY, true), None);
    }

    #[test]
    fn a_clock_that_jumped_ahead_is_not_believed_for_an_hour() {
        assert_eq!(until(None, Some(DAY), 400 * DAY, true), Some(400 * DAY + HOUR));
        assert_eq!(until(None, Some(DAY), 400 * DAY, false), None, "a quiet store is no jump");
        let spared = Some(400 * DAY + HOUR);
        assert_eq!(until(spared, Some(DAY), 400 * DAY + 5, true), spared, "nor by the next start");
        assert_eq!(until(spared, Some(DAY), 400 * DAY + HOUR, false), None);
    }

    #[test]
    fn a_clock_that_jumps_while_its_runner_lives_is_not_believed_for_an_hour() {
        let until = Spared::default().until(Wall(100 * DAY), KEPT, false, true);
        assert_eq!(until, Some(Wall(100 * DAY + HOUR)));
    }

    #[test]
    fn a_clock_that_is_right_again_does_not_wait_for_the_wrong_one() {
        assert_eq!(until(Some(400 * DAY), Some(DAY), 2 * DAY, true), Some(2 * DAY + HOUR));
    }

    #[test]
    fn what_was_found_is_taken_in_parts() {
        let mut found = Found {
            runs: vec![RunRow(1), RunRow(2), RunRow(3)],
            ticks: vec![4],
            keys: vec![(ScheduleKey(5), "a".to_owned())],
        };
        assert_eq!(found.take(2).runs, [RunRow(2), RunRow(3)]);
        assert_eq!(found.take(2), Found { runs: vec![RunRow(1)], ticks: vec![4], keys: Vec::new() });
        assert_eq!(found.take(2).keys.len(), 1);
        assert!(found.is_empty());
    }
}
