//! What who looks from outside can tell of a trigger: who polls it, when it is due, whether it is late. Pure: reads no clock.
//! Invariant: it says only what follows from what is kept; how a living runner stands that has the trigger, only that one knows.

use crate::key::Epoch;
use crate::port::{OwnerRow, Schedule, ScheduleKind};
use crate::time::Wall;

/// How a trigger stands, seen from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outlook {
    /// The living runner that polls it.
    pub polled_by: Option<Epoch>,
    /// When it is due next; none if nobody polls it.
    pub next_at: Option<Wall>,
    /// Since when a poll of it has been in its body for too long.
    pub in_body_since: Option<Wall>,
    /// The first due time at which nobody polled, though it is switched on.
    pub late_since: Option<Wall>,
}

impl Outlook {
    /// From a trigger's row and all runners that are known.
    pub fn of(schedule: &Schedule, owners: &[OwnerRow], now: Wall) -> Self {
        let ScheduleKind::Trigger { interval_us, .. } = schedule.kind else { return Self::default() };
        let owner = schedule.owner.and_then(|epoch| owners.iter().find(|owner| owner.epoch == epoch));
        let living = owner.filter(|owner| owner.left_at.is_none() && !owner.is_dead);
        let in_body_since = schedule.in_body_since.filter(|_| living.is_some());
        // One that is told of ends of runs is due when there is one.
        let Some(kept) = schedule.grid.filter(|_| schedule.enabled && schedule.on_run.is_none()) else {
            return Self { polled_by: living.map(|owner| owner.epoch), in_body_since, ..Self::default() };
        };
        let seen_at = owner.and_then(|owner| owner.seen_at);
        Self {
            polled_by: living.map(|owner| owner.epoch),
            next_at: living.map(|_| kept.resume(interval_us, now).first),
            in_body_since,
            late_since: kept.late_since(interval_us, seen_at, in_body_since, now),
        }
    }
}
