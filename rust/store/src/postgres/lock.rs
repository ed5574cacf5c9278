//! How owners on one machine know of each other. Invariant: an owner's lock is held before its row is committed, and only proof of death is death: a lock that
//! cannot be asked for proves nothing, and then the beats decide.
//!
//! The lock is one on a small file in a folder of this user's. Two processes ask for the same one if they share the boot of the machine and the folder, by its
//! device and inode: two containers of one machine share the first and not the second.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cloaca_core::key::Epoch;

/// Every lock that this process holds. A forked child has to close its copies, or they would outlive the parent.
static HELD: Mutex<Option<HashMap<(String, Epoch), File>>> = Mutex::new(None);

/// Where an owner runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The boot of its machine.
    pub boot: String,
    /// Device and inode of its folder.
    pub place: String,
}

/// What the lock of an owner says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is held: it lives.
    Held,
    /// It is free: it is dead.
    Free,
    /// It cannot be asked for.
    Unknown,
}

/// The locks of the owners of one store.
pub struct Locks {
    /// Of this store, among all whose owners have locks in the folder.
    store: String,
    folder: Option<(PathBuf, Home)>,
}

impl Locks {
    /// Of the store that is known by that number.
    pub fn of(store: i64) -> Self {
        Self { store: format!("{store:x}"), folder: folder() }
    }

    /// Takes the lock of `epoch` until [`Locks::release`] or the end of the process; where it is held, or none if it cannot be.
    pub fn hold(&self, epoch: Epoch) -> Option<&Home> {
        let (_, home) = self.folder.as_ref()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path(epoch)?)
            .ok()?;
        file.try_lock().ok()?;
        held().get_or_insert_default().insert((self.store.clone(), epoch), file);
        Some(home)
    }

    /// What the lock of `epoch` says, which runs at `home`.
    pub fn life(&self, epoch: Epoch, home: Option<&Home>) -> Life {
        let Some((_, ours)) = self.folder.as_ref().filter(|(_, ours)| home == Some(ours)) else {
            return Life::Unknown;
        };
        debug_assert!(!ours.boot.is_empty());
        let Some(path) = self.path(epoch) else { return Life::Unknown };
        // Somebody may have removed it: that proves nothing.
        let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else { return Life::Unknown };
        match file.try_lock() {
            Ok(()) => Life::Free,
            Err(TryLockError::WouldBlock) => Life::Held,
            Err(TryLockError::Error(_)) => Life::Unknown,
        }
    }

    /// Gives the lock of `epoch` up.
    pub fn release(&self, epoch: Epoch) {
        if let Some(locks) = held().as_mut() {
            locks.remove(&(self.store.clone(), epoch));
        }
        self.forget(epoch);
    }

    /// Removes the file of one that is off the list.
    pub fn forget(&self, epoch: Epoch) {
        if let Some(path) = self.path(epoch) {
            // Best effort: a file that stays behind is empty.
            let _ = fs::remove_file(path);
        }
    }

    fn path(&self, epoch: Epoch) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.0.join(format!("{}-{epoch}", self.store)))
    }
}

/// The folder of this user on this machine; none where the system has no such thing.
#[cfg(target_os = "linux")]
fn folder() -> Option<(PathBuf, Home)> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    let user = fs::metadata("/proc/self").ok()?.uid();
    let path = match std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()) {
        Some(runtime) => PathBuf::from(runtime).join("cloaca"),
        None => std::env::temp_dir().join(format!("cloaca-{user}")),
    };
    let _ = fs::DirBuilder::new().mode(0o700).create(&path);
    let found = fs::symlink_metadata(&path).ok()?;
    // What another user can write to proves nothing.
    if !found.is_dir() || found.uid() != user || found.mode() & 0o022 != 0 {
        return None;
    }
    Some((path, Home { boot, place: format!("{}:{}", found.dev(), found.ino()) }))
}

#[cfg(not(target_os = "linux"))]
fn folder() -> Option<(PathBuf, Home)> {
    None
}

fn held() -> MutexGuard<'static, Option<HashMap<(String, Epoch), File>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes the locks that a forked child has inherited. Closing does not unlock: the parent still holds them.
pub fn forked() {
    // Another thread of the parent may have held this at the fork; then nobody will ever let go of it here.
    if let Ok(mut locks) = HELD.try_lock() {
        *locks = None;
    }
}
