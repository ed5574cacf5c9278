//! Runs that limits have held: which of them are claimed, and when.
//! Invariant: such a run is claimed only for a permit that is free, or is going to be within milliseconds, and whoever has none asks again when
//! one is given back.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use crate::engine::{Event, Note};
use crate::limit::Dropped;
use crate::port::{Allowed, Fault};
use crate::runtime::Shared;
use crate::runtime::jobs::JobState;
use crate::runtime::keeper::Order;
use crate::runtime::liaison::{CLAIM_CHUNK, RECOVERY_PAUSE};
use crate::runtime::park::{lock, sleep};
use crate::workflow::Executor;

impl Shared {
    /// Whoever claims is to look what limits let begin.
    pub(super) fn ask_for_limited(&self) {
        self.limited_asked.fetch_add(1, Ordering::AcqRel);
        self.wake_liaison();
    }

    /// Whether that is so, and nobody has looked since.
    pub(super) fn is_limited_asked(&self) -> bool {
        self.limited_asked.load(Ordering::Acquire) != self.limited_done.load(Ordering::Acquire)
    }

    /// Looks, if that was asked for.
    pub(super) fn heed_limited(&self) {
        let asked = self.limited_asked.load(Ordering::Acquire);
        if asked == self.limited_done.load(Ordering::Acquire) {
            return;
        }
        if self.works && self.claim_limited() > 0 {
            self.cancels_due.store(true, Ordering::Release);
        }
        self.limited_done.store(asked, Ordering::Release);
    }

    /// A permit is given back; true if whoever claims is to be woken for that.
    pub(super) fn asks_for_permit(&self, jobs: &mut JobState, executor: Option<Executor>) -> bool {
        // Mostly nothing waits for one, and to write would cost each attempt.
        let Some(executor) = executor.filter(|_| self.limited_waits.load(Ordering::Acquire)) else {
            return false;
        };
        let (lane, now) = (jobs.lane(executor), self.now().mono);
        lane.note_end(now);
        let is_wanted = lane.calls(now) && self.wants_permit.swap(false, Ordering::AcqRel);
        if is_wanted {
            self.limited_asked.fetch_add(1, Ordering::AcqRel);
        }
        is_wanted
    }

    /// A seat may be free. Who waits for a permit anyway looks when there is one.
    pub(super) fn ask_for_open(&self) {
        if !self.wants_permit.load(Ordering::Acquire) {
            self.ask_for_limited();
        }
    }

    /// The log hears of what limits have dropped that nobody has asked for: a moment of a cron.
    pub(super) fn tell_unawaited(&self, dropped: &[(Uuid, Dropped)], unkeyed: &[(Uuid, String)]) {
        let dropped = dropped.iter().map(|(id, dropped)| (id, &dropped.why));
        let unawaited: Vec<String> = {
            let watches = lock(&self.watches);
            let all = dropped.chain(unkeyed.iter().map(|(id, why)| (id, why)));
            all.filter(|(id, _)| !watches.contains_key(id)).map(|(_, why)| why.clone()).collect()
        };
        unawaited.into_iter().for_each(|why| self.order(Order::Log(Note::RunDropped { why })));
    }

    /// Claims what limits let begin, as long as there are permits for it; how many runs came.
    pub(super) fn claim_limited(&self) -> usize {
        let mut came = 0;
        while !self.closing.load(Ordering::Acquire) {
            let (executors, workflows) = {
                let engine = lock(&self.engine);
                (engine.executors_of_limited(), engine.workflow_names())
            };
            let room = self.room_in(&executors);
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
        self.limited_waits.store(is_more, Ordering::Release);
        if self.wants_permit.swap(is_more, Ordering::AcqRel) || !is_more {
            return;
        }
        self.store.wake_others(self.epoch);
        // One may have come back before that was noted.
        let executors = lock(&self.engine).executors_of_limited();
        if self.is_called_for(&executors) && self.wants_permit.swap(false, Ordering::AcqRel) {
            self.ask_for_limited();
        }
    }

    fn room_in(&self, executors: &BTreeSet<u32>) -> u64 {
        let (mut jobs, now) = (lock(&self.jobs), self.now().mono);
        let lanes = jobs.lanes.iter_mut().zip(0..).filter(|(_, executor)| executors.contains(executor));
        let spare: usize = lanes.map(|(lane, _)| lane.spare(now)).sum();
        (spare as u64).min(CLAIM_CHUNK)
    }

    fn is_called_for(&self, executors: &BTreeSet<u32>) -> bool {
        let (mut jobs, now) = (lock(&self.jobs), self.now().mono);
        let mut lanes = jobs.lanes.iter_mut().zip(0..).filter(|(_, executor)| executors.contains(executor));
        lanes.any(|(lane, _)| lane.calls(now))
    }
}
