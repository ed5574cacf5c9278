//! How owners on one file know of each other. Invariant: an owner's lock is held before its row is committed, and only proof of
//! death is death: a lock that cannot be asked for counts as held.
//!
//! On Linux the lock is one byte of the database itself, far behind its end, by the epoch: see [`shield`]. Nobody can remove it, it needs no
//! further descriptor, and all paths to the file mean the same one. Elsewhere each owner locks a small file beside the database.
//! News travel by such a small file on every system: whoever has some makes it longer by a byte. One that is missing is a lost
//! hint and nothing else.
//!
//! [`shield`]: crate::sqlite::shield

use cloaca_core::key::Epoch;
use cloaca_core::port::{Ear, OwnerRow};
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sqlite::open::beside;
use crate::sqlite::shield::Identity;

/// The locks of the owners on one file; of a store in memory, none.
pub struct Locks {
    database: Option<PathBuf>,
    identity: Option<Identity>,
    /// Own epochs with the length at which their file was last seen.
    seen: Mutex<HashMap<Epoch, u64>>,
}

impl Locks {
    /// Locks of the database at `path`, which is free of links, and of that identity.
    pub fn of(path: &Path, identity: Option<Identity>) -> Self {
        Self { database: Some(path.to_owned()), identity, seen: Mutex::default() }
    }

    /// For a store that only one owner can reach.
    pub fn none() -> Self {
        Self { database: None, identity: None, seen: Mutex::default() }
    }

    /// Takes the lock of `epoch`, which is held until [`Locks::release`] or the end of the process.
    ///
    /// # Errors
    /// The message for the user, if it cannot be locked.
    pub fn hold(&self, epoch: Epoch) -> Result<(), String> {
        let Some(path) = self.hint(epoch) else { return Ok(()) };
        kernel::hold(self.identity, &path, epoch)?;
        // Best effort on Linux, where it only carries news.
        let made = open_hint(&path, true);
        let length = made.and_then(|file| file.metadata()).map_or(0, |metadata| metadata.len());
        self.seen().insert(epoch, length);
        Ok(())
    }

    /// Whether it is certain that nobody holds the lock of `epoch`.
    pub fn is_free(&self, epoch: Epoch) -> bool {
        let Some(path) = self.hint(epoch) else { return true };
        let is_free = kernel::is_free(self.identity, &path, epoch);
        if is_free {
            // Best effort: a file that stays behind is a few bytes that say nothing.
            let _ = fs::remove_file(&path);
        }
        is_free
    }

    /// These with whether they died without leaving.
    pub fn with_dead(&self, mut owners: Vec<OwnerRow>) -> Vec<OwnerRow> {
        for owner in &mut owners {
            owner.is_dead = owner.left_at.is_none() && self.looks_free(owner.epoch);
        }
        owners
    }

    /// The same for who only looks, and leaves no trace.
    pub fn looks_free(&self, epoch: Epoch) -> bool {
        self.hint(epoch).is_some_and(|path| kernel::is_free(self.identity, &path, epoch))
    }

    /// Takes the file away by which `epoch` hears of news, where it is nothing else.
    pub fn withdraw(&self, epoch: Epoch) {
        if cfg!(target_os = "linux")
            && let Some(path) = self.hint(epoch)
        {
            self.seen().remove(&epoch);
            let _ = fs::remove_file(path);
        }
    }

    /// Gives the lock of `epoch` up.
    pub fn release(&self, epoch: Epoch) {
        let Some(path) = self.hint(epoch) else { return };
        kernel::release(self.identity, &path, epoch);
        self.seen().remove(&epoch);
        let _ = fs::remove_file(&path);
    }

    /// Gives the locks of all own epochs up.
    pub fn release_all(&self) {
        let mine: Vec<Epoch> = self.seen().keys().copied().collect();
        mine.into_iter().for_each(|epoch| self.release(epoch));
    }

    /// Tells `epoch` that there is news for it.
    pub fn wake(&self, epoch: Epoch) {
        let Some(path) = self.hint(epoch) else { return };
        if let Ok(mut file) = open_hint(&path, false) {
            let _ = file.write_all(b".");
        }
    }

    /// Whether there has been news for `epoch` since this was last asked.
    pub fn is_woken(&self, epoch: Epoch) -> bool {
        let Some(path) = self.hint(epoch) else { return false };
        let mut seen = self.seen();
        let Some(before) = seen.get_mut(&epoch) else { return false };
        let length = length_of(&path).unwrap_or_else(|| {
            // Somebody has removed it, with what it told. Best effort, as in the first place.
            let _ = open_hint(&path, true);
            *before = u64::MAX;
            0
        });
        std::mem::replace(before, length) != length
    }

    /// Hears of news for `epoch` at once, where that can be.
    pub fn ear(&self, epoch: Epoch) -> Option<Arc<dyn Ear>> {
        #[cfg(target_os = "linux")]
        return crate::sqlite::ear::at(&self.hint(epoch)?);
        #[cfg(not(target_os = "linux"))]
        return None;
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<Epoch, u64>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hint(&self, epoch: Epoch) -> Option<PathBuf> {
        Some(hint(self.database.as_ref()?, epoch))
    }
}

/// None of a file that is not there.
fn length_of(path: &Path) -> Option<u64> {
    match fs::metadata(path) {
        Ok(metadata) => Some(metadata.len()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(_) => Some(0),
    }
}

/// Never waits, whatever somebody put in the file's place.
fn open_hint(path: &Path, create: bool) -> std::io::Result<fs::File> {
    let mut options = OpenOptions::new();
    options.append(true).create(create);
    #[cfg(target_os = "linux")]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, nix::libc::O_NONBLOCK);
    options.open(path)
}

/// The small file of `epoch`.
pub fn hint(database: &Path, epoch: Epoch) -> PathBuf {
    beside(database, &format!("-owner-{epoch}"))
}

/// Whether release 0.1.0 holds `epoch`: it knows others only by a lock on the small file, which this version never takes on Linux.
pub fn is_held_by_first_release(database: &Path, epoch: Epoch) -> bool {
    let Ok(file) = fs::File::open(hint(database, epoch)) else { return false };
    matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock))
}

/// The process that holds such a lock, as the system tells; none if it doesn't, or that process is not to be seen from here.
pub fn holder(hint: &Path) -> Option<u32> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;

        let inode = fs::metadata(hint).ok()?.ino().to_string();
        // See proc(5): number, kind, manner, access, process, device and inode, start, end.
        let locks = fs::read_to_string("/proc/locks").ok()?;
        let told = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let held = |parts: &Vec<&str>| {
            parts.get(1) == Some(&"FLOCK")
                && parts.get(5).is_some_and(|at| at.rsplit(':').next() == Some(&inode))
        };
        told.filter(held).find_map(|parts| parts.get(4)?.parse().ok()).filter(|&process| process > 0)
    }
    #[cfg(not(unix))]
    {
        let _ = hint;
        None
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    use cloaca_core::key::Epoch;
    use std::path::Path;

    use crate::sqlite::shield::{self, Identity};

    pub fn hold(identity: Option<Identity>, _: &Path, epoch: Epoch) -> Result<(), String> {
        shield::hold(identity, epoch)
    }

    pub fn is_free(identity: Option<Identity>, _: &Path, epoch: Epoch) -> bool {
        shield::is_free(identity, epoch)
    }

    pub fn release(identity: Option<Identity>, _: &Path, epoch: Epoch) {
        shield::release(identity, epoch);
    }

    pub fn forked() {}
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use std::fs::{File, OpenOptions};
    use std::io::ErrorKind;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use crate::sqlite::shield::Identity;

    /// Every lock that this process holds. A forked child has to close its copies, or they would outlive the parent.
    static HELD: Mutex<Vec<(PathBuf, File)>> = Mutex::new(Vec::new());

    pub fn hold(_: Option<Identity>, path: &Path, _: Epoch) -> Result<(), String> {
        let told = |error: &dyn std::fmt::Display| format!("cannot lock '{}': {error}", path.display());
        let file = open(path, true).map_err(|error| told(&error))?;
        file.try_lock().map_err(|error| told(&error))?;
        held().push((path.to_owned(), file));
        Ok(())
    }

    pub fn is_free(_: Option<Identity>, path: &Path, _: Epoch) -> bool {
        match open(path, false) {
            Ok(file) => file.try_lock().is_ok(),
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    pub fn release(_: Option<Identity>, path: &Path, _: Epoch) {
        held().retain(|(held, _)| held != path);
    }

    pub fn forked() {
        // Another thread of the parent may have held this at the fork; then nobody will ever let go of it here.
        if let Ok(mut held) = HELD.try_lock() {
            held.clear();
        }
    }

    fn held() -> MutexGuard<'static, Vec<(PathBuf, File)>> {
        HELD.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(path: &Path, create: bool) -> std::io::Result<File> {
        OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)
    }
}

/// Closes the locks that a forked child has inherited. Closing does not unlock: the parent still holds them.
pub fn forked() {
    kernel::forked();
}
