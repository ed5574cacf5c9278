//! What listings ask for and show.

use uuid::Uuid;

use crate::record::{ContextHash, RunStatus};
use crate::time::Wall;

/// Where a run stands in every listing: newest first, by when it was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// When it was committed.
    pub created_at: Wall,
    /// The store's key.
    pub row: i64,
}

/// A run as listings show it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    /// The store's key.
    pub row: i64,
    /// The public id.
    pub id: Uuid,
    /// The workflow's name.
    pub workflow: String,
    /// Where it stands.
    pub status: RunStatus,
    /// The name of the trigger that fired it.
    pub trigger: Option<String>,
    /// Its run key.
    pub run_key: Option<String>,
    /// The first context, as JSON text; none if it was not asked for.
    pub context: Option<String>,
    /// The final context, as JSON text; in no listing.
    pub final_context: Option<String>,
    /// Its context hash.
    pub context_hash: Option<ContextHash>,
    /// The cron slot.
    pub scheduled_at: Option<Wall>,
    /// When it was committed.
    pub created_at: Wall,
    /// When its first task began.
    pub started_at: Option<Wall>,
    /// When it became final.
    pub completed_at: Option<Wall>,
    /// Whether somebody asked for its end.
    pub cancelled: bool,
    /// Which task failed with what error.
    pub error: Option<String>,
    /// The kind of error of the first task that failed, or of what ended it.
    pub error_type: Option<String>,
}

/// Which runs a listing shows; none means any.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunFilter {
    /// Of this workflow.
    pub workflow: Option<String>,
    /// With this status.
    pub status: Option<RunStatus>,
    /// Fired by the trigger of this name.
    pub trigger: Option<String>,
    /// Fired by this schedule.
    pub schedule: Option<i64>,
    /// With this run key.
    pub run_key: Option<String>,
    /// With this kind of error.
    pub error_type: Option<String>,
    /// Committed then or later.
    pub since: Option<Wall>,
    /// Committed before then.
    pub until: Option<Wall>,
    /// Behind this place.
    pub after: Option<Place>,
    /// Whether the first contexts are read, too.
    pub contexts: bool,
}

/// A slice of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// At most so many.
    pub limit: u64,
    /// After so many.
    pub offset: u64,
}

/// Cron runs since some time: all, completed, and slots never started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CronStats {
    /// Runs of cron schedules.
    pub total: u64,
    /// Those that completed.
    pub successful: u64,
    /// Those that ended otherwise or have not started in time.
    pub lost: u64,
}
