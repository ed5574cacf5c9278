//! What the engine needs of a store, as a trait; the records that pass through it stand in the files below, by noun. One method
//! is one transaction. Invariant: a [`Receipt`] tells what became durable, and only that; the engine believes nothing else.

mod change;
mod claim;
mod forget;
mod listing;
mod raw;
mod schedule;

use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use crate::time::Wall;

pub use crate::record::{ContextHash, Outcome, RunEnd, RunStatus, Stretch, TaskRecord, TaskStatus};
pub use crate::tries::{Failure, Maker, TRIES_FIRST_MAX, TRIES_LAST_MAX, Try, TryOutcome};
pub use change::{
    Admitted, Change, CronMove, NewRun, Receipt, Room, RunChange, TickChange, TriggerRow, TriggerState,
};
pub use claim::{BURIED, InFlight, Siblings, Unfinished};
pub use forget::{Found, JUMP, Old, SPARED_FOR, Spared};
pub use listing::{CronStats, Page, Place, RunFilter, RunRow};
pub use raw::{Cell, Halt, Table};
pub use schedule::{Forgotten, NewCron, Schedule, ScheduleFilter, ScheduleKind};

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

/// Where everything is kept. Every method is one transaction and may block; all may be called from any thread.
pub trait Store: Send + Sync {
    /// Registers a living runner and returns its epoch, larger than all before it.
    fn join(&self, at: Wall) -> Stored<i64>;
    /// Takes a runner off the list and gives up its unfinished runs and its triggers, except those of `kept`, whose bodies still run. What is
    /// given up counts no interruption; what somebody asked to end has ended. What is kept stands under the epoch that is returned, whose
    /// lock is held until that leaves in its turn; with nothing kept there is none.
    fn leave(&self, epoch: i64, kept: &InFlight, at: Wall) -> Stored<Option<i64>>;
    /// Closes everything: whatever is asked then is refused. Waits for nothing but what is being answered.
    fn close(&self);
    /// Notes that a runner lives at `at` and polls its triggers, so that whoever has them next knows what was missed since.
    fn seen(&self, epoch: i64, at: Wall) -> Stored<()>;
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

    /// Workflows of which unfinished runs belong to no living owner, by name, with how many those are; at most `limit` workflows.
    fn deserted(&self, epoch: i64, limit: u64) -> Stored<Vec<(String, u64)>>;

    /// Notes that somebody asked for a run's end, and ends it if no living owner drives it; false if it is unknown or final.
    fn request_cancel(&self, epoch: i64, id: Uuid, at: Wall) -> Stored<bool>;
    /// Unfinished runs of `epoch` whose end somebody asked for.
    fn cancel_requests(&self, epoch: i64) -> Stored<Vec<Uuid>>;
    /// How many ends of runs that guard their hashes were counted. Runs whose ends share a transaction share a number.
    fn ends(&self) -> Stored<i64>;
    /// Those of these runs that are final, or forgotten.
    fn ended(&self, runs: &[Uuid]) -> Stored<Vec<Uuid>>;
    /// Opens a final run that did not complete again, for `epoch`: its failed and skipped tasks are undecided as at first. None if there is no
    /// such run, or it completed, or is unfinished. Whoever takes it over later does not let it wait for others.
    fn reopen(&self, epoch: i64, id: Uuid) -> Stored<Option<Unfinished>>;

    /// A cron without a name is the one with this workflow, expression and zone, made if there is none. With a name it is the one that is
    /// declared by that name, made if there is none, and changed if its declaration is another than the last; unless somebody has
    /// registered the same three by hand: then it is that.
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
    /// Deletes the trigger and the crons of that name with their histories and run keys, keeping their runs, unless a living owner other
    /// than `epoch` polls the trigger. Crons that were registered by hand have no name.
    fn forget(&self, epoch: i64, name: &str) -> Stored<Forgotten>;
    /// Switches a schedule; `cause` is kept if the engine did it. False if there is no such row.
    fn set_enabled(&self, row: i64, enabled: bool, cause: Option<&str>, at: Wall) -> Stored<bool>;
    /// Schedules of a kind in the order of their registration.
    fn schedules(&self, filter: ScheduleFilter, enabled_only: bool, page: Page) -> Stored<Vec<Schedule>>;
    /// At most `limit` schedules of a kind whose row is larger than `after`, by their rows: a walk through all costs each of them once.
    fn schedules_after(&self, filter: ScheduleFilter, after: i64, limit: u64) -> Stored<Vec<Schedule>>;
    /// The trigger of that name.
    fn trigger(&self, name: &str) -> Stored<Option<Schedule>>;
    /// The cron with that id.
    fn cron(&self, id: Uuid) -> Stored<Option<Schedule>>;

    /// Runs, newest first by when they were committed; those that are not final by when they came to the store.
    fn runs(&self, filter: &RunFilter, page: Page) -> Stored<Vec<RunRow>>;
    /// One run with its tasks in the order of their records, without their attempts.
    fn run(&self, id: Uuid) -> Stored<Option<(RunRow, Vec<TaskRecord>)>>;
    /// One run with its tasks and all that is kept of their attempts, oldest first, also of those before it was opened again.
    fn run_with_tries(&self, id: Uuid) -> Stored<Option<(RunRow, Vec<TaskRecord>)>>;
    /// Where a run stands in listings; none if it is not kept.
    fn place(&self, id: Uuid) -> Stored<Option<Place>>;
    /// Cron runs created since `since`.
    fn cron_stats(&self, since: Wall) -> Stored<CronStats>;
    /// A trigger's history, newest first.
    fn history(&self, schedule: i64, page: Page) -> Stored<Vec<Stretch>>;

    /// At most `limit` of each kind of what is old. Takes its time, writes nothing, and holds up no other method where readers don't
    /// hinder each other.
    fn find_old(&self, old: &Old, limit: u64, halt: &Halt) -> Stored<Found>;
    /// Deletes of what was found what is still so, with the tasks and attempts of its runs; returns how much went.
    fn prune(&self, old: &Old, found: &Found) -> Stored<u64>;
    /// What the store knows of the time, for `epoch`.
    fn spared(&self, epoch: i64) -> Stored<Spared>;
    /// Notes that nothing is to be forgotten before `until`.
    fn spare(&self, until: Wall) -> Stored<()>;

    /// Runs one read-only statement, which may take as long as it likes: where readers don't hinder each other it holds up no other
    /// method. Comes back with a fault soon after `halt` is asked for.
    fn query(&self, sql: &str, params: &[Cell], halt: &Halt) -> Stored<Table>;
    /// Writes a copy of everything to a new file at `path`, on the same terms.
    fn export(&self, path: &Path, halt: &Halt) -> Stored<()>;
}
