//! What the engine needs of a store, as a trait, and the records that pass through it. One method is one
//! transaction. Invariant: a [`Receipt`] tells what became durable, and only that; the engine believes nothing else.

use std::sync::Arc;

use uuid::Uuid;

use crate::time::Wall;

/// 128-bit digest of a trigger's name and the canonical form of a context.
pub type ContextHash = [u8; 16];

/// Why a store refused or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It will pass (locked, disk full, I/O error): the whole batch may be tried again.
    Passing(String),
    /// It will not pass (corrupt, newer schema, misuse).
    Final(String),
}

/// What every method of a [`Store`] returns.
pub type Stored<T> = Result<T, Fault>;

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

/// A run that is to exist.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// UUIDv7, known before the commit.
    pub id: Uuid,
    /// The workflow's name.
    pub workflow: Arc<str>,
    /// The workflow's content version.
    pub version: Arc<str>,
    /// The first context, as JSON text.
    pub context: Arc<str>,
    /// The trigger's or cron's row that fired it; none if started by hand.
    pub schedule: Option<i64>,
    /// Kept for the history of every fire.
    pub context_hash: Option<ContextHash>,
    /// Refuse while an unfinished run of the same schedule has the same hash.
    pub unique_hash: bool,
    /// Starts at most one run until it expires; never expires if the time is none.
    pub run_key: Option<(String, Option<Wall>)>,
    /// The cron slot; at most one run per schedule and slot.
    pub scheduled_at: Option<Wall>,
    /// Held back while an earlier run of its schedule is unfinished.
    pub waits: bool,
    /// When the fire was decided.
    pub created_at: Wall,
}

/// What became of one [`NewRun`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// Committed under this row.
    Started {
        /// The store's integer key, for later changes.
        row: i64,
    },
    /// Dropped: this unfinished run has the same trigger and context hash.
    DuplicateHash {
        /// The run that stands in the way.
        of: Uuid,
    },
    /// Dropped: its run key, or its cron slot, was used before.
    DuplicateKey {
        /// The run that used it first, where still kept.
        of: Option<Uuid>,
    },
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
    pub schedule: i64,
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

/// One poll's decision, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct TickChange {
    /// The trigger's row.
    pub schedule: i64,
    /// The lease under which it was polled; a write under an older one changes nothing.
    pub epoch: i64,
    /// The new cursor as JSON text, if it moved.
    pub cursor: Option<String>,
    /// When the poll began.
    pub at: Wall,
    /// The runs that it fires.
    pub fires: Vec<NewRun>,
    /// History that ends with this poll: what was gathered before it, and itself. If every fire is dropped by the store, the last one is kept
    /// as a skip whose reason says so.
    pub history: Vec<Stretch>,
    /// Why the trigger is to be disabled, if it is.
    pub disable: Option<String>,
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
    /// What it left, as JSON text, if it completed.
    pub context: Option<Arc<str>>,
    /// What went wrong in the last attempt.
    pub error: Option<String>,
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
    /// When.
    pub completed_at: Wall,
}

/// New states of tasks of one run, and its end if this is the end.
#[derive(Debug, Clone, PartialEq)]
pub struct RunChange {
    /// The run's row.
    pub run: i64,
    /// The lease under which it is driven.
    pub epoch: i64,
    /// Inserted or replaced by name.
    pub tasks: Vec<TaskRecord>,
    /// Set once.
    pub end: Option<RunEnd>,
}

/// A trigger as declared by the program.
#[derive(Debug, Clone, PartialEq)]
pub struct TriggerRow {
    /// Unique name.
    pub name: Arc<str>,
    /// The workflow that it fires; empty if none.
    pub workflow: Arc<str>,
    /// The poll interval in microseconds.
    pub interval_us: i64,
    /// Whether every fire starts a run.
    pub allow_concurrent: bool,
}

/// A cron's step from one moment to the next. It is not kept if the cron was changed since `seen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CronMove {
    /// Its row.
    pub row: i64,
    /// [`Schedule::updated_at`] of what this was decided by.
    pub seen: Wall,
    /// When it runs next.
    pub next_at: Option<Wall>,
    /// When it ran last.
    pub last_at: Wall,
}

/// One change among those that share a transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A poll's decision.
    Tick(TickChange),
    /// Runs started by hand or by a cron slot, with the cron's next and last due times where one moved. All or none.
    Start {
        /// The owner that will drive them.
        epoch: i64,
        /// The runs.
        runs: Vec<NewRun>,
        /// The cron of whose moments these are, if they are.
        cron: Option<CronMove>,
    },
    /// A run's progress.
    Run(RunChange),
    /// A trigger's declaration: inserted, or its settings updated; `enabled` and cursor are kept. It stays with another living
    /// owner that polls it.
    Declare {
        /// The owner that will poll it.
        epoch: i64,
        /// Its settings.
        trigger: TriggerRow,
        /// When.
        at: Wall,
    },
    /// History gathered since the last write: runs of equal outcomes, appended to the last row where equal.
    History(Vec<Stretch>),
}

/// What became of one [`Change`], at the same position.
#[derive(Debug, Clone, PartialEq)]
pub enum Receipt {
    /// Each fire of a tick, in order.
    Tick(Vec<Admitted>),
    /// Each run of a start, in order.
    Start(Vec<Admitted>),
    /// The run's progress is kept.
    Run,
    /// Where the trigger stands now.
    Declared(TriggerState),
    /// The history is kept.
    History,
    /// The lease was lost: nothing of this change was written.
    Fenced,
    /// The store will never take this change, and says why: nothing of it was written. Made by who commits, out of a [`Fault::Final`].
    Refused(String),
}

/// What polling a declared trigger needs of its row. The rest of the row is what was declared, and need not come back.
#[derive(Debug, Clone, PartialEq)]
pub struct TriggerState {
    /// The store's key.
    pub row: i64,
    /// Whether it is polled at all.
    pub enabled: bool,
    /// The cursor as JSON text.
    pub cursor: Option<String>,
    /// When it last fired a run.
    pub last_fired_at: Option<Wall>,
    /// Who polls it.
    pub owner: Option<i64>,
    /// Its unfinished runs that other owners drive, or may claim, oldest first; told when it is handed over.
    pub others: Vec<Uuid>,
}

/// A trigger's or a cron's row.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The store's key.
    pub row: i64,
    /// The public id.
    pub id: Uuid,
    /// The trigger's name; empty for a cron registered by hand.
    pub name: String,
    /// What it fires.
    pub workflow: String,
    /// Interval or expression.
    pub kind: ScheduleKind,
    /// Whether it is polled or run at all.
    pub enabled: bool,
    /// Why it was disabled, if by the engine.
    pub disabled_cause: Option<String>,
    /// The cursor as JSON text.
    pub cursor: Option<String>,
    /// A trigger's last poll that was written down, or a cron's last run.
    pub last_at: Option<Wall>,
    /// When the trigger last fired a run.
    pub last_fired_at: Option<Wall>,
    /// When it was first registered.
    pub created_at: Wall,
    /// When its settings last changed.
    pub updated_at: Wall,
    /// Who polls it.
    pub owner: Option<i64>,
}

/// How a schedule becomes due.
#[derive(Debug, Clone, PartialEq)]
pub enum ScheduleKind {
    /// A polled trigger.
    Trigger {
        /// Poll interval in microseconds.
        interval_us: i64,
        /// Whether every fire starts a run.
        allow_concurrent: bool,
    },
    /// A calendar expression.
    Cron {
        /// Five or six fields, or a nickname.
        expression: String,
        /// IANA name.
        timezone: String,
        /// When it runs next.
        next_at: Option<Wall>,
    },
}

/// A cron that is to exist.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NewCron<'a> {
    /// UUIDv7, kept if there is no such cron yet.
    pub id: Uuid,
    /// The declaring function's name; empty for a cron registered by hand.
    pub name: &'a str,
    /// What it fires.
    pub workflow: &'a str,
    /// Five or six fields, or a nickname.
    pub expression: &'a str,
    /// IANA name.
    pub timezone: &'a str,
    /// When it runs next.
    pub next_at: Option<Wall>,
    /// When it was registered.
    pub at: Wall,
}

/// Which schedules a listing shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleFilter {
    /// Polled triggers.
    Triggers,
    /// Calendar schedules.
    Crons,
}

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
    /// Whether somebody asked for its end.
    pub cancelled: bool,
    /// Every task with a record.
    pub tasks: Vec<TaskRecord>,
    /// If it waits: earlier ones that do, and that other owners drive, or may claim.
    pub behind: Vec<Uuid>,
}

/// A run as listings show it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
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
    /// Which task failed with what error.
    pub error: Option<String>,
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

/// A value of a `query` row or parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// NULL.
    Null,
    /// INTEGER.
    Int(i64),
    /// REAL.
    Real(f64),
    /// TEXT.
    Text(String),
    /// BLOB.
    Blob(Vec<u8>),
}

/// Column names, then rows.
pub type Table = (Vec<String>, Vec<Vec<Cell>>);

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

/// Where everything is kept. Every method is one transaction and may block; all may be called from any thread.
pub trait Store: Send + Sync {
    /// Registers a living runner and returns its epoch, larger than all before it.
    fn join(&self, at: Wall) -> Stored<i64>;
    /// Takes a runner off the list and gives up its unfinished runs, except those `kept`, whose bodies still run. What is given up counts no
    /// interruption; what somebody asked to end has ended. What is kept stands under the epoch that is returned, whose lock is held until
    /// that leaves in its turn; with nothing kept there is none.
    fn leave(&self, epoch: i64, kept: &[Uuid], at: Wall) -> Stored<Option<i64>>;
    /// Takes those off the list that have died without leaving, and tells how many those were and how many others live.
    fn bury(&self, epoch: i64) -> Stored<Siblings>;
    /// What is wrong with where everything is kept that no write would notice, such as a file that was deleted. Cheap.
    fn trouble(&self) -> Option<String> {
        None
    }
    /// Tells the other living owners that something changed that they keep in memory.
    fn wake_others(&self, epoch: i64);
    /// Whether another owner has called [`Store::wake_others`] since this was last asked. Cheap, and touches no database.
    fn woken(&self, epoch: i64) -> bool;
    /// Applies a batch in order, all or nothing; a receipt for each change.
    fn commit(&self, batch: &[Change]) -> Stored<Vec<Receipt>>;
    /// Hands at most `limit` unfinished runs of these workflows to `epoch`, oldest first, that belong to no living owner and have a row
    /// above `after`; counts an interruption for each that had an owner before. Runs of other workflows are left to whoever declares
    /// those.
    fn claim_runs(
        &self,
        epoch: i64,
        after: i64,
        limit: u64,
        workflows: &[Arc<str>],
    ) -> Stored<Vec<Unfinished>>;

    /// Notes that somebody asked for a run's end, and ends it if no living owner drives it; false if it is unknown or final.
    fn request_cancel(&self, epoch: i64, id: Uuid, at: Wall) -> Stored<bool>;
    /// Unfinished runs of `epoch` whose end somebody asked for.
    fn cancel_requests(&self, epoch: i64) -> Stored<Vec<Uuid>>;
    /// Those of these runs that are final, or forgotten.
    fn ended(&self, runs: &[Uuid]) -> Stored<Vec<Uuid>>;
    /// Opens a final run that did not complete again, for `epoch`: its failed and skipped tasks are undecided as at first. None if there is no
    /// such run, or it completed, or is unfinished. Whoever takes it over later does not let it wait for others.
    fn reopen(&self, epoch: i64, id: Uuid) -> Stored<Option<Unfinished>>;

    /// The one cron with this workflow, expression and zone, made if there is none.
    fn put_cron(&self, cron: &NewCron<'_>) -> Stored<Schedule>;
    /// Replaces a cron's expression and zone; false if there is no such cron.
    fn update_cron(
        &self,
        id: Uuid,
        expression: &str,
        timezone: &str,
        next_at: Option<Wall>,
        at: Wall,
    ) -> Stored<bool>;
    /// Deletes a cron, keeping its runs; false if there is no such cron.
    fn delete_cron(&self, id: Uuid) -> Stored<bool>;
    /// Switches a schedule; `cause` is kept if the engine did it. False if there is no such row.
    fn set_enabled(&self, row: i64, enabled: bool, cause: Option<&str>, at: Wall) -> Stored<bool>;
    /// Schedules of a kind in the order of their registration.
    fn schedules(&self, filter: ScheduleFilter, enabled_only: bool, page: Page) -> Stored<Vec<Schedule>>;
    /// The trigger of that name.
    fn trigger(&self, name: &str) -> Stored<Option<Schedule>>;
    /// The cron with that id.
    fn cron(&self, id: Uuid) -> Stored<Option<Schedule>>;

    /// Runs, newest first.
    fn runs(&self, filter: &RunFilter, page: Page) -> Stored<Vec<RunRow>>;
    /// One run with its tasks in the order of their records.
    fn run(&self, id: Uuid) -> Stored<Option<(RunRow, Vec<TaskRecord>)>>;
    /// Cron runs created since `since`.
    fn cron_stats(&self, since: Wall) -> Stored<CronStats>;
    /// A trigger's history, newest first.
    fn history(&self, schedule: i64, page: Page) -> Stored<Vec<Stretch>>;

    /// Deletes at most `limit` runs that became final before `before`, with their tasks, and of the history what ended before it, and
    /// run keys whose time is over at `now`. Returns how many rows went.
    fn prune(&self, before: Wall, now: Wall, limit: u64) -> Stored<u64>;

    /// Runs one read-only statement.
    fn query(&self, sql: &str, params: &[Cell]) -> Stored<Table>;
    /// Writes a copy of everything to a new file at `path`.
    fn export(&self, path: &str) -> Stored<()>;
}
