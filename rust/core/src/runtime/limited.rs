//! Runs that limits have held: which of them are claimed, and when.
//! Invariant: such a run is claimed only for a permit that is free, and whoever has none asks again when one is given back.

use std::sync::atomic::Ordering;

use crate::engine::Event;
use crate::port::{Allowed, Fault};
use crate::runtime::Shared;
use crate::runtime::liaison::{CLAIM_CHUNK, RECOVERY_PAUSE};
use crate::runtime::park::{lock, sleep};

impl Shared {
    /// Whoever claims is to look.
    pub(super) fn ask_for_due(&self) {
        self.due_asked.fetch_add(1, Ordering::AcqRel);
        self.wake_liaison();
    }

    /// A permit is given back; true if whoever claims is to be woken for that.
    pub(super) fn asks_for_permit(&self) -> bool {
        // Mostly nothing waits for one, and to write would cost each attempt.
        let is_wanted =
            self.wants_permit.load(Ordering::Acquire) && self.wants_permit.swap(false, Ordering::AcqRel);
        if is_wanted {
            self.due_asked.fetch_add(1, Ordering::AcqRel);
        }
        is_wanted
    }

    /// Claims what limits let begin, as long as there are permits for it; how many runs came.
    pub(super) fn claim_limited(&self) -> usize {
        let mut came = 0;
        while !self.closing.load(Ordering::Acquire) {
            let (executors, workflows) = {
                let engine = lock(&self.engine);
                (engine.executors_of_limited(), engine.workflow_names())
            };
            let room = self.room_in(executors.into_iter());
            match self.store.claim_limited(self.epoch, self.now().wall, room, &workflows) {
                Ok(Allowed { runs, is_more, next_at }) => {
                    if let Some(next_at) = next_at {
                        self.step(Event::NextDue(Some(next_at)));
                    }
                    came += runs.len();
                    let is_last = runs.is_empty() || !is_more;
                    if !runs.is_empty() {
                        self.step(Event::Claimed(runs));
                    }
                    if is_last {
                        self.leave_to_others(is_more);
                        break;
                    }
                }
                Err(Fault::Passing(_)) => sleep(RECOVERY_PAUSE),
                // What is wrong with it the claim of all others tells.
                Err(Fault::Final(_)) => break,
            }
        }
        came
    }

    /// What may begin and finds no permit here is others' to take, or waits for the next one.
    fn leave_to_others(&self, is_more: bool) {
        if self.wants_permit.swap(is_more, Ordering::AcqRel) || !is_more {
            return;
        }
        self.store.wake_others(self.epoch);
        // One may have come back before that was noted.
        let executors = lock(&self.engine).executors_of_limited();
        if self.room_in(executors.into_iter()) > 0 {
            self.ask_for_due();
        }
    }

    fn room_in(&self, executors: impl Iterator<Item = u32>) -> u64 {
        let jobs = lock(&self.jobs);
        let spare =
            executors.filter_map(|executor| jobs.lanes.get(executor as usize)).map(|lane| lane.spare());
        (spare.sum::<usize>() as u64).min(CLAIM_CHUNK)
    }
}
