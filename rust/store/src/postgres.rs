//! The store over PostgreSQL: one connection writes, another reads, and statements of users have their own. Each method of the trait is one transaction; the SQL
//! stands in the files below, which have the names of those of `sqlite`, and in those of `sql`. Invariant: whoever writes has the lock of the whole store, so that what is checked
//! holds until it is acted upon, rows are numbered in the order of their commits, and nothing deadlocks; and nothing is told before it is durable.
//! Longer than a room should be: one `impl` of the trait, which cannot stand in two rooms; each method only names its transaction.

mod address;
mod asked;
#[path = "sql/audit.rs"]
mod audit;
mod batch;
#[path = "sql/bearer.rs"]
mod bearer;
mod connect;
mod copy;
mod db;
mod dialect;
#[path = "sql/end.rs"]
mod end;
mod export;
mod fault;
#[path = "sql/graph.rs"]
mod graph;
#[path = "sql/history.rs"]
mod history;
mod inbox;
mod limits;
mod lock;
mod logged;
mod look;
mod open;
mod owner;
mod plan;
#[path = "sql/prune.rs"]
mod prune;
mod pulse;
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
#[path = "sql/sign.rs"]
mod sign;
mod tenant;
mod tls;
mod value;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cloaca_core::audit::of_pause;
use cloaca_core::fault_point::{Step, around};
use cloaca_core::grid::Wait;
use cloaca_core::key::{EndKey, Epoch, RunRow, ScheduleKey};
use cloaca_core::port::{
    Allowed, Backlog, Beginning, Cell, Change, CronStats, Ear, End, Ending, Fault, Forgotten, Found, Halt,
    InFlight, ListedRun, NewCron, Old, OwnerRow, Page, Place, Playing, Receipt, Redacted, Renamed, Reopened,
    RunFilter, Schedule, ScheduleFilter, Settled, Siblings, Sign, Skipped, Spared, Store, Stored, Stretch,
    Table, TaskRecord, Unfinished, Unwanted, Wished, WorkflowRow,
};
use cloaca_core::seat::{Kind, ListedLimit, Pause, Terms};
use cloaca_core::spread::Contested;
use cloaca_core::time::Wall;
use uuid::Uuid;

use crate::door::{Door, Inside};
use crate::postgres::db::{Db, Error, OptionalExtension as _, named_params};
use crate::postgres::fault::Failure;
use crate::postgres::lock::Locks;
use crate::postgres::open::Use;
use crate::postgres::pulse::Pulse;
use crate::url::Durability;

pub use address::{Address, Machine};
pub use copy::Filling;
pub use reader::{Reader, schema_of};
pub use tenant::{Tenant, create as create_tenant, password as password_of, remove as remove_tenant};

/// What became of a commit whose answer was lost is asked for so long; after that the caller hears that it will pass, and it is asked for again before
/// anything else is written.
const DOUBT_PATIENCE: Duration = Duration::from_secs(2);
/// The others are looked at no oftener, unless there is news: each look is a way to the server and back.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// An answer that took no longer tells the server's time well enough: by less nobody goes.
const QUICK_ANSWER: Duration = Duration::from_millis(10);
/// Between two attempts to reach a server that is not there.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// What this process holds belongs to its parent.
pub fn forked() {
    lock::forked();
}

/// Everything in one schema of a database on a server.
pub struct PostgresStore {
    address: Address,
    /// By which the server knows this store's transactions.
    client: Uuid,
    writer: Door<Writer>,
    reader: Door<Option<Db>>,
    is_closed: AtomicBool,
    locks: Locks,
    pulse: Pulse,
    /// What was found at the last look at the others, by who looked, and when.
    looks: Mutex<HashMap<Epoch, (Instant, Siblings)>>,
    process: u32,
}

/// The connection that writes.
struct Writer {
    db: Option<Db>,
    /// The number of the last transaction.
    number: i64,
    /// The last transaction, while nobody knows whether it was committed.
    doubt: Option<Doubt>,
    /// A batch that was committed, as turned out when its caller had given up waiting, with what came of it.
    settled: Option<(Vec<Change>, Vec<Receipt>)>,
    /// Runs of claims that were committed and of which nobody was told: they are given back.
    strays: Vec<(Epoch, Claimed)>,
}

/// What a transaction has done, if it was committed.
enum Doubt {
    /// It applied a batch, with these receipts.
    Batch(Vec<Change>, Vec<Receipt>),
    /// It handed something out.
    Claim(Epoch, Claimed),
    /// What whoever asked for it asks for again, and may.
    Other,
}

/// What was handed out, and goes back if nobody was told of it.
#[derive(Clone)]
enum Claimed {
    Runs(Vec<RunRow>),
    Ends(Vec<EndKey>),
}

impl Claimed {
    fn of(runs: impl IntoIterator<Item = Unfinished>) -> Self {
        Self::Runs(runs.into_iter().map(|run| run.row).collect())
    }

    fn give_back(&self, db: &Db, epoch: Epoch) -> Result<(), Failure> {
        match self {
            Self::Runs(runs) => run::release(db, epoch, runs),
            Self::Ends(ends) => run::release_ends(db, epoch, ends),
        }
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            self.close();
        } else {
            // The sockets are the parent's, and so is what watches them.
            std::mem::forget(self.writer.enter_now().and_then(|mut writer| writer.db.take()));
            std::mem::forget(self.reader.enter_now().and_then(|mut reader| reader.take()));
        }
    }
}

impl PostgresStore {
    /// The store at `address`, making its schema and tables if there are none yet.
    ///
    /// # Errors
    /// The message for the user.
    pub fn open(address: Address) -> Result<Self, String> {
        open::patience(&address).over(|| Self::open_within(address))
    }

    fn open_within(address: Address) -> Result<Self, String> {
        let told = |failure: Failure| match failure.into_fault(&address.name) {
            Fault::Passing(text) | Fault::Final(text) => text,
        };
        let db = open::connection(&address, Use::Writing).map_err(told)?;
        let reader = open::connection(&address, Use::Reading).map_err(told)?;
        open::refuse_pooler(&address, &db, &reader).map_err(told)?;
        schema::migrate(&db, &address.name, &address.schema).map_err(told)?;
        let client = cloaca_core::key::new_id();
        let number = schema::identity(&db, client).map_err(told)?;
        let locks = Locks::of(number);
        let pulse = Pulse::start(&address, number)
            .map_err(|error| format!("no thread can be made that keeps '{}' alive: {error}", address.name))?;
        Ok(Self {
            writer: Door::new(Writer {
                db: Some(db),
                number: 0,
                doubt: None,
                settled: None,
                strays: Vec::new(),
            }),
            reader: Door::new(Some(reader)),
            is_closed: AtomicBool::default(),
            client,
            locks,
            pulse,
            looks: Mutex::default(),
            process: std::process::id(),
            address,
        })
    }

    /// Runs `work` in one transaction and commits it, which is `step`, if it succeeds.
    fn write<T>(&self, step: Step, work: impl FnOnce(&Db) -> Result<T, Failure>) -> Stored<T> {
        let done = self
            .entered(&self.writer)
            .and_then(|mut writer| self.transact(&mut writer, step, work, |_| Doubt::Other));
        done.map_err(|failure| failure.into_fault(&self.address.name))
    }

    /// The same where `work` hands something out.
    fn hand_out<T>(
        &self,
        epoch: Epoch,
        step: Step,
        work: impl FnOnce(&Db) -> Result<T, Failure>,
        claimed: impl FnOnce(T) -> Claimed,
    ) -> Stored<T> {
        let doubt = |done| Doubt::Claim(epoch, claimed(done));
        let done =
            self.entered(&self.writer).and_then(|mut writer| self.transact(&mut writer, step, work, doubt));
        done.map_err(|failure| failure.into_fault(&self.address.name))
    }

    /// What is behind a door, once those who came before are through.
    fn entered<'d, T>(&self, door: &'d Door<T>) -> Result<Inside<'d, T>, Failure> {
        door.enter().ok_or_else(|| match Halt::current().is_asked() {
            true => Failure::Sql(Error::Ended),
            false => Failure::Sql(Error::Silent),
        })
    }

    /// The same failure, of which everybody hears who waits to ask the same server.
    fn told(&self, failure: Failure) -> Failure {
        if matches!(&failure, Failure::Sql(error) if fault::is_silence(error)) {
            self.writer.silence();
            self.reader.silence();
        }
        failure
    }

    /// Whose commit has no answer asks what became of it, and does not guess: now, or before the next transaction.
    fn transact<T>(
        &self,
        writer: &mut Writer,
        step: Step,
        work: impl FnOnce(&Db) -> Result<T, Failure>,
        doubt: impl FnOnce(T) -> Doubt,
    ) -> Result<T, Failure> {
        self.settle(writer)?;
        let (done, failure) = match self.attempt(writer, step, work) {
            Ok(done) => return Ok(done),
            Err(Undone::Failed(failure)) => return Err(self.told(failure)),
            Err(Undone::Doubtful(done, failure)) => (done, self.told(failure)),
        };
        match self.resolve(writer) {
            Ok(true) => return Ok(done),
            Ok(false) => {}
            Err(_) => writer.doubt = Some(doubt(done)),
        }
        Err(failure)
    }

    /// What became of the last transaction, if that is in doubt.
    fn settle(&self, writer: &mut Writer) -> Result<(), Failure> {
        let Some(doubt) = writer.doubt.take() else { return Ok(()) };
        match (self.resolve(writer), doubt) {
            (Ok(true), Doubt::Batch(batch, receipts)) => writer.settled = Some((batch, receipts)),
            (Ok(true), Doubt::Claim(epoch, claimed)) => writer.strays.push((epoch, claimed)),
            (Ok(true), Doubt::Other) | (Ok(false), _) => {}
            (Err(failure), doubt) => {
                writer.doubt = Some(doubt);
                return Err(failure);
            }
        }
        Ok(())
    }

    fn attempt<T>(
        &self,
        writer: &mut Writer,
        step: Step,
        work: impl FnOnce(&Db) -> Result<T, Failure>,
    ) -> Result<T, Undone<T>> {
        let number = writer.number + 1;
        let strays = writer.strays.clone();
        let (db, undoes) = self.begun(writer).map_err(Undone::Failed)?;
        for (epoch, claimed) in &strays {
            claimed.give_back(db, *epoch).map_err(Undone::Failed)?;
        }
        let done = work(db).map_err(Undone::Failed)?;
        let committed = around(step, || self.commit_stamped(db, number));
        match &committed {
            Ok(()) => std::mem::forget(undoes),
            // Where it was committed and only the wait for the disk was refused, there is nothing left to undo.
            Err(_) => drop(undoes),
        }
        writer.number = number;
        // Also what the server has refused: that may be the wait for the disk, which comes after the commit.
        match committed {
            Ok(()) => {
                writer.strays.clear();
                Ok(done)
            }
            Err(failure) => Err(Undone::Doubtful(done, failure)),
        }
    }

    /// The connection that writes, with the lock of the store. One that was lost while it was idle is made anew.
    fn begun<'w>(&self, writer: &'w mut Writer) -> Result<(&'w Db, Undoes<'w>), Failure> {
        match self.begin_on(self.connected(writer)?).map(std::mem::forget) {
            Err(Failure::Sql(error)) if fault::is_stale(&error) => {
                writer.db = None;
                let db = self.connected(writer)?;
                Ok((db, self.begin_on(db)?))
            }
            Err(failure) => Err(failure),
            // Not one that is made anew because it was lost since: that has begun nothing.
            Ok(()) => match &writer.db {
                Some(db) => Ok((db, Undoes(db))),
                None => Err(Failure::closed()),
            },
        }
    }

    /// A wait for the lock that the server ends leaves no transaction behind in which nothing else could be asked.
    fn begin_on<'d>(&self, db: &'d Db) -> Result<Undoes<'d>, Failure> {
        let undoes = Undoes(db);
        db.execute_batch(&self.begin())?;
        Ok(undoes)
    }

    /// Begins, and waits for the lock of the store. What is committed under it is not waited for until it is free again.
    fn begin(&self) -> String {
        format!(
            "BEGIN; SET LOCAL synchronous_commit TO off; SELECT pg_advisory_xact_lock({}, {})",
            schema::LOCK_CLASS,
            schema::key_of(&self.address.schema)
        )
    }

    /// Commits under that number, and then waits until that is on disk. What wrote nothing has no number and nothing to wait for.
    fn commit_stamped(&self, db: &Db, number: i64) -> Result<(), Failure> {
        const STAMP: &str = "
            UPDATE stamps SET number = :number, at = now_us()
            WHERE client = :client AND pg_current_xact_id_if_assigned() IS NOT NULL";
        // The log is one sequence: what is on disk of it is on disk with all before it.
        const FLUSH: &str = "
            SELECT pg_logical_emit_message(TRUE, 'cloaca', '')
            WHERE EXISTS (SELECT 1 FROM stamps WHERE client = :client AND number = :number)";
        let stamp = db.prepare_cached(STAMP)?;
        let flush = match self.address.durability {
            Durability::Full => Some(db.prepare_cached(FLUSH)?),
            Durability::Normal => None,
        };
        let params = named_params! { ":client": self.client, ":number": number };
        db.commit(&stamp, flush.as_ref(), params)?;
        Ok(())
    }

    /// Whether the last transaction was committed. Whoever has the lock of the store knows: the one that was in doubt has ended.
    fn resolve(&self, writer: &mut Writer) -> Result<bool, Failure> {
        const SQL: &str = "SELECT number FROM stamps WHERE client = :client";
        let deadline = Instant::now() + DOUBT_PATIENCE;
        loop {
            let number = writer.number;
            let found = self.connected(writer).and_then(|db| {
                let undoes = self.begin_on(db)?;
                let found: Option<i64> = db
                    .prepare_cached(SQL)?
                    .query_row(named_params! { ":client": self.client }, |row| row.get(0))
                    .optional()?;
                drop(undoes);
                // It may be committed and not yet on disk.
                if found == Some(number) && self.address.durability == Durability::Full {
                    db.execute_batch("SELECT pg_logical_emit_message(TRUE, 'cloaca', '')")?;
                }
                Ok(found == Some(number))
            });
            match found {
                Ok(is_committed) => return Ok(is_committed),
                Err(Failure::Refused(text)) => return Err(Failure::Refused(text)),
                Err(Failure::Sql(error)) if fault::is_silence(&error) || matches!(error, Error::Ended) => {
                    return Err(self.told(Failure::Sql(error)));
                }
                Err(failure) if Instant::now() >= deadline => return Err(failure),
                Err(_) => sleep(RECONNECT_PAUSE),
            }
        }
    }

    /// The connection that writes, made anew if it was lost.
    fn connected<'w>(&self, writer: &'w mut Writer) -> Result<&'w Db, Failure> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Failure::closed());
        }
        if writer.db.as_ref().is_some_and(Db::is_lost) {
            writer.db = None;
        }
        match &mut writer.db {
            Some(db) => Ok(db),
            none => Ok(none.insert(open::connection(&self.address, Use::Writing)?)),
        }
    }

    /// Runs `work` on what is committed. Its statements see one state only if it is a single statement or opens a transaction of its own.
    fn read<T>(&self, work: impl Fn(&Db) -> Result<T, Failure>) -> Stored<T> {
        let done = self.entered(&self.reader).and_then(|mut reader| {
            let done = self.read_with(&mut reader, &work).or_else(|failure| match &failure {
                // Once more on another connection: this one was idle when it was lost.
                Failure::Sql(error) if fault::is_stale(error) => self.read_with(&mut reader, &work),
                _ => Err(failure),
            });
            done.map_err(|failure| self.told(failure))
        });
        done.map_err(|failure| failure.into_fault(&self.address.name))
    }

    fn read_with<T>(
        &self,
        reader: &mut Option<Db>,
        work: impl Fn(&Db) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Failure::closed());
        }
        if reader.as_ref().is_some_and(Db::is_lost) {
            *reader = None;
        }
        work(match reader {
            Some(db) => db,
            none => none.insert(open::connection(&self.address, Use::Reading)?),
        })
    }

    fn claim(
        &self,
        epoch: Epoch,
        at: Wall,
        limit: u64,
        workflows: &[Arc<str>],
        taking: run::Taking,
    ) -> Stored<Vec<Unfinished>> {
        let claim = |db: &Db| {
            owner::must_live(db, epoch)?;
            run::claim(db, epoch, at, limit, workflows, taking)
        };
        self.hand_out(epoch, Step::Claim, claim, Claimed::of)
    }

    /// Runs what a user asks on a connection where it is in nobody's way, until `halt` is asked for.
    fn answer<T>(&self, halt: &Halt, work: impl FnOnce(&Db) -> Result<T, Failure>) -> Stored<T> {
        let done = match self.is_closed.load(Ordering::Acquire) {
            true => Err(Failure::closed()),
            false => asked::with(&self.address, halt, work),
        };
        done.map_err(|failure| failure.into_fault(&self.address.name))
    }

    /// Who panics while holding one of these leaves nothing half done in it: its transaction is rolled back.
    fn guarded<'m, T>(&self, mutex: &'m Mutex<T>) -> MutexGuard<'m, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a transaction has no result.
enum Undone<T> {
    /// It was rolled back.
    Failed(Failure),
    /// It may have been committed, with this result.
    Doubtful(T, Failure),
}

/// Rolls back what is not committed, also if somebody panics.
struct Undoes<'d>(&'d Db);

impl Drop for Undoes<'_> {
    fn drop(&mut self) {
        // If this fails, the connection is lost, and the server rolls back.
        if !self.0.is_lost() {
            let _ = self.0.execute_batch("ROLLBACK");
        }
    }
}

impl Store for PostgresStore {
    fn join(&self, at: Wall) -> Stored<Epoch> {
        let epoch = self.write(Step::Join, |db| owner::join(db, &self.locks, at))?;
        self.guarded(&self.looks).clear();
        self.pulse.add(epoch);
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
        // The lock last: whoever finds it free while the runs are still this owner's would count an interruption.
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
        if let Ok(Some(remnant)) = &left {
            self.pulse.add(*remnant);
        }
        self.guarded(&self.looks).clear();
        // What is kept is nobody else's until it is home, or the process dead.
        if left.is_ok() || kept.is_empty() {
            self.pulse.remove(epoch);
            around(Step::Release, || self.locks.release(epoch));
            self.wake_others(epoch);
        }
        left
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        // Who is still inside after that goes with the connection that is his.
        if let Some(db) = self.writer.enter().and_then(|mut writer| writer.db.take()) {
            // Best effort: what stays behind is a row that the next runners forget.
            let _ = schema::forget(&db, self.client);
        }
        drop(self.reader.enter().and_then(|mut reader| reader.take()));
        for epoch in self.pulse.stop() {
            self.locks.release(epoch);
        }
    }

    fn bury(&self, epoch: Epoch) -> Stored<Siblings> {
        if let Some((at, found)) = self.guarded(&self.looks).get(&epoch)
            && at.elapsed() < LOOK_EVERY
        {
            return Ok(found.clone());
        }
        // Nobody to bury is the rule, and must not cost a transaction.
        let is_fresh = self.pulse.is_fresh();
        let (siblings, dead) = self.read(|db| owner::look(db, &self.locks, epoch, is_fresh))?;
        if !dead.is_empty() {
            self.guarded(&self.looks).clear();
            return self.write(Step::Bury, |db| owner::bury(db, &self.locks, epoch, is_fresh));
        }
        self.guarded(&self.looks).insert(epoch, (Instant::now(), siblings.clone()));
        Ok(siblings)
    }

    fn clock_ahead_us(&self) -> Stored<Option<i64>> {
        let asked = || -> Stored<(i64, Duration)> {
            let (before, began) = (owner::machine_us(), Instant::now());
            let at = self.read(owner::clock)?;
            let took = began.elapsed();
            let half = i64::try_from(took.as_micros() / 2).unwrap_or(0);
            Ok((at - before - half, took))
        };
        let (ahead_us, took) = asked()?;
        // It may have had to connect, and how long that took is not how old the answer is.
        Ok(Some(if took < QUICK_ANSWER { ahead_us } else { asked()?.0 }))
    }

    fn wake_others(&self, epoch: Epoch) {
        self.pulse.wake_others(epoch);
    }

    fn is_far(&self) -> bool {
        true
    }

    fn silent_in(&self, epoch: Epoch) -> Option<Duration> {
        self.pulse.silent_in(epoch)
    }

    fn wake(&self, epoch: Epoch) {
        self.pulse.wake(&[epoch]);
    }

    fn woken(&self, epoch: Epoch) -> bool {
        let is_woken = self.pulse.is_woken(epoch);
        if is_woken {
            // Who else is there may be the news.
            self.guarded(&self.looks).remove(&epoch);
        }
        is_woken
    }

    fn ear(&self, epoch: Epoch) -> Option<Arc<dyn Ear>> {
        self.pulse.ear(epoch)
    }

    fn has_inbox(&self) -> bool {
        self.pulse.takes_inbox()
    }

    fn admit_inbox(&self, epoch: Epoch, at: Wall) -> Stored<u64> {
        // Another runner may have been faster, which must not cost a transaction.
        match self.read(inbox::is_any)? {
            true => self.write(Step::Batch, |db| inbox::admit(db, epoch, at)),
            false => Ok(0),
        }
    }

    fn commit(&self, batch: &[Change]) -> Stored<Vec<Receipt>> {
        let batch_done = self.entered(&self.writer).and_then(|mut writer| {
            self.settle(&mut writer)?;
            match writer.settled.take() {
                Some((before, receipts)) if before == batch => Ok(receipts),
                _ => self.transact(
                    &mut writer,
                    Step::Batch,
                    |db| batch::apply(db, batch),
                    |receipts| Doubt::Batch(batch.to_vec(), receipts),
                ),
            }
        });
        batch_done.map_err(|failure| failure.into_fault(&self.address.name))
    }

    fn rehearse(&self, work: &mut Playing<'_>) -> Stored<()> {
        let mut played = None;
        let undone: Stored<()> = self.write(Step::Batch, |db| {
            played = Some(batch::rehearse(db, work, |failure| failure.into_fault(&self.address.name)));
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
            Err(()) => {
                let claim = |db: &Db| {
                    owner::must_live(db, epoch)?;
                    let paused = seat::paused_workflows(db, at)?;
                    let begin: Vec<Arc<str>> =
                        workflows.iter().filter(|name| !paused.contains(name)).cloned().collect();
                    limits::claim(db, epoch, at, room, &begin)
                };
                self.hand_out(epoch, Step::Claim, claim, |allowed| Claimed::of(allowed.runs))
            }
        }
    }

    fn next_due(&self) -> Stored<Option<Wall>> {
        self.read(run::next_due)
    }

    fn next_end(&self, epoch: Epoch, at: Wall, full: &[String]) -> Stored<Option<Wall>> {
        self.read(|db| end::next(db, epoch, at, full))
    }

    fn take_ends(&self, epoch: Epoch, at: Wall, limit: u64, full: &[String]) -> Stored<Vec<End>> {
        let take = |db: &Db| {
            owner::must_live(db, epoch)?;
            end::take(db, epoch, at, limit, full)
        };
        self.hand_out(epoch, Step::TakeEnds, take, |ends| {
            Claimed::Ends(ends.iter().map(|end| end.key).collect())
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
        self.write(Step::RequestCancel, |db| inbox::request_cancel(db, epoch, id, at))
    }

    fn request_cancels(&self, epoch: Epoch, ids: &[Uuid], at: Wall) -> Stored<Vec<Vec<Uuid>>> {
        self.write(Step::RequestCancel, |db| {
            ids.iter().map(|&id| inbox::request_cancel(db, epoch, id, at)).collect()
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
        self.read(|db| inbox::ended(db, runs))
    }

    fn moved(&self, pairs: &[(Uuid, Uuid)]) -> Stored<Vec<(Uuid, Uuid)>> {
        self.read(|db| run::line::moved(db, pairs))
    }

    fn reopen(&self, epoch: Epoch, id: Uuid) -> Stored<Option<Unfinished>> {
        let reopen = |db: &Db| {
            owner::must_live(db, epoch)?;
            let dead = owner::dead(db, &self.locks, epoch, self.pulse.is_fresh())?;
            let mut run = inbox::reopen(db, epoch, id, |owner| dead.contains(&owner))?;
            run::line::stand_behind(db, epoch, &mut run)?;
            Ok(run)
        };
        self.hand_out(epoch, Step::Reopen, reopen, Claimed::of)
    }

    fn reopen_each(&self, epoch: Epoch, ids: &[Uuid]) -> Stored<Vec<Reopened>> {
        let reopen_all = |db: &Db| {
            owner::must_live(db, epoch)?;
            let dead = owner::dead(db, &self.locks, epoch, self.pulse.is_fresh())?;
            // Who is refused has written nothing yet.
            let reopen = |&id| match inbox::reopen(db, epoch, id, |owner| dead.contains(&owner)) {
                Ok(run) => Ok(Ok(run)),
                Err(Failure::Refused(why)) => Ok(Err(why)),
                Err(failure) => Err(failure),
            };
            let mut runs = ids.iter().map(reopen).collect::<Result<Vec<Reopened>, _>>()?;
            run::line::stand_behind(db, epoch, runs.iter_mut().flatten().flatten())?;
            Ok(runs)
        };
        self.hand_out(epoch, Step::Reopen, reopen_all, |runs| {
            Claimed::of(runs.into_iter().flatten().flatten())
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
        self.read(|db| inbox::list(db, filter, page))
    }

    fn run(&self, id: Uuid) -> Stored<Option<(ListedRun, Vec<TaskRecord>)>> {
        self.read(|db| inbox::one(db, id, run::Depth::Tasks))
    }

    fn run_with_tries(&self, id: Uuid) -> Stored<Option<(ListedRun, Vec<TaskRecord>)>> {
        self.read(|db| inbox::one(db, id, run::Depth::Tries))
    }

    fn place(&self, id: Uuid) -> Stored<Option<Place>> {
        self.read(|db| inbox::place(db, id))
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
        let is_fresh = self.pulse.is_fresh();
        self.read(|db| owner::all(db, &self.locks, limit, since, is_fresh))
    }

    fn backlog(&self, limit: u64, at: Wall) -> Stored<Vec<Backlog>> {
        self.read(|db| inbox::backlog(db, limit, at))
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
