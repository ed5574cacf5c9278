//! The descriptors by which this process has databases open: which of them are SQLite's and ours, on which of them the locks
//! lie, and which have to stay open for the sake of somebody else.
//!
//! POSIX locks are the process's: any `close` of a file drops all that the process has on it, whoever took them. A second SQLite in the
//! process (Python's `sqlite3`, by `ATTACH` or from before a runner) has such locks, and would lose them, amidst a transaction too, to
//! each runner that shuts down. Hence both sides of a treaty: our locks belong to an open file of their own, so that no `close` of
//! others drops them and none of ours is taken for theirs, and what others may have locked isn't closed by us before they have gone.
//! Invariant: a file on which somebody else in this process has a descriptor is not closed here; and what a program has closed behind
//! our back (`os.closerange`), so that its next file got the number, is neither read, written, locked nor closed any more.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::stat::fstat;

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
    locks: HashMap<Identity, File>,
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

/// Notes that SQLite has opened a file.
///
/// # Errors
/// The system's, if the file cannot be opened once more for its locks: SQLite has to do without the file then. Half of its locks must not
/// lie elsewhere than the other half.
pub fn opened(descriptor: RawFd) -> io::Result<()> {
    let path = at(descriptor);
    // Where the system has no such folder, SQLite locks as it does without us, and always.
    let Ok(name) = fs::read_link(&path) else { return Ok(()) };
    if let Some(identity) = identity(&path) {
        table().opened.insert(descriptor, identity);
    }
    let name = name.as_os_str().as_encoded_bytes();
    if UNLOCKED.iter().any(|end| name.ends_with(end.as_bytes())) || !fs::metadata(&path)?.is_file() {
        return Ok(());
    }
    let Some(identity) = identity(&path) else { return Ok(()) };
    let mut table = table();
    if !table.locks.contains_key(&identity) {
        // An open file of its own: a lock that lay on SQLite's would go on in a forked child that has inherited that.
        let file = match table.taken_back(identity, libc::O_RDWR, Purpose::Locks) {
            Some(kept) => kept.into(),
            None => open(&path)?,
        };
        table.locks.insert(identity, file);
    }
    table.theirs.insert(descriptor, identity);
    Ok(())
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
        let has_lost = |file| identity_of(file) != Some(*identity);
        if table.locks.get(identity).is_some_and(has_lost) {
            table.robbed.insert(*identity);
        }
        table.robbed.contains(identity)
    })
}

/// A descriptor that SQLite has done with, and that is somebody else's.
pub fn forgotten(descriptor: RawFd) {
    if let Some((identity, Some(file))) = table().remove(descriptor) {
        let_go(file, identity);
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
            byte_lock::unlock(&file);
            table.parked.push(Parked { identity, descriptor: file.into(), purpose: Purpose::Locks });
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
    // None in a forked child, of what the parent had open: it locks anew, for itself.
    let file = match table.locks.entry(identity) {
        Entry::Occupied(found) => found.into_mut(),
        Entry::Vacant(place) => place.insert(open(&at(descriptor)).ok()?),
    };
    if !asks && i32::from(wanted.l_type) != libc::F_UNLCK && identity_of(file) != Some(identity) {
        table.robbed.insert(identity);
        return Some(Err(nix::errno::Errno::EBADF));
    }
    // The system wants it so for these commands.
    wanted.l_pid = 0;
    let done = if asks {
        fcntl(&*file, FcntlArg::F_OFD_GETLK(wanted))
    } else {
        fcntl(&*file, FcntlArg::F_OFD_SETLK(wanted))
    };
    Some(done.map(drop))
}

/// Notes a descriptor of ours.
pub fn own(file: &File) {
    if let Some(identity) = identity_of(file) {
        table().ours.insert(file.as_raw_fd(), identity);
    }
}

/// Closes descriptors of ours, with the locks on them, once they may be.
pub fn close(files: impl IntoIterator<Item = File>) {
    let mut table = table();
    for file in files {
        if let Some(identity) = table.ours.remove(&file.as_raw_fd()) {
            table.parked.push(Parked { identity, descriptor: file.into(), purpose: Purpose::Hold });
        }
    }
    table.sweep();
}

/// Whether somebody else in this process has that file open.
pub fn is_shared(identity: Identity) -> bool {
    table().foreign().contains(&identity)
}

/// Lets go of what a forked child has inherited: a lock lives as long as anybody has its file open. The child never touches the
/// connections that the rest belongs to.
pub fn forked() {
    // Another thread of the parent may have held this at the fork; then nobody will ever let go of it here.
    if let Ok(mut table) = TABLE.try_lock() {
        table.locks.clear();
        table.parked.clear();
        // Whoever held them has let go of them by now.
        table.ours.clear();
    }
}

impl Table {
    /// Takes one of SQLite's off the list, with where its locks lie if it is the last of its file.
    fn remove(&mut self, descriptor: RawFd) -> Option<(Identity, Option<File>)> {
        self.opened.remove(&descriptor);
        let identity = self.theirs.remove(&descriptor)?;
        let is_last = !self.theirs.values().any(|&known| known == identity);
        Some((identity, if is_last { self.locks.remove(&identity) } else { None }))
    }

    /// A kept descriptor of a file, opened for the same.
    fn taken_back(&mut self, identity: Identity, mode: i32, purpose: Purpose) -> Option<OwnedFd> {
        let is_alike = |parked: &Parked| {
            parked.identity == identity
                && parked.purpose == purpose
                && fcntl(&parked.descriptor, FcntlArg::F_GETFL)
                    .is_ok_and(|flags| flags & libc::O_ACCMODE == mode)
        };
        let place = self.parked.iter().position(is_alike)?;
        Some(self.parked.swap_remove(place).descriptor)
    }

    /// The files that others in this process have open. Where the system doesn't tell, none: everything is as it is without us.
    fn foreign(&self) -> Vec<Identity> {
        let is_known = |descriptor: RawFd| {
            self.theirs.contains_key(&descriptor)
                || self.ours.contains_key(&descriptor)
                || self.locks.values().any(|file| file.as_raw_fd() == descriptor)
                || self.parked.iter().any(|parked| parked.descriptor.as_raw_fd() == descriptor)
        };
        let descriptors = descriptors().unwrap_or_default().into_iter();
        let unknown = descriptors.filter(|&descriptor| !is_known(descriptor));
        unknown.filter_map(|descriptor| identity(&at(descriptor))).collect()
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

/// Whether a descriptor still is of a kind that has no name in the file system, such as an eventfd: those alone have no type there.
pub fn is_nameless(descriptor: impl AsFd) -> bool {
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
