//! The crons of an engine, by row and by when each is due. Decides nothing.
//! Invariant: all three orders hold the same crons.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::cron::Cron;
use crate::error::Result;
use crate::key::ScheduleKey;
use crate::past::Passage;
use crate::port::{CronMove, Origin, Schedule, ScheduleKind};
use crate::time::Wall;

/// So many expressions are remembered with what they mean: to read one takes a hundred times as long as to look it up, and all are read
/// again whenever another process changes one.
const READ_MAX: usize = 10_000;

/// So long a moment is left to the runner whose it is by right, which may be stopped, in microseconds. Then the store is asked whether it has run.
const LEFT_US: i64 = 2_000_000;

/// A cron that is to run.
#[derive(Debug)]
pub(super) struct CronState {
    pub schedule: Schedule,
    pub cron: Cron,
    pub next: Wall,
    /// When it was read from the store.
    pub read_at: Wall,
    /// Until when it is left to another runner, if it is.
    left_until: Option<Wall>,
    /// Under which time it stands among those that are due; none while a moment of it is being decided.
    due: Option<Wall>,
}

impl CronState {
    pub fn new(schedule: Schedule, cron: Cron, next: Wall, read_at: Wall) -> Self {
        Self { schedule, cron, next, read_at, left_until: None, due: None }
    }

    /// From `first` on, the first moment that is not over once the clock shows `now`.
    pub fn first_left(&self, first: Wall, now: Wall) -> Wall {
        let until = self.schedule.past.over_until(now).filter(|&until| first <= until);
        until.map_or(first, |until| self.cron.next(until).unwrap_or(Wall(i64::MAX)))
    }

    /// The first moment after `after` that has to come yet: a clock that was ahead may have decided some already.
    pub fn follows(&self, after: Wall) -> Option<Wall> {
        let mut next = self.cron.next(after)?;
        while let Some(until) = self.schedule.past.over_from(next) {
            next = self.cron.next(until)?;
        }
        Some(next)
    }

    /// What is over once moments from `first` to `last` are decided: with what was decided before, if no other moment lies between.
    pub fn passage(&self, first: Wall, last: Wall) -> Passage {
        let before = self.schedule.past.over_until(first);
        let is_next = |before: &Wall| self.cron.next(*before).is_none_or(|next| next >= first);
        Passage { from: before.filter(is_next).unwrap_or(first), until: last }
    }
}

/// A moment that is being decided, or was and failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pending {
    pub moment: Wall,
    /// What is over with it.
    pub passage: Passage,
    /// What follows it.
    pub next: Option<Wall>,
    /// [`Schedule::updated_at`] of what it was decided by.
    pub seen: Wall,
    pub stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The store is asked for the right to decide it, by this question.
    Asked(u64),
    /// The body in this place is called for it.
    Called(u32),
    /// It is tried again at that time.
    Failed(Wall),
}

/// A cron that this program declares.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Of its version.
    digest: i64,
    /// Whether what a call registered has taken it over.
    is_taken: bool,
}

/// Every cron that is switched on.
#[derive(Debug, Default)]
pub(super) struct Crons {
    by_row: BTreeMap<ScheduleKey, CronState>,
    by_time: BTreeSet<(Wall, ScheduleKey)>,
    by_workflow: HashMap<Arc<str>, BTreeSet<ScheduleKey>>,
    /// By row; also of crons that are gone meanwhile.
    pending: HashMap<ScheduleKey, Pending>,
    questions: u64,
    /// What this program declares, by name.
    declared: HashMap<String, Known>,
    /// The rows of those that other runners run first, by right.
    of_others: HashSet<ScheduleKey>,
    /// The rows of those of release 0.1.0 that were told of.
    old_told: HashSet<ScheduleKey>,
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

    /// Notes that this program declares a cron of that name, in the version of that digest, and that there is one only.
    pub fn declare(&mut self, schedule: &Schedule, digest: i64) {
        let is_of_name = |state: &CronState| state.schedule.name == schedule.name;
        self.remove_if(is_of_name);
        self.declared.insert(schedule.name.clone(), Known { digest, is_taken: false });
    }

    /// Notes whether what a call registered has taken over a cron that this program declares.
    pub fn heed_origin(&mut self, schedule: &Schedule) {
        if let Some(known) = self.declared.get_mut(&schedule.name) {
            known.is_taken = schedule.origin == Origin::Registered;
        }
    }

    /// The names of those that this program declares and that were taken over by what is not among all these any more.
    pub fn left(&self, all: &[Schedule]) -> Vec<String> {
        let taken = self.declared.iter().filter(|(_, known)| known.is_taken);
        let is_there = |name: &String| all.iter().any(|schedule| schedule.name == *name);
        taken.filter(|(name, _)| !is_there(name)).map(|(name, _)| name.clone()).collect()
    }

    /// Notes that this program declares no cron of that name.
    pub fn withdraw(&mut self, name: &str) {
        self.declared.remove(name);
        self.remove_if(|state| state.schedule.origin == Origin::Declared && state.schedule.name == name);
    }

    fn remove_if(&mut self, is_meant: impl Fn(&CronState) -> bool) {
        let meant = self.by_row.values().filter(|state| is_meant(state));
        let rows: Vec<ScheduleKey> = meant.map(|state| state.schedule.row).collect();
        rows.into_iter().for_each(|row| drop(self.remove(row)));
    }

    /// Whether a cron is to be told of for the first time, because release 0.1.0 left it and no program declares its name.
    pub fn is_old_news(&mut self, schedule: &Schedule) -> bool {
        schedule.origin == Origin::OldRelease && self.old_told.insert(schedule.row)
    }

    /// Whether a cron runs here: one that is declared runs where the version is that is in force.
    pub fn runs_here(&self, schedule: &Schedule) -> bool {
        let is_in_force = || {
            let declared = self.declared.get(&schedule.name).map(|known| known.digest);
            declared.is_some() && declared == schedule.digest && !schedule.is_outdated()
        };
        schedule.origin != Origin::Declared || is_in_force()
    }

    /// Adds a cron, in place of any other of its row.
    pub fn insert(&mut self, mut state: CronState) {
        let row = state.schedule.row;
        self.remove(row);
        state.due = match self.pending.get(&row) {
            None => Some(state.left_until.map_or(state.next, |until| until.max(state.next))),
            Some(&Pending { seen, stage: Stage::Failed(again_at), .. }) => {
                let is_same = seen == state.schedule.updated_at;
                if !is_same {
                    self.pending.remove(&row);
                }
                Some(if is_same { again_at } else { state.next })
            }
            Some(_) => None,
        };
        self.by_time.extend(state.due.map(|due| (due, row)));
        let its = self.by_workflow.entry(state.schedule.workflow.as_str().into()).or_default();
        its.insert(state.schedule.row);
        self.by_row.insert(state.schedule.row, state);
    }

    /// Which crons other runners run first, by their rows. Those that were left to them are due.
    pub fn leave_to_others(&mut self, rows: HashSet<ScheduleKey>) {
        let is_back = |row: &&ScheduleKey| !rows.contains(row);
        let back: Vec<ScheduleKey> = self.of_others.iter().filter(is_back).copied().collect();
        self.of_others = rows;
        for row in back {
            if let Some(state) = self.remove(row) {
                self.insert(CronState { left_until: None, ..state });
            }
        }
    }

    /// Whether a moment of a cron that is due is to be left to another runner for now; then it is due again later. The store is to be asked
    /// before it is run here after all: true of the second if it is time for that.
    pub fn leave(&mut self, state: &mut CronState, moment: Wall, now: Wall) -> (bool, bool) {
        let until = Wall(moment.0.saturating_add(LEFT_US));
        if !self.of_others.contains(&state.schedule.row) || state.read_at >= until {
            return (false, false);
        }
        let is_over = now >= until;
        state.left_until = Some(if is_over { Wall(now.0.saturating_add(LEFT_US)) } else { until });
        (true, is_over)
    }

    /// Takes a cron out; one that isn't there is no error.
    pub fn remove(&mut self, row: ScheduleKey) -> Option<CronState> {
        let state = self.by_row.remove(&row)?;
        if let Some(due) = state.due {
            self.by_time.remove(&(due, row));
        }
        let workflow = &*state.schedule.workflow;
        let its = self.by_workflow.get_mut(workflow).expect("a cron stands among those of its workflow");
        its.remove(&row);
        if its.is_empty() {
            self.by_workflow.remove(workflow);
        }
        Some(state)
    }

    /// Lets a cron run at what follows from `now`, if it waited for longer, or for what is over; returns until when, and what is to be kept.
    pub fn put_right(&mut self, row: ScheduleKey, now: Wall) -> Option<(Wall, CronMove)> {
        let state = self.by_row.get(&row)?;
        let follows = state.follows(now)?;
        let was = state.next;
        let failed = self.pending.get_mut(&row).and_then(|pending| match &mut pending.stage {
            Stage::Failed(again_at) if follows < *again_at => Some(again_at),
            _ => None,
        });
        // As one that switches a cron on, or changes it, may have put it: that knows nothing of a clock that was ahead.
        let is_over = was > now && state.schedule.past.over_from(was).is_some();
        if follows >= was && failed.is_none() && !is_over {
            return None;
        }
        if let Some(again_at) = failed {
            *again_at = follows;
        }
        let mut state = self.remove(row)?;
        state.next = if is_over { follows } else { was.min(follows) };
        let ScheduleKind::Cron { next_at, .. } = &mut state.schedule.kind else { return None };
        if follows < was {
            // What was missed before its workflow was declared is kept there.
            *next_at = Some(next_at.map_or(follows, |kept| kept.min(follows)));
        } else if is_over && *next_at == Some(was) {
            *next_at = Some(follows);
        }
        let (next_at, seen) = (*next_at, state.schedule.updated_at);
        self.insert(state);
        (follows < was || is_over)
            .then_some((was, CronMove { row, seen, next_at, last_at: None, decided: None }))
    }

    /// The cron of that row, if it is switched on here.
    pub fn get(&self, row: ScheduleKey) -> Option<&CronState> {
        self.by_row.get(&row)
    }

    /// A moment of a cron is to be decided; returns the number of the question whether it may be. Until it is answered the cron is not due.
    pub fn ask(&mut self, state: CronState, moment: Wall) -> u64 {
        self.questions += 1;
        let stage = Stage::Asked(self.questions);
        let (next, seen) = (state.follows(moment), state.schedule.updated_at);
        let passage = state.passage(moment, moment);
        self.pending.insert(state.schedule.row, Pending { moment, passage, next, seen, stage });
        self.insert(state);
        self.questions
    }

    /// What is pending of a cron.
    pub fn pending(&self, row: ScheduleKey) -> Option<Pending> {
        self.pending.get(&row).copied()
    }

    /// The moment of a cron that failed and is to be tried again now, if there is one.
    pub fn tried_again(&mut self, row: ScheduleKey) -> Option<Wall> {
        let failed = self.pending(row).filter(|pending| matches!(pending.stage, Stage::Failed(_)))?;
        self.pending.remove(&row);
        Some(failed.moment)
    }

    /// How far what is pending of a cron has come.
    pub fn set_stage(&mut self, row: ScheduleKey, stage: Stage) {
        if let Some(pending) = self.pending.get_mut(&row) {
            pending.stage = stage;
        }
    }

    /// Nothing of a cron is pending any more: it is due again, at `next` if that is said and it is still the same.
    pub fn settle(&mut self, row: ScheduleKey, next: Option<Wall>) {
        let Some(pending) = self.pending.remove(&row) else { return };
        let Some(mut state) = self.remove(row) else { return };
        if state.schedule.updated_at == pending.seen {
            state.next = next.unwrap_or(state.next);
        }
        self.insert(state);
    }

    /// Another owner decides the moment that was asked for. It may let the cron go once it has, to a newer version, with more of them to
    /// decide: so that moment is asked for again later, and is over by then or not.
    pub fn wait_for_other(&mut self, row: ScheduleKey, now: Wall) {
        if self.pending.remove(&row).is_none() {
            return;
        }
        let Some(state) = self.remove(row) else { return };
        self.insert(CronState { left_until: Some(Wall(now.0.saturating_add(LEFT_US))), ..state });
    }

    /// Nothing is pending any more, once the moment is over: what follows it stands in the store then, too. A cron without another moment is gone.
    pub fn pass(&mut self, row: ScheduleKey) {
        let Some(pending) = self.pending.remove(&row) else { return };
        let Some(mut state) = self.remove(row) else { return };
        if state.schedule.updated_at == pending.seen {
            state.schedule.past.pass(pending.passage);
            let Some(next) = pending.next else { return };
            state.next = next;
            if let ScheduleKind::Cron { next_at, .. } = &mut state.schedule.kind {
                *next_at = pending.next;
            }
        }
        self.insert(state);
    }

    /// The cron of which the body in this place is called.
    pub fn called_in(&self, place: u32) -> Option<ScheduleKey> {
        let is_called = |pending: &Pending| pending.stage == Stage::Called(place);
        self.pending.iter().find(|(_, pending)| is_called(pending)).map(|(&row, _)| row)
    }

    /// Lets a cron be due at what the store kept of it, if others were to decide that.
    pub fn look_again(&mut self, row: ScheduleKey) {
        let Some(mut state) = self.remove(row) else { return };
        if let ScheduleKind::Cron { next_at: Some(kept), .. } = state.schedule.kind {
            state.next = state.next.min(kept);
        }
        state.left_until = None;
        self.insert(state);
    }

    /// The rows of all.
    pub fn rows(&self) -> Vec<ScheduleKey> {
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
    pub fn due(&self, now: Wall) -> Vec<ScheduleKey> {
        self.by_time.range(..=(now, ScheduleKey(i64::MAX))).map(|&(_, row)| row).collect()
    }

    /// Those that start any workflow that is not one of these, by the workflows' names.
    pub fn of_others_than<'c>(
        &'c self,
        is_known: impl Fn(&str) -> bool + 'c,
    ) -> impl Iterator<Item = &'c Schedule> + 'c {
        let mut others: Vec<_> = self.by_workflow.iter().filter(|(name, _)| !is_known(name)).collect();
        others.sort_unstable_by_key(|(name, _)| Arc::clone(name));
        others.into_iter().flat_map(|(_, rows)| rows).map(|row| &self.by_row[row].schedule)
    }

    /// The rows of those that start this workflow.
    pub fn of(&self, workflow: &str) -> Vec<ScheduleKey> {
        self.by_workflow.get(workflow).into_iter().flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::past::Past;
    use crate::port::Terms;

    fn cron(row: ScheduleKey, workflow: &str) -> CronState {
        let (expression, timezone) = ("0 9 * * *".to_owned(), "UTC".to_owned());
        let schedule = Schedule {
            row,
            id: Uuid::nil(),
            name: String::new(),
            workflow: workflow.to_owned(),
            kind: ScheduleKind::Cron { expression, timezone, next_at: None, terms: Terms::default() },
            enabled: true,
            asked: None,
            disabled_cause: None,
            disabled_at: None,
            cursor: None,
            cursor_set: 0,
            failures: 0,
            last_at: None,
            last_fired_at: None,
            past: Past::default(),
            created_at: Wall(0),
            updated_at: Wall(0),
            owner: None,
            origin: Origin::Registered,
            digest: None,
            version: 0,
            newest: 0,
            in_body_since: None,
            on_run: None,
            grid: None,
        };
        CronState::new(schedule, Cron::parse("0 9 * * *", "UTC").unwrap(), Wall(row.0), Wall(0))
    }

    #[test]
    fn crons_are_found_by_their_workflow_until_they_go_or_start_another() {
        let mut crons = Crons::default();
        [(3, "a"), (1, "a"), (2, "b")]
            .into_iter()
            .for_each(|(row, workflow)| crons.insert(cron(ScheduleKey(row), workflow)));
        let of =
            |crons: &Crons, workflow| crons.of(workflow).into_iter().map(|row| row.0).collect::<Vec<_>>();
        assert_eq!((of(&crons, "a"), of(&crons, "b"), of(&crons, "c")), (vec![1, 3], vec![2], vec![]));
        crons.insert(cron(ScheduleKey(3), "b"));
        assert_eq!((of(&crons, "a"), of(&crons, "b")), (vec![1], vec![2, 3]));
        crons.remove(ScheduleKey(1));
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
