//! How triggers stand for who asks this runner: its own as it knows them, those of others as the store tells of them.

use crate::outlook::Outlook;
use crate::port::{Fault, Schedule};
use crate::runtime::Runtime;
use crate::runtime::park::lock;
use crate::time::Wall;

/// So many runners are looked at.
const OWNERS_MAX: u64 = 1000;

impl Runtime {
    /// How each of these triggers stands.
    ///
    /// # Errors
    /// A [`Fault`] of the store.
    pub fn outlooks(&self, schedules: &[Schedule]) -> Result<Vec<Outlook>, Fault> {
        let owners = self.store().owners(OWNERS_MAX, Wall(i64::MAX))?;
        let now = self.now();
        let mut outlooks = Vec::with_capacity(schedules.len());
        for schedule in schedules {
            let mut outlook = Outlook::of(schedule, &owners, now.wall);
            let standing = lock(&self.shared.polls).poller.standing(schedule.row);
            if let Some(standing) = standing.filter(|standing| !standing.elsewhere && schedule.enabled) {
                outlook.next_at = standing.due.map(|due| self.shared.clock.wall_of(due, now));
                // The store tells until when it was seen; this runner is here now.
                outlook.late_since = outlook.late_since.filter(|_| standing.in_body);
            }
            outlooks.push(outlook);
        }
        Ok(outlooks)
    }
}
