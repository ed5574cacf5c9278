//! Gathers polls with equal outcomes into one stretch. Invariant: counts are exact, and a poll like the one before costs no
//! allocation.

use std::sync::Arc;

use crate::key::ScheduleKey;
use crate::port::{Outcome, Stretch};
use crate::time::Wall;

/// At most so many stretches of one trigger are kept that have ended; a change of reasons at each poll costs one change of the store for as many.
pub const ENDED_MAX: usize = 16;

/// And their reasons are no longer than this together, in bytes.
const REASONS_MAX: usize = 4096;

/// What has gathered of one trigger since it was last taken.
#[derive(Debug, Clone, Default)]
pub struct Streak {
    /// Boxed, because most triggers never have one.
    kept: Option<Box<Kept>>,
}

#[derive(Debug, Clone, Default)]
struct Kept {
    /// In the order in which they ended.
    ended: Vec<Stretch>,
    open: Option<Stretch>,
}

impl Streak {
    /// Adds a poll. It ends the stretch before it, if its outcome or reason differs.
    pub fn add(&mut self, schedule: ScheduleKey, outcome: Outcome, reason: &str, at: Wall, duration_us: u64) {
        let kept = self.kept.get_or_insert_default();
        if let Some(open) = &mut kept.open
            && open.outcome == outcome
            && &*open.reason == reason
        {
            open.count += 1;
            open.last_at = at;
            open.min_us = open.min_us.min(duration_us);
            open.max_us = open.max_us.max(duration_us);
            open.sum_us += duration_us;
            return;
        }
        let open = Stretch {
            schedule,
            outcome,
            reason: Arc::from(reason),
            count: 1,
            first_at: at,
            last_at: at,
            min_us: duration_us,
            max_us: duration_us,
            sum_us: duration_us,
        };
        kept.ended.extend(kept.open.replace(open));
    }

    /// Adds a stretch that has ended elsewhere, and ends the one that goes on.
    pub fn end(&mut self, stretch: Option<Stretch>) {
        if let Some(kept) = &mut self.kept {
            kept.ended.extend(kept.open.take());
        }
        if stretch.is_some() {
            self.kept.get_or_insert_default().ended.extend(stretch);
        }
    }

    /// Takes those that have ended, if they are too many to be kept.
    pub fn take_excess(&mut self) -> Vec<Stretch> {
        let Some(kept) = &mut self.kept else { return Vec::new() };
        let reasons = || kept.ended.iter().map(|ended| ended.reason.len()).sum::<usize>();
        match kept.ended.len() >= ENDED_MAX || reasons() > REASONS_MAX {
            true => std::mem::take(&mut kept.ended),
            false => Vec::new(),
        }
    }

    /// How many polls have gathered.
    pub fn count(&self) -> u64 {
        self.kept
            .iter()
            .flat_map(|kept| kept.ended.iter().chain(&kept.open))
            .map(|stretch| stretch.count)
            .sum()
    }

    /// Takes what has gathered, as stretches of that trigger's row.
    pub fn take(&mut self, schedule: ScheduleKey) -> impl Iterator<Item = Stretch> + use<> {
        let stretches = self.kept.take().into_iter().flat_map(|kept| kept.ended.into_iter().chain(kept.open));
        stretches.map(move |stretch| Stretch { schedule, ..stretch })
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

    fn skips(streak: &mut Streak, reasons: &[&str]) {
        for (at, reason) in (1..).zip(reasons) {
            streak.add(ScheduleKey(1), Outcome::Skip, reason, Wall(at), 5);
        }
    }

    #[test]
    fn equal_polls_are_one_stretch_and_a_change_ends_it() {
        let mut streak = Streak::default();
        streak.add(ScheduleKey(1), Outcome::Skip, "empty", Wall(1), 5);
        streak.add(ScheduleKey(1), Outcome::Skip, "empty", Wall(2), 3);
        streak.add(ScheduleKey(1), Outcome::Skip, "busy", Wall(3), 1);
        assert_eq!((streak.count(), streak.take_excess()), (3, Vec::new()));
        let taken: Vec<_> = streak.take(ScheduleKey(2)).collect();
        let [ended, open] = &*taken else { panic!("{taken:?}") };
        assert_eq!((ended.count, ended.first_at, ended.last_at), (2, Wall(1), Wall(2)));
        assert_eq!((ended.min_us, ended.max_us, ended.sum_us), (3, 5, 8));
        assert_eq!((ended.schedule, open.schedule, open.count), (ScheduleKey(2), ScheduleKey(2), 1));
        assert_eq!((streak.count(), streak.take(ScheduleKey(1)).count()), (0, 0));
    }

    #[test]
    fn what_is_ended_from_without_stands_behind_what_went_on() {
        let mut streak = Streak::default();
        streak.end(None);
        assert!(streak.kept.is_none());
        skips(&mut streak, &["busy"]);
        let mut tally = Tally::default();
        tally.add(Wall(9), 1);
        streak.end(tally.take(ScheduleKey(1)));
        streak.add(ScheduleKey(1), Outcome::Skip, "busy", Wall(10), 1);
        let taken: Vec<_> = streak.take(ScheduleKey(1)).collect();
        let told: Vec<_> = taken.iter().map(|stretch| (&*stretch.reason, stretch.first_at)).collect();
        assert_eq!(told, [("busy", Wall(1)), ("", Wall(9)), ("busy", Wall(10))]);
    }

    #[test]
    fn no_more_is_kept_than_so_many_and_reasons_of_so_many_bytes() {
        let reasons: Vec<String> = (0..=ENDED_MAX).map(|number| number.to_string()).collect();
        let reasons: Vec<&str> = reasons.iter().map(String::as_str).collect();
        let mut streak = Streak::default();
        skips(&mut streak, &reasons[..ENDED_MAX]);
        assert_eq!(streak.take_excess(), []);
        skips(&mut streak, &reasons[ENDED_MAX..]);
        let taken = streak.take_excess();
        assert_eq!(taken.iter().map(|stretch| &*stretch.reason).collect::<Vec<_>>(), reasons[..ENDED_MAX]);
        // The one that goes on is kept.
        assert_eq!((streak.take_excess(), streak.count()), (Vec::new(), 1));
        let long = "x".repeat(REASONS_MAX);
        let mut streak = Streak::default();
        skips(&mut streak, &[&long, "a", "b"]);
        assert_eq!(streak.take_excess().len(), 2);
        skips(&mut streak, &[&long[1..], "a"]);
        assert_eq!(streak.take_excess(), []);
    }
}
