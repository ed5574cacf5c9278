//! Who stands before whom: runs of a trigger that begin one after another, and those of them that others drive.
//! Invariant: a run that waits begins when nothing of its trigger before it is unfinished, and not before.

use std::ops::Bound;

use uuid::Uuid;

use crate::engine::{Effects, Engine};
use crate::key::ScheduleKey;
use crate::run::Progress;
use crate::time::Now;

/// Behind a run of others that stands first at most so many others are looked at for one that waits here.
const BEHIND_MAX: usize = 10_000;

/// A run that starts when no earlier one of its trigger is unfinished.
#[derive(Debug)]
pub(super) struct Turn {
    /// Its commit is acknowledged, so that it may start.
    pub kept: bool,
    /// Whether the earlier ones are to be cancelled for it.
    pub cancels: bool,
    /// What it goes on with, if it had begun before.
    pub resumed: Option<Progress>,
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

    /// Runs of its line that were opened again, wherever that was, and that the store has kept before a fire of this runner.
    pub(super) fn wait_for_opened(&mut self, fire: Option<Uuid>, mut runs: Vec<Uuid>) {
        // What others drive may have been heard of after the poll, and stands behind its fire until now.
        runs.retain(|&id| {
            !self.runs.contains_key(&id) && (self.others.contains(&id) || !self.gate.holds(id))
        });
        if let Some(fire) = fire.filter(|&fire| !runs.is_empty() && self.gate.holds(fire)) {
            self.gate.hold_before(fire, &runs);
            self.others.extend(runs);
        }
    }

    /// Those of these runs of others that stand first in a line, each with the first one of here that waits behind it.
    pub fn waited_for(&self, others: &[Uuid]) -> Vec<(Uuid, Uuid)> {
        let waits = |id: &Uuid| self.turns.get(id).is_some_and(|turn| turn.kept);
        let first = others.iter().filter(|&&id| self.others.contains(&id) && self.gate.is_first(id));
        first.filter_map(|&id| Some((id, self.gate.behind(id).take(BEHIND_MAX).find(waits)?))).collect()
    }

    /// A run of others had a place before that one, was over, and was opened again before that was heard of.
    pub(super) fn other_moved(&mut self, id: Uuid, behind: Uuid, now: Now, out: &mut Effects) {
        if self.others.contains(&id) && self.turns.contains_key(&behind) {
            self.gate.stand_behind(id, &[behind]);
            self.next_in_line(id, now, out);
        }
    }

    /// Who stands first now in the line of a run that has moved.
    fn next_in_line(&mut self, id: Uuid, now: Now, out: &mut Effects) {
        if let Some(first) = self.gate.first_beside(id).filter(|&first| first != id) {
            self.take_turn(first, now, out);
        }
    }

    /// A run that is in hand now stands behind those, wherever it was noted.
    pub(super) fn stand_behind(&mut self, id: Uuid, before: &[Uuid], now: Now, out: &mut Effects) {
        self.gate.stand_behind(id, before);
        self.next_in_line(id, now, out);
    }

    pub(super) fn other_ended(&mut self, id: Uuid, now: Now, out: &mut Effects) {
        if self.others.remove(&id)
            && let Some(next) = self.gate.release(id)
        {
            self.take_turn(next, now, out);
        }
    }

    /// Begins a run that waited, if it is its turn.
    pub(super) fn take_turn(&mut self, id: Uuid, now: Now, out: &mut Effects) {
        let Some(Turn { kept: true, .. }) = self.turns.get(&id) else { return };
        if !self.gate.is_first(id) {
            return;
        }
        match self.turns.remove(&id).and_then(|turn| turn.resumed) {
            None => self.begin(id, now, out),
            Some(progress) => self.follow(id, progress, now, out),
        }
    }
}
