//! A file that is only read, beside those who serve it: one connection for listings, others for what may take long. It joins as no
//! owner, and has no thread.
//! Invariant: nothing in the file changes by it, nor who has what of it.

use std::path::{Path, PathBuf};

use cloaca_core::key::{Epoch, ScheduleKey};
use cloaca_core::port::{
    Backlog, Begun, Cell, Halt, ListedRun, OwnerRow, Page, Place, Redacted, RunFilter, Schedule,
    ScheduleFilter, Stored, Stretch, Table, TaskRecord,
};
use cloaca_core::seat::{ListedLimit, Pause};
use cloaca_core::time::Wall;
use rusqlite::Connection;
use uuid::Uuid;

use crate::copy::Sink;
use crate::door::Door;
use crate::sqlite::asked::Asked;
use crate::sqlite::fault::Failure;
use crate::sqlite::lock::Locks;
use crate::sqlite::shield::Shield;
use crate::sqlite::view::View;
use crate::sqlite::{
    copy, entered, export, gate, graph, history, last_entered, look, open, owner, prune, query, redacted,
    run, schedule, seat,
};

/// SQLite counts commits below that.
const TURN_BITS: u32 = 32;

/// A SQLite file that is only read.
pub struct Reader {
    /// The file's path, for messages.
    name: String,
    path: PathBuf,
    view: Door<Option<View>>,
    asked: Asked,
    locks: Locks,
    /// Declared last: its descriptors close after the connections.
    shield: Shield,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.close();
    }
}

impl Reader {
    /// The file at `path`, which must be there and of this program's version.
    ///
    /// # Errors
    /// The message for the user.
    pub fn in_file(path: &Path) -> Result<Self, String> {
        let _entered = gate::enter();
        let opening = || open::file_for_reading(path);
        let (path, view, shield) = Halt::within(open::OPEN_WAIT).over(opening)?;
        Ok(Self {
            name: path.display().to_string(),
            view: Door::new(Some(view)),
            asked: Asked::of(&path, open::identity(&path)),
            locks: Locks::of(&path, shield.identity()),
            path,
            shield,
        })
    }

    /// The file's path, absolute and free of links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Closes everything: whatever is asked then is refused. Twice is fine.
    pub fn close(&self) {
        let _entered = gate::enter();
        self.asked.close();
        let _closing = self.shield.closing();
        last_entered(&self.view).and_then(|mut view| view.take());
        self.shield.close();
    }

    fn read<T>(&self, work: impl Fn(&Connection) -> Result<T, Failure>) -> Stored<T> {
        self.view(|view| view.read(&self.path, |connection| work(connection)))
    }

    fn view<T>(&self, read: impl FnOnce(&mut View) -> Result<T, Failure>) -> Stored<T> {
        let _entered = gate::enter();
        let done = entered(&self.view).and_then(|mut view| {
            let view = view.as_mut().ok_or_else(Failure::closed)?;
            let turn = view.turn();
            let done = read(view)?;
            if view.turn() != turn {
                open::hold(view, &self.path, &self.shield)?;
            }
            Ok(done)
        });
        done.map_err(|failure| failure.into_fault(&self.name))
    }

    fn answer<T>(&self, halt: &Halt, work: impl Fn(&Connection) -> Result<T, Failure>) -> Stored<T> {
        let _entered = gate::enter();
        self.asked.with(halt, work).map_err(|failure| failure.into_fault(&self.name))
    }

    /// Hands all rows over to another place.
    ///
    /// # Errors
    /// What SQLite or the other place met.
    pub fn hand_over(&self, halt: &Halt, sink: &dyn Sink) -> Stored<u64> {
        let _entered = gate::enter();
        let hand_over = |db: &Connection| Ok(crate::copy::all(&copy::Rows::of(db, &self.name)?, sink));
        self.asked.with_whole(halt, hand_over).map_err(|failure| failure.into_fault(&self.name))?
    }

    /// At most `limit` schedules of a kind with a row larger than `after`, by their rows.
    ///
    /// # Errors
    /// As all of these: what SQLite met, or that this is closed.
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
        self.read(|db| run::list(db, filter, page))
    }

    /// One run with its tasks and all that is kept of their attempts.
    pub fn run(&self, id: Uuid) -> Stored<Option<(ListedRun, Vec<TaskRecord>)>> {
        self.read(|db| run::one(db, id, run::Depth::Tries))
    }

    /// Where a run stands in listings.
    pub fn place(&self, id: Uuid) -> Stored<Option<Place>> {
        self.read(|db| run::place(db, id))
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
        self.read(|db| owner::all(db, limit, since)).map(|owners| self.locks.with_dead(owners))
    }

    /// What is not over, of the oldest `limit` such runs.
    pub fn backlog(&self, limit: u64, at: Wall) -> Stored<Vec<Backlog>> {
        self.read(|db| look::backlog(db, limit, at))
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
        self.view(|view| {
            let commits = view.read(&self.path, |connection| look::commits(connection))?;
            Ok(commits + (view.turn() << TURN_BITS))
        })
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
        self.answer(halt, |db| query::run(db, sql, params))
    }

    /// Writes a copy of everything to a new file, on the same terms.
    pub fn export(&self, path: &Path, halt: &Halt) -> Stored<()> {
        self.answer(halt, |db| export::run(db, path))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use cloaca_core::port::Store;

    use super::*;
    use crate::sqlite::SqliteStore;
    use crate::url::Durability;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("cloaca-reader-unit-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_reader_makes_no_file() {
        let folder = folder("none");
        let path = folder.join("runs.db");
        let Err(message) = Reader::in_file(&path) else { panic!("it opened nothing") };
        assert!(message.contains("there is no database"), "{message}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_reader_sees_who_serves_the_file_and_leaves_no_trace() {
        let folder = folder("trace");
        let path = folder.join("runs.db");
        let (store, _) = SqliteStore::in_file(&path, Durability::Full).unwrap();
        let epoch = store.join(Wall(1)).unwrap();
        let reader = Reader::in_file(&path).unwrap();
        let owners = reader.owners(10, Wall(0)).unwrap();
        assert_eq!(
            owners.iter().map(|owner| (owner.epoch, owner.is_dead)).collect::<Vec<_>>(),
            [(epoch, false)]
        );
        drop(reader);
        // Its end has taken nothing from who serves it, in this process too.
        assert!(!store.bury(epoch).unwrap().is_buried);
        let reader = Reader::in_file(&path).unwrap();
        assert_eq!(reader.owners(10, Wall(0)).unwrap().len(), 1);
        drop(store);
        // The store has folded its log though somebody reads.
        assert!(fs::metadata(folder.join("runs.db-wal")).is_ok_and(|found| found.len() == 0));
        reader.close();
        let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["runs.db"], "the last one out takes the empty log with it");
        assert!(reader.owners(1, Wall(0)).is_err(), "it is closed");
        fs::remove_dir_all(folder).unwrap();
    }

    /// No statement of these may sort, or walk what has ended.
    #[test]
    fn looks_walk_an_index() {
        let store = SqliteStore::in_memory().unwrap();
        for (sql, index) in look::PLANS {
            let names: std::collections::HashSet<&str> = sql
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
                .filter(|word| word.starts_with(':'))
                .collect();
            let nulls = vec![Cell::Null; names.len()];
            let (_, rows) =
                store.query(&format!("EXPLAIN QUERY PLAN {sql}"), &nulls, &Halt::default()).unwrap();
            assert!(format!("{rows:?}").contains(index), "{sql}: {rows:?}");
        }
    }
}
