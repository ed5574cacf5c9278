//! The crons of an engine, by row and by when each is due. Decides nothing.
//! Invariant: both orders hold the same crons.

use std::collections::{BTreeMap, BTreeSet};

use crate::cron::Cron;
use crate::port::Schedule;
use crate::time::Wall;

/// A cron that is to run.
#[derive(Debug)]
pub(super) struct CronState {
    pub schedule: Schedule,
    pub cron: Cron,
    pub next: Wall,
}

/// Every cron that is switched on.
#[derive(Debug, Default)]
pub(super) struct Crons {
    by_row: BTreeMap<i64, CronState>,
    by_time: BTreeSet<(Wall, i64)>,
}

impl Crons {
    /// Adds a cron, in place of any other of its row.
    pub fn insert(&mut self, state: CronState) {
        self.remove(state.schedule.row);
        self.by_time.insert((state.next, state.schedule.row));
        self.by_row.insert(state.schedule.row, state);
    }

    /// Takes a cron out; one that isn't there is no error.
    pub fn remove(&mut self, row: i64) -> Option<CronState> {
        let state = self.by_row.remove(&row)?;
        self.by_time.remove(&(state.next, row));
        Some(state)
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.by_row.clear();
        self.by_time.clear();
    }

    /// When the first is due.
    pub fn next(&self) -> Option<Wall> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// The rows of those that are due, earliest first.
    pub fn due(&self, now: Wall) -> Vec<i64> {
        self.by_time.range(..=(now, i64::MAX)).map(|&(_, row)| row).collect()
    }

    /// The rows of those that start this workflow.
    pub fn of(&self, workflow: &str) -> Vec<i64> {
        let is_its = |state: &&CronState| *state.schedule.workflow == *workflow;
        self.by_row.values().filter(is_its).map(|state| state.schedule.row).collect()
    }
}
