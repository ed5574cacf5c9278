//! Workflows of which no run begins for the time being: what is new of them, or in hand and untouched, is left in the store, from where a claim
//! takes none until that is over. Invariant: a run that has begun goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::engine::{Effects, Engine, Then};
use crate::port::Change;
use crate::run::Run;
use crate::seat::{Kind, Pause, Until};
use crate::time::{Now, Wall};

#[derive(Debug, Default)]
pub(super) struct Pauses {
    workflows: BTreeMap<Arc<str>, Until>,
    /// Runs that wait here for the end of one, where they are not to be left to others.
    here: Vec<Uuid>,
}

impl Pauses {
    /// When the next one is over by itself.
    pub fn next(&self) -> Option<Wall> {
        // Mostly there is none.
        if self.workflows.is_empty() {
            return None;
        }
        self.workflows.values().filter_map(|until| until.instant()).min()
    }

    /// Whether no run of a workflow begins.
    pub fn holds(&self, workflow: &str) -> bool {
        !self.workflows.is_empty() && self.workflows.contains_key(workflow)
    }
}

impl Engine {
    /// What the store has paused.
    pub(super) fn paused(&mut self, pauses: Vec<Pause>, now: Now, out: &mut Effects) {
        let is_workflow = |pause: &Pause| pause.kind == Kind::Workflow && !pause.until.is_over(now.wall);
        let workflows: BTreeMap<Arc<str>, Until> =
            pauses.into_iter().filter(is_workflow).map(|pause| (pause.name, pause.until)).collect();
        let before = std::mem::replace(&mut self.pauses.workflows, workflows);
        if before.keys().any(|name| !self.pauses.workflows.contains_key(name)) {
            self.pause_over(now, out);
        }
        let is_new = |run: &&Run| self.pauses.holds(&run.workflow.name) && run.is_untouched();
        let has_new = self.pauses.workflows.keys().any(|name| !before.contains_key(name));
        if has_new && self.leaves_runs() {
            let untouched = self.runs.values().filter(is_new).map(|run| run.id);
            // Those that stand in line are left once it is their turn.
            let may_leave = |id: &Uuid| !self.turns.contains_key(id) && !self.is_waited_for(*id);
            let untouched: Vec<Uuid> = untouched.filter(may_leave).collect();
            self.leave_paused(untouched, now, out);
        }
    }

    /// Looks whether a pause is over.
    pub(super) fn look_at_pauses(&mut self, now: Now, out: &mut Effects) {
        if self.pauses.next().is_some_and(|next| next <= now.wall) {
            self.pauses.workflows.retain(|_, until| !until.is_over(now.wall));
            self.pause_over(now, out);
        }
    }

    fn pause_over(&mut self, now: Now, out: &mut Effects) {
        out.is_due = true;
        let here = std::mem::take(&mut self.pauses.here);
        here.into_iter().for_each(|id| self.begin(id, now, out));
    }

    /// Whether a run does not begin now; then it waits in the store, or here.
    pub(super) fn is_held_up(&mut self, id: Uuid, now: Now, out: &mut Effects) -> bool {
        let run = self.runs.get(&id);
        let is_held = run.is_some_and(|run| self.pauses.holds(&run.workflow.name) && run.is_untouched());
        match is_held && self.leaves_runs() && !self.is_waited_for(id) {
            true => self.leave_paused(vec![id], now, out),
            false if is_held => self.pauses.here.push(id),
            false => {}
        }
        is_held
    }

    /// Leaves runs of which nothing has begun to whoever claims them once that is over.
    pub(super) fn leave_paused(&mut self, ids: Vec<Uuid>, now: Now, out: &mut Effects) {
        let (mut rows, mut hands) = (Vec::new(), Vec::new());
        for id in ids {
            self.unseat_run(id, |_, _| false, now, out);
            if let Some((row, hand)) = self.leave_run(id, out) {
                rows.push(row);
                hands.push(hand);
            }
        }
        if !rows.is_empty() {
            hands.sort_unstable();
            hands.dedup();
            out.commits.push((Change::Release { epoch: self.epoch, runs: rows }, Then::Released(hands)));
        }
    }
}
