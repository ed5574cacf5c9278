//! Who stands before whom: runs of a trigger that begin one after another, and those of them that others drive.
//! Invariant: a run that waits begins when nothing of its trigger before it is unfinished, and not before.

use std::ops::Bound;

use uuid::Uuid;

use crate::engine::{Effects, Engine};
use crate::key::ScheduleKey;
use crate::run::Progress;
use crate::time::Now;

/// A run that starts when no earlier one of its trigger is unfinished.
#[derive(Debug)]
pub(super) struct Turn {
    /// Its commit is acknowledged, so that it may start.
    pub kept: bool,
    /// Whether the earlier ones are to be cancelled for it.
    pub cancels: bool,
    /// What it goes on with, if it had begun before.
    pub resumed: Option<Progress>,
    /// It was final, and waits for what is at work here alone: elsewhere what stands in the line may wait for it, by its age.
    pub is_again: bool,
}

impl Engine {
    /// Up to `many` runs of others that somebody here waits for, those after `last` first and then from the beginning.
    pub fn others_after(&self, last: Uuid, many: usize) -> Vec<Uuid> {
        let (behind, ahead) =
            (self.others.range(..=last), self.others.range((Bound::Excluded(last), Bound::Unbounded)));
        ahead.chain(behind).take(many).copied().collect()
    }

    /// Runs of a trigger that others drive stand in its line, too.
    pub(super) fn wait_for_others(&mut self, schedule: ScheduleKey, runs: Vec<Uuid>) {
        for id in runs {
            // What is this runner's, and not told it yet, is claimed in a moment, and keeps its place.
            if !self.runs.contains_key(&id) && !self.gate.holds(id) && self.others.insert(id) {
                self.gate.hold(schedule, None, id);
            }
        }
    }

    pub(super) fn other_ended(&mut self, id: Uuid, now: Now, out: &mut Effects) {
        if self.others.remove(&id)
            && let Some(next) = self.gate.release(id)
        {
            self.take_turn(next, now, out);
        }
    }

    /// What is at work here in the line of a run that stands first in it.
    pub(super) fn at_work_beside(&self, id: Uuid) -> Option<Uuid> {
        for other in self.gate.behind(id).filter(|other| self.runs.contains_key(other)) {
            match self.turns.get(&other) {
                None => return Some(other),
                Some(turn) if turn.is_again => {}
                // Nothing behind what waits for its turn is at work.
                Some(_) => return None,
            }
        }
        None
    }

    /// Whether a run that is opened again, and stands first in its line, has to wait.
    pub(super) fn waits_again(&self, id: Uuid) -> bool {
        let does = |other| self.turns.get(&other).is_some_and(|turn| turn.is_again);
        // Of many that are opened again at once each would look at all the others.
        self.gate.behind(id).next().is_some_and(does) || self.at_work_beside(id).is_some()
    }

    /// Begins a run that waited, if it is its turn.
    pub(super) fn take_turn(&mut self, id: Uuid, now: Now, out: &mut Effects) {
        let Some(Turn { kept: true, is_again, .. }) = self.turns.get(&id) else { return };
        if !self.gate.is_first(id) || (*is_again && self.at_work_beside(id).is_some()) {
            return;
        }
        match self.turns.remove(&id).and_then(|turn| turn.resumed) {
            None => self.begin(id, now, out),
            Some(progress) => self.follow(id, progress, now, out),
        }
    }
}
