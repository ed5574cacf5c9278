//! How owners on one file know of each other: each holds an operating-system lock on a small file of its own beside the
//! database, which the kernel releases on any death. Invariant: a lock is held before its owner's row is committed, so that
//! a row whose lock is free belongs to a dead owner.
//!
//! The locks are those of `flock(2)`: they belong to an open file, so that two runners of one process exclude each other,
//! and they are apart from SQLite's own, which belong to the process. The same files carry wake-ups: whoever has news for an
//! owner makes its file longer by a byte, and a look at its length is all that it takes to notice.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Every lock that this process holds. A forked child has to close its copies, or they would outlive the parent.
static HELD: Mutex<Vec<(PathBuf, File)>> = Mutex::new(Vec::new());

/// The locks of the owners on one file; of a store in memory, none.
pub struct Locks {
    database: Option<PathBuf>,
    /// Own epochs with the length at which their file was last seen.
    seen: Mutex<HashMap<i64, u64>>,
}

impl Drop for Locks {
    fn drop(&mut self) {
        let mine: Vec<i64> = self.seen().keys().copied().collect();
        mine.into_iter().for_each(|epoch| self.release(epoch));
    }
}

impl Locks {
    /// Locks beside the database at `path`.
    pub fn beside(path: &Path) -> Self {
        Self { database: Some(path.to_owned()), seen: Mutex::default() }
    }

    /// For a store that only one owner can reach.
    pub fn none() -> Self {
        Self { database: None, seen: Mutex::default() }
    }

    /// Takes the lock of `epoch`, which is held until [`Locks::release`] or the end of the process.
    ///
    /// # Errors
    /// The message for the user, if the file cannot be made or locked.
    pub fn hold(&self, epoch: i64) -> Result<(), String> {
        let Some(path) = self.path(epoch) else { return Ok(()) };
        let told = |error: &dyn std::fmt::Display| format!("cannot lock '{}': {error}", path.display());
        let file = open(&path, true).map_err(|error| told(&error))?;
        file.try_lock().map_err(|error| told(&error))?;
        held().push((path, file));
        self.seen().insert(epoch, 0);
        Ok(())
    }

    /// Whether nobody holds the lock of `epoch`.
    pub fn is_free(&self, epoch: i64) -> bool {
        let Some(path) = self.path(epoch) else { return true };
        let Ok(file) = open(&path, false) else { return true };
        let is_free = file.try_lock().is_ok();
        if is_free {
            // Best effort: a file that stays behind is a few bytes that say nothing.
            let _ = fs::remove_file(&path);
        }
        is_free
    }

    /// Gives the lock of `epoch` up.
    pub fn release(&self, epoch: i64) {
        let Some(path) = self.path(epoch) else { return };
        held().retain(|(held, _)| *held != path);
        self.seen().remove(&epoch);
        let _ = fs::remove_file(&path);
    }

    /// Tells `epoch` that there is news for it.
    pub fn wake(&self, epoch: i64) {
        let Some(path) = self.path(epoch) else { return };
        if let Ok(mut file) = OpenOptions::new().append(true).open(path) {
            let _ = file.write_all(b".");
        }
    }

    /// Whether there has been news for `epoch` since this was last asked.
    pub fn is_woken(&self, epoch: i64) -> bool {
        let Some(path) = self.path(epoch) else { return false };
        let length = fs::metadata(path).map_or(0, |metadata| metadata.len());
        self.seen().insert(epoch, length).is_some_and(|before| before != length)
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<i64, u64>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, epoch: i64) -> Option<PathBuf> {
        let mut path = self.database.clone()?.into_os_string();
        path.push(format!("-owner-{epoch}"));
        Some(path.into())
    }
}

/// Closes the locks that a forked child has inherited. Closing does not unlock: the parent still holds them.
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
