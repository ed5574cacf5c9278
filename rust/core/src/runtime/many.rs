//! What is done to many runs at once: one transaction, one step.
//! Invariant: none of them begins because another one of them ends.

use std::sync::atomic::Ordering;

use uuid::Uuid;

use crate::engine::{Effects, Event};
use crate::port::Stored;
use crate::runtime::Runtime;
use crate::runtime::park::lock;

impl Runtime {
    /// Asks for the ends of runs, whoever drives them; for each whether it was there and not final. What was sent before should be kept: see
    /// [`Runtime::flushing`].
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store: then none of them is asked for.
    pub fn cancel_each(&self, ids: &[Uuid]) -> Stored<Vec<bool>> {
        let now = self.now();
        let asked = self.shared.store.request_cancels(self.shared.epoch, ids, now.wall)?;
        self.shared.count_cancelled(&asked.concat(), now.wall);
        self.shared.ends_came();
        let mut effects = Effects::default();
        let mut engine = lock(&self.shared.engine);
        for &id in ids {
            engine.step(Event::Cancel(id), now, &mut effects);
        }
        self.shared.carry_out(engine, effects);
        for (&id, asked) in ids.iter().zip(&asked) {
            self.shared.cancel_children(id, asked);
            self.shared.look_for_cancelled(asked);
        }
        self.wake_others();
        Ok(asked.iter().map(|asked| !asked.is_empty()).collect())
    }

    /// Opens runs that failed or were cancelled again; for each whether it is open, or why it cannot be. What was sent before should be kept: see
    /// [`Runtime::flushing`].
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store: then none of them is open.
    pub fn retry_each(&self, ids: &[Uuid]) -> Stored<Vec<Result<bool, String>>> {
        let mut runs = Vec::with_capacity(ids.len());
        let mut told = Vec::with_capacity(ids.len());
        self.shared.say_workflows();
        for reopened in self.shared.store.reopen_each(self.shared.epoch, ids)? {
            told.push(reopened.map(|run| {
                let is_open = run.is_some();
                runs.extend(run);
                is_open
            }));
        }
        self.step(Event::Claimed(runs));
        self.shared.cancels_due.store(true, Ordering::Release);
        self.shared.wake_liaison();
        self.shared.lose_late();
        Ok(told)
    }
}
