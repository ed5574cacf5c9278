//! The files that a process holds beside SQLite: how they are opened, made, told from those of others and closed.

use std::fs::File;
use std::path::Path;

use crate::sqlite::anchored::Anchored;
#[cfg(target_os = "linux")]
use crate::sqlite::descriptors;
use crate::sqlite::shield::Identity;

/// Where SQLite's header says by which versions of its format a database is written and read; 2 is with a write-ahead log.
#[cfg(unix)]
const VERSIONS_AT: u64 = 18;

/// Whether the file is open for writing.
#[cfg(target_os = "linux")]
pub fn is_writable(file: &File) -> bool {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(file, FcntlArg::F_GETFL).is_ok_and(|flags| OFlag::from_bits_truncate(flags).contains(OFlag::O_RDWR))
}

#[cfg(not(target_os = "linux"))]
pub fn is_writable(_: &File) -> bool {
    false
}

/// Whether the database's header says that its changes go into a write-ahead log.
pub fn has_log(database: &File) -> bool {
    versions(database) == Some([2, 2])
}

/// Whether it says that they do not.
pub fn has_none(database: &File) -> bool {
    versions(database) == Some([1, 1])
}

#[cfg(unix)]
fn versions(database: &File) -> Option<[u8; 2]> {
    use std::os::unix::fs::FileExt as _;
    let mut versions = [0; 2];
    database.read_exact_at(&mut versions, VERSIONS_AT).ok().map(|()| versions)
}

#[cfg(not(unix))]
fn versions(_: &File) -> Option<[u8; 2]> {
    None
}

/// Opens a file for reading and writing.
///
/// # Errors
/// The system's.
pub fn open(path: &Path, create: bool) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(create).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // SQLite's own mode for a new database.
        options.mode(0o644);
    }
    #[cfg(target_os = "linux")]
    if let Some(kept) = descriptors::kept(path, nix::libc::O_RDWR, descriptors::Purpose::Hold) {
        return Ok(kept.into());
    }
    options.open(path)
}

/// Tells the descriptor from those of others.
///
/// # Errors
/// The system's.
pub fn own(file: File) -> std::io::Result<Anchored> {
    #[cfg(target_os = "linux")]
    return descriptors::own(file);
    #[cfg(not(target_os = "linux"))]
    return Ok(Anchored::new(file));
}

/// Whether somebody else in this process has that file open, as far as the system tells.
pub fn is_shared(identity: Identity) -> bool {
    #[cfg(target_os = "linux")]
    return descriptors::is_shared(identity);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = identity;
        false
    }
}

/// Closes descriptors of ours, once they may be.
pub fn close(files: impl Iterator<Item = Anchored>) {
    #[cfg(target_os = "linux")]
    descriptors::close(files);
    #[cfg(not(target_os = "linux"))]
    files.for_each(drop);
}

/// The file at `path` beside a database, made with the rights that SQLite would give it if there is none; none if that takes
/// more than a mode.
#[cfg(target_os = "linux")]
pub fn made_like(database: &File, path: &Path) -> Option<File> {
    use std::os::unix::fs::MetadataExt as _;
    if let Ok(file) = open(path, false) {
        return Some(file);
    }
    let like = database.metadata().ok()?;
    let file = File::options().read(true).write(true).create_new(true).open(path).ok()?;
    let made = file.metadata().ok()?;
    if (made.uid(), made.gid()) != (like.uid(), like.gid())
        || file.set_permissions(like.permissions()).is_err()
    {
        let _ = std::fs::remove_file(path);
        return None;
    }
    Some(file)
}
