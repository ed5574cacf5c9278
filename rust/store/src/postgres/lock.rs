//! How owners on one machine know of each other. Invariant: an owner's lock is held before its row is committed, and only proof of death is death: a lock that
//! cannot be asked for proves nothing, and then the beats decide.
//!
//! The lock is one on a small file in a folder of this user's. Two processes ask for the same one if they share the boot of the machine and the folder, by its
//! device and inode: two containers of one machine share the first and not the second. A service has another folder than a login of the same user, and each
//! looks into the other's.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
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
    /// Where other processes of this user may have theirs.
    others: Vec<PathBuf>,
}

impl Locks {
    /// Of the store that is known by that number.
    pub fn of(store: i64) -> Self {
        let mut candidates = candidates().into_iter();
        let folder = candidates.next().and_then(made);
        Self { store: format!("{store:x}"), folder, others: candidates.collect() }
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
        let Some(folder) = home.and_then(|home| self.folder_of(home)) else { return Life::Unknown };
        let path = self.file_in(folder, epoch);
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
        Some(self.file_in(&self.folder.as_ref()?.0, epoch))
    }

    fn file_in(&self, folder: &Path, epoch: Epoch) -> PathBuf {
        folder.join(format!("{}-{epoch}", self.store))
    }

    /// The folder that is this home, if it can be seen from here.
    fn folder_of(&self, home: &Home) -> Option<&Path> {
        let (path, ours) = self.folder.as_ref()?;
        if ours == home {
            return Some(path);
        }
        let is_it = |path: &&PathBuf| found(path).as_ref() == Some(home);
        self.others.iter().filter(|_| ours.boot == home.boot).find(is_it).map(PathBuf::as_path)
    }
}

/// The folders that may be this user's on this machine, the one that this process is to have first; none where the system has no such thing.
#[cfg(target_os = "linux")]
fn candidates() -> Vec<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(us) = fs::metadata("/proc/self") else { return Vec::new() };
    let told = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()).map(PathBuf::from);
    let temporary = std::env::temp_dir().join(format!("cloaca-{}", us.uid()));
    let login = PathBuf::from(format!("/run/user/{}", us.uid()));
    match told {
        Some(told) => vec![told.join("cloaca"), login.join("cloaca"), temporary],
        None => vec![temporary, login.join("cloaca")],
    }
}

#[cfg(not(target_os = "linux"))]
fn candidates() -> Vec<PathBuf> {
    Vec::new()
}

/// The folder, made if it is not there.
fn made(path: PathBuf) -> Option<(PathBuf, Home)> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        let _ = fs::DirBuilder::new().mode(0o700).create(&path);
    }
    let home = found(&path)?;
    Some((path, home))
}

/// What is found there, if it is ours alone.
#[cfg(target_os = "linux")]
fn found(path: &Path) -> Option<Home> {
    use std::os::unix::fs::MetadataExt as _;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    let user = fs::metadata("/proc/self").ok()?.uid();
    let found = fs::symlink_metadata(path).ok()?;
    // What another user can write to proves nothing.
    if !found.is_dir() || found.uid() != user || found.mode() & 0o022 != 0 {
        return None;
    }
    Some(Home { boot, place: format!("{}:{}", found.dev(), found.ino()) })
}

#[cfg(not(target_os = "linux"))]
fn found(_: &Path) -> Option<Home> {
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_lock_in_another_folder_of_the_same_user_is_asked_for_where_it_can_be_seen() {
        let parent = std::env::temp_dir().join(format!("cloaca-locks-{}", std::process::id()));
        fs::create_dir(&parent).unwrap();
        let [service, login] = ["service", "login"].map(|name| parent.join(name));
        let locks = |own: &PathBuf, others: Vec<PathBuf>| Locks {
            store: "of this test".to_owned(),
            folder: made(own.clone()),
            others,
        };
        let (one, seeing) = (locks(&service, Vec::new()), locks(&login, vec![service.clone()]));
        let blind = locks(&login, vec![login.clone()]);
        let home = one.hold(Epoch(1)).unwrap();
        for (asking, held) in [(&one, Life::Held), (&seeing, Life::Held), (&blind, Life::Unknown)] {
            assert_eq!(asking.life(Epoch(1), Some(home)), held);
        }
        let elsewhere = Home { boot: "another".to_owned(), ..home.clone() };
        assert_eq!(seeing.life(Epoch(1), Some(&elsewhere)), Life::Unknown);
        held().as_mut().unwrap().remove(&("of this test".to_owned(), Epoch(1)));
        assert_eq!(seeing.life(Epoch(1), Some(home)), Life::Free);
        fs::remove_dir_all(&parent).unwrap();
    }
}
