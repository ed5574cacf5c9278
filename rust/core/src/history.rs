//! Gathers polls with equal outcomes into one stretch. Invariant: counts are exact, and a poll like the one before costs no
//! allocation.

use std::sync::Arc;

use crate::port::{Outcome, Stretch};
use crate::time::Wall;

/// What has gathered of one trigger since it was last taken.
#[derive(Debug, Clone, Default)]
pub struct Streak {
    open: Option<Stretch>,
}

impl Streak {
    /// Adds a poll; returns the stretch that it ends, if its outcome or reason differs.
    pub fn add(
        &mut self,
        schedule: i64,
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
        self.open.replace(Stretch {
            schedule,
            outcome,
            reason: Arc::from(reason),
            count: 1,
            first_at: at,
            last_at: at,
            min_us: duration_us,
            max_us: duration_us,
            sum_us: duration_us,
        })
    }

    /// Takes what has gathered, as a stretch of that trigger's row.
    pub fn take(&mut self, schedule: i64) -> Option<Stretch> {
        self.open.take().map(|open| Stretch { schedule, ..open })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_polls_are_one_stretch_and_a_change_ends_it() {
        let mut streak = Streak::default();
        assert_eq!(streak.add(1, Outcome::Skip, "empty", Wall(1), 5), None);
        assert_eq!(streak.add(1, Outcome::Skip, "empty", Wall(2), 3), None);
        let ended = streak.add(1, Outcome::Skip, "", Wall(3), 1).unwrap();
        assert_eq!((ended.count, ended.first_at, ended.last_at), (2, Wall(1), Wall(2)));
        assert_eq!((ended.min_us, ended.max_us, ended.sum_us), (3, 5, 8));
        assert_eq!(streak.take(1).unwrap().count, 1);
        assert_eq!(streak.take(1), None);
    }
}
