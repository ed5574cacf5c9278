//! A store that is only read, whichever kind it is of. Invariant: both kinds answer the same questions.

use std::path::Path;

use cloaca_core::key::{Epoch, ScheduleKey};
use cloaca_core::port::{
    Backlog, Begun, Cell, Halt, ListedRun, OwnerRow, Page, Place, Redacted, RunFilter, Schedule,
    ScheduleFilter, Stored, Stretch, Table, TaskRecord,
};
use cloaca_core::seat::{ListedLimit, Pause};
use cloaca_core::time::Wall;
use uuid::Uuid;

use crate::{postgres, sqlite};

/// A store that is only read.
pub enum Reader {
    /// A SQLite file.
    File(Box<sqlite::Reader>),
    /// A store on a server.
    Server(Box<postgres::Reader>),
}

macro_rules! asks {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) -> $answer:ty;)*) => {
        $($(#[$doc])* pub fn $name(&self, $($arg: $ty),*) -> $answer {
            match self {
                Self::File(reader) => reader.$name($($arg),*),
                Self::Server(reader) => reader.$name($($arg),*),
            }
        })*
    };
}

impl Reader {
    /// The file's path, absolute and free of links; none of a store on a server.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(reader) => Some(reader.path()),
            Self::Server(_) => None,
        }
    }

    /// What messages call it.
    pub fn name(&self) -> String {
        match self {
            Self::File(reader) => reader.path().display().to_string(),
            Self::Server(reader) => reader.name().to_owned(),
        }
    }

    /// Closes everything: whatever is asked then is refused. Twice is fine.
    pub fn close(&self) {
        match self {
            Self::File(reader) => reader.close(),
            Self::Server(reader) => reader.close(),
        }
    }

    asks! {
        /// At most `limit` schedules of a kind with a row larger than `after`, by their rows.
        ///
        /// # Errors
        /// As all of these: what the store met, or that this is closed.
        schedules_after(filter: ScheduleFilter, after: ScheduleKey, limit: u64) -> Stored<Vec<Schedule>>;
        /// Schedules of these rows, by their rows.
        schedules_of(rows: &[i64]) -> Stored<Vec<Schedule>>;
        /// What a name stands for: a trigger, a cron, or both, if it was one before it was the other.
        named(name: &str) -> Stored<Vec<Schedule>>;
        /// The cron with that id.
        cron(id: Uuid) -> Stored<Option<Schedule>>;
        /// What a schedule's polls answered, newest first.
        history(row: ScheduleKey, page: Page) -> Stored<Vec<Stretch>>;
        /// Runs, newest first.
        runs(filter: &RunFilter, page: Page) -> Stored<Vec<ListedRun>>;
        /// One run with its tasks and all that is kept of their attempts.
        run(id: Uuid) -> Stored<Option<(ListedRun, Vec<TaskRecord>)>>;
        /// Where a run stands in listings.
        place(id: Uuid) -> Stored<Option<Place>>;
        /// In whose hands a run is, if in anybody's.
        holder(id: Uuid) -> Stored<Option<Epoch>>;
        /// At most `limit` ids of runs that begin like this, in their order.
        run_ids(prefix: &str, limit: u64) -> Stored<Vec<Uuid>>;
        /// At most `limit` runners, those that have not left first, the newest of each first, with what they did since a time.
        owners(limit: u64, since: Wall) -> Stored<Vec<OwnerRow>>;
        /// What is not over, of the oldest `limit` such runs.
        backlog(limit: u64, at: Wall) -> Stored<Vec<Backlog>>;
        /// Tasks on record as begun, of the oldest `limit` runs that are not over.
        begun(limit: u64) -> Stored<Vec<Begun>>;
        /// At most `limit` names of workflows that have runs, in their order, behind `after`.
        workflows(after: &str, limit: u64) -> Stored<Vec<String>>;
        /// What is kept of a workflow in its newest version.
        graph(workflow: &str) -> Stored<Option<String>>;
        /// At most `limit` names of workflows of which something is kept, in their order, behind `after`.
        graphs(after: &str, limit: u64) -> Stored<Vec<String>>;
        /// A number that changes when somebody has committed: another one than at the last look means news.
        commits() -> Stored<i64>;
        /// The content version of a workflow's newest run.
        version(workflow: &str) -> Stored<Option<String>>;
        /// How many runs ended before a time, counted to `limit`.
        ended_before(before: Wall, limit: u64) -> Stored<u64>;
        /// How many of them would go if they were to be deleted at `now`, counted to `limit`.
        prunable(before: Wall, now: Wall, limit: u64) -> Stored<u64>;
        /// Limits with names, by name, as they stand at that time.
        limits(at: Wall) -> Stored<Vec<ListedLimit>>;
        /// What is held up at that time.
        pauses(at: Wall) -> Stored<Vec<Pause>>;
        /// What listings hide.
        redacted() -> Stored<Redacted>;
        /// All contexts that are kept of a run, as JSON text.
        contexts_of_run(id: Uuid) -> Stored<Vec<String>>;
        /// What a trigger or cron has at hand, as JSON text.
        contexts_of_trigger(name: &str) -> Stored<Vec<String>>;
        /// Runs one read-only statement, until `halt` is asked for.
        query(sql: &str, params: &[Cell], halt: &Halt) -> Stored<Table>;
        /// Writes a copy of everything to a new file, on the same terms.
        export(path: &Path, halt: &Halt) -> Stored<()>;
    }
}
