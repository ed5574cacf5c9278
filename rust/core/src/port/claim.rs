//! What passes from a runner to the next one: unfinished runs, and who else lives.

use uuid::Uuid;

use crate::record::{ContextHash, TaskRecord};
use crate::time::Wall;

/// An unfinished run with what is known of its tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Unfinished {
    /// The store's key.
    pub row: i64,
    /// The public id.
    pub id: Uuid,
    /// The workflow's name.
    pub workflow: String,
    /// The version under which it was started.
    pub version: String,
    /// The first context.
    pub context: String,
    /// The schedule that fired it, with its hash if that guards.
    pub schedule: Option<i64>,
    /// Its context hash.
    pub context_hash: Option<ContextHash>,
    /// Held back while an earlier run of its schedule is unfinished.
    pub waits: bool,
    /// When it was created.
    pub created_at: Wall,
    /// How often a runner took it over after another's end.
    pub interruptions: u32,
    /// Who had it before, unless that gave it up.
    pub owner_before: Option<i64>,
    /// Whether somebody asked for its end.
    pub cancelled: bool,
    /// Every task with a record.
    pub tasks: Vec<TaskRecord>,
    /// If it waits: earlier ones that do, and that other owners drive, or may claim.
    pub behind: Vec<Uuid>,
}

/// Who else serves a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Siblings {
    /// How many were found dead now.
    pub buried: u64,
    /// Other owners that live, by their epochs.
    pub living: Vec<i64>,
    /// Whether who asks was taken for dead itself: nothing that it writes counts any more.
    pub is_buried: bool,
}

/// Why nothing is handed to a runner that was taken for dead.
pub const BURIED: &str = "the store takes this runner for dead; make a new one";

/// What a runner that leaves cannot give up yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InFlight {
    /// Runs with an attempt whose body still runs.
    pub runs: Vec<Uuid>,
    /// Rows of triggers whose polls have not come back.
    pub triggers: Vec<i64>,
}

impl InFlight {
    /// Whether everything is home.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.triggers.is_empty()
    }
}
