//! What is kept of runs, tasks and polls, in words that the engine and every store share.
//! Invariant: a status' name is that of the public API, and the same in every store.

use std::sync::Arc;

use uuid::Uuid;

use crate::grid::Wait;
use crate::key::ScheduleKey;
use crate::time::Wall;
use crate::tries::Try;

/// 128-bit digest of the canonical form of a context; the schedule that it stands with tells those of triggers apart.
pub type ContextHash = [u8; 16];

/// Of what a run came that came of another run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Parent {
    /// That other run.
    pub run: Uuid,
    /// The task whose body called; none of a callback, whose runs outlive a cancelled parent, of what an end of the run has fired, and of what does
    /// its work again.
    pub task: Option<Arc<str>>,
    /// Which call for that workflow it was in its attempt, from 1: the same call of a later attempt gets the same run. None if the caller
    /// gave a run key, and of a callback.
    pub call: Option<u32>,
    /// Whether somebody has asked for the run's work once more.
    pub again: bool,
    /// Whether it was named as the parent: what belongs to it so is cancelled with it, as what its tasks start.
    pub given: bool,
}

impl Parent {
    /// One that was named by who asked for the run.
    pub fn given(run: Uuid) -> Self {
        Self { run, task: None, call: None, again: false, given: true }
    }
}

/// Where a run stands. The names are those of the public API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunStatus {
    /// Committed; waits for its workflow or for a runner.
    Pending,
    /// Being driven by a runner.
    Running,
    /// Final: every task completed or was skipped.
    Completed,
    /// Final: a task failed, or the run timed out.
    Failed,
    /// Final: somebody cancelled it.
    Cancelled,
}

impl RunStatus {
    /// The public name, also kept in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }

    /// The status of that public name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Pending, Self::Running, Self::Completed, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|status| status.name() == name)
    }

    /// Whether nothing can follow.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// Where a task of a run stands. A task without a record has not been decided yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskStatus {
    /// An attempt may be under way, or the next one waits for its delay.
    Running,
    /// Final: its body returned.
    Completed,
    /// Final: its last attempt failed.
    Failed,
    /// Final: its rule, or the fate of its dependencies, left it out.
    Skipped,
}

impl TaskStatus {
    /// The public name, also kept in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Skipped => "Skipped",
        }
    }

    /// The status of that public name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Running, Self::Completed, Self::Failed, Self::Skipped]
            .into_iter()
            .find(|status| status.name() == name)
    }
}

/// One task's new state.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRecord {
    /// The task's id in its workflow.
    pub name: Arc<str>,
    /// Its new status.
    pub status: TaskStatus,
    /// Attempts made or under way, from 1; 0 for a skipped task.
    pub attempt: u32,
    /// So many of them were cut off, by a death or by a runner that left: they use up none that its retry policy allows.
    pub interrupted: u32,
    /// So many of them ended with the wish to be made again later: they use up none either.
    pub postponed: u32,
    /// What the attempt waits for that has not begun yet; none once that is on record as begun, and where nobody has to know.
    pub wait: Option<Wait>,
    /// Since when its body waits without a permit, of one that has for some time: the death of its process interrupts nothing then.
    pub rests_since: Option<Wall>,
    /// What an attempt left for the next one, as JSON text; none once the task is final.
    pub checkpoint: Option<Arc<str>>,
    /// What it left, as JSON text, if it completed.
    pub context: Option<Arc<str>>,
    /// What went wrong in the last attempt.
    pub error: Option<String>,
    /// The kind of that error. Stores keep it with the attempt, and tell it of a task that failed.
    pub error_type: Option<Arc<str>>,
    /// The attempts that ended since the last record, to be kept beside those before; of a record that is read, what is kept, if that was
    /// asked for.
    pub tries: Vec<Try>,
    /// When its first attempt began.
    pub started_at: Option<Wall>,
    /// When it became final.
    pub completed_at: Option<Wall>,
}

/// A run's end.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEnd {
    /// A final status.
    pub status: RunStatus,
    /// The leaves' contexts, merged.
    pub context: Arc<str>,
    /// Which task failed with what error; none on success.
    pub error: Option<String>,
    /// The kind of error of the first task that failed, or of what ended the run; none if nothing failed.
    pub error_type: Option<Arc<str>>,
    /// When.
    pub completed_at: Wall,
}

/// What one poll decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing to do.
    Skip,
    /// At least one fire.
    Fire,
    /// The body raised, timed out or returned something else.
    Error,
}

impl Outcome {
    /// The name kept in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Fire => "fire",
            Self::Error => "error",
        }
    }

    /// The outcome of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Skip, Self::Fire, Self::Error].into_iter().find(|outcome| outcome.name() == name)
    }
}

/// A stretch of polls with equal outcomes, kept as one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The trigger's row.
    pub schedule: ScheduleKey,
    /// The same for every poll of the stretch.
    pub outcome: Outcome,
    /// Skip reason or error text; empty if none was given.
    pub reason: Arc<str>,
    /// How many polls.
    pub count: u64,
    /// When the first began.
    pub first_at: Wall,
    /// When the last began.
    pub last_at: Wall,
    /// Shortest body, in microseconds.
    pub min_us: u64,
    /// Longest body, in microseconds.
    pub max_us: u64,
    /// All bodies together, in microseconds.
    pub sum_us: u64,
}
