//! What the engine needs of a store, as a trait; the records that pass through it stand in the files below, by noun. One method
//! is one transaction. Invariant: a [`Receipt`] tells what became durable, and only that; the engine believes nothing else.

mod change;
mod claim;
mod end;
mod forget;
mod halt;
mod listing;
mod logged;
mod raw;
mod redacted;
mod schedule;
mod sign;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::grid::Wait;
use crate::key::{EndKey, Epoch, ScheduleKey};
use crate::seat::{self, Kind, ListedLimit, Pause};
use crate::spread::Contested;
use crate::time::Wall;

pub use crate::record::{ContextHash, Outcome, Parent, RunEnd, RunStatus, Stretch, TaskRecord, TaskStatus};
pub use crate::tries::{Failure, Maker, TRIES_FIRST_MAX, TRIES_LAST_MAX, Try, TryOutcome};
pub use change::{
    Admitted, Body, Change, CronMove, Moment, NewRun, Receipt, Room, RunChange, TickChange, TriggerRow,
    TriggerState, WorkflowRow,
};
pub use claim::{Allowed, BURIED, Company, InFlight, Siblings, Spent, Unfinished};
pub use end::{
    AsItWas, CHAIN_MAX, Call, CallFate, End, Ending, LastCall, OnRun, Outcomes, Settled, Skipped, Told,
    Unwanted,
};
pub use forget::{Found, JUMP, Old, SPARED_FOR, Spared};
pub use halt::Halt;
pub use listing::{
    Backlog, Begun, By, CHILDREN_SHOWN, Child, CronStats, ListedRun, Overdue, OwnerRow, Page, Place,
    RunFilter,
};
pub use logged::{Line, Logged};
pub use raw::{Cell, Table};
pub use redacted::{REDACTED_KEYS_MAX, Redacted};
pub use schedule::{
    Beginning, Catchup, Forgotten, NewCron, Origin, Renamed, Schedule, ScheduleFilter, ScheduleKind, Terms,
    Wished,
};
pub use sign::{MINUTES_KEPT_US, Minute, Sign};

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

/// What is played in a rehearsal: it is handed what plays a change.
pub type Playing<'w> = dyn FnMut(&mut dyn FnMut(&Change) -> Stored<Receipt>) -> Stored<()> + 'w;

/// Who keeps what is rehearsed by somebody that is no runner.
pub const STAND_IN: Epoch = Epoch(0);

/// In a rehearsal at most so many runs are let begin that limits hold.
pub const REHEARSED_MAX: u64 = 256;

/// A run that was opened again, if there is such a one, or why it cannot be.
pub type Reopened = Result<Option<Unfinished>, String>;

/// Waits for news instead of looking for it.
pub trait Ear: Send + Sync {
    /// Waits until another owner may have called [`Store::wake_others`]; false once nothing can be heard any more. By one thread at a time.
    fn hear(&self) -> bool;
    /// Ends that wait, and each later one.
    fn close(&self);
}

/// Where everything is kept. Every method is one transaction and may block, as long as [`Halt::current`] of its thread allows; all may be called from any
/// thread.
pub trait Store: Send + Sync {
    /// Registers a living runner and returns its epoch, larger than all before it.
    fn join(&self, at: Wall) -> Stored<Epoch>;
    /// Notes that a runner polls and runs nothing, so that nobody takes it for one that does, or has news for it.
    fn stand_by(&self, epoch: Epoch) -> Stored<()>;
    /// Notes that a runner lives at a time and does nothing before its program lets it begin, or that it begins now.
    fn waits(&self, epoch: Epoch, at: Option<Wall>) -> Stored<()>;
    /// Takes a runner off the list and gives up its unfinished runs and its triggers, except those of `kept`, whose bodies still run. What is
    /// given up counts no interruption; what somebody asked to end has ended. What is kept stands under the epoch that is returned, whose
    /// lock is held until that leaves in its turn; with nothing kept there is none.
    fn leave(&self, epoch: Epoch, kept: &InFlight, at: Wall) -> Stored<Option<Epoch>>;
    /// Closes everything: whatever is asked then is refused. Waits for nothing but what is being answered.
    fn close(&self);
    /// Notes that a runner lives at `at` and polls its triggers, so that whoever has them next knows what was missed since, with what else
    /// it says of itself.
    fn seen(&self, epoch: Epoch, at: Wall, sign: &Sign) -> Stored<()>;
    /// Takes those off the list that have died without leaving, and tells how many those were and how many others live. Their runs are
    /// nobody's from then on; for each that counts as an interruption.
    fn bury(&self, epoch: Epoch) -> Stored<Siblings>;
    /// What is wrong with where everything is kept that no write would notice, such as a file that was deleted. Cheap.
    fn trouble(&self) -> Option<String> {
        None
    }
    /// Tells the other living owners, but for those that stand by, that something changed that they keep in memory.
    fn wake_others(&self, epoch: Epoch);
    /// Whether another owner has called [`Store::wake_others`] since this was last asked. Cheap, and touches no database.
    fn woken(&self, epoch: Epoch) -> bool;
    /// Hears of the same at once, where that can be; what it misses is found by asking.
    fn ear(&self, _epoch: Epoch) -> Option<Arc<dyn Ear>> {
        None
    }
    /// Whether others may soon take `epoch` for dead, as it could not say for too long that it lives: then nothing begins until it has said so again.
    /// Cheap, and touches no database.
    fn is_silent(&self, epoch: Epoch) -> bool {
        self.silent_in(epoch).is_some_and(|left| left.is_zero())
    }
    /// How long it is until that is so, unless it says before that it lives; none if it need not say so. Cheap, and touches no database.
    fn silent_in(&self, _epoch: Epoch) -> Option<Duration> {
        None
    }
    /// Whether it is asked over a way on which answers may fail to come.
    fn is_far(&self) -> bool {
        false
    }
    /// Tells one owner that there is something for it.
    fn wake(&self, epoch: Epoch);
    /// Whether transactions of other programs may have left something to be admitted since this was last asked. Cheap, and touches no database.
    fn has_inbox(&self) -> bool {
        false
    }
    /// Makes runs, which are nobody's, of some of what transactions of other programs have left, as far as the gate lets each; how many were taken
    /// up. One with a key that has a run is an alias of that run from then on; one that is dropped is a run that has ended.
    ///
    /// # Errors
    /// The store's.
    fn admit_inbox(&self, _epoch: Epoch, _at: Wall) -> Stored<u64> {
        Ok(0)
    }
    /// Applies a batch in order, all or nothing; a receipt for each change.
    fn commit(&self, batch: &[Change]) -> Stored<Vec<Receipt>>;
    /// Plays changes as [`Store::commit`] writes them, one after another as `work` hands them over, and undoes them all: nothing of it stays, and
    /// nobody hears of it. [`STAND_IN`] lives there, and has each trigger that it declares, whoever polls that. A run that limits hold is told as
    /// started if they let it begin at once.
    ///
    /// # Errors
    /// The store's, or those of `work`.
    fn rehearse(&self, work: &mut Playing<'_>) -> Stored<()>;
    /// Hands at most `limit` unfinished runs of these workflows to `epoch` that belong to nobody and are due at `at`: those of the highest
    /// priority first, and of one priority the oldest. Runs of other workflows are left to whoever declares those. One that has not begun is
    /// of the version that `epoch` declares from then on.
    fn claim_runs(
        &self,
        epoch: Epoch,
        at: Wall,
        limit: u64,
        workflows: &[Arc<str>],
    ) -> Stored<Vec<Unfinished>>;

    /// The same, but leaves a run that has begun to other living owners as long as one of them declares the version under which it began,
    /// and `epoch` does not.
    fn claim_fitting(
        &self,
        epoch: Epoch,
        at: Wall,
        limit: u64,
        workflows: &[Arc<str>],
    ) -> Stored<Vec<Unfinished>>;

    /// The same, but only of runs that nobody had: that waited for their time or were asked for in transactions of other programs, and have not begun.
    fn claim_due(
        &self,
        epoch: Epoch,
        at: Wall,
        limit: u64,
        workflows: &[Arc<str>],
    ) -> Stored<Vec<Unfinished>>;

    /// Hands at most `room` runs of these workflows to `epoch` that limits have held and that may begin at `at`, with the seats and the starts
    /// that they take: those of the highest priority first, of one priority those of the key that has waited longest, and of one key the
    /// oldest. What goes on in the seat of a run that waits for it goes first, and needs no room.
    fn claim_limited(&self, epoch: Epoch, at: Wall, room: u64, workflows: &[Arc<str>]) -> Stored<Allowed>;
    /// When the next run is due that waits for its time.
    fn next_due(&self) -> Stored<Option<Wall>>;
    /// Notes which workflows `epoch` declares, in place of those before.
    fn declare_workflows(&self, epoch: Epoch, workflows: &[WorkflowRow], at: Wall) -> Stored<()>;
    /// By how many microseconds the store's own clock is ahead of this machine's, if it has one: then that decides for all who serve it.
    fn clock_ahead_us(&self) -> Stored<Option<i64>> {
        Ok(None)
    }

    /// The workflows that other living owners declare.
    fn workflows_of_others(&self, epoch: Epoch) -> Stored<Vec<Arc<str>>>;

    /// Workflows of which unfinished runs belong to no living owner, by name, with how many those are; at most `limit` workflows.
    fn deserted(&self, epoch: Epoch, limit: u64) -> Stored<Vec<(String, u64)>>;

    /// Notes that somebody asked for a run's end and those of its unfinished children, and theirs, and ends those that no living owner drives.
    /// All of them, the run itself first; none if it is unknown or final.
    fn request_cancel(&self, epoch: Epoch, id: Uuid, at: Wall) -> Stored<Vec<Uuid>>;
    /// The same of several, in one transaction where that costs one.
    ///
    /// # Errors
    /// As [`Store::request_cancel`].
    fn request_cancels(&self, epoch: Epoch, ids: &[Uuid], at: Wall) -> Stored<Vec<Vec<Uuid>>> {
        ids.iter().map(|&id| self.request_cancel(epoch, id, at)).collect()
    }
    /// Of runs whose ends were asked for at that time those that ended with that: their workflows, and when they were created. What keeps no times
    /// tells of none.
    ///
    /// # Errors
    /// A [`Fault`] of the store.
    fn cancelled_at(&self, _runs: &[Uuid], _at: Wall) -> Stored<Vec<(String, Wall)>> {
        Ok(Vec::new())
    }
    /// Ends what somebody asked to end, what no living owner drives, and whose workflow none declares: nobody would come to do it.
    fn end_deserted(&self, epoch: Epoch, at: Wall) -> Stored<()>;
    /// Unfinished runs of `epoch` whose end somebody asked for.
    fn cancel_requests(&self, epoch: Epoch) -> Stored<Vec<Uuid>>;
    /// How many ends of runs that guard their hashes were counted. Runs whose ends share a transaction share a number.
    fn ends(&self) -> Stored<i64>;
    /// Those of these runs that are final, or forgotten.
    fn ended(&self, runs: &[Uuid]) -> Stored<Vec<Uuid>>;
    /// Those of these pairs of unfinished runs of a line of which the first was opened again, and stands behind the second.
    fn moved(&self, pairs: &[(Uuid, Uuid)]) -> Stored<Vec<(Uuid, Uuid)>>;
    /// Opens a final run that did not complete again, for `epoch`: its failed and skipped tasks are undecided as at first. None if there is no
    /// such run, or it completed, or is unfinished. Refused while a body of it still runs in a living process. It stands at
    /// the end of its line, whoever has what is before it there.
    fn reopen(&self, epoch: Epoch, id: Uuid) -> Stored<Option<Unfinished>>;
    /// The same of several, in one transaction where that costs one. One that is refused, for the reason that stands in its place, keeps none of
    /// the others.
    ///
    /// # Errors
    /// As [`Store::reopen`], where it isn't the one run that is refused.
    fn reopen_each(&self, epoch: Epoch, ids: &[Uuid]) -> Stored<Vec<Reopened>> {
        let reopen = |&id| match self.reopen(epoch, id) {
            Ok(run) => Ok(Ok(run)),
            Err(Fault::Final(why)) => Ok(Err(why)),
            Err(passing) => Err(passing),
        };
        ids.iter().map(reopen).collect()
    }

    /// When the next end is due that `epoch` is to tell its program of; none while there is none. At once if it waits since the clock was ahead:
    /// who takes what is due then has it wait for no longer than it was put off. Those of workflows in `full` are left out. Cheap.
    fn next_end(&self, epoch: Epoch, at: Wall, full: &[String]) -> Stored<Option<Wall>>;
    /// Hands at most `limit` of those that are due at `at` to `epoch`, the longest due first, and none of workflows in `full`. Nobody else is given them until it has said what
    /// came of them, or is gone.
    fn take_ends(&self, epoch: Epoch, at: Wall, limit: u64, full: &[String]) -> Stored<Vec<End>>;
    /// `epoch` has told of an end, or gives that up.
    fn end_told(&self, epoch: Epoch, end: EndKey, settled: &Settled, at: Wall) -> Stored<()>;
    /// It is to be told again after `wait`, because of that error.
    fn put_end_off(&self, epoch: Epoch, end: EndKey, wait: Wait, error: &str) -> Stored<()>;
    /// `epoch` has taken an end that it has no callback for any more: it is anybody's again, as if it had not been taken, after that wait for `epoch`
    /// itself to say so.
    fn give_end_back(&self, epoch: Epoch, end: EndKey, wait: Wait) -> Stored<()>;
    /// Has the end of a run that its callback is to be told of be due at once; false if none waits. One that is being told is left alone.
    fn call_soon(&self, run: Uuid, at: Wall) -> Stored<bool>;
    /// That end is not told; false if none waits.
    fn skip_call(&self, run: Uuid, at: Wall) -> Stored<bool>;
    /// The workflows of which callbacks are declared by nobody any more, though somebody declares the workflow. Cheap.
    fn unwanted_callbacks(&self) -> Stored<Vec<Unwanted>>;
    /// Those of these callbacks that are still so, and since the same time, are told nothing more: of each workflow, how many ends waited for them.
    fn drop_callbacks(&self, unwanted: &[Unwanted], at: Wall) -> Stored<Vec<(String, u64)>>;

    /// Of each trigger of `epoch` that is switched on, the first end that it is still to be told of. Cheap.
    fn endings(&self, epoch: Epoch) -> Stored<Vec<Ending>>;
    /// That end, unless its trigger has been told of it, or is not to be told any more.
    fn ending(&self, end: EndKey) -> Stored<Option<Ending>>;
    /// The first end that a trigger is still to be told of, whoever polls it, and whether or not it is switched on.
    fn ending_of(&self, listener: ScheduleKey) -> Stored<Option<Ending>>;
    /// Takes that end away, or the first one of `run`: the trigger is told of what comes after it. What a poll in flight decides about it counts for
    /// nothing from then on, also that it fails, and neither do the failures before that. None if there is no such end, or it has been told.
    fn skip_end(&self, listener: ScheduleKey, run: Option<Uuid>, at: Wall) -> Stored<Option<Skipped>>;

    /// A cron with a name is the one of that name, made if there is none, and changed if its declaration or registration asks for another
    /// workflow, expression or zone than the last; a declaration changes nothing of one that was registered, nor while another living
    /// owner declares a newer version of it. A cron without a name is the one of those without that has this workflow, expression and zone,
    /// made if there is none.
    fn put_cron(&self, epoch: Epoch, cron: &NewCron<'_>) -> Stored<Schedule>;
    /// Notes that `epoch` declares no cron of that name any more.
    fn withdraw_cron(&self, epoch: Epoch, name: &str) -> Stored<()>;
    /// Replaces a cron's expression and zone; false if there is no such cron.
    fn update_cron(
        &self,
        id: Uuid,
        expression: &str,
        timezone: &str,
        next_at: Option<Wall>,
        at: Wall,
    ) -> Stored<bool>;
    /// Deletes a cron, keeping its runs, unless it is a declaration's that a living owner declares.
    fn delete_cron(&self, id: Uuid) -> Stored<Forgotten>;
    /// Deletes the trigger and the crons of that name with their histories and run keys, keeping their runs, unless a living owner other
    /// than `epoch` polls the trigger. Crons that were registered are kept.
    fn forget(&self, epoch: Epoch, name: &str) -> Stored<Forgotten>;
    /// Gives the trigger and the crons of a name another one, with all that hangs on them, unless a living owner other than `epoch` polls the
    /// trigger, or something has the other name. Crons that were registered are left.
    fn rename(&self, epoch: Epoch, from: &str, to: &str) -> Stored<Renamed>;
    /// Switches a schedule; `cause` is kept if the engine did it. False if there is no such row.
    fn set_enabled(&self, row: ScheduleKey, enabled: bool, cause: Option<&str>, at: Wall) -> Stored<bool>;
    /// Sets a schedule's cursor, JSON text, beside its polls; ticks of polls that looked at the old one are refused from then on. Returns how
    /// often it has been set; none if there is no such row.
    fn set_cursor(&self, row: ScheduleKey, cursor: Option<&str>) -> Stored<Option<i64>>;
    /// Asks for one poll of a trigger, by whoever polls it next: who has it now, and what [`Schedule::asked`] is then. It stands until
    /// [`Store::begin_poll`] says that a poll has begun. None, and nothing is written, if the trigger is switched off or no living owner but
    /// `besides` has or declares it.
    fn ask_poll(&self, row: ScheduleKey, besides: Option<Epoch>) -> Stored<Option<(Option<Epoch>, i64)>>;
    /// Notes that a poll of a trigger of `epoch` is about to begin: so many of those that were asked for are answered with it, and it may be a
    /// call about an end of a run, which is over with the next tick of the trigger. False, and nothing is written, if that is not its owner.
    fn begin_poll(&self, epoch: Epoch, beginning: Beginning) -> Stored<bool>;
    /// Schedules of a kind in the order of their registration.
    fn schedules(&self, filter: ScheduleFilter, enabled_only: bool, page: Page) -> Stored<Vec<Schedule>>;
    /// At most `limit` schedules of a kind whose row is larger than `after`, by their rows: a walk through all costs each of them once.
    fn schedules_after(
        &self,
        filter: ScheduleFilter,
        after: ScheduleKey,
        limit: u64,
    ) -> Stored<Vec<Schedule>>;
    /// At most `limit` triggers that `epoch` declares and another living owner polls in the same version, by their names, after that one.
    fn contested(&self, epoch: Epoch, after: &str, limit: u64) -> Stored<Vec<Contested>>;
    /// Notes of which triggers `epoch`, which declares them and doesn't poll them, says that it is to poll them, and of which it does no more.
    fn want(&self, epoch: Epoch, wishes: &[(Arc<str>, bool)]) -> Stored<()>;
    /// What came of that, and what others want of `epoch`. Cheap while nobody wants anything.
    fn wished(&self, epoch: Epoch) -> Stored<Wished>;
    /// Notes what its program calls a runner.
    fn name_owner(&self, epoch: Epoch, name: &str) -> Stored<()>;
    /// Notes that a runner runs no crons.
    fn without_crons(&self, epoch: Epoch) -> Stored<()>;
    /// Notes that a runner takes nothing more, and waits for what is in its hands.
    fn drains(&self, epoch: Epoch) -> Stored<()>;
    /// Crons that are switched on and that several living owners may run, by their rows, with who those are: of one that is declared who
    /// declares the version in force, of any other who declares its workflow. Who drains runs none.
    fn crons_of_many(&self) -> Stored<Vec<(ScheduleKey, Vec<Epoch>)>>;
    /// The trigger of that name.
    fn trigger(&self, name: &str) -> Stored<Option<Schedule>>;
    /// The cron with that id.
    fn cron(&self, id: Uuid) -> Stored<Option<Schedule>>;
    /// The cron of that name.
    fn cron_named(&self, name: &str) -> Stored<Option<Schedule>>;

    /// Runs, newest first by when they were committed; those that are not final by when they came to the store.
    fn runs(&self, filter: &RunFilter, page: Page) -> Stored<Vec<ListedRun>>;
    /// One run with its tasks in the order of their records, without their attempts.
    fn run(&self, id: Uuid) -> Stored<Option<(ListedRun, Vec<TaskRecord>)>>;
    /// One run with its tasks and all that is kept of their attempts, oldest first, also of those before it was opened again.
    fn run_with_tries(&self, id: Uuid) -> Stored<Option<(ListedRun, Vec<TaskRecord>)>>;
    /// Where a run stands in listings; none if it is not kept.
    fn place(&self, id: Uuid) -> Stored<Option<Place>>;
    /// Cron runs created since `since`.
    fn cron_stats(&self, since: Wall) -> Stored<CronStats>;
    /// A trigger's history, newest first.
    fn history(&self, schedule: ScheduleKey, page: Page) -> Stored<Vec<Stretch>>;

    /// At most `limit` of each kind of what is old. Takes its time, writes nothing, and holds up no other method where readers don't
    /// hinder each other.
    fn find_old(&self, old: &Old, limit: u64, halt: &Halt) -> Stored<Found>;
    /// Deletes of what was found what is still so, with the tasks and attempts of its runs; returns how much went.
    fn prune(&self, old: &Old, found: &Found) -> Stored<u64>;
    /// What the store knows of the time, for `epoch`.
    fn spared(&self, epoch: Epoch) -> Stored<Spared>;
    /// Notes that nothing is to be forgotten before `until`.
    fn spare(&self, until: Wall) -> Stored<()>;

    /// At most `limit` runners, those that have not left first, the newest of each first, with what they did since a time.
    fn owners(&self, limit: u64, since: Wall) -> Stored<Vec<OwnerRow>>;
    /// What is not over at that time, of the oldest `limit` such runs, of those that limits hold, and of the next that wait for their time.
    fn backlog(&self, limit: u64, at: Wall) -> Stored<Vec<Backlog>>;

    /// What a limit allows from now on, whatever programs declare; none goes back to what was declared last. False if there is no such limit.
    fn set_limit(&self, name: &str, terms: Option<seat::Terms>) -> Stored<bool>;
    /// Limits with names that were ever declared, by name, as they stand at that time.
    fn limits(&self, at: Wall) -> Stored<Vec<ListedLimit>>;
    /// Holds something up, in place of how it was held up before. False if it is a key of a workflow whose concurrency and throttle have none.
    fn pause(&self, pause: &Pause) -> Stored<bool>;
    /// Holds it up no longer; false if it was not at that time. The key is empty of what is none.
    fn resume(&self, kind: Kind, name: &str, key: &str, at: Wall) -> Stored<bool>;
    /// What is held up at that time, limits first, by name.
    fn pauses(&self, at: Wall) -> Stored<Vec<Pause>>;

    /// What is to be hidden from who looks.
    fn redacted(&self) -> Stored<Redacted>;
    /// Adds to what is to be hidden, at most up to [`REDACTED_KEYS_MAX`] keys.
    fn redact(&self, more: &Redacted) -> Stored<()>;
    /// Takes one key back from what is to be hidden, or everything; returns how much that was.
    fn unredact(&self, key: Option<&str>) -> Stored<usize>;
    /// All contexts that are kept of a run, as JSON text.
    fn contexts_of_run(&self, id: Uuid) -> Stored<Vec<String>>;
    /// What a trigger or cron has at hand, as JSON text: its cursor, what its runs are given, the context of its newest run.
    fn contexts_of_trigger(&self, name: &str) -> Stored<Vec<String>>;

    /// Runs one read-only statement, which may take as long as it likes: where readers don't hinder each other it holds up no other
    /// method. Comes back with a fault soon after `halt` is asked for.
    fn query(&self, sql: &str, params: &[Cell], halt: &Halt) -> Stored<Table>;
    /// Writes a copy of everything to a new file at `path`, on the same terms.
    fn export(&self, path: &Path, halt: &Halt) -> Stored<()>;
}
