//! What a runner writes of itself while it lives, for who looks from outside.

use crate::key::ScheduleKey;
use crate::time::Wall;

/// Counts are kept for so long, in microseconds: a week.
pub const MINUTES_KEPT_US: i64 = 7 * 24 * 3600 * 1_000_000;

/// What a runner did in about a minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Minute {
    /// Polls that ended.
    pub polls: u64,
    /// Fires that they asked for.
    pub fires: u64,
    /// Polls that failed, and fires that could not start.
    pub errors: u64,
    /// Runs committed.
    pub started: u64,
    /// Runs that completed.
    pub completed: u64,
    /// Runs that failed.
    pub failed: u64,
    /// Runs that were cancelled.
    pub cancelled: u64,
}

impl Minute {
    /// What has come since `before`, which counts from the same start.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            polls: self.polls.saturating_sub(before.polls),
            fires: self.fires.saturating_sub(before.fires),
            errors: self.errors.saturating_sub(before.errors),
            started: self.started.saturating_sub(before.started),
            completed: self.completed.saturating_sub(before.completed),
            failed: self.failed.saturating_sub(before.failed),
            cancelled: self.cancelled.saturating_sub(before.cancelled),
        }
    }
}

/// What is written with the time at which a runner lives; none of it where it is no news.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sign {
    /// What it did since it last said so.
    pub minute: Option<Minute>,
    /// All its polls that have been in their bodies for too long, and since when.
    pub long: Option<Vec<(ScheduleKey, Wall)>>,
}
