//! Decides whether a fire becomes a run, by the table in memory. It refuses the cheap cases; the unique index inside the
//! commit is the truth, and its receipt corrects the table.
//! Invariant: the table holds exactly the unfinished runs of this runner that guard their context hash.

use std::collections::HashMap;

use uuid::Uuid;

use crate::port::ContextHash;

/// Which unfinished run guards which context, by trigger.
#[derive(Debug, Default)]
pub struct Gate {
    by_hash: HashMap<(i64, ContextHash), Uuid>,
    by_run: HashMap<Uuid, (i64, ContextHash)>,
}

/// The fate of a fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It becomes a run, unless the store knows better.
    Run,
    /// Dropped: this unfinished run of the same trigger has an equal context.
    Duplicate {
        /// The run that stands in the way.
        of: Uuid,
    },
}

impl Gate {
    /// The fate of a fire of this trigger with this hash.
    pub fn admit(&self, schedule: i64, hash: ContextHash) -> Admission {
        match self.by_hash.get(&(schedule, hash)) {
            Some(&of) => Admission::Duplicate { of },
            None => Admission::Run,
        }
    }

    /// Notes that `run` guards this hash until it is released.
    pub fn hold(&mut self, schedule: i64, hash: ContextHash, run: Uuid) {
        self.by_hash.insert((schedule, hash), run);
        self.by_run.insert(run, (schedule, hash));
    }

    /// Frees whatever `run` guards.
    pub fn release(&mut self, run: Uuid) {
        if let Some(key) = self.by_run.remove(&run) {
            self.by_hash.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_hash_refuses_only_its_own_trigger() {
        let mut gate = Gate::default();
        let (run, hash) = (Uuid::from_u128(1), [7; 16]);
        gate.hold(1, hash, run);
        assert_eq!(gate.admit(1, hash), Admission::Duplicate { of: run });
        assert_eq!(gate.admit(2, hash), Admission::Run);
        gate.release(run);
        assert_eq!(gate.admit(1, hash), Admission::Run);
    }
}
