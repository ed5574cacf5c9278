//! What listings ask for and show.

use std::sync::Arc;

use uuid::Uuid;

use crate::key::{Epoch, RunRow, ScheduleKey};
use crate::port::end::{Call, LastCall};
use crate::port::sign::Minute;
use crate::record::{ContextHash, Parent, RunStatus};
use crate::time::Wall;
use crate::tries::Try;
use crate::urgency::Priority;

/// Where a run stands in listings: newest first, by when it was committed, or by when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// When it was committed.
    pub created_at: Wall,
    /// The store's key.
    pub row: RunRow,
    /// When it ended; none if it is not over.
    pub completed_at: Option<Wall>,
}

impl Place {
    /// The time that a listing goes by; of a run that is not over, in one by their ends, its first.
    pub fn by(self, by: By) -> Wall {
        match by {
            By::Creation => self.created_at,
            By::End => self.completed_at.unwrap_or(Wall(i64::MIN)),
        }
    }
}

/// What a listing goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum By {
    /// When runs were committed.
    #[default]
    Creation,
    /// When they ended; it has none that is not over.
    End,
}

/// A run as listings show it.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedRun {
    /// The store's key.
    pub row: RunRow,
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
    /// What the telemetry of whoever asked for it handed on, as JSON text; in no listing.
    pub trace: Option<String>,
    /// Its context hash.
    pub context_hash: Option<ContextHash>,
    /// The cron moment.
    pub scheduled_at: Option<Wall>,
    /// How urgent it is.
    pub priority: Priority,
    /// When it was to begin, if whoever asked for it had said so.
    pub due_at: Option<Wall>,
    /// When it was committed.
    pub created_at: Wall,
    /// When its first task began.
    pub started_at: Option<Wall>,
    /// When it became final.
    pub completed_at: Option<Wall>,
    /// When it had ended before it was opened again, of one of which nothing has begun since.
    pub lay_since: Option<Wall>,
    /// How long it lay over, once it had begun, between an end and what began next after it.
    pub lain_us: u64,
    /// Whether somebody asked for its end.
    pub cancelled: bool,
    /// Which task failed with what error.
    pub error: Option<String>,
    /// The kind of error of the first task that failed, or of what ended it.
    pub error_type: Option<String>,
    /// Of which run it came, if of one.
    pub parent: Option<Parent>,
    /// What is kept of its workflow in the version with which it goes on, or went on last ([`crate::port::WorkflowRow::graph`]), of a run that is read alone.
    pub graph: Option<String>,
    /// The first [`CHILDREN_SHOWN`] runs that came of it, of a run that is read alone.
    pub children: Vec<Child>,
    /// Bodies that nobody waits for and that still run, of a run that is read alone.
    pub overdue: Vec<Overdue>,
    /// Of which ends its callbacks are still to be told, of a run that is read alone.
    pub calls: Vec<Call>,
    /// What became of the last one that was settled, of a run that is read alone.
    pub last_call: Option<LastCall>,
    /// Attempts of tasks that are on no record, of a run that is read with its attempts: they are to be decided anew, or the version with
    /// which it goes on has none of their names.
    pub former: Vec<(Arc<str>, Vec<Try>)>,
    /// How many attempts of which tasks are not kept, between the first and the last ones, likewise.
    pub tries_left_out: Vec<(Arc<str>, u64)>,
}

impl ListedRun {
    /// How long it was under way: from its first task to its end, but for what it lay over; none if it has not begun, or is not over.
    pub fn took_us(&self) -> Option<u64> {
        let ended_at = self.completed_at.map(|end| self.lay_since.unwrap_or(end))?;
        let whole_us = u64::try_from(ended_at.0.saturating_sub(self.started_at?.0)).unwrap_or(0);
        Some(whole_us.saturating_sub(self.lain_us))
    }
}

/// So many children of a run are shown with it; a listing has all of them.
pub const CHILDREN_SHOWN: u64 = 100;

/// A run as the one shows it of which it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// The public id.
    pub id: Uuid,
    /// The workflow's name.
    pub workflow: String,
    /// Where it stands.
    pub status: RunStatus,
    /// The parent's task whose body started it, if one did.
    pub task: Option<String>,
    /// The trigger that fired it when it was told of the parent's end, if one did.
    pub trigger: Option<String>,
    /// Whether it does the parent's work again.
    pub again: bool,
    /// Whether who asked for it named the parent.
    pub given: bool,
    /// When it was committed.
    pub created_at: Wall,
    /// When it became final.
    pub completed_at: Option<Wall>,
}

/// A body of an attempt that was given up, and that still runs as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    /// The task's id.
    pub task: Arc<str>,
    /// Which attempt.
    pub attempt: u32,
    /// The owner in whose process it runs.
    pub owner: Epoch,
    /// When its attempt was given up.
    pub since: Wall,
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
    pub schedule: Option<ScheduleKey>,
    /// With this run key.
    pub run_key: Option<String>,
    /// Started by this run.
    pub parent: Option<Uuid>,
    /// With this kind of error.
    pub error_type: Option<String>,
    /// With an end of which its callback is still to be told.
    pub untold: bool,
    /// What its order is, and its bounds in time are of.
    pub by: By,
    /// Committed, or ended, then or later.
    pub since: Option<Wall>,
    /// Committed, or ended, before then.
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

/// Cron runs since some time: all, completed, and moments never started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CronStats {
    /// Runs of cron schedules.
    pub total: u64,
    /// Those that completed.
    pub successful: u64,
    /// Those that ended otherwise or have not started in time.
    pub lost: u64,
}

/// A runner that serves a store, or served it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerRow {
    /// Its number.
    pub epoch: Epoch,
    /// What its program calls it.
    pub name: Option<String>,
    /// When it came.
    pub joined_at: Wall,
    /// When it last said that it lives, if it polls.
    pub seen_at: Option<Wall>,
    /// When it left, or was found dead.
    pub left_at: Option<Wall>,
    /// Whether it is certain that it died without leaving.
    pub is_dead: bool,
    /// The machine, the process there, and the version of the library in it, if they are known.
    pub host: Option<String>,
    /// The process.
    pub pid: Option<i64>,
    /// The version.
    pub version: Option<String>,
    /// Whether it polls and runs anything, or only asks others for that.
    pub works: bool,
    /// Whether it takes nothing more, and only waits for what is in its hands.
    pub is_draining: bool,
    /// Whether its program has not let it begin yet.
    pub is_paused: bool,
    /// So many triggers that are switched on are its to poll.
    pub polls: u64,
    /// What it did since the time that was asked for, as far as it is on record.
    pub counts: Minute,
}

/// Runs that are not over, of one workflow and in one runner's hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// The workflow's name.
    pub workflow: String,
    /// Whose they are.
    pub owner: Option<Epoch>,
    /// So many have not begun.
    pub pending: u64,
    /// So many have.
    pub running: u64,
    /// When the oldest was committed.
    pub oldest_at: Wall,
    /// Whether limits hold them, and no runner could take them.
    pub is_held: bool,
    /// Whether none of them is due yet.
    pub is_delayed: bool,
}

/// A task whose attempt is on record as begun, of a run that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The run.
    pub run: Uuid,
    /// The workflow's name.
    pub workflow: String,
    /// The task's id in it.
    pub task: String,
    /// Which attempt.
    pub attempt: u32,
    /// When the first attempt began.
    pub started_at: Wall,
    /// Whose run it is.
    pub owner: Option<Epoch>,
}
