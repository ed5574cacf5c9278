//! Locks of ranges of a file that belong to an open file and not to the process (`F_OFD_SETLK`, fcntl(2)).
//! Where the system has none, nothing is locked: SQLite's own locks are what there is then.

use std::fs::File;

#[cfg(target_os = "linux")]
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};

/// Where a range begins, and how many bytes it has; 0 are all that follow.
pub type Bytes = (i64, i64);

/// Takes or gives up a read lock. Best effort: without it SQLite's own lock still stands, until somebody closes the file.
#[cfg(target_os = "linux")]
pub fn read(file: &File, bytes: Bytes, holds: bool) {
    let _ = set(file, if holds { libc::F_RDLCK } else { libc::F_UNLCK }, bytes);
}

#[cfg(not(target_os = "linux"))]
pub fn read(_: &File, _: Bytes, _: bool) {}

/// Takes a write lock, unless somebody else has a lock there.
///
/// # Errors
/// The system's.
#[cfg(target_os = "linux")]
pub fn write(file: &File, bytes: Bytes) -> nix::Result<()> {
    set(file, libc::F_WRLCK, bytes)
}

/// Takes a write lock, and whether it could not as somebody else has one there. Where nothing can be locked, nobody has.
#[cfg(target_os = "linux")]
pub fn is_taken(file: &File, bytes: Bytes) -> bool {
    matches!(write(file, bytes), Err(Errno::EAGAIN | Errno::EACCES))
}

/// Gives up all that lies on an open file.
#[cfg(target_os = "linux")]
pub fn unlock(file: &File) {
    let _ = set(file, libc::F_UNLCK, (0, 0));
}

/// Whether it is certain that nobody else has a lock there. Locks of one open file don't show to itself.
#[cfg(target_os = "linux")]
pub fn is_free(file: &File, bytes: Bytes) -> bool {
    let mut asked = range(libc::F_WRLCK, bytes);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut asked)).is_ok() && i32::from(asked.l_type) == libc::F_UNLCK
}

#[cfg(target_os = "linux")]
fn set(file: &File, kind: i32, bytes: Bytes) -> nix::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&range(kind, bytes))).map(drop)
}

#[cfg(target_os = "linux")]
fn range(kind: i32, (start, length): Bytes) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}
