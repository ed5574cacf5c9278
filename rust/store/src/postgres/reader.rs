//! A store that is only read, beside those who serve it: one connection for listings, others for what may take long. It joins as no owner, and has no thread.
//! Invariant: nothing in the store changes by it, nor who has what of it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use cloaca_core::key::{Epoch, ScheduleKey};
use cloaca_core::port::{
    Backlog, Begun, Cell, Fault, Halt, ListedRun, OwnerRow, Page, Place, Redacted, RunFilter, Schedule,
    ScheduleFilter, Stored, Stretch, Table, TaskRecord,
};
use cloaca_core::seat::{ListedLimit, Pause};
use cloaca_core::time::Wall;
use uuid::Uuid;

use crate::copy::Sink;
use crate::door::Door;
use crate::postgres::address::Address;
use crate::postgres::asked::Spare;
use crate::postgres::db::{Db, Error};
use crate::postgres::fault::{self, Failure};
use crate::postgres::lock::Locks;
use crate::postgres::open::{self, Use};
use crate::postgres::{
    asked, copy, export, graph, history, inbox, look, owner, prune, query, redacted, run, schedule, schema,
    seat,
};

/// A store on a server that is only read.
pub struct Reader {
    address: Address,
    /// None if it was lost: it is made anew when somebody asks.
    connection: Door<Option<Db>>,
    spare: Spare,
    is_closed: AtomicBool,
    locks: Locks,
}

impl Reader {
    /// The store at `address`, which must be there and of this program's version.
    ///
    /// # Errors
    /// The message for the user.
    pub fn of(address: Address) -> Result<Self, String> {
        open::patience(&address).over(|| Self::open(address))
    }

    fn open(address: Address) -> Result<Self, String> {
        let told = |failure: Failure| text_of(failure.into_fault(&address.name));
        let db = open::connection(&address, Use::Reading).map_err(told)?;
        schema::check_for_reading(&db, &address.name, &address.schema).map_err(told)?;
        let locks = Locks::of(schema::number(&db).map_err(told)?);
        Ok(Self {
            connection: Door::new(Some(db)),
            spare: Spare::default(),
            is_closed: AtomicBool::default(),
            locks,
            address,
        })
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.address.name
    }

    /// Closes everything: whatever is asked then is refused. Twice is fine.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        drop(self.connection.enter().and_then(|mut connection| connection.take()));
        self.spare.close();
    }

    fn read<T>(&self, work: impl Fn(&Db) -> Result<T, Failure>) -> Stored<T> {
        let done = match self.connection.enter() {
            None => Err(Failure::Sql(Error::Silent)),
            Some(mut connection) => self.read_by(&mut connection, &work).or_else(|failure| match &failure {
                // Once more on another connection: this one was idle when it was lost.
                Failure::Sql(error) if fault::is_stale(error) => self.read_by(&mut connection, &work),
                _ => Err(failure),
            }),
        };
        done.map_err(|failure| {
            if matches!(&failure, Failure::Sql(error) if fault::is_silence(error)) {
                self.connection.silence();
            }
            failure.into_fault(&self.address.name)
        })
    }

    fn read_by<T>(
        &self,
        connection: &mut Option<Db>,
        work: impl Fn(&Db) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Failure::closed());
        }
        if connection.as_ref().is_some_and(Db::is_lost) {
            *connection = None;
        }
        work(match connection {
            Some(db) => db,
            none => none.insert(open::connection(&self.address, Use::Reading)?),
        })
    }

    fn answer<T>(&self, halt: &Halt, work: impl FnOnce(&Db) -> Result<T, Failure>) -> Stored<T> {
        let is_closed = self.is_closed.load(Ordering::Acquire);
        let done = if is_closed { Err(Failure::closed()) } else { asked::with(&self.address, halt, work) };
        done.map_err(|failure| failure.into_fault(&self.address.name))
    }

    /// Hands all rows over to another place.
    ///
    /// # Errors
    /// What the server or the other place met.
    pub fn hand_over(&self, halt: &Halt, sink: &dyn Sink) -> Stored<u64> {
        self.answer(halt, |db| Ok(crate::copy::all(&copy::Rows::of(db, &self.address)?, sink)))?
    }

    /// At most `limit` schedules of a kind with a row larger than `after`, by their rows.
    ///
    /// # Errors
    /// As all of these: what the server says, or that this is closed.
    pub fn schedules_after(
        &self,
        filter: ScheduleFilter,
        after: ScheduleKey,
        limit: u64,
    ) -> Stored<Vec<Schedule>> {
        self.read(|db| schedule::list_after(db, filter, after, limit))
    }

    /// Schedules of these rows, by their rows.
    pub fn schedules_of(&self, rows: &[i64]) -> Stored<Vec<Schedule>> {
        self.read(|db| schedule::of_rows(db, rows))
    }

    /// What a name stands for: a trigger, a cron, or both, if it was one before it was the other.
    pub fn named(&self, name: &str) -> Stored<Vec<Schedule>> {
        self.read(|db| {
            Ok([schedule::trigger(db, name)?, schedule::cron_named(db, name)?]
                .into_iter()
                .flatten()
                .collect())
        })
    }

    /// The cron with that id.
    pub fn cron(&self, id: Uuid) -> Stored<Option<Schedule>> {
        self.read(|db| schedule::cron(db, id))
    }

    /// What a schedule's polls answered, newest first.
    pub fn history(&self, row: ScheduleKey, page: Page) -> Stored<Vec<Stretch>> {
        self.read(|db| history::list(db, row, page))
    }

    /// Runs, newest first.
    pub fn runs(&self, filter: &RunFilter, page: Page) -> Stored<Vec<ListedRun>> {
        self.read(|db| inbox::list(db, filter, page))
    }

    /// One run with its tasks and all that is kept of their attempts.
    pub fn run(&self, id: Uuid) -> Stored<Option<(ListedRun, Vec<TaskRecord>)>> {
        self.read(|db| inbox::one(db, id, run::Depth::Tries))
    }

    /// Where a run stands in listings.
    pub fn place(&self, id: Uuid) -> Stored<Option<Place>> {
        self.read(|db| inbox::place(db, id))
    }

    /// In whose hands a run is, if in anybody's.
    pub fn holder(&self, id: Uuid) -> Stored<Option<Epoch>> {
        self.read(|db| look::holder(db, id))
    }

    /// At most `limit` ids of runs that begin like this, in their order.
    pub fn run_ids(&self, prefix: &str, limit: u64) -> Stored<Vec<Uuid>> {
        self.read(|db| look::run_ids(db, prefix, limit))
    }

    /// At most `limit` runners, those that have not left first, the newest of each first, with what they did since a time.
    pub fn owners(&self, limit: u64, since: Wall) -> Stored<Vec<OwnerRow>> {
        self.read(|db| owner::all(db, &self.locks, limit, since, false))
    }

    /// What is not over, of the oldest `limit` such runs.
    pub fn backlog(&self, limit: u64, at: Wall) -> Stored<Vec<Backlog>> {
        self.read(|db| inbox::backlog(db, limit, at))
    }

    /// Tasks on record as begun, of the oldest `limit` runs that are not over.
    pub fn begun(&self, limit: u64) -> Stored<Vec<Begun>> {
        self.read(|db| look::begun(db, limit))
    }

    /// At most `limit` names of workflows that have runs, in their order, behind `after`.
    pub fn workflows(&self, after: &str, limit: u64) -> Stored<Vec<String>> {
        self.read(|db| look::workflows(db, after, limit))
    }

    /// What is kept of a workflow in its newest version.
    pub fn graph(&self, workflow: &str) -> Stored<Option<String>> {
        self.read(|db| graph::newest(db, workflow))
    }

    /// At most `limit` names of workflows of which something is kept, in their order, behind `after`.
    pub fn graphs(&self, after: &str, limit: u64) -> Stored<Vec<String>> {
        self.read(|db| graph::names(db, after, limit))
    }

    /// A number that changes when somebody has committed: another one than at the last look means news.
    pub fn commits(&self) -> Stored<i64> {
        self.read(look::commits)
    }

    /// The content version of a workflow's newest run.
    pub fn version(&self, workflow: &str) -> Stored<Option<String>> {
        self.read(|db| look::version(db, workflow))
    }

    /// How many runs ended before a time, counted to `limit`.
    pub fn ended_before(&self, before: Wall, limit: u64) -> Stored<u64> {
        self.read(|db| look::ended_before(db, before, limit))
    }

    /// How many of them would go if they were to be deleted at `now`, counted to `limit`.
    pub fn prunable(&self, before: Wall, now: Wall, limit: u64) -> Stored<u64> {
        self.read(|db| prune::count(db, before, now, limit))
    }

    /// Limits with names, by name, as they stand at that time.
    pub fn limits(&self, at: Wall) -> Stored<Vec<ListedLimit>> {
        self.read(|db| seat::list(db, at))
    }

    /// What is held up at that time.
    pub fn pauses(&self, at: Wall) -> Stored<Vec<Pause>> {
        self.read(|db| seat::pauses(db, at))
    }

    /// What listings hide.
    pub fn redacted(&self) -> Stored<Redacted> {
        self.read(redacted::read)
    }

    /// All contexts that are kept of a run, as JSON text.
    pub fn contexts_of_run(&self, id: Uuid) -> Stored<Vec<String>> {
        self.read(|db| redacted::contexts_of_run(db, id))
    }

    /// What a trigger or cron has at hand, as JSON text.
    pub fn contexts_of_trigger(&self, name: &str) -> Stored<Vec<String>> {
        self.read(|db| redacted::contexts_of_trigger(db, name))
    }

    /// Runs one read-only statement, until `halt` is asked for.
    pub fn query(&self, sql: &str, params: &[Cell], halt: &Halt) -> Stored<Table> {
        let done = match self.is_closed.load(Ordering::Acquire) {
            true => Err(Failure::closed()),
            false => self.spare.with(&self.address, halt, |db| query::run(db, sql, params)),
        };
        if self.is_closed.load(Ordering::Acquire) {
            self.spare.close();
        }
        done.map_err(|failure| failure.into_fault(&self.address.name))
    }

    /// Writes a copy of everything to a new file, on the same terms.
    pub fn export(&self, path: &Path, halt: &Halt) -> Stored<()> {
        self.answer(halt, |db| export::run(db, path))
    }
}

/// Which schema version the store at `address` has, and what would bring it to this program's, step by step.
///
/// # Errors
/// The message for the user, and whether it may pass.
pub fn schema_of(address: &Address) -> Stored<(usize, Vec<String>)> {
    let told = |failure: Failure| failure.into_fault(&address.name);
    open::patience(address).over(|| {
        let db = open::connection(address, Use::Reading).map_err(told)?;
        schema::outlook(&db, &address.name, &address.schema).map_err(told)
    })
}

fn text_of(fault: Fault) -> String {
    match fault {
        Fault::Passing(text) | Fault::Final(text) => text,
    }
}
