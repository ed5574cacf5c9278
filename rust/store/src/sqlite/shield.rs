//! Keeps this process's hold on its files when somebody else in it opens and closes them. SQLite's own locks are POSIX
//! locks: any `close` of the file drops all of the process, whoever made the descriptor, and the next process that closes
//! the database unlinks its log while we go on writing into it. The locks here belong to an open file, not to the process.
//! Invariant: a descriptor is closed only after the process's last connection on that file, as that too is such a `close`.
//!
//! Read locks stand where SQLite looks before it unlinks or truncates: on the bytes of its shared lock in the database, and
//! on the byte of the `-shm` file that says that somebody is connected.
//! Longer than a room should be: the locks of a file and the count of who relies on them change together.

use cloaca_core::key::Epoch;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::sqlite::anchored::Anchored;
use crate::sqlite::byte_lock;
#[cfg(target_os = "linux")]
use crate::sqlite::descriptors;
#[cfg(target_os = "linux")]
use crate::sqlite::held_file::made_like;
use crate::sqlite::held_file::{close, has_log, has_none, is_shared, is_writable, open, own};
use crate::sqlite::open::{beside, identity, identity as identity_at, identity_of};

/// SQLite's `SHARED_FIRST`, and how many bytes follow.
const SHARED: (i64, i64) = (0x4000_0002, 510);
/// The byte by which the owner with epoch 0 would be known as living; no database is as long.
const OWNERS: i64 = 1 << 61;
/// The byte that is held while a process closes the file.
#[cfg(target_os = "linux")]
const CLOSING: (i64, i64) = (OWNERS - 1, 1);
/// Those of who writes, and who is next.
const WRITER: (i64, i64) = (OWNERS - 2, 1);
const NEXT: (i64, i64) = (OWNERS - 3, 1);
/// Who stands still amidst his closing keeps nobody longer.
const CLOSING_PATIENCE: Duration = Duration::from_secs(1);
const CLOSING_PAUSE: Duration = Duration::from_millis(1);
/// To what SQLite cuts the `-shm` file when it is the first.
#[cfg(target_os = "linux")]
const SHM_BYTES_FIRST: u64 = 3;
/// SQLite's dead-man switch in the `-shm` file.
const CONNECTED: (i64, i64) = (128, 1);

type Table = HashMap<Identity, Shielded>;

static SHIELDS: Mutex<Option<Table>> = Mutex::new(None);

/// Device and inode.
pub type Identity = (u64, u64);

/// What the process holds of one file.
#[derive(Default)]
struct Shielded {
    /// Stores whose descriptors must stay.
    stores: usize,
    /// Those of them that only read.
    readers: usize,
    /// Those of them whose locks must stay.
    raised: usize,
    /// Whether one of them is closing, writes, or is next.
    is_closing: bool,
    writes: bool,
    is_next: bool,
    database: Vec<Anchored>,
    /// Newest last: SQLite makes another one each time that the last connection has gone.
    memory: Vec<Anchored>,
    /// Owners of this process. Locks of one open file don't show to itself.
    #[cfg(target_os = "linux")]
    epochs: std::collections::HashSet<Epoch>,
}

/// What a store does with its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It reads and writes, and makes the file if there is none.
    Writing,
    /// It reads what is there.
    Reading,
}

/// A place in the line of those who want to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Who writes.
    Writer,
    /// Who writes after him.
    Next,
}

/// One store's share in the process's hold on its file.
pub struct Shield {
    path: PathBuf,
    identity: Option<Identity>,
    use_: Use,
    is_raised: Mutex<bool>,
    is_open: Mutex<bool>,
}

impl Shield {
    /// For a store without a file.
    pub fn none() -> Self {
        Self {
            path: PathBuf::new(),
            identity: None,
            use_: Use::Writing,
            is_raised: Mutex::new(false),
            is_open: Mutex::new(false),
        }
    }

    /// Opens what is to be held of the database at `path`, making the file as SQLite would if it is to be written. To be called before
    /// SQLite opens it. What cannot be opened is left to SQLite, which says why.
    pub fn before(path: &Path, use_: Use) -> Self {
        let identity = enlist(path, use_);
        // SQLite follows links before it names the files beside the database.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let shield = Self {
            path,
            identity,
            use_,
            is_raised: Mutex::new(false),
            is_open: Mutex::new(identity.is_some()),
        };
        shield.raise_early();
        shield
    }

    /// Whether the program has closed one of the descriptors here, by which others know that somebody lives.
    pub fn has_lost(&self) -> bool {
        let Some(identity) = self.identity else { return false };
        let shields = shields();
        let shielded = shields.as_ref().and_then(|table| table.get(&identity));
        shielded
            .is_some_and(|shielded| shielded.database.iter().any(|file| identity_of(file) != Some(identity)))
    }

    /// Holds a database that has a log already from before SQLite opens it. Not with a journal beside: it is played back by who
    /// gets the file alone. Nor one that cannot be written, which is left as it is.
    fn raise_early(&self) {
        let Some(identity) = self.identity else { return };
        let mut shields = shields();
        let Some(shielded) = shields.get_or_insert_default().get_mut(&identity) else { return };
        let Some(file) = shielded.database.first() else { return };
        if is_writable(file) && has_log(file) && !beside(&self.path, "-journal").exists() {
            *self.is_raised.lock().unwrap_or_else(PoisonError::into_inner) = true;
            shielded.raised += 1;
            byte_lock::read(file, SHARED, true);
            shielded.enter_memory(&beside(&self.path, "-shm"));
        }
    }

    /// Whether no other store of this process writes to the file.
    pub fn is_last(&self) -> bool {
        let mut shields = shields();
        let shielded = self.identity.and_then(|identity| shields.get_or_insert_default().get_mut(&identity));
        shielded.is_some_and(|shielded| shielded.stores - shielded.readers == 1)
    }

    /// Waits until nobody else closes the file, in this process or another: of two at once each would find the other still connected and
    /// leave the log to him. To be called before the store's connections close.
    pub fn closing(&self) -> Closing {
        let deadline = Instant::now() + CLOSING_PATIENCE;
        let identity = self.identity.filter(|_| *self.is_open.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(identity) = identity else { return Closing(None) };
        loop {
            match shields().get_or_insert_default().get_mut(&identity).map(Shielded::begins_closing) {
                Some(true) => return Closing(Some(identity)),
                Some(false) if Instant::now() < deadline => {}
                _ => return Closing(None),
            }
            thread::sleep(CLOSING_PAUSE);
        }
    }

    /// Takes that place unless somebody has it, in this process or another. Where nothing can be locked, nobody has.
    pub fn take(&self, place: Place) -> bool {
        let mut shields = shields();
        let shielded = self.identity.and_then(|identity| shields.get_or_insert_default().get_mut(&identity));
        shielded.is_none_or(|shielded| shielded.take(place))
    }

    /// Gives it up again.
    pub fn give(&self, place: Place) {
        let mut shields = shields();
        let shielded = self.identity.and_then(|identity| shields.get_or_insert_default().get_mut(&identity));
        if let Some(shielded) = shielded {
            shielded.give(place);
        }
    }

    /// The file's path, free of links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a log lies beside a database whose header says that it has none.
    pub fn has_strange_log(&self) -> bool {
        // In this order: who gives it one says so in the header first.
        let has_any = std::fs::metadata(beside(&self.path, "-wal")).is_ok_and(|found| found.len() > 0);
        let mut shields = shields();
        let shielded = self.identity.and_then(|identity| shields.get_or_insert_default().get_mut(&identity));
        has_any && shielded.and_then(|shielded| shielded.database.first()).is_some_and(|file| has_none(file))
    }

    /// What tells the file from others.
    pub fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Takes the locks, once a connection uses the write-ahead log: switching to it needs the file alone.
    pub fn raise(&self) {
        let Some(identity) = self.identity else { return };
        let mut shields = shields();
        let Some(shielded) = shields.get_or_insert_default().get_mut(&identity) else { return };
        let mut is_raised = self.is_raised.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *is_raised, true) {
            shielded.raised += 1;
        }
        shielded.hold_memory(&beside(&self.path, "-shm"));
        shielded.database.iter().for_each(|file| byte_lock::read(file, SHARED, true));
        if let Some(file) = shielded.memory.last() {
            byte_lock::read(file, CONNECTED, true);
        }
    }

    /// Removes the log and its memory if the first is empty and nobody else is connected, as SQLite does after its last connection.
    fn tidy(&self) {
        let Some(identity) = self.identity.filter(|&identity| !is_shared(identity)) else { return };
        let mut shields = shields();
        let Some(shielded) = shields.get_or_insert_default().get_mut(&identity) else { return };
        let (log, memory) = (beside(&self.path, "-wal"), beside(&self.path, "-shm"));
        let is_ours = shielded
            .memory
            .last()
            .and_then(|file| identity_of(file))
            .is_some_and(|ours| identity_at(&memory) == Some(ours));
        if shielded.stores == 1
            && is_ours
            && identity_at(&self.path) == Some(identity)
            && shielded.is_alone()
            && std::fs::metadata(&log).is_ok_and(|found| found.len() == 0)
        {
            let _ = std::fs::remove_file(log);
            let _ = std::fs::remove_file(memory);
        }
        // Another thread may be about to open the file.
        shielded.database.iter().for_each(|file| byte_lock::read(file, SHARED, true));
    }

    /// Gives the locks up: SQLite's last connection could not fold its log into the file under them. Not while somebody else in this process
    /// has the file open: who folds and removes the log then takes it away from him, whose own locks the program may have dropped by
    /// a `close`.
    pub fn lower(&self) {
        let Some(identity) = self.identity.filter(|&identity| !is_shared(identity)) else { return };
        let mut shields = shields();
        let mut is_raised = self.is_raised.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *is_raised, false) {
            return;
        }
        let Some(shielded) = shields.get_or_insert_default().get_mut(&identity) else { return };
        shielded.raised -= 1;
        if shielded.raised == 0 {
            shielded.database.iter().for_each(|file| byte_lock::read(file, SHARED, false));
            shielded.memory.iter().for_each(|file| byte_lock::read(file, CONNECTED, false));
        }
    }

    /// Closes the descriptors unless another store needs them. To be called after the store's last connection is closed.
    pub fn close(&self) {
        let Some(identity) = self.identity.filter(|_| self.is_let_go()) else { return };
        self.tidy();
        self.lower();
        let mut shields = shields();
        let table = shields.get_or_insert_default();
        if let Some(shielded) = table.get_mut(&identity) {
            let mut is_raised = self.is_raised.lock().unwrap_or_else(PoisonError::into_inner);
            shielded.raised -= usize::from(std::mem::replace(&mut *is_raised, false));
            shielded.stores -= 1;
            shielded.readers -= usize::from(self.use_ == Use::Reading);
            if shielded.stores == 0
                && let Some(Shielded { database, memory, .. }) = table.remove(&identity)
            {
                // What says that an owner lives is no hold on the file.
                database.iter().for_each(|file| byte_lock::read(file, (NEXT.0, 0), false));
                close(database.into_iter().chain(memory));
            }
        }
    }

    fn is_let_go(&self) -> bool {
        std::mem::replace(&mut self.is_open.lock().unwrap_or_else(PoisonError::into_inner), false)
    }
}

/// Lets the next one close the file.
pub struct Closing(Option<Identity>);

impl Drop for Closing {
    fn drop(&mut self) {
        let Some(identity) = self.0 else { return };
        if let Some(shielded) = shields().get_or_insert_default().get_mut(&identity) {
            shielded.ends_closing();
        }
    }
}

/// To be dropped after the store's connections.
impl Drop for Shield {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shielded {
    /// Takes the byte that says that somebody is connected before SQLite does.
    #[cfg(target_os = "linux")]
    fn enter_memory(&mut self, path: &Path) {
        if self.has_memory(identity(path)) {
            self.memory.last().into_iter().for_each(|file| byte_lock::read(file, CONNECTED, true));
            return;
        }
        let made = self.database.first().and_then(|database| made_like(database, path));
        if let Some(file) = made {
            clear_if_first(&file);
            byte_lock::read(&file, CONNECTED, true);
            self.memory.extend(own(file));
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn enter_memory(&mut self, _: &Path) {}

    fn begins_closing(&mut self) -> bool {
        #[cfg(target_os = "linux")]
        let is_free = self.database.first().is_none_or(|file| !byte_lock::is_taken(file, CLOSING));
        #[cfg(not(target_os = "linux"))]
        let is_free = true;
        is_free && !std::mem::replace(&mut self.is_closing, true)
    }

    fn place(&mut self, place: Place) -> (&mut bool, byte_lock::Bytes) {
        match place {
            Place::Writer => (&mut self.writes, WRITER),
            Place::Next => (&mut self.is_next, NEXT),
        }
    }

    fn take(&mut self, place: Place) -> bool {
        let (is_taken, bytes) = self.place(place);
        if *is_taken {
            return false;
        }
        #[cfg(target_os = "linux")]
        let is_free = self.database.first().is_none_or(|file| !byte_lock::is_taken(file, bytes));
        #[cfg(not(target_os = "linux"))]
        let is_free = bytes.1 > 0;
        *self.place(place).0 = is_free;
        is_free
    }

    fn give(&mut self, place: Place) {
        let (is_taken, bytes) = self.place(place);
        *is_taken = false;
        self.database.iter().for_each(|file| byte_lock::read(file, bytes, false));
    }

    fn ends_closing(&mut self) {
        self.is_closing = false;
        #[cfg(target_os = "linux")]
        self.database.iter().for_each(|file| byte_lock::read(file, CLOSING, false));
    }

    /// Has the file alone from here on, unless another process is connected.
    #[cfg(target_os = "linux")]
    fn is_alone(&self) -> bool {
        self.database.first().is_some_and(|file| byte_lock::write(file, SHARED).is_ok())
    }

    #[cfg(not(target_os = "linux"))]
    fn is_alone(&self) -> bool {
        false
    }

    /// Whether the file of that identity is held already: to open it once more would be one more descriptor to close.
    fn has_memory(&self, found: Option<Identity>) -> bool {
        found.is_some() && self.memory.last().and_then(|file| identity_of(file)) == found
    }

    fn hold_memory(&mut self, path: &Path) {
        let found = identity(path);
        if found.is_none() || self.has_memory(found) {
            return;
        }
        if let Ok(file) = open(path, false) {
            // SQLite may not have looked at it yet.
            clear_if_first(&file);
            self.memory.extend(own(file));
        }
    }
}

/// Does what SQLite does on being the first: what stands in the `-shm` file may be left from a crash, or by a database that was deleted, and
/// SQLite relies on it once it finds the byte taken.
#[cfg(target_os = "linux")]
fn clear_if_first(memory: &File) {
    if byte_lock::write(memory, CONNECTED).is_ok() {
        let _ = memory.set_len(SHM_BYTES_FIRST);
    }
}

#[cfg(not(target_os = "linux"))]
fn clear_if_first(_: &File) {}

#[cfg(not(target_os = "linux"))]
type Held = MutexGuard<'static, Option<Table>>;
#[cfg(target_os = "linux")]
type Held = (MutexGuard<'static, Option<Table>>, MutexGuard<'static, descriptors::Table>);

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// Keeps other threads out of the table until [`open_table`]: a child that is born meanwhile could never enter it.
pub fn close_table() {
    #[cfg(target_os = "linux")]
    let both = (shields(), descriptors::table());
    #[cfg(not(target_os = "linux"))]
    let both = shields();
    HELD.with(|held| *held.borrow_mut() = Some(both));
}

/// Lets them in again, in the parent and in the child.
pub fn open_table() {
    HELD.with(|held| held.borrow_mut().take());
}

/// Closes what a forked child has inherited. Closing does not unlock: the parent still holds it.
pub fn forked() {
    // Another thread of the parent may have held this at the fork; then nobody will ever let go of it here.
    let shields = SHIELDS.try_lock().ok().and_then(|mut shields| shields.take()).unwrap_or_default();
    let held =
        shields.into_values().flat_map(|shielded| shielded.database.into_iter().chain(shielded.memory));
    #[cfg(target_os = "linux")]
    descriptors::forked(held);
    #[cfg(not(target_os = "linux"))]
    held.for_each(|file| drop(file.inherited()));
}

/// Counts a store in for the file at `path`. A descriptor is made only if there is none: to find one too many would mean to
/// close it.
fn enlist(path: &Path, use_: Use) -> Option<Identity> {
    let mut shields = shields();
    let table = shields.get_or_insert_default();
    let readers = usize::from(use_ == Use::Reading);
    if let Some(identity) = identity(path)
        && let Some(shielded) = table.get_mut(&identity)
    {
        shielded.stores += 1;
        shielded.readers += readers;
        return Some(identity);
    }
    let file = open(path, use_ == Use::Writing).or_else(|_| File::open(path)).ok()?;
    let identity = identity_of(&file)?;
    let file = own(file).ok()?;
    let shielded = table.entry(identity).or_default();
    shielded.stores += 1;
    shielded.readers += readers;
    shielded.database.push(file);
    Some(identity)
}

fn shields() -> MutexGuard<'static, Option<Table>> {
    SHIELDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the lock of the owner `epoch`, which the kernel gives up when the process dies.
///
/// # Errors
/// The message for the user.
#[cfg(target_os = "linux")]
pub fn hold(identity: Option<Identity>, epoch: Epoch) -> Result<(), String> {
    let mut shields = shields();
    let shielded = identity.and_then(|identity| shields.get_or_insert_default().get_mut(&identity));
    let Some(shielded) = shielded else {
        return Err("the database's file could not be opened for locking".to_owned());
    };
    byte_lock::write(&shielded.database[0], (OWNERS + epoch.0, 1))
        .map_err(|error| format!("the database's file cannot be locked for runner {epoch}: {error}"))?;
    shielded.epochs.insert(epoch);
    Ok(())
}

/// Whether it is certain that no process holds the lock of the owner `epoch`.
#[cfg(target_os = "linux")]
pub fn is_free(identity: Option<Identity>, epoch: Epoch) -> bool {
    let mut shields = shields();
    let Some(shielded) = identity.and_then(|identity| shields.get_or_insert_default().get_mut(&identity))
    else {
        return false;
    };
    let Some(file) = shielded.database.first().filter(|_| !shielded.epochs.contains(&epoch)) else {
        return false;
    };
    byte_lock::is_free(file, (OWNERS + epoch.0, 1))
}

/// Gives the lock of the owner `epoch` up.
#[cfg(target_os = "linux")]
pub fn release(identity: Option<Identity>, epoch: Epoch) {
    let mut shields = shields();
    let shielded = identity.and_then(|identity| shields.get_or_insert_default().get_mut(&identity));
    let Some(shielded) = shielded else { return };
    if shielded.epochs.remove(&epoch)
        && let Some(file) = shielded.database.first()
    {
        byte_lock::read(file, (OWNERS + epoch.0, 1), false);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn who_closes_a_file_is_alone_at_that() {
        let path = std::env::temp_dir().join(format!("cloaca-shield-unit-{}", std::process::id()));
        let opened = || {
            let file =
                File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
            Shielded { database: vec![Anchored::new(file)], ..Shielded::default() }
        };
        // What is opened apart is to the kernel as if another process had it.
        let (mut here, mut elsewhere) = (opened(), opened());
        assert!(here.begins_closing());
        assert!(!here.begins_closing(), "another store of this process is at it");
        assert!(!elsewhere.begins_closing(), "another process is at it");
        here.ends_closing();
        assert!(elsewhere.begins_closing());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn who_has_written_stands_behind_who_is_next() {
        let path = std::env::temp_dir().join(format!("cloaca-turns-unit-{}", std::process::id()));
        let opened = || {
            let file =
                File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
            Shielded { database: vec![Anchored::new(file)], ..Shielded::default() }
        };
        let (mut here, mut elsewhere) = (opened(), opened());
        assert!(here.take(Place::Writer) && elsewhere.take(Place::Next));
        assert!(!here.take(Place::Next), "who writes is not next as long as somebody else is");
        here.give(Place::Writer);
        assert!(elsewhere.take(Place::Writer));
        elsewhere.give(Place::Next);
        assert!(here.take(Place::Next) && !here.take(Place::Writer));
        std::fs::remove_file(path).unwrap();
    }
}
