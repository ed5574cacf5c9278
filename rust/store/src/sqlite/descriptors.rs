//! The descriptors by which this process has databases open: which of them are SQLite's and ours, on which of them the locks
//! lie, and which have to stay open for the sake of somebody else.
//!
//! POSIX locks are the process's: any `close` of a file drops all that the process has on it, whoever took them. A second SQLite in the
//! process (Python's `sqlite3`, by `ATTACH` or from before a runner) has such locks, and would lose them, amidst a transaction too, to
//! each runner that shuts down. Hence both sides of a treaty: our locks belong to an open file of their own, so that no `close` of
//! others drops them and none of ours is taken for theirs, and what others may have locked isn't closed by us before they have gone.
//! Invariant: a file on which somebody else in this process has a descriptor is not closed here; what a program has closed behind
//! our back (`os.closerange`), so that its next file got the number, is neither read, written, locked nor closed any more; and no two
//! of ours have one number.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::stat::fstat;
use nix::unistd::dup3;

use crate::sqlite::anchored::Anchored;
use crate::sqlite::byte_lock;
use crate::sqlite::fault::is_writable;
use crate::sqlite::open::{identity, identity_of};
use crate::sqlite::shield::Identity;

/// The files beside a database that nobody locks.
const UNLOCKED: [&str; 3] = ["-wal", "-journal", "-mj"];

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);

/// What the process has open.
#[derive(Default)]
pub struct Table {
    /// All of SQLite's descriptors, and of what file each was when it was opened.
    opened: HashMap<RawFd, Identity>,
    /// Files that have lost one of theirs.
    robbed: HashSet<Identity>,
    /// SQLite's descriptors of files that are locked.
    theirs: HashMap<RawFd, Identity>,
    /// Those of our own.
    ours: HashMap<RawFd, Identity>,
    /// Where SQLite's locks of a file lie, as long as it has the file open. What SQLite takes for the process's is one open file's.
    locks: HashMap<Identity, Anchored>,
    /// What has no file, such as what others are woken by.
    nameless: HashSet<RawFd>,
    /// Of a parent of this process, which never closes them.
    inherited: HashMap<RawFd, Identity>,
    /// Closed as far as anybody here is concerned.
    parked: Vec<Parked>,
}

struct Parked {
    identity: Identity,
    descriptor: OwnedFd,
    purpose: Purpose,
}

/// What a descriptor was for, and may be again. A lock on one of SQLite's would go on in a forked child that has inherited it; and what
/// still holds a lock on others' behalf must not be mixed up with SQLite's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// SQLite's own.
    Theirs,
    /// SQLite's locks lay on it.
    Locks,
    /// It holds the file, also while it is kept: others in this process may have lost their locks by a `close` of the program's.
    Hold,
}

/// A descriptor of the file at `path` that is kept for others, instead of one more: they may stay for as long as the program runs.
/// `flags` are those of `open`.
pub fn kept(path: &Path, flags: i32, purpose: Purpose) -> Option<OwnedFd> {
    let mut table = table();
    if table.parked.is_empty() || flags & (libc::O_EXCL | libc::O_TRUNC) != 0 {
        return None;
    }
    let identity = identity(path)?;
    table.taken_back(identity, flags & libc::O_ACCMODE, purpose)
}

/// Whether SQLite is to make no file at `path`: beside a database that this process may not write, it would keep those out who may.
pub fn is_kept_free(path: &Path) -> bool {
    let name = path.as_os_str().as_encoded_bytes();
    let database = ["-wal", "-shm"].iter().find_map(|end| name.strip_suffix(end.as_bytes()));
    let database = database.map(|name| Path::new(OsStr::from_bytes(name)));
    database.is_some_and(|database| database.exists() && !is_writable(database))
}

/// Notes that SQLite has opened a file, and says by which number it has it.
///
/// # Errors
/// The system's, if the file cannot be opened once more for its locks: SQLite has to do without the file then. Half of its locks must not
/// lie elsewhere than the other half.
pub fn opened(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    let mut table = table();
    let descriptor = table.settled(descriptor)?;
    let number = descriptor.as_raw_fd();
    let path = at(number);
    // Where the system has no such folder, SQLite locks as it does without us, and always.
    let Ok(name) = fs::read_link(&path) else { return Ok(descriptor) };
    let Some(identity) = identity(&path) else { return Ok(descriptor) };
    let name = name.as_os_str().as_encoded_bytes();
    let is_locked =
        !UNLOCKED.iter().any(|end| name.ends_with(end.as_bytes())) && fs::metadata(&path)?.is_file();
    if is_locked && !table.locks.contains_key(&identity) {
        // An open file of its own: a lock that lay on SQLite's would go on in a forked child that has inherited that.
        let file = match table.taken_back(identity, libc::O_RDWR, Purpose::Locks) {
            Some(kept) => kept,
            None => table.settled(open(&path)?.into())?,
        };
        table.locks.insert(identity, Anchored::new(file.into()));
    }
    table.opened.insert(number, identity);
    if is_locked {
        table.theirs.insert(number, identity);
    }
    Ok(descriptor)
}

/// Whether one of SQLite's descriptors, which is of the file `now`, still is of the one that it was opened for.
pub fn is_still(descriptor: RawFd, now: Option<Identity>) -> bool {
    let mut table = table();
    match table.opened.get(&descriptor) {
        Some(&known) if now != Some(known) => {
            table.robbed.insert(known);
            false
        }
        _ => true,
    }
}

/// Whether one of these files has lost a descriptor to somebody who closed what is not his own. Without its locks SQLite would look for
/// them for a long time.
pub fn is_robbed(files: &[Option<Identity>]) -> bool {
    let mut table = table();
    files.iter().flatten().any(|identity| {
        let has_lost = |file: &Anchored| identity_of(file) != Some(*identity);
        if table.locks.get(identity).is_some_and(has_lost) {
            table.robbed.insert(*identity);
        }
        table.robbed.contains(identity)
    })
}

/// A descriptor that SQLite has done with, and that is somebody else's.
pub fn forgotten(descriptor: RawFd) {
    if let Some((identity, Some(file))) = table().remove(descriptor) {
        let_go(file.into_file(), identity);
    }
}

/// Closes what still is of its file. What isn't is whoever's that has got the number.
fn let_go(descriptor: impl Into<OwnedFd>, identity: Identity) {
    let file = File::from(descriptor.into());
    if identity_of(&file) != Some(identity) {
        let _ = file.into_raw_fd();
    }
}

/// A descriptor that SQLite has done with: closed, or kept until it may be.
pub fn closed(descriptor: OwnedFd) {
    let mut table = table();
    if let Some((identity, file)) = table.remove(descriptor.as_raw_fd()) {
        if let Some(file) = file {
            // It may have to stay open, and must not hold anything then.
            if identity_of(&file) == Some(identity) {
                byte_lock::unlock(&file);
            }
            let descriptor = file.into_file().into();
            table.parked.push(Parked { identity, descriptor, purpose: Purpose::Locks });
        }
        table.parked.push(Parked { identity, descriptor, purpose: Purpose::Theirs });
        table.sweep();
    }
}

/// Takes, gives up or asks for a lock of SQLite's; none if the file is none that is known here.
///
/// # Errors
/// The system's, as for a POSIX lock.
pub fn lock(descriptor: RawFd, asks: bool, wanted: &mut libc::flock) -> Option<nix::Result<()>> {
    let mut table = table();
    let identity = *table.theirs.get(&descriptor)?;
    let file = table.locks.get(&identity)?;
    if identity_of(file) != Some(identity) {
        table.robbed.insert(identity);
        return Some(Err(nix::errno::Errno::EBADF));
    }
    // The system wants it so for these commands.
    wanted.l_pid = 0;
    let done = if asks {
        fcntl(&**file, FcntlArg::F_OFD_GETLK(wanted))
    } else {
        fcntl(&**file, FcntlArg::F_OFD_SETLK(wanted))
    };
    Some(done.map(drop))
}

/// Notes a descriptor of ours, whose locks stay until [`close`].
///
/// # Errors
/// The system's, if it has no further descriptor where one more is needed.
pub fn own(file: File) -> io::Result<Anchored> {
    let mut table = table();
    let file = File::from(table.settled(file.into())?);
    if let Some(identity) = identity_of(&file) {
        table.ours.insert(file.as_raw_fd(), identity);
    }
    Ok(Anchored::new(file))
}

/// Closes descriptors of ours, with the locks on them, once they may be.
pub fn close(files: impl IntoIterator<Item = Anchored>) {
    let mut table = table();
    for file in files {
        if let Some(identity) = table.ours.remove(&file.as_raw_fd()) {
            table.forgive(identity);
            let descriptor = file.into_file().into();
            table.parked.push(Parked { identity, descriptor, purpose: Purpose::Hold });
        }
    }
    table.sweep();
}

/// Makes what has no file, under a number that none of ours has, until [`close_nameless`].
///
/// # Errors
/// Those of `make`.
pub fn nameless<T: AsFd, E>(make: impl Fn() -> Result<T, E>) -> Result<T, E> {
    loop {
        let made = make()?;
        let mut table = table();
        let number = made.as_fd().as_raw_fd();
        if !table.has(number) {
            table.nameless.insert(number);
            return Ok(made);
        }
        // So that the next one gets another number.
        std::mem::forget(made);
    }
}

/// Closes what has no file, if it still is what was made: its number may be another's by now.
pub fn close_nameless<T: AsFd>(made: T) {
    table().nameless.remove(&made.as_fd().as_raw_fd());
    if !is_nameless(&made) {
        std::mem::forget(made);
    }
}

/// What has no file, if it still is what was made.
pub fn still<T: AsFd>(made: Option<&T>) -> Option<&T> {
    made.filter(|made| is_nameless(made))
}

/// Whether somebody else in this process has that file open.
pub fn is_shared(identity: Identity) -> bool {
    table().foreign().contains(&identity)
}

/// Lets go of what a forked child has inherited, with these of ours: a lock lives as long as anybody has its file open. The child never
/// touches the connections that the rest belongs to.
pub fn forked(ours: impl IntoIterator<Item = Anchored>) {
    // Another thread of the parent may have held this at the fork; then nobody will ever let go of it here.
    let Ok(mut table) = TABLE.try_lock() else { return };
    let Table { opened, robbed, theirs, ours: owned, locks, parked, nameless, inherited } = &mut *table;
    for file in ours {
        if let Some(identity) = owned.remove(&file.as_raw_fd()) {
            let_go(file.inherited(), identity);
        }
    }
    locks.drain().for_each(|(identity, file)| let_go(file.inherited(), identity));
    parked.drain(..).for_each(|parked| let_go(parked.descriptor, parked.identity));
    owned.clear();
    inherited.extend(opened.drain().chain(theirs.drain()));
    robbed.clear();
    nameless.clear();
}

impl Table {
    /// Whether one of ours has that number, or had it when the program closed it: then it is its owner's to close.
    fn has(&self, number: RawFd) -> bool {
        self.opened.contains_key(&number)
            || self.theirs.contains_key(&number)
            || self.ours.contains_key(&number)
            || self.nameless.contains(&number)
            || self.locks.values().any(|file| file.as_raw_fd() == number)
            || self.parked.iter().any(|parked| parked.descriptor.as_raw_fd() == number)
    }

    /// The same under a number that none of ours has. Whoever had it stays its owner, and closes nothing.
    fn settled(&self, mut descriptor: OwnedFd) -> io::Result<OwnedFd> {
        while self.has(descriptor.as_raw_fd()) {
            let other = descriptor.try_clone()?;
            dup3(File::open("/dev/null")?, &mut descriptor, OFlag::O_CLOEXEC)?;
            let _ = descriptor.into_raw_fd();
            descriptor = other;
        }
        Ok(descriptor)
    }

    /// Takes one of SQLite's off the list, with where its locks lie if it is the last of its file.
    fn remove(&mut self, descriptor: RawFd) -> Option<(Identity, Option<Anchored>)> {
        let opened = self.opened.remove(&descriptor);
        let theirs = self.theirs.remove(&descriptor);
        self.forgive(theirs.or(opened)?);
        let identity = theirs?;
        let is_last = !self.theirs.values().any(|&known| known == identity);
        Some((identity, if is_last { self.locks.remove(&identity) } else { None }))
    }

    /// A file that was robbed may be opened again once nothing is left of what it had.
    fn forgive(&mut self, identity: Identity) {
        let mut left = self.opened.values().chain(self.theirs.values()).chain(self.ours.values());
        if !left.any(|&known| known == identity) {
            self.robbed.remove(&identity);
        }
    }

    /// A kept descriptor of a file, opened for the same.
    fn taken_back(&mut self, identity: Identity, mode: i32, purpose: Purpose) -> Option<OwnedFd> {
        let is_alike = |parked: &Parked| {
            parked.identity == identity
                && parked.purpose == purpose
                && fstat(&parked.descriptor).is_ok_and(|found| (found.st_dev, found.st_ino) == identity)
                && fcntl(&parked.descriptor, FcntlArg::F_GETFL)
                    .is_ok_and(|flags| flags & libc::O_ACCMODE == mode)
        };
        let place = self.parked.iter().position(is_alike)?;
        Some(self.parked.swap_remove(place).descriptor)
    }

    /// The files that others in this process have open. Where the system doesn't tell, none: everything is as it is without us.
    fn foreign(&self) -> Vec<Identity> {
        let by_number = [&self.opened, &self.theirs, &self.ours, &self.inherited].into_iter().flatten();
        let mut known: HashMap<RawFd, Identity> =
            by_number.map(|(&number, &identity)| (number, identity)).collect();
        known.extend(self.locks.iter().map(|(&identity, file)| (file.as_raw_fd(), identity)));
        known.extend(self.parked.iter().map(|parked| (parked.descriptor.as_raw_fd(), parked.identity)));
        let descriptors = descriptors().unwrap_or_default().into_iter();
        let found = descriptors.filter_map(|number| Some((number, identity(&at(number))?)));
        found
            .filter(|(number, identity)| known.get(number) != Some(identity))
            .map(|(_, identity)| identity)
            .collect()
    }

    /// Closes what nobody else in this process has open any more.
    fn sweep(&mut self) {
        if self.parked.is_empty() {
            return;
        }
        let foreign = self.foreign();
        let done = self.parked.extract_if(.., |parked| !foreign.contains(&parked.identity));
        done.for_each(|parked| let_go(parked.descriptor, parked.identity));
    }
}

/// Whether a descriptor is of a kind that has no name in the file system, such as an eventfd: those alone have no type there.
fn is_nameless(descriptor: impl AsFd) -> bool {
    fstat(descriptor).is_ok_and(|about| about.st_mode & libc::S_IFMT == 0)
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path).or_else(|_| File::open(path))
}

/// All that this process has open.
fn descriptors() -> io::Result<Vec<RawFd>> {
    let found = fs::read_dir("/proc/self/fd")?;
    Ok(found.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn at(descriptor: RawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{descriptor}"))
}

/// The table itself, to keep other threads out of it over a fork.
pub fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}
