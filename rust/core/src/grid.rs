//! Where a trigger's due times lie when it is polled by one owner after another. Pure: reads no clock.
//! Invariant: they lie on `origin + n * interval` with n ≥ 1, whoever polls, and one that came while nobody polled is made up for once.
//!
//! All that is kept was written by clocks that may have been wrong: what lies ahead of now counts as now.

use std::time::Duration;

use crate::time::Wall;

/// A due time that came while nobody polled is made up for within so long, in microseconds; one that comes sooner by itself is not.
pub const CATCH_UP_US: i64 = 10_000_000;

/// By so much a wait that ends with a beat may seem to end behind it, in microseconds: both are written as times of a clock that was read more
/// than once, and polls fall on whole steps of another.
const BEAT_SLACK_US: i64 = 1_000;

/// What is kept of when a trigger is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Where its grid begins.
    pub origin_at: Wall,
    /// What was due until then has been polled, or will be by who has it; none means all.
    pub heeded_until: Option<Wall>,
    /// When it was last polled, as far as that was written down.
    pub last_at: Option<Wall>,
    /// Until when it is not to be polled, because of failures or its own wish.
    pub wait: Option<Wait>,
}

/// A wait that goes on after a restart: a trigger's for its next poll, or a task's for its next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Nothing before that.
    pub not_before: Wall,
    /// How long the wait was to be, in microseconds: it is never longer from now on, whatever the clock showed then.
    pub span_us: i64,
}

/// When a trigger is polled that was polled by another owner before, or should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumption {
    /// Its next due time.
    pub first: Wall,
    /// The poll before that which makes up for what came while nobody polled, if something did.
    pub make_up: Option<Wall>,
}

/// How far its owner has come with a trigger, for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenure {
    /// When the owner took it over.
    pub taken_at: Wall,
    /// What was due until then had been polled by that time, or before.
    pub heeded_until: Wall,
    /// When the owner was seen last.
    pub seen_at: Option<Wall>,
}

impl Wait {
    /// A wait that begins now.
    pub fn new(span: Duration, now: Wall) -> Self {
        let span_us = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Self { not_before: now.after(span), span_us }
    }

    /// When it is over for who reads of it now; at once if that is past.
    pub fn end(&self, now: Wall) -> Wall {
        Wall(self.not_before.0.min(now.0.saturating_add(self.span_us.max(0))))
    }

    /// How much of it is left.
    pub fn left(&self, now: Wall) -> Duration {
        Duration::from_micros(u64::try_from(self.end(now).0.saturating_sub(now.0)).unwrap_or(0))
    }
}

impl Tenure {
    /// Until when what was due has been polled, at most until `now`. An owner that had the trigger for a short time only may not have
    /// caught up with what it found.
    pub fn heeded_until(&self, now: Wall) -> Wall {
        let caught_up = Wall(self.taken_at.0.saturating_add(CATCH_UP_US));
        self.seen_at.filter(|&seen| seen >= caught_up).unwrap_or(self.heeded_until).min(now)
    }
}

impl Kept {
    /// When a trigger that is polled each `interval_us` is polled from `now` on.
    pub fn resume(&self, interval_us: i64, now: Wall) -> Resumption {
        let interval_us = interval_us.max(1);
        let after = |moment: i64| self.after(interval_us, moment, now);
        let wait = self.wait.map(|wait| wait.end(now).0);
        if let Some(end) = wait.filter(|&end| end > now.0) {
            // A beat that falls on the end of the wait is not too early, as near as clocks and their steps tell.
            let slack = BEAT_SLACK_US.min(interval_us / 2);
            let first = after(end.saturating_sub(1 + slack).max(now.0));
            return Resumption { first: Wall(first), make_up: None };
        }
        let first = after(now.0).max(now.0.saturating_add(1));
        let polled = self.last_at.filter(|&at| at <= now);
        let heeded = self.heeded_until.map(|until| until.min(now).max(polled.unwrap_or(until)));
        let heeded = heeded.map(|until| until.0.max(wait.unwrap_or(until.0)));
        let is_missed = heeded.is_some_and(|until| after(until) < first);
        // The share of the interval that is left spreads those of one interval as their phases do.
        let left =
            i128::from(first.saturating_sub(now.0)) * i128::from(CATCH_UP_US) / i128::from(interval_us);
        let make_up = now.0 + i64::try_from(left).unwrap_or(CATCH_UP_US).min(CATCH_UP_US);
        let make_up = (is_missed && interval_us > CATCH_UP_US).then_some(Wall(make_up));
        Resumption { first: Wall(first), make_up }
    }

    /// The first due time that nobody polled at, if it is past by more than [`CATCH_UP_US`]: for who looks from outside. `seen_at` is when
    /// its owner last said that it lives, and `in_body_since` since when a poll has not come back.
    pub fn late_since(
        &self,
        interval_us: i64,
        seen_at: Option<Wall>,
        in_body_since: Option<Wall>,
        now: Wall,
    ) -> Option<Wall> {
        let polled = [self.heeded_until, self.last_at, seen_at].into_iter().flatten().filter(|&at| at <= now);
        let heeded = in_body_since.or(polled.max())?;
        let due = self.after(interval_us.max(1), heeded.0, now);
        let due = self.wait.map_or(due, |wait| due.max(wait.end(now).0));
        (due < now.0.saturating_sub(CATCH_UP_US)).then_some(Wall(due))
    }

    /// The first due time after a moment.
    fn after(&self, interval_us: i64, moment: i64, now: Wall) -> i64 {
        // A grid may begin up to an interval after it was declared. Of one that begins later than that only the phase is believed.
        let is_ahead = self.origin_at.0.saturating_sub(now.0) > interval_us;
        let (origin, interval) = (i128::from(self.origin_at.0), i128::from(interval_us));
        let beats = (i128::from(moment) - origin).div_euclid(interval);
        let beats = if is_ahead { beats } else { beats.max(0) };
        i64::try_from(origin + interval * (beats + 1)).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const MINUTE: i64 = 60 * SECOND;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;

    /// A grid that began at 100 hours, heeded until `heeded` minutes later.
    fn kept(heeded: i64) -> Kept {
        let heeded_until = Some(Wall(100 * HOUR + heeded * MINUTE));
        Kept { origin_at: Wall(100 * HOUR), heeded_until, last_at: None, wait: None }
    }

    fn minute(minute: i64) -> Wall {
        Wall(100 * HOUR + minute * MINUTE)
    }

    #[test]
    fn the_grid_outlives_who_polls() {
        let quiet = |first| Resumption { first: minute(first), make_up: None };
        assert_eq!(kept(40).resume(HOUR, minute(41)), quiet(60));
        assert_eq!(kept(61).resume(HOUR, minute(80)), quiet(120));
        assert_eq!(kept(59).resume(HOUR, minute(59)), quiet(60));
        // The first due time comes an interval after the grid begins, however early its owner ends.
        assert_eq!(kept(-30).resume(HOUR, minute(-20)), quiet(60));
    }

    #[test]
    fn what_came_while_nobody_polled_is_made_up_for_once_and_soon() {
        let found = kept(40).resume(HOUR, minute(75));
        assert_eq!(found.first, minute(120));
        assert_eq!(found.make_up, Some(Wall(minute(75).0 + 7_500_000)));
        // Any number of them is one poll.
        assert!(kept(40).resume(HOUR, minute(6000)).make_up.is_some());
        // On the very moment that it was due.
        assert!(kept(40).resume(HOUR, minute(60)).make_up.is_some());
        assert!(kept(60).resume(HOUR, minute(119)).make_up.is_none());
    }

    #[test]
    fn a_short_interval_makes_up_by_itself() {
        let kept = kept(0);
        let now = minute(30);
        assert_eq!(
            kept.resume(10 * SECOND, now),
            Resumption { first: Wall(now.0 + 10 * SECOND), make_up: None }
        );
        assert!(kept.resume(11 * SECOND, now).make_up.is_some());
    }

    #[test]
    fn what_the_history_knows_to_have_been_polled_is_not_made_up_for() {
        let polled = Kept { last_at: Some(minute(61)), ..kept(40) };
        assert!(polled.resume(HOUR, minute(75)).make_up.is_none());
        let wrong = Kept { last_at: Some(minute(9000)), ..kept(40) };
        assert!(wrong.resume(HOUR, minute(75)).make_up.is_some(), "a time ahead says nothing");
    }

    #[test]
    fn who_had_it_all_along_missed_nothing() {
        let own = Kept { heeded_until: None, ..kept(0) };
        assert_eq!(own.resume(HOUR, minute(75)), Resumption { first: minute(120), make_up: None });
    }

    #[test]
    fn a_wait_goes_on_and_hides_what_came_in_it() {
        let wait = |end, span| Some(Wait { not_before: minute(end), span_us: span * MINUTE });
        let waiting = Kept { wait: wait(130, 90), ..kept(40) };
        assert_eq!(waiting.resume(HOUR, minute(75)), Resumption { first: minute(180), make_up: None });
        assert_eq!(waiting.resume(HOUR, minute(140)), Resumption { first: minute(180), make_up: None });
        assert!(waiting.resume(HOUR, minute(185)).make_up.is_some());
        let to_the_beat = Kept { wait: wait(120, 90), ..kept(40) };
        assert_eq!(to_the_beat.resume(HOUR, minute(75)).first, minute(120));
        let behind = |end_us: i64| {
            let wait = Some(Wait { not_before: Wall(minute(120).0 + end_us), span_us: 90 * MINUTE });
            Kept { wait, ..kept(40) }.resume(HOUR, minute(75)).first
        };
        assert_eq!([-300, 1, 1_000].map(behind), [minute(120); 3]);
        assert_eq!(behind(1_001), minute(180));
    }

    #[test]
    fn a_wait_that_a_clock_ahead_began_is_no_longer_than_it_was_to_be() {
        let wait = Some(Wait { not_before: minute(999_000), span_us: 30 * MINUTE });
        let found = Kept { wait, ..kept(40) }.resume(HOUR, minute(75));
        assert_eq!(found, Resumption { first: minute(120), make_up: None });
    }

    #[test]
    fn what_lies_ahead_counts_as_now() {
        let now = minute(75);
        let origin = Kept { origin_at: Wall(now.0 + 365 * DAY + 20 * MINUTE), ..kept(70) };
        assert_eq!(origin.resume(HOUR, now).first, Wall(now.0 + 20 * MINUTE), "its phase is kept");
        assert!(origin.resume(HOUR, now).make_up.is_none());
        let heeded = kept(999_000).resume(HOUR, now);
        assert_eq!(heeded, Resumption { first: minute(120), make_up: None });
        let tenure = Tenure { taken_at: minute(0), heeded_until: minute(0), seen_at: Some(minute(999_000)) };
        assert_eq!(tenure.heeded_until(now), now);
    }

    #[test]
    fn of_a_grid_that_begins_ahead_beats_are_missed_too() {
        let origin = Kept { origin_at: Wall(100 * HOUR + 365 * DAY), ..kept(70) };
        assert_eq!(origin.resume(HOUR, minute(125)).first, minute(180));
        assert!(origin.resume(HOUR, minute(125)).make_up.is_some());
    }

    #[test]
    fn an_owner_that_had_no_time_to_catch_up_heeded_no_more_than_the_one_before() {
        let seen = |seconds| Some(Wall(minute(10).0 + seconds * SECOND));
        let until = |seen_at| {
            Tenure { taken_at: minute(10), heeded_until: minute(5), seen_at }.heeded_until(minute(75))
        };
        assert_eq!([None, seen(9)].map(until), [minute(5), minute(5)]);
        assert_eq!(Some(until(seen(10))), seen(10));
        assert_eq!(Some(until(seen(60))), seen(60));
    }

    #[test]
    fn making_up_is_spread_over_the_catch_up_as_phases_are() {
        let at = |phase: i64| {
            let kept = Kept { origin_at: Wall(100 * HOUR + phase * MINUTE), ..kept(0) };
            kept.resume(HOUR, minute(600)).make_up.map(|at| at.0 - minute(600).0)
        };
        assert_eq!([30, 15, 45].map(at), [Some(5 * SECOND), Some(2_500_000), Some(7_500_000)]);
        assert_eq!(at(60), Some(10 * SECOND), "never longer than that");
    }

    #[test]
    fn extremes_do_not_overflow() {
        for origin in [i64::MIN, 0, i64::MAX] {
            for now in [0, 1 << 60] {
                for interval in [0, 1, i64::MAX] {
                    let kept = Kept { origin_at: Wall(origin), ..kept(0) };
                    assert!(kept.resume(interval, Wall(now)).first > Wall(now));
                }
            }
        }
    }

    #[test]
    fn a_trigger_is_late_once_nobody_has_polled_at_a_due_time() {
        let kept = Kept { origin_at: Wall(0), heeded_until: Some(Wall(MINUTE)), last_at: None, wait: None };
        let late = |seen: Option<i64>, in_body: Option<i64>, now| {
            kept.late_since(MINUTE, seen.map(Wall), in_body.map(Wall), Wall(now)).map(|at| at.0)
        };
        assert_eq!(late(None, None, 2 * MINUTE + 10 * SECOND), None, "it may be about to be polled");
        assert_eq!(late(None, None, 2 * MINUTE + 11 * SECOND), Some(2 * MINUTE));
        assert_eq!(late(Some(HOUR), None, HOUR + 5 * SECOND), None);
        assert_eq!(late(Some(HOUR), None, 2 * HOUR), Some(HOUR + MINUTE));
        assert_eq!(late(Some(2 * HOUR), Some(HOUR), 2 * HOUR), Some(HOUR + MINUTE), "its body holds it");
        assert_eq!(late(Some(3 * HOUR), None, 2 * HOUR), Some(2 * MINUTE), "what lies ahead is not believed");
        let waits = Kept { wait: Some(Wait { not_before: Wall(DAY), span_us: DAY }), ..kept };
        assert_eq!(waits.late_since(MINUTE, None, None, Wall(HOUR)), None);
        let unknown = Kept { heeded_until: None, ..kept };
        assert_eq!(unknown.late_since(MINUTE, None, None, Wall(DAY)), None);
    }
}
