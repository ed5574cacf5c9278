//! The crons of an engine, by row and by when each is due. Decides nothing.
//! Invariant: all three orders hold the same crons.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::cron::Cron;
use crate::error::Result;
use crate::port::{CronMove, Origin, Schedule, ScheduleKind};
use crate::time::Wall;

/// So many expressions are remembered with what they mean: to read one takes a hundred times as long as to look it up, and all are read
/// again whenever another process changes one.
const READ_MAX: usize = 10_000;

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
    by_workflow: HashMap<Arc<str>, BTreeSet<i64>>,
    /// The names of those that this program declares.
    declared: HashSet<String>,
    /// The rows of those of release 0.1.0 that were told of.
    old_told: HashSet<i64>,
    /// By zone and expression.
    read: HashMap<String, HashMap<String, Cron>>,
    read_count: usize,
}

impl Crons {
    /// What an expression means in a zone.
    ///
    /// # Errors
    /// As [`Cron::parse`].
    pub fn read(&mut self, expression: &str, timezone: &str) -> Result<Cron> {
        if let Some(known) = self.read.get(timezone).and_then(|zone| zone.get(expression)) {
            return Ok(known.clone());
        }
        let cron = Cron::parse(expression, timezone)?;
        if self.read_count == READ_MAX {
            (self.read, self.read_count) = (HashMap::new(), 0);
        }
        let zone = self.read.entry(timezone.to_owned()).or_default();
        zone.insert(expression.to_owned(), cron.clone());
        self.read_count += 1;
        Ok(cron)
    }

    /// Notes that this program declares a cron of that name, and that there is one only.
    pub fn declare(&mut self, schedule: &Schedule) {
        let is_of_name = |state: &CronState| state.schedule.name == schedule.name;
        self.remove_if(is_of_name);
        self.declared.insert(schedule.name.clone());
    }

    /// Notes that this program declares no cron of that name.
    pub fn withdraw(&mut self, name: &str) {
        self.declared.remove(name);
        self.remove_if(|state| state.schedule.origin == Origin::Declared && state.schedule.name == name);
    }

    fn remove_if(&mut self, is_meant: impl Fn(&CronState) -> bool) {
        let meant = self.by_row.values().filter(|state| is_meant(state));
        let rows: Vec<i64> = meant.map(|state| state.schedule.row).collect();
        rows.into_iter().for_each(|row| drop(self.remove(row)));
    }

    /// Whether a cron is to be told of for the first time, because release 0.1.0 left it and no program declares its name.
    pub fn is_old_news(&mut self, schedule: &Schedule) -> bool {
        schedule.origin == Origin::OldRelease && self.old_told.insert(schedule.row)
    }

    /// Whether a cron runs here: one that is declared runs where it is.
    pub fn runs_here(&self, schedule: &Schedule) -> bool {
        schedule.origin != Origin::Declared || self.declared.contains(&schedule.name)
    }

    /// Adds a cron, in place of any other of its row.
    pub fn insert(&mut self, state: CronState) {
        self.remove(state.schedule.row);
        self.by_time.insert((state.next, state.schedule.row));
        let its = self.by_workflow.entry(state.schedule.workflow.as_str().into()).or_default();
        its.insert(state.schedule.row);
        self.by_row.insert(state.schedule.row, state);
    }

    /// Takes a cron out; one that isn't there is no error.
    pub fn remove(&mut self, row: i64) -> Option<CronState> {
        let state = self.by_row.remove(&row)?;
        self.by_time.remove(&(state.next, row));
        let workflow = &*state.schedule.workflow;
        let its = self.by_workflow.get_mut(workflow).expect("a cron stands among those of its workflow");
        its.remove(&row);
        if its.is_empty() {
            self.by_workflow.remove(workflow);
        }
        Some(state)
    }

    /// Lets a cron run at what follows from `now`, if it waited for longer; returns until when, and what is to be kept.
    pub fn put_right(&mut self, row: i64, now: Wall) -> Option<(Wall, CronMove)> {
        let state = self.by_row.get_mut(&row)?;
        let follows = state.cron.next(now).filter(|&follows| follows < state.next)?;
        let was = std::mem::replace(&mut state.next, follows);
        self.by_time.remove(&(was, row));
        self.by_time.insert((follows, row));
        let ScheduleKind::Cron { next_at, .. } = &mut state.schedule.kind else { return None };
        // What was missed before its workflow was declared is kept there.
        *next_at = Some(next_at.map_or(follows, |kept| kept.min(follows)));
        let (next_at, seen) = (*next_at, state.schedule.updated_at);
        Some((was, CronMove { row, seen, next_at, last_at: None }))
    }

    /// The rows of all.
    pub fn rows(&self) -> Vec<i64> {
        self.by_row.keys().copied().collect()
    }

    /// Takes all out.
    pub fn len(&self) -> usize {
        self.by_row.len()
    }

    pub fn clear(&mut self) {
        self.by_row.clear();
        self.by_time.clear();
        self.by_workflow.clear();
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
        self.by_workflow.get(workflow).into_iter().flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::port::Terms;

    fn cron(row: i64, workflow: &str) -> CronState {
        let (expression, timezone) = ("0 9 * * *".to_owned(), "UTC".to_owned());
        let schedule = Schedule {
            row,
            id: Uuid::nil(),
            name: String::new(),
            workflow: workflow.to_owned(),
            kind: ScheduleKind::Cron { expression, timezone, next_at: None, terms: Terms::default() },
            enabled: true,
            disabled_cause: None,
            cursor: None,
            last_at: None,
            last_fired_at: None,
            created_at: Wall(0),
            updated_at: Wall(0),
            owner: None,
            origin: Origin::Registered,
        };
        CronState { cron: Cron::parse("0 9 * * *", "UTC").unwrap(), schedule, next: Wall(row) }
    }

    #[test]
    fn crons_are_found_by_their_workflow_until_they_go_or_start_another() {
        let mut crons = Crons::default();
        [(3, "a"), (1, "a"), (2, "b")]
            .into_iter()
            .for_each(|(row, workflow)| crons.insert(cron(row, workflow)));
        assert_eq!((crons.of("a"), crons.of("b"), crons.of("c")), (vec![1, 3], vec![2], vec![]));
        crons.insert(cron(3, "b"));
        assert_eq!((crons.of("a"), crons.of("b")), (vec![1], vec![2, 3]));
        crons.remove(1);
        assert!(crons.of("a").is_empty() && crons.by_workflow.len() == 1);
        crons.clear();
        assert!(crons.of("b").is_empty() && crons.next().is_none());
    }

    #[test]
    fn an_expression_is_read_once_in_each_zone() {
        let mut crons = Crons::default();
        for zone in ["UTC", "Europe/Berlin", "UTC", "Europe/Berlin"] {
            let known = Cron::parse("0 9 * * *", zone).unwrap();
            assert_eq!(crons.read("0 9 * * *", zone).unwrap().next(Wall(0)), known.next(Wall(0)));
        }
        assert!(crons.read("0 9 * * *", "Nowhere").is_err());
        assert!(crons.read("never", "UTC").is_err());
        assert_eq!(crons.read_count, 2);
    }

    #[test]
    fn expressions_beyond_the_bound_are_read_all_the_same() {
        let mut crons = Crons { read_count: READ_MAX, ..Crons::default() };
        assert!(crons.read("0 9 * * *", "UTC").is_ok());
        assert_eq!(crons.read_count, 1);
    }
}
