//! Gathers polls with equal outcomes into one stretch. Invariant: counts are exact, and a poll like the one before costs no
//! allocation.

use std::sync::Arc;

use crate::key::ScheduleKey;
use crate::port::{Outcome, Stretch};
use crate::time::Wall;

/// What has gathered of one trigger since it was last taken.
#[derive(Debug, Clone, Default)]
pub struct Streak {
    /// Boxed, because most triggers never have one.
    open: Option<Box<Stretch>>,
}

impl Streak {
    /// Adds a poll; returns the stretch that it ends, if its outcome or reason differs.
    pub fn add(
        &mut self,
        schedule: ScheduleKey,
        outcome: Outcome,
        reason: &str,
        at: Wall,
        duration_us: u64,
    ) -> Option<Stretch> {
        if let Some(open) = &mut self.open
            && open.outcome == outcome
            && &*open.reason == reason
        {
            open.count += 1;
            open.last_at = at;
            open.min_us = open.min_us.min(duration_us);
            open.max_us = open.max_us.max(duration_us);
            open.sum_us += duration_us;
            return None;
        }
        let ended = self.open.replace(Box::new(Stretch {
            schedule,
            outcome,
            reason: Arc::from(reason),
            count: 1,
            first_at: at,
            last_at: at,
            min_us: duration_us,
            max_us: duration_us,
            sum_us: duration_us,
        }));
        ended.map(|ended| *ended)
    }

    /// How many polls have gathered.
    pub fn count(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.count)
    }

    /// Takes what has gathered, as a stretch of that trigger's row.
    pub fn take(&mut self, schedule: ScheduleKey) -> Option<Stretch> {
        self.open.take().map(|open| Stretch { schedule, ..*open })
    }
}

/// Skips without a reason, by far the most frequent answer, counted without a look at anything else.
#[derive(Debug, Clone, Copy)]
pub struct Tally {
    count: u32,
    min_us: u32,
    max_us: u32,
    sum_us: u64,
    first_at: Wall,
    last_at: Wall,
}

/// Before any poll.
const NEVER: Wall = Wall(i64::MIN);

impl Default for Tally {
    fn default() -> Self {
        Self { count: 0, min_us: u32::MAX, max_us: 0, sum_us: 0, first_at: NEVER, last_at: NEVER }
    }
}

impl Tally {
    /// Adds a skip.
    pub fn add(&mut self, at: Wall, duration_us: u64) {
        if self.count == 0 {
            self.first_at = at;
        }
        let short = u32::try_from(duration_us).unwrap_or(u32::MAX);
        // Taken twice a minute: a poll each microsecond would not fill it.
        self.count = self.count.saturating_add(1);
        self.min_us = self.min_us.min(short);
        self.max_us = self.max_us.max(short);
        self.sum_us = self.sum_us.saturating_add(duration_us);
        self.last_at = at;
    }

    /// Notes a poll that is counted elsewhere.
    pub fn touch(&mut self, at: Wall) {
        self.last_at = at;
    }

    /// How many have gathered.
    pub fn count(&self) -> u64 {
        self.count.into()
    }

    /// When the last poll began, of whatever outcome.
    pub fn last_at(&self) -> Option<Wall> {
        (self.last_at != NEVER).then_some(self.last_at)
    }

    /// Takes what has gathered, as a stretch of that trigger's row.
    pub fn take(&mut self, schedule: ScheduleKey) -> Option<Stretch> {
        let taken = std::mem::replace(self, Self { last_at: self.last_at, ..Self::default() });
        (taken.count > 0).then(|| Stretch {
            schedule,
            outcome: Outcome::Skip,
            reason: Arc::from(""),
            count: taken.count.into(),
            first_at: taken.first_at,
            last_at: taken.last_at,
            min_us: taken.min_us.into(),
            max_us: taken.max_us.into(),
            sum_us: taken.sum_us,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_one_stretch_and_remembers_the_last_poll() {
        let mut tally = Tally::default();
        assert_eq!((tally.take(ScheduleKey(1)), tally.last_at()), (None, None));
        tally.add(Wall(5), 3);
        tally.add(Wall(9), 1);
        let stretch = tally.take(ScheduleKey(1)).unwrap();
        assert_eq!((stretch.count, stretch.first_at, stretch.last_at), (2, Wall(5), Wall(9)));
        assert_eq!((stretch.min_us, stretch.max_us, stretch.sum_us), (1, 3, 4));
        assert_eq!((tally.take(ScheduleKey(1)), tally.last_at()), (None, Some(Wall(9))));
    }

    #[test]
    fn equal_polls_are_one_stretch_and_a_change_ends_it() {
        let mut streak = Streak::default();
        assert_eq!(streak.add(ScheduleKey(1), Outcome::Skip, "empty", Wall(1), 5), None);
        assert_eq!(streak.add(ScheduleKey(1), Outcome::Skip, "empty", Wall(2), 3), None);
        let ended = streak.add(ScheduleKey(1), Outcome::Skip, "", Wall(3), 1).unwrap();
        assert_eq!((ended.count, ended.first_at, ended.last_at), (2, Wall(1), Wall(2)));
        assert_eq!((ended.min_us, ended.max_us, ended.sum_us), (3, 5, 8));
        assert_eq!(streak.take(ScheduleKey(1)).unwrap().count, 1);
        assert_eq!(streak.take(ScheduleKey(1)), None);
    }
}
