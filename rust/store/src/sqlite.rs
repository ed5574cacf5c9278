//! The store over SQLite: one connection writes, another reads, and statements of users have their own. Each method of the trait is one transaction; the SQL
//! stands in the files below. Invariant: a method that fails leaves no transaction open and nothing written.
//! Longer than a room should be: one `impl` of the trait, which cannot stand in two rooms; each method only names its transaction.

mod anchored;
mod asked;
#[path = "sql/audit.rs"]
mod audit;
mod batch;
#[path = "sql/bearer.rs"]
mod bearer;
mod busy;
mod byte_lock;
mod copy;
mod db;
#[cfg(target_os = "linux")]
pub mod descriptors;
mod dialect;
#[cfg(target_os = "linux")]
mod ear;
#[path = "sql/end.rs"]
mod end;
mod export;
mod fault;
mod gate;
#[path = "sql/graph.rs"]
mod graph;
mod held_file;
#[path = "sql/history.rs"]
mod history;
mod limits;
mod lock;
mod logged;
mod look;
mod mount;
mod open;
mod owner;
#[path = "sql/prune.rs"]
mod prune;
mod query;
mod reader;
mod redacted;
#[path = "sql/rehearse.rs"]
mod rehearse;
mod run;
mod schedule;
mod schema;
#[path = "sql/seat.rs"]
mod seat;
mod shield;
#[path = "sql/sign.rs"]
mod sign;
mod turns;
mod value;
mod view;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cloaca_core::audit::of_pause;
use cloaca_core::fault_point::{Step, around};
use cloaca_core::grid::Wait;
use cloaca_core::key::{EndKey, Epoch, ScheduleKey};
use cloaca_core::port::{
    Allowed, Backlog, Beginning, Cell, Change, CronStats, Ear, End, Ending, Fault, Forgotten, Found, Halt,
    InFlight, ListedRun, NewCron, Old, OwnerRow, Page, Place, Playing, Receipt, Redacted, Renamed, Reopened,
    RunFilter, Schedule, ScheduleFilter, Settled, Siblings, Sign, Skipped, Spared, Store, Stored, Stretch,
    Table, TaskRecord, Unfinished, Unwanted, Wished, WorkflowRow,
};
use cloaca_core::seat::{Kind, ListedLimit, Pause, Terms};
use cloaca_core::spread::Contested;
use cloaca_core::time::Wall;
use rusqlite::Connection;
use uuid::Uuid;

use crate::door::{Door, Inside};
use crate::sqlite::asked::Asked;
use crate::sqlite::busy::Busy;
use crate::sqlite::fault::Failure;
use crate::sqlite::lock::Locks;
use crate::sqlite::shield::Shield;
use crate::sqlite::turns::Turns;
use crate::url::Durability;

pub use copy::Filling;
pub use gate::{close as close_gate, open as open_gate};
pub use reader::Reader;

/// For so long each write may find the file damaged before that is taken for true.
const DAMAGE_PATIENCE: Duration = Duration::from_secs(10);

/// Which schema version the file at `path` has, and what would bring it to this program's.
pub fn schema_of(path: &Path) -> Result<(usize, Vec<&'static str>), String> {
    let _entered = gate::enter();
    open::schema_of(path)
}

/// What this process holds belongs to its parent.
pub fn forked() {
    lock::forked();
    shield::forked();
}

/// Everything in one SQLite database.
pub struct SqliteStore {
    /// The file's path, or `:memory:`, for messages.
    name: String,
    /// The file's path.
    path: PathBuf,
    /// Declared before the writer, so that the writer closes last and folds the write-ahead log into the file.
    reader: Option<Connected>,
    /// Likewise; none in memory, where there is one connection.
    asked: Option<Asked>,
    writer: Connected,
    locks: Locks,
    /// Device and inode of the open file, where there are such.
    identity: Option<(u64, u64)>,
    /// The same of its write-ahead log.
    log: Option<(u64, u64)>,
    /// The same of the memory that its connections share, in which they find what is in the log and who writes.
    memory: Option<(u64, u64)>,
    /// What became of what this process still saw, once the log was found unlinked.
    severed: OnceLock<String>,
    turns: Turns,
    busy: Busy,
    /// Since when each write has found the file damaged.
    damaged_since: Mutex<Option<Instant>>,
    /// Declared last: its descriptors close after the connections.
    shield: Shield,
}

/// A connection until the store is closed.
type Connected = Door<Option<Connection>>;

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl SqliteStore {
    /// A store that ends with this value.
    ///
    /// # Errors
    /// The message for the user.
    pub fn in_memory() -> Result<Self, String> {
        let _entered = gate::enter();
        let writer = open::memory()?;
        Ok(Self {
            name: ":memory:".to_owned(),
            reader: None,
            asked: None,
            writer: Door::new(Some(writer)),
            locks: Locks::none(),
            path: PathBuf::new(),
            identity: None,
            log: None,
            memory: None,
            severed: OnceLock::new(),
            turns: Turns::default(),
            busy: Busy::default(),
            damaged_since: Mutex::default(),
            shield: Shield::none(),
        })
    }

    /// A store in the file at `path`, and that path made absolute.
    ///
    /// # Errors
    /// The message for the user.
    pub fn in_file(path: &Path, durability: Durability) -> Result<(Self, PathBuf), String> {
        let _entered = gate::enter();
        let opening = || open::file(path, durability);
        let open::File { path, writer, reader, shield } = Halt::within(open::OPEN_WAIT).over(opening)?;
        let name = path.display().to_string();
        let locks = Locks::of(&path, shield.identity());
        let (identity, reader, writer) =
            (open::identity(&path), Some(Door::new(Some(reader))), Door::new(Some(writer)));
        let [log, memory] = ["-wal", "-shm"].map(|suffix| open::identity(&open::beside(&path, suffix)));
        let severed = OnceLock::new();
        let asked = Some(Asked::of(&path, identity));
        let kept = path.clone();
        let store = Self {
            name,
            path,
            reader,
            asked,
            writer,
            locks,
            identity,
            log,
            memory,
            severed,
            turns: Turns::default(),
            busy: Busy::default(),
            damaged_since: Mutex::default(),
            shield,
        };
        Ok((store, kept))
    }

    /// Runs `work` in one transaction and commits it, which is `step`, if it succeeds.
    fn write<T>(&self, step: Step, work: impl FnOnce(&Connection) -> Result<T, Failure>) -> Stored<T> {
        let _entered = gate::enter();
        self.is_whole()?;
        if let Some(text) = self.severed.get() {
            return Err(Fault::Final(text.clone()));
        }
        let connected = entered(&self.writer).map_err(|failure| failure.into_fault(&self.name))?;
        let _turn = self.turns.take(&self.shield);
        let done = opened(&connected).and_then(|connection| {
            let work = |db: &_| self.same_memory().and_then(|()| work(db));
            let done = self.busy.write(connected.waited_since, || transact(connection, step, work));
            done.map(|done| (connection, done))
        });
        let (connection, done) = done.map_err(|failure| self.unwritten(failure))?;
        *self.damaged_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.still_linked(connection).map(|()| done)
    }

    /// Whether the store has its descriptors still: nothing is read or written from when the program has closed one.
    fn is_whole(&self) -> Stored<()> {
        #[cfg(target_os = "linux")]
        if self.identity.is_some() && descriptors::is_robbed(&[self.identity, self.log, self.memory]) {
            return Err(Fault::Final(self.robbed()));
        }
        Ok(())
    }

    fn robbed(&self) -> String {
        let text = || {
            format!(
                "the store is gone: something in this program closed descriptors of database '{}' that were not its own \
                 (os.closerange, or what makes a daemon, after the runner was made); what was committed is in the file, and nothing \
                 more is written: start again",
                self.name
            )
        };
        self.severed.get_or_init(text).clone()
    }

    /// The fault of a write that failed.
    fn unwritten(&self, failure: Failure) -> Fault {
        if let Err(fault) = self.is_whole() {
            return fault;
        }
        let is_damage = failure.is_damage();
        let fault = failure.into_fault(&self.name);
        match fault {
            // What a disk that fails to read for a moment looks like: to give up a run's progress for that would leave it standing.
            Fault::Final(text) if is_damage => {
                let mut since = self.damaged_since.lock().unwrap_or_else(PoisonError::into_inner);
                match since.get_or_insert_with(Instant::now).elapsed() < DAMAGE_PATIENCE {
                    true => Fault::Passing(text),
                    false => Fault::Final(text),
                }
            }
            fault => fault,
        }
    }

    /// Empties the log into the file, if this is the process's last store on it. SQLite would do so by itself, once it has the file
    /// alone, but under a lock that anybody's `close` takes away: so the hold on the file stays, and the shield removes what is left
    /// when the connections have gone.
    fn fold(&self, writer: &Connection) {
        if self.shield.is_last() && self.severed.get().is_none() {
            // Whoever else reads or writes does it in our stead.
            let _ = writer.busy_timeout(Duration::ZERO);
            let _ = writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
    }

    /// Whether those who open the file now share this process's memory of its log. Who doesn't sees no lock and no commit of it: two would
    /// write to one log, each over what the other has written. To be called before something is written.
    fn same_memory(&self) -> Result<(), Failure> {
        if self.memory.is_none() || open::identity(&open::beside(&self.path, "-shm")) == self.memory {
            return Ok(());
        }
        let text = || {
            format!(
                "the store is gone: somebody deleted or replaced '{0}-shm' while database '{0}' was in use; what was committed \
                 is in the file, and nothing more is written: start again",
                self.name
            )
        };
        Err(Failure::Refused(self.severed.get_or_init(text).clone()))
    }

    /// Whether the log that a commit went into is the one that others will read: one look at its inode.
    fn still_linked(&self, writer: &Connection) -> Stored<()> {
        if let Some(text) = self.severed.get() {
            return Err(Fault::Final(text.clone()));
        }
        let is_there = self.identity.is_none_or(|kept| !open::is_gone(&self.path, kept));
        let is_linked = self.log.is_none() || open::identity(&open::beside(&self.path, "-wal")) == self.log;
        if is_there && is_linked {
            return Ok(());
        }
        let (rescue, is_saved) = open::rescue_for(&self.path, writer);
        let kept = match if is_saved { Ok(()) } else { export::run(writer, &rescue) } {
            Ok(()) => format!("what this process still sees of it is in '{}'", rescue.display()),
            Err(failure) => format!("it could not be saved: {}", failure.into_text(&self.name)),
        };
        let text = format!(
            "the store is gone: somebody deleted, moved or replaced {}database '{}' while it was in use, and what was \
             committed since may be in no file; {kept}; nothing more is written",
            if is_there { "the write-ahead log of " } else { "" },
            self.name
        );
        Err(Fault::Final(self.severed.get_or_init(|| text).clone()))
    }

    /// Runs `work` on what is committed. Its statements see one state only if it is a single statement or opens a
    /// transaction of its own.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Failure>) -> Stored<T> {
        let _entered = gate::enter();
        self.is_whole()?;
        let done = entered(self.reader.as_ref().unwrap_or(&self.writer))
            .and_then(|connection| opened(&connection).and_then(work));
        done.map_err(|failure| failure.into_fault(&self.name))
    }

    fn claim(
        &self,
        epoch: Epoch,
        at: Wall,
        limit: u64,
        workflows: &[Arc<str>],
        taking: run::Taking,
    ) -> Stored<Vec<Unfinished>> {
        self.write(Step::Claim, |db| {
            owner::must_live(db, epoch)?;
            run::claim(db, epoch, at, limit, workflows, taking)
        })
    }

    /// Runs what a user asks on a connection where it is in nobody's way, until `halt` is asked for.
    fn answer<T>(&self, halt: &Halt, work: impl Fn(&Connection) -> Result<T, Failure>) -> Stored<T> {
        let _entered = gate::enter();
        self.is_whole()?;
        let done = match &self.asked {
            Some(asked) => asked.with(halt, work),
            None => halt.over(|| entered(&self.writer)).and_then(|mut connection| {
                asked::until(connection.as_mut().ok_or_else(Failure::closed)?, halt, work)
            }),
        };
        done.map_err(|failure| failure.into_fault(&self.name))
    }
}

/// A connection, once those who came before are through with it; as busy as one on which another process has the file, if this thread is to wait no more.
fn entered<T>(connection: &Door<T>) -> Result<Inside<'_, T>, Failure> {
    let busy = || rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None);
    connection.enter().ok_or_else(|| Failure::Sql(busy()))
}

/// A connection that is to be closed, however long who is inside takes.
fn last_entered<T>(connection: &Door<T>) -> Option<Inside<'_, T>> {
    Halt::default().over(|| connection.enter())
}

fn opened(connection: &Option<Connection>) -> Result<&Connection, Failure> {
    connection.as_ref().ok_or_else(Failure::closed)
}

fn transact<T>(
    connection: &Connection,
    step: Step,
    work: impl FnOnce(&Connection) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if !connection.is_autocommit() {
        // A rollback that failed with the disk: without this every later transaction would fail too.
        connection.execute_batch("ROLLBACK")?;
    }
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let undoes = Undoes(connection);
    let done = work(connection)?;
    around(step, || connection.prepare_cached("COMMIT")?.execute([]))?;
    drop(undoes);
    Ok(done)
}

/// Rolls back what is not committed, also if somebody panics. Like `Transaction` of rusqlite, which parses BEGIN and COMMIT each time.
struct Undoes<'c>(&'c Connection);

impl Drop for Undoes<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit() {
            // If this fails with the disk, the next transaction tries again.
            let _ = self.0.execute_batch("ROLLBACK");
        }
    }
}

impl Store for SqliteStore {
    fn join(&self, at: Wall) -> Stored<Epoch> {
        let epoch = self.write(Step::Join, |db| owner::join(db, &self.locks, at))?;
        self.wake_others(epoch);
        Ok(epoch)
    }

    fn stand_by(&self, epoch: Epoch) -> Stored<()> {
        self.write(Step::Seen, |db| owner::stand_by(db, epoch))
    }

    fn seen(&self, epoch: Epoch, at: Wall, sign: &Sign) -> Stored<()> {
        self.write(Step::Seen, |db| {
            owner::seen(db, epoch, at)?;
            sign::give(db, epoch, at, sign)
        })
    }

    fn leave(&self, epoch: Epoch, kept: &InFlight, at: Wall) -> Stored<Option<Epoch>> {
        // The lock last: whoever finds it free while the runs are still this owner's would count an interruption. The file that carries
        // news first, or a death in between would leave it for ever.
        self.locks.withdraw(epoch);
        let left = self.write(Step::Leave, |db| {
            let remnant = if kept.is_empty() { None } else { Some(owner::remnant(db, &self.locks, at)?) };
            run::give_up(db, epoch, &kept.runs, remnant, at)?;
            end::hand_on(db, epoch, &kept.ends, remnant)?;
            run::overdue::hand_on(db, epoch, remnant)?;
            seat::hand_on(db, epoch, remnant)?;
            // What is called still, too: that a runner is told to end is no fault of the function.
            schedule::end_calls(db, epoch)?;
            schedule::hand_on(db, epoch, &kept.triggers, remnant)?;
            owner::leave(db, epoch, Some(at))?;
            Ok(remnant)
        });
        // What is kept is nobody else's until it is home, or the process dead.
        if left.is_ok() || kept.is_empty() {
            around(Step::Release, || self.locks.release(epoch));
            self.wake_others(epoch);
        }
        left
    }

    fn close(&self) {
        let _entered = gate::enter();
        if let Some(asked) = &self.asked {
            asked.close();
        }
        let _closing = self.shield.closing();
        if let Some(reader) = &self.reader {
            last_entered(reader).and_then(|mut reader| reader.take());
        }
        if let Some(writer) = last_entered(&self.writer).and_then(|mut writer| writer.take()) {
            self.fold(&writer);
        }
        self.locks.release_all();
        self.shield.close();
    }

    fn bury(&self, epoch: Epoch) -> Stored<Siblings> {
        // Nobody to bury is the rule, and must not cost a transaction.
        let (others, departed, lives) = self
            .read(|db| Ok((owner::others(db, epoch)?, owner::departed(db)?, owner::is_living(db, epoch)?)))?;
        self.turns.has_company(!others.is_empty());
        match others.iter().any(|&(other, _)| self.locks.is_free(other)) {
            true => self.write(Step::Bury, |db| owner::bury(db, &self.locks, epoch)),
            false => {
                let draining = others.iter().filter(|(_, drains)| *drains).map(|&(other, _)| other).collect();
                let living = others.into_iter().map(|(other, _)| other).collect();
                Ok(Siblings { buried: 0, living, draining, departed, is_buried: !lives })
            }
        }
    }

    fn trouble(&self) -> Option<String> {
        if let Some(text) = self.severed.get() {
            return Some(text.clone());
        }
        if self.shield.has_lost() || self.is_whole().is_err() {
            return Some(self.robbed());
        }
        let kept = self.identity?;
        let what = if open::identity(&self.path) != Some(kept) {
            "deleted or replaced"
        } else if self.log.is_some() && open::identity(&open::beside(&self.path, "-wal")) != self.log {
            "parted from its write-ahead log"
        } else if std::fs::metadata(&self.path).is_ok_and(|found| found.len() == 0) {
            "emptied"
        } else {
            return self.same_memory().err().map(|failure| failure.into_text(&self.name));
        };
        Some(format!(
            "the store is gone: database '{}' was {what} while in use, and what is committed now is lost \
             at the end of this process; stop it, put the file back, start again",
            self.name
        ))
    }

    fn wake_others(&self, epoch: Epoch) {
        let others = self.read(|db| owner::at_work(db, epoch)).unwrap_or_default();
        others.into_iter().for_each(|other| self.locks.wake(other));
    }

    fn wake(&self, epoch: Epoch) {
        self.locks.wake(epoch);
    }

    fn woken(&self, epoch: Epoch) -> bool {
        self.locks.is_woken(epoch)
    }

    fn ear(&self, epoch: Epoch) -> Option<Arc<dyn Ear>> {
        self.locks.ear(epoch)
    }

    fn commit(&self, batch: &[Change]) -> Stored<Vec<Receipt>> {
        self.write(Step::Batch, |db| batch::apply(db, batch))
    }

    fn rehearse(&self, work: &mut Playing<'_>) -> Stored<()> {
        let mut played = None;
        let undone: Stored<()> = self.write(Step::Batch, |db| {
            played = Some(batch::rehearse(db, work, |failure| failure.into_fault(&self.name)));
            // What fails is rolled back.
            Err(Failure::Refused(String::new()))
        });
        played.unwrap_or(undone)
    }

    fn claim_runs(
        &self,
        epoch: Epoch,
        at: Wall,
        limit: u64,
        workflows: &[Arc<str>],
    ) -> Stored<Vec<Unfinished>> {
        self.claim(epoch, at, limit, workflows, run::Taking::Any)
    }

    fn claim_fitting(
        &self,
        epoch: Epoch,
        at: Wall,
        limit: u64,
        workflows: &[Arc<str>],
    ) -> Stored<Vec<Unfinished>> {
        self.claim(epoch, at, limit, workflows, run::Taking::Fitting)
    }

    fn claim_due(
        &self,
        epoch: Epoch,
        at: Wall,
        limit: u64,
        workflows: &[Arc<str>],
    ) -> Stored<Vec<Unfinished>> {
        self.claim(epoch, at, limit, workflows, run::Taking::Due)
    }

    fn claim_limited(&self, epoch: Epoch, at: Wall, room: u64, workflows: &[Arc<str>]) -> Stored<Allowed> {
        // Mostly there is nothing of the kind, which must not cost a transaction.
        match self.read(|db| limits::next_at(db, at))? {
            Ok(next_at) => Ok(Allowed { next_at, ..Allowed::default() }),
            Err(()) => self.write(Step::Claim, |db| {
                owner::must_live(db, epoch)?;
                let paused = seat::paused_workflows(db, at)?;
                let begin: Vec<Arc<str>> =
                    workflows.iter().filter(|name| !paused.contains(name)).cloned().collect();
                limits::claim(db, epoch, at, room, &begin)
            }),
        }
    }

    fn next_due(&self) -> Stored<Option<Wall>> {
        self.read(run::next_due)
    }

    fn next_end(&self, epoch: Epoch, at: Wall, full: &[String]) -> Stored<Option<Wall>> {
        self.read(|db| end::next(db, epoch, at, full))
    }

    fn take_ends(&self, epoch: Epoch, at: Wall, limit: u64, full: &[String]) -> Stored<Vec<End>> {
        self.write(Step::TakeEnds, |db| {
            owner::must_live(db, epoch)?;
            end::take(db, epoch, at, limit, full)
        })
    }

    fn endings(&self, epoch: Epoch) -> Stored<Vec<Ending>> {
        self.read(|db| end::endings(db, epoch))
    }

    fn ending(&self, key: EndKey) -> Stored<Option<Ending>> {
        self.read(|db| end::ending(db, key))
    }

    fn ending_of(&self, listener: ScheduleKey) -> Stored<Option<Ending>> {
        self.read(|db| end::ending_of(db, listener))
    }

    fn skip_end(&self, listener: ScheduleKey, run: Option<Uuid>, at: Wall) -> Stored<Option<Skipped>> {
        self.write(Step::EndTold, |db| {
            let skipped = end::skip(db, listener, run, at)?;
            if let Some(end) = &skipped {
                audit::note_schedule(db, "skip", listener)?;
                audit::note(db, "skip", &end.run.to_string())?;
            }
            Ok(skipped)
        })
    }

    fn end_told(&self, epoch: Epoch, end: EndKey, settled: &Settled, at: Wall) -> Stored<()> {
        self.write(Step::EndTold, |db| end::told(db, epoch, end, settled, at))
    }

    fn give_end_back(&self, epoch: Epoch, end: EndKey, wait: Wait) -> Stored<()> {
        self.write(Step::EndTold, |db| end::give_back(db, epoch, end, wait))
    }

    fn call_soon(&self, run: Uuid, at: Wall) -> Stored<bool> {
        self.write(Step::EndTold, |db| {
            let Some(place) = run::place(db, run)? else { return Ok(false) };
            let waits = end::waits_longer(db, place.row, at)?;
            let is_due = end::call_soon(db, place.row, at)?;
            if waits {
                audit::note(db, "tell", &run.to_string())?;
            }
            Ok(is_due)
        })
    }

    fn skip_call(&self, run: Uuid, at: Wall) -> Stored<bool> {
        self.write(Step::EndTold, |db| {
            let Some(place) = run::place(db, run)? else { return Ok(false) };
            let is_gone = end::skip_call(db, place.row, at)?;
            if is_gone {
                audit::note(db, "skip", &run.to_string())?;
            }
            Ok(is_gone)
        })
    }

    fn unwanted_callbacks(&self) -> Stored<Vec<Unwanted>> {
        self.read(end::unwanted)
    }

    fn drop_callbacks(&self, unwanted: &[Unwanted], at: Wall) -> Stored<Vec<(String, u64)>> {
        self.write(Step::Prune, |db| end::drop_unwanted(db, unwanted, at))
    }

    fn put_end_off(&self, epoch: Epoch, end: EndKey, wait: Wait, error: &str) -> Stored<()> {
        self.write(Step::EndTold, |db| end::put_off(db, epoch, end, wait, error))
    }

    fn declare_workflows(&self, epoch: Epoch, workflows: &[WorkflowRow], at: Wall) -> Stored<()> {
        self.write(Step::Seen, |db| owner::declare_workflows(db, epoch, workflows, at))
    }

    fn workflows_of_others(&self, epoch: Epoch) -> Stored<Vec<Arc<str>>> {
        self.read(|db| owner::workflows_of_others(db, epoch))
    }

    fn deserted(&self, _epoch: Epoch, limit: u64) -> Stored<Vec<(String, u64)>> {
        self.read(|db| run::deserted(db, limit))
    }

    fn request_cancel(&self, epoch: Epoch, id: Uuid, at: Wall) -> Stored<Vec<Uuid>> {
        self.write(Step::RequestCancel, |db| run::request_cancel(db, epoch, id, at))
    }

    fn request_cancels(&self, epoch: Epoch, ids: &[Uuid], at: Wall) -> Stored<Vec<Vec<Uuid>>> {
        self.write(Step::RequestCancel, |db| {
            ids.iter().map(|&id| run::request_cancel(db, epoch, id, at)).collect()
        })
    }

    fn cancelled_at(&self, runs: &[Uuid], at: Wall) -> Stored<Vec<(String, Wall)>> {
        self.read(|db| run::child::cancelled_at(db, runs, at))
    }

    fn end_deserted(&self, epoch: Epoch, at: Wall) -> Stored<()> {
        self.write(Step::RequestCancel, |db| run::end_deserted(db, epoch, at))
    }

    fn cancel_requests(&self, epoch: Epoch) -> Stored<Vec<Uuid>> {
        self.read(|db| run::cancel_requests(db, epoch))
    }

    fn ends(&self) -> Stored<i64> {
        self.read(run::ends)
    }

    fn ended(&self, runs: &[Uuid]) -> Stored<Vec<Uuid>> {
        self.read(|db| run::ended(db, runs))
    }

    fn moved(&self, pairs: &[(Uuid, Uuid)]) -> Stored<Vec<(Uuid, Uuid)>> {
        self.read(|db| run::line::moved(db, pairs))
    }

    fn reopen(&self, epoch: Epoch, id: Uuid) -> Stored<Option<Unfinished>> {
        self.write(Step::Reopen, |db| {
            owner::must_live(db, epoch)?;
            let mut run = run::reopen(db, epoch, id, |owner| self.locks.looks_free(owner))?;
            run::line::stand_behind(db, epoch, &mut run)?;
            Ok(run)
        })
    }

    fn reopen_each(&self, epoch: Epoch, ids: &[Uuid]) -> Stored<Vec<Reopened>> {
        self.write(Step::Reopen, |db| {
            owner::must_live(db, epoch)?;
            // Who is refused has written nothing yet.
            let reopen = |&id| match run::reopen(db, epoch, id, |owner| self.locks.looks_free(owner)) {
                Ok(run) => Ok(Ok(run)),
                Err(Failure::Refused(why)) => Ok(Err(why)),
                Err(failure) => Err(failure),
            };
            let mut runs = ids.iter().map(reopen).collect::<Result<Vec<Reopened>, _>>()?;
            run::line::stand_behind(db, epoch, runs.iter_mut().flatten().flatten())?;
            Ok(runs)
        })
    }

    fn put_cron(&self, epoch: Epoch, cron: &NewCron<'_>) -> Stored<Schedule> {
        self.write(Step::PutCron, |db| schedule::put_cron(db, epoch, cron))
    }

    fn withdraw_cron(&self, epoch: Epoch, name: &str) -> Stored<()> {
        self.write(Step::PutCron, |db| schedule::withdraw(db, epoch, name, None))
    }

    fn update_cron(
        &self,
        id: Uuid,
        expression: &str,
        timezone: &str,
        next_at: Option<Wall>,
        at: Wall,
    ) -> Stored<bool> {
        self.write(Step::UpdateCron, |db| schedule::update_cron(db, id, expression, timezone, next_at, at))
    }

    fn delete_cron(&self, id: Uuid) -> Stored<Forgotten> {
        self.write(Step::DeleteCron, |db| schedule::delete_cron(db, id))
    }

    fn forget(&self, epoch: Epoch, name: &str) -> Stored<Forgotten> {
        self.write(Step::DeleteCron, |db| schedule::forget(db, epoch, name))
    }

    fn rename(&self, epoch: Epoch, from: &str, to: &str) -> Stored<Renamed> {
        self.write(Step::UpdateCron, |db| schedule::rename(db, epoch, from, to))
    }

    fn set_enabled(&self, row: ScheduleKey, enabled: bool, cause: Option<&str>, at: Wall) -> Stored<bool> {
        self.write(Step::SetEnabled, |db| {
            let is_new = schedule::would_switch(db, row, enabled, cause)?;
            let done = schedule::set_enabled(db, row, enabled, cause, at)?;
            if is_new {
                audit::note_schedule(db, if enabled { "enable" } else { "disable" }, row)?;
            }
            Ok(done)
        })
    }

    fn ask_poll(&self, row: ScheduleKey, besides: Option<Epoch>) -> Stored<Option<(Option<Epoch>, i64)>> {
        self.write(Step::SetCursor, |db| {
            let asked = schedule::ask_poll(db, row, besides)?;
            if asked.is_some() {
                audit::note_schedule(db, "poll", row)?;
            }
            Ok(asked)
        })
    }

    fn begin_poll(&self, epoch: Epoch, beginning: Beginning) -> Stored<bool> {
        self.write(Step::SetCursor, |db| schedule::begin_poll(db, epoch, beginning))
    }

    fn set_cursor(&self, row: ScheduleKey, cursor: Option<&str>) -> Stored<Option<i64>> {
        self.write(Step::SetCursor, |db| {
            let is_new = schedule::would_set_cursor(db, row, cursor)?;
            let set = schedule::set_cursor(db, row, cursor)?;
            if is_new {
                audit::note_schedule(db, "set_cursor", row)?;
            }
            Ok(set)
        })
    }

    fn schedules(&self, filter: ScheduleFilter, enabled_only: bool, page: Page) -> Stored<Vec<Schedule>> {
        self.read(|db| schedule::list(db, filter, enabled_only, page))
    }

    fn schedules_after(
        &self,
        filter: ScheduleFilter,
        after: ScheduleKey,
        limit: u64,
    ) -> Stored<Vec<Schedule>> {
        self.read(|db| schedule::list_after(db, filter, after, limit))
    }

    fn name_owner(&self, epoch: Epoch, name: &str) -> Stored<()> {
        self.write(Step::Seen, |db| owner::name(db, epoch, name))
    }

    fn without_crons(&self, epoch: Epoch) -> Stored<()> {
        self.write(Step::Seen, |db| owner::without_crons(db, epoch))
    }

    fn waits(&self, epoch: Epoch, at: Option<Wall>) -> Stored<()> {
        self.write(Step::Seen, |db| owner::waits(db, epoch, at))
    }

    fn drains(&self, epoch: Epoch) -> Stored<()> {
        self.write(Step::Seen, |db| {
            // Who told it to end may not wait for what is called.
            schedule::end_calls(db, epoch)?;
            owner::drains(db, epoch)
        })
    }

    fn crons_of_many(&self) -> Stored<Vec<(ScheduleKey, Vec<Epoch>)>> {
        self.read(schedule::crons_of_many)
    }

    fn contested(&self, epoch: Epoch, after: &str, limit: u64) -> Stored<Vec<Contested>> {
        self.read(|db| schedule::contested(db, epoch, after, limit))
    }

    fn want(&self, epoch: Epoch, wishes: &[(Arc<str>, bool)]) -> Stored<()> {
        self.write(Step::Seen, |db| {
            owner::must_live(db, epoch)?;
            schedule::want(db, epoch, wishes)
        })
    }

    fn wished(&self, epoch: Epoch) -> Stored<Wished> {
        self.read(|db| schedule::wished(db, epoch))
    }

    fn trigger(&self, name: &str) -> Stored<Option<Schedule>> {
        self.read(|db| schedule::trigger(db, name))
    }

    fn cron_named(&self, name: &str) -> Stored<Option<Schedule>> {
        self.read(|db| schedule::cron_named(db, name))
    }

    fn cron(&self, id: Uuid) -> Stored<Option<Schedule>> {
        self.read(|db| schedule::cron(db, id))
    }

    fn runs(&self, filter: &RunFilter, page: Page) -> Stored<Vec<ListedRun>> {
        self.read(|db| run::list(db, filter, page))
    }

    fn run(&self, id: Uuid) -> Stored<Option<(ListedRun, Vec<TaskRecord>)>> {
        self.read(|db| run::one(db, id, run::Depth::Tasks))
    }

    fn run_with_tries(&self, id: Uuid) -> Stored<Option<(ListedRun, Vec<TaskRecord>)>> {
        self.read(|db| run::one(db, id, run::Depth::Tries))
    }

    fn place(&self, id: Uuid) -> Stored<Option<Place>> {
        self.read(|db| run::place(db, id))
    }

    fn cron_stats(&self, since: Wall) -> Stored<CronStats> {
        self.read(|db| run::cron_stats(db, since))
    }

    fn history(&self, schedule: ScheduleKey, page: Page) -> Stored<Vec<Stretch>> {
        self.read(|db| history::list(db, schedule, page))
    }

    fn find_old(&self, old: &Old, limit: u64, halt: &Halt) -> Stored<Found> {
        self.answer(halt, |db| prune::find(db, old, limit))
    }

    fn prune(&self, old: &Old, found: &Found) -> Stored<u64> {
        self.write(Step::Prune, |db| prune::run(db, old, found))
    }

    fn spared(&self, epoch: Epoch) -> Stored<Spared> {
        self.read(|db| prune::spared(db, epoch))
    }

    fn spare(&self, until: Wall) -> Stored<()> {
        self.write(Step::Prune, |db| prune::spare(db, until))
    }

    fn owners(&self, limit: u64, since: Wall) -> Stored<Vec<OwnerRow>> {
        self.read(|db| owner::all(db, limit, since)).map(|owners| self.locks.with_dead(owners))
    }

    fn backlog(&self, limit: u64, at: Wall) -> Stored<Vec<Backlog>> {
        self.read(|db| look::backlog(db, limit, at))
    }

    fn set_limit(&self, name: &str, terms: Option<Terms>) -> Stored<bool> {
        self.write(Step::SetEnabled, |db| {
            let is_new = seat::would_set(db, name, terms)?;
            let done = seat::set(db, name, terms)?;
            if is_new {
                audit::note(db, "set_limit", name)?;
            }
            Ok(done)
        })
    }

    fn limits(&self, at: Wall) -> Stored<Vec<ListedLimit>> {
        self.read(|db| seat::list(db, at))
    }

    fn pause(&self, pause: &Pause) -> Stored<bool> {
        self.write(Step::SetEnabled, |db| {
            let is_key = pause.kind == Kind::Key;
            if is_key && !limits::move_key(db, &pause.name, &pause.key)? {
                return Ok(false);
            }
            if !seat::is_paused_so(db, pause)? {
                seat::pause(db, pause)?;
                audit::note(db, "pause", &of_pause(pause.kind, &pause.name, &pause.key))?;
            }
            Ok(true)
        })
    }

    fn resume(&self, kind: Kind, name: &str, key: &str, at: Wall) -> Stored<bool> {
        self.write(Step::SetEnabled, |db| {
            let done = seat::resume(db, kind, name, key, at)?;
            if kind == Kind::Key {
                limits::move_key(db, name, key)?;
            }
            if done {
                audit::note(db, "resume", &of_pause(kind, name, key))?;
            }
            Ok(done)
        })
    }

    fn pauses(&self, at: Wall) -> Stored<Vec<Pause>> {
        self.read(|db| seat::pauses(db, at))
    }

    fn redacted(&self) -> Stored<Redacted> {
        self.read(redacted::read)
    }

    fn redact(&self, more: &Redacted) -> Stored<()> {
        self.write(Step::Redact, |db| redacted::add(db, more))
    }

    fn unredact(&self, key: Option<&str>) -> Stored<usize> {
        self.write(Step::Redact, |db| redacted::take_back(db, key))
    }

    fn contexts_of_run(&self, id: Uuid) -> Stored<Vec<String>> {
        self.read(|db| redacted::contexts_of_run(db, id))
    }

    fn contexts_of_trigger(&self, name: &str) -> Stored<Vec<String>> {
        self.read(|db| redacted::contexts_of_trigger(db, name))
    }

    fn query(&self, sql: &str, params: &[Cell], halt: &Halt) -> Stored<Table> {
        self.answer(halt, |db| query::run(db, sql, params))
    }

    fn export(&self, path: &Path, halt: &Halt) -> Stored<()> {
        self.answer(halt, |db| export::run(db, path))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn store_in(folder: &Path) -> SqliteStore {
        fs::create_dir_all(folder).unwrap();
        SqliteStore::in_file(&folder.join("runs.db"), Durability::Full).unwrap().0
    }

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("cloaca-store-unit-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_locked_file_is_a_passing_fault_and_works_again() {
        let folder = folder("locked");
        let store = store_in(&folder);
        opened(&store.writer.enter().unwrap()).unwrap().busy_timeout(Duration::ZERO).unwrap();
        let other = Connection::open(folder.join("runs.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let Err(Fault::Passing(message)) = store.join(Wall(1)) else { panic!("it wrote") };
        assert!(message.contains("locked") && message.contains("runs.db"), "{message}");
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(store.join(Wall(2)), Ok(Epoch(1)));
        drop((store, other));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_is_taken_for_damaged_once_no_write_has_gone_through_for_a_while() {
        let store = SqliteStore::in_memory().unwrap();
        let fails = || -> Stored<()> {
            store.write(Step::Seen, |_| {
                let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
                Err(Failure::Sql(rusqlite::Error::SqliteFailure(code, None)))
            })
        };
        let long_ago = || Instant::now().checked_sub(DAMAGE_PATIENCE);
        assert!(matches!(fails(), Err(Fault::Passing(text)) if text.contains("damaged")));
        *store.damaged_since.lock().unwrap() = long_ago();
        assert!(store.join(Wall(1)).is_ok());
        assert!(matches!(fails(), Err(Fault::Passing(_))), "one write has gone through since");
        *store.damaged_since.lock().unwrap() = long_ago();
        assert!(matches!(fails(), Err(Fault::Final(text)) if text.contains("restore a copy")));
    }

    #[test]
    fn a_full_disk_is_a_passing_fault_that_leaves_nothing_behind() {
        let store = SqliteStore::in_memory().unwrap();
        let epoch = store.join(Wall(1)).unwrap();
        let limit = |pages: i64| {
            let set = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
            opened(&store.writer.enter().unwrap())
                .unwrap()
                .pragma_update_and_check(None, "max_page_count", pages, set)
                .unwrap();
        };
        let run = |number, context: &str| cloaca_core::port::NewRun {
            trace: None,
            id: Uuid::from_u128(number),
            workflow: "mail".into(),
            version: "v1".into(),
            context: context.into(),
            schedule: None,
            context_hash: None,
            unique_hash: false,
            run_key: None,
            scheduled_at: None,
            waits: false,
            cursor: None,
            ends: None,
            parent: None,
            priority: None,
            due_at: None,
            delay_us: None,
            limits: None,
            is_anyones: false,
            created_at: Wall(1),
        };
        let runs = vec![run(1, "{}"), run(2, &"x".repeat(1 << 20))];
        let batch = [Change::Start { epoch, runs, cron: None }];
        limit(1);
        let Err(Fault::Passing(message)) = store.commit(&batch) else { panic!("it had room") };
        assert!(message.contains("full"), "{message}");
        assert_eq!(store.run(Uuid::from_u128(1)), Ok(None));
        limit(100_000);
        assert!(store.commit(&batch).is_ok(), "the same batch goes through later");
    }

    #[test]
    fn a_panic_inside_a_transaction_undoes_it() {
        let store = SqliteStore::in_memory().unwrap();
        let panics = std::panic::AssertUnwindSafe(|| {
            store.write(Step::Join, |db| -> Result<(), Failure> {
                owner::join(db, &Locks::none(), Wall(1))?;
                panic!("on purpose")
            })
        });
        assert!(std::panic::catch_unwind(panics).is_err());
        let (_, rows) = store.query("SELECT count(*) FROM owners", &[], &Halt::default()).unwrap();
        assert_eq!(rows, [vec![Cell::Int(0)]]);
        assert!(store.join(Wall(2)).is_ok());
    }

    /// More than half of the speed of grouped commits hangs on it.
    #[test]
    fn plans_are_kept_when_parameters_change() {
        let folder = folder("plans");
        let stores = [SqliteStore::in_memory().unwrap(), store_in(&folder)];
        let connections = stores.iter().flat_map(|store| store.reader.iter().chain([&store.writer]));
        for connection in connections {
            let config = rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG;
            assert_eq!(opened(&connection.enter().unwrap()).unwrap().db_config(config), Ok(true));
        }
        drop(stores);
        fs::remove_dir_all(folder).unwrap();
    }

    const SEATS: [(&str, &str); 5] = [
        (seat::WAITING, "USING INDEX limit_seats_waiting (name=?)"),
        (seat::WAITING_EQUAL, "USING INDEX limit_seats_waiting (name=? AND priority=? AND rowid>?)"),
        (seat::WAITING_LESS, "USING INDEX limit_seats_waiting (name=? AND priority<?)"),
        (seat::TAKEN, "limit_seats_taken (name=?)"),
        (seat::NAMES, "limit_seats_attempt (run=? AND task=? AND attempt=?)"),
    ];

    /// No statement of the listings and claims may walk a whole table or sort.
    #[test]
    fn listings_walk_an_index() {
        let store = SqliteStore::in_memory().unwrap();
        for (sql, index) in run::PLANS
            .into_iter()
            .chain(run::CLAIMS)
            .chain(limits::PLANS)
            .chain(schedule::PLANS)
            .chain(redacted::PLANS)
            .chain(SEATS)
        {
            let (_, rows) =
                store.query(&format!("EXPLAIN QUERY PLAN {sql}"), &nulls(sql), &Halt::default()).unwrap();
            let plan = format!("{rows:?}");
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
        }
    }

    #[test]
    fn a_listing_that_sorts_reads_only_what_its_index_holds() {
        let store = SqliteStore::in_memory().unwrap();
        for (sql, index) in run::SORTED {
            let (_, rows) =
                store.query(&format!("EXPLAIN QUERY PLAN {sql}"), &nulls(sql), &Halt::default()).unwrap();
            let plan = format!("{rows:?}");
            let by_rows = "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)";
            assert!(plan.contains(index) && plan.contains(by_rows), "{sql}: {plan}");
        }
    }

    fn nulls(sql: &str) -> Vec<Cell> {
        let names: std::collections::HashSet<&str> = sql
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
            .filter(|word| word.starts_with(':'))
            .collect();
        vec![Cell::Null; names.len()]
    }
}
