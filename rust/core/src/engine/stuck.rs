//! What is certain of a poll's fires before they are judged.
//! Invariant: what is foreseen is what the judge would say, so that a row that waits behind a long run costs no commit a poll.

use std::sync::Arc;

use uuid::Uuid;

use crate::admit::Admission;
use crate::engine::{Declared, Engine, Fire, Note};
use crate::key::ScheduleKey;
use crate::limit::Limits;
use crate::port::{Admitted, ContextHash};

/// The first fire of a row, which overlap drops again and again.
#[derive(Debug)]
pub(super) struct Stuck {
    hash: ContextHash,
    key: String,
    /// The store has said that its key is free. Only a run of its own trigger uses that up.
    is_known: bool,
}

/// What is certain of a poll's fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Foreseen {
    /// Nothing: they have to be judged.
    Open,
    /// They cannot start, and the poll fails with this: its trigger names a workflow that nobody declares.
    Failed(Note),
    /// None of them starts, and the poll is a skip for this reason.
    Dropped(String),
}

impl Engine {
    /// What is certain of the fires of a poll that ended without an error, and has set this cursor or none. What is dropped here is
    /// counted, and is not to be judged again.
    pub fn foresee(
        &mut self,
        place: u32,
        schedule: ScheduleKey,
        fires: &[Fire],
        cursor: Option<&str>,
    ) -> Foreseen {
        let Some(declared) = self.declared_in(place).filter(|_| !fires.is_empty()).cloned() else {
            return Foreseen::Open;
        };
        if !self.workflows.contains_key(&declared.row.workflow) {
            let Declared { row, .. } = &declared;
            return Foreseen::Failed(self.unknown_workflow(&row.name, &row.workflow));
        }
        let has_row = fires.iter().any(|fire| fire.cursor.is_some());
        if cursor.is_some() && !has_row {
            return Foreseen::Open;
        }
        let Some(tally) = self.dropped_all(place, schedule, &declared, fires) else { return Foreseen::Open };
        self.counts.fires += fires.len() as u64;
        self.counts.deduplicated += tally.deduplicated;
        self.counts.dropped += tally.dropped;
        self.counts.held_back += tally.held_back;
        let counts = self.meter.fired(&declared.row.name);
        counts.fires += fires.len() as u64;
        counts.deduplicated += tally.deduplicated;
        counts.dropped += tally.dropped;
        counts.held_back += tally.held_back;
        Foreseen::Dropped(tally.reason)
    }

    /// The trigger in that place, and by what the runs of its workflow are counted, if they are.
    pub fn counted_by(&self, place: u32) -> Option<(Declared, Arc<Limits>)> {
        let declared = self.declared_in(place)?;
        let limits = self.workflows.get(&declared.row.workflow)?.limits.as_ref()?;
        Some((declared.clone(), Arc::clone(limits)))
    }

    /// How these fires are dropped; none if one of them may start.
    fn dropped_all(
        &self,
        place: u32,
        schedule: ScheduleKey,
        declared: &Declared,
        fires: &[Fire],
    ) -> Option<Tally> {
        let mut tally = Tally::default();
        let mut has_stopped = false;
        for fire in fires {
            if fire.cursor.is_some() {
                if has_stopped {
                    tally.held_back += 1;
                    continue;
                }
                let room = self.gate.room(schedule, declared.overlap).filter(|room| room.runs == 0)?;
                if !self.is_free(place, fire) {
                    return None;
                }
                has_stopped = true;
                tally.dropped += 1;
                tally.reason = waits_for(room.with?);
                continue;
            }
            let guard = (!declared.row.allow_concurrent).then_some(fire.hash);
            let admission = self.gate.admit(schedule, guard, declared.overlap);
            match admission {
                Admission::Run => return None,
                Admission::Duplicate { .. } => tally.deduplicated += 1,
                Admission::Overlaps { .. } | Admission::QueueFull => tally.dropped += 1,
            }
            if !has_stopped {
                tally.reason = reason_of(admission)?;
            }
        }
        Some(tally)
    }

    /// Whether it is certain that a fire's key, if it has one, is not used.
    fn is_free(&self, place: u32, fire: &Fire) -> bool {
        let Some((key, _)) = &fire.run_key else { return true };
        let stuck = self.stuck.get(&place).filter(|stuck| stuck.is_known);
        stuck.is_some_and(|stuck| stuck.key == *key && stuck.hash == fire.hash)
    }

    /// Notes what a tick's row begins with.
    pub(super) fn ask_about(&mut self, place: u32, fires: &[Fire]) {
        let first = fires.iter().find(|fire| fire.cursor.is_some());
        match first.and_then(|fire| Some((fire.hash, fire.run_key.as_ref()?.0.clone()))) {
            Some((hash, key)) => drop(self.stuck.insert(place, Stuck { hash, key, is_known: false })),
            None => drop(self.stuck.remove(&place)),
        }
    }

    /// Notes what the store said of a tick's row.
    pub(super) fn seen(&mut self, place: u32, fates: &[Admitted]) {
        let Some(stuck) = self.stuck.get_mut(&place) else { return };
        let is_dropped = |fate: &Admitted| matches!(fate, Admitted::Overlaps { .. });
        stuck.is_known = fates.iter().any(is_dropped) && !fates.iter().any(has_passed);
        if !stuck.is_known {
            self.stuck.remove(&place);
        }
    }
}

impl Declared {
    /// What the poll fails with if one of its fires lacks what these limits go by: it would fail each time, and hold up or lose what comes
    /// behind it.
    pub fn refused<'f>(&self, limits: &Limits, fires: impl IntoIterator<Item = &'f Fire>) -> Option<Note> {
        let refused = fires.into_iter().find_map(|fire| limits.keys_of(&fire.context).err())?;
        Some(self.unkeyed(&refused.message))
    }

    /// That the limits of what it fires refuse a run.
    pub(super) fn unkeyed(&self, why: &str) -> Note {
        let (trigger, workflow) = (Arc::clone(&self.row.name), Arc::clone(&self.row.workflow));
        Note::FireUnkeyed { trigger, workflow, why: why.into() }
    }
}

/// Whether something of a tick came to more than a drop: then its row may begin elsewhere now.
fn has_passed(fate: &Admitted) -> bool {
    fate.is_kept() || matches!(fate, Admitted::DuplicateKey { .. })
}

#[derive(Default)]
struct Tally {
    deduplicated: u64,
    dropped: u64,
    held_back: u64,
    reason: String,
}

/// Why the first of a row was dropped, and what follows.
fn waits_for(with: Uuid) -> String {
    format!("overlap: run {with} is unfinished; the cursor waits")
}

/// Why a fire was dropped; none if it was not.
pub(super) fn reason_of(admission: Admission) -> Option<String> {
    match admission {
        Admission::Run => None,
        Admission::Duplicate { of } => {
            Some(format!("deduplicated: run {of} with an equal context is unfinished"))
        }
        Admission::Overlaps { with } => Some(format!("overlap: run {with} is unfinished")),
        Admission::QueueFull => Some("overlap: the queue is full".to_owned()),
    }
}
