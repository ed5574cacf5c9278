//! What passes from a runner to the next one: unfinished runs, and who else lives.

use uuid::Uuid;

use crate::key::{Epoch, RunRow, ScheduleKey};
use crate::record::{ContextHash, TaskRecord};
use crate::time::Wall;
use crate::urgency::Priority;

/// An unfinished run with what is known of its tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Unfinished {
    /// The store's key.
    pub row: RunRow,
    /// The public id.
    pub id: Uuid,
    /// The workflow's name.
    pub workflow: String,
    /// The version under which it was started.
    pub version: String,
    /// The first context.
    pub context: String,
    /// The schedule that fired it, with its hash if that guards.
    pub schedule: Option<ScheduleKey>,
    /// Its context hash.
    pub context_hash: Option<ContextHash>,
    /// Held back while an earlier run of its schedule is unfinished.
    pub waits: bool,
    /// How urgent it is.
    pub priority: Priority,
    /// When it was to begin, if whoever asked for it had said so.
    pub due_at: Option<Wall>,
    /// When it was created.
    pub created_at: Wall,
    /// How often a runner took it over after another's end.
    pub interruptions: u32,
    /// Who had it before, unless that gave it up.
    pub owner_before: Option<Epoch>,
    /// Whether somebody asked for its end.
    pub cancelled: bool,
    /// Whether a runner has had it that declares another version.
    pub is_mixed: bool,
    /// Whether another run has called it.
    pub is_child: bool,
    /// Whether limits of its workflow count it: its end may let another one begin.
    pub is_limited: bool,
    /// Whether it is nobody's, and waits until they let it begin.
    pub is_held: bool,
    /// Every task with a record.
    pub tasks: Vec<TaskRecord>,
    /// If it waits: earlier ones that do, and that other owners drive, or may claim.
    pub behind: Vec<Uuid>,
}

impl Unfinished {
    /// Whether nobody can have begun it: it was offered, waited for its time, or was left before it began.
    pub fn is_new(&self) -> bool {
        self.owner_before.is_none() && self.interruptions == 0 && self.tasks.is_empty()
    }
}

/// What may begin of what limits have held.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Allowed {
    /// Handed out, in the order in which they are to begin.
    pub runs: Vec<Unfinished>,
    /// Whether more could begin now, for whoever has room for it.
    pub is_more: bool,
    /// When the next may begin, as far as that is a matter of time.
    pub next_at: Option<Wall>,
}

/// Who else serves a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Siblings {
    /// How many were found dead now.
    pub buried: u64,
    /// Other owners that live, by their epochs.
    pub living: Vec<Epoch>,
    /// The newest of those that have left or were found dead.
    pub departed: Option<Epoch>,
    /// Whether who asks was taken for dead itself: nothing that it writes counts any more.
    pub is_buried: bool,
}

/// Who was there at the last look. Epochs only grow: one that is gone by the next look, and had not joined before the last, shows by its number.
#[derive(Debug, Default)]
pub struct Company {
    living: Vec<Epoch>,
    newest: Epoch,
}

impl Company {
    /// Whether somebody else may have what that owner had; none has what was let go of.
    pub fn is_free(&self, owner: Option<Epoch>) -> bool {
        owner.is_none_or(|owner| !self.living.contains(&owner))
    }

    /// The others that lived.
    pub fn living(&self) -> &[Epoch] {
        &self.living
    }

    /// Whether those lived, and nobody else.
    pub fn is_of(&self, living: &[Epoch]) -> bool {
        self.living == living
    }

    /// Whether nobody else lived.
    pub fn is_empty(&self) -> bool {
        self.living.is_empty()
    }

    /// Whether anyone has gone since the last look, or nobody has looked before.
    pub fn has_shrunk(last: &mut Option<Self>, siblings: &Siblings) -> bool {
        let newest = siblings.living.iter().copied().chain(siblings.departed).max().unwrap_or_default();
        let before = last.replace(Self { living: siblings.living.clone(), newest });
        let Some(before) = before else { return true };
        let is_gone = |epoch: &Epoch| !siblings.living.contains(epoch);
        siblings.buried > 0 || siblings.departed > Some(before.newest) || before.living.iter().any(is_gone)
    }
}

/// Why nothing is handed to a runner that was taken for dead.
pub const BURIED: &str = "the store takes this runner for dead; make a new one";

/// What a runner that leaves cannot give up yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InFlight {
    /// Runs with an attempt whose body still runs.
    pub runs: Vec<Uuid>,
    /// Rows of triggers whose polls have not come back.
    pub triggers: Vec<ScheduleKey>,
}

impl InFlight {
    /// Whether everything is home.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.triggers.is_empty()
    }
}
