//! What is kept of a task's attempts, so that a failure can be told the next day.
//! Invariant: an attempt ends once, and what is kept of it tells how; one that completed at once is told by its task's record alone.

use std::sync::Arc;

use crate::key::Epoch;
use crate::record::{TaskRecord, TaskStatus};
use crate::time::Wall;

/// So many of a task's first attempts are kept however many follow.
pub const TRIES_FIRST_MAX: usize = 3;
/// So many of its last ones are kept beside those.
pub const TRIES_LAST_MAX: usize = 17;

/// How an attempt ended. The names are those of the public API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TryOutcome {
    /// Its body returned.
    Completed,
    /// Its body raised, or left what cannot be kept.
    Failed,
    /// Nobody waited for its body any longer.
    TimedOut,
    /// Its process died, or its runner left, while it may have been under way.
    Interrupted,
    /// Its body asked to be called again later.
    Postponed,
    /// The end of its run was asked for while its body was at work, which has left nothing.
    Cancelled,
}

impl TryOutcome {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Completed, Self::Failed, Self::TimedOut, Self::Interrupted, Self::Postponed, Self::Cancelled];

    /// The public name, also kept in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::TimedOut => "TimedOut",
            Self::Interrupted => "Interrupted",
            Self::Postponed => "Postponed",
            Self::Cancelled => "Cancelled",
        }
    }

    /// The outcome of that public name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// One attempt that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// Its number, from 1.
    pub attempt: u32,
    /// When its body was called; none if that is on no record.
    pub started_at: Option<Wall>,
    /// When it ended; of one that died with its process, when that was found.
    pub ended_at: Wall,
    /// How.
    pub outcome: TryOutcome,
    /// The kind of error, such as the name of an exception's class.
    pub error_type: Option<Arc<str>>,
    /// What went wrong.
    pub error: Option<String>,
    /// Where, in the words of the program's language.
    pub traceback: Option<String>,
    /// Whose body it was.
    pub maker: Maker,
}

/// Who made an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Maker {
    /// Whoever writes it down. What is read names its owner.
    Writer,
    /// This owner.
    Owner(Epoch),
    /// That is on no record.
    Unknown,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// [`TryOutcome::Failed`], or why it was told to end.
    pub outcome: TryOutcome,
    /// The kind of error.
    pub error_type: Arc<str>,
    /// What went wrong, beginning with its kind.
    pub error: String,
    /// Where.
    pub traceback: Option<String>,
}

impl Failure {
    /// A body that raised.
    pub fn raised(error_type: &str, error: String, traceback: Option<String>) -> Self {
        Self { outcome: TryOutcome::Failed, error_type: error_type.into(), error, traceback }
    }

    /// A body that is not waited for any longer.
    pub fn timed_out(why: &str) -> Self {
        let error_type = TIMEOUT;
        let error = format!("{error_type}: {why}");
        Self { outcome: TryOutcome::TimedOut, error_type: error_type.into(), error, traceback: None }
    }
}

/// The kind of error of what took too long.
pub const TIMEOUT: &str = "TimeoutError";
/// The kind of error of what died with its process again and again.
pub const INTERRUPTED: &str = "Interrupted";

impl TaskRecord {
    /// The attempt that completed at once, of which nothing else is kept.
    pub fn only_try(&self) -> Option<Try> {
        let ended_at =
            self.completed_at.filter(|_| self.status == TaskStatus::Completed && self.attempt == 1)?;
        Some(Try {
            attempt: 1,
            started_at: self.started_at,
            ended_at,
            outcome: TryOutcome::Completed,
            error_type: None,
            error: None,
            traceback: None,
            maker: Maker::Unknown,
        })
    }
}
