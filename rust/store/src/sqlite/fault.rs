//! Turns what SQLite says into what a user can act upon, and tells what will pass from what will not.
//! Invariant: only a failure after which the same batch may succeed is passing.

use std::fmt;
use std::path::{Path, PathBuf};

use cloaca_core::port::Fault;
use rusqlite::{Error, ErrorCode, ffi};

use crate::sqlite::open::beside;

/// Why a transaction was given up.
#[derive(Debug)]
pub enum Failure {
    /// SQLite failed or refused.
    Sql(Error),
    /// We refuse, with the complete message.
    Refused(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Sql(error)
    }
}

impl Failure {
    /// What every method of a store says once it is closed.
    pub fn closed() -> Self {
        Self::Refused("the store is closed".to_owned())
    }

    /// The message alone.
    pub fn into_text(self, name: &str) -> String {
        match self.into_fault(name) {
            Fault::Passing(text) | Fault::Final(text) => text,
        }
    }

    /// What the trait's caller sees; `name` is the file's path.
    pub fn into_fault(self, name: &str) -> Fault {
        match self {
            Self::Refused(message) => Fault::Final(message),
            Self::Sql(error) if passes(&error) => Fault::Passing(describe(name, &error)),
            Self::Sql(error) => Fault::Final(describe(name, &error)),
        }
    }
}

impl Failure {
    /// Whether another process has the file.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Sql(error) if code(error) == Some(ErrorCode::DatabaseBusy))
    }

    /// Whether SQLite takes the file for damaged. It says so, too, where the disk failed to read a page (EIO), which may pass.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Sql(error) if code(error) == Some(ErrorCode::DatabaseCorrupt))
    }
}

/// Whether the same statement may succeed later.
pub fn passes(error: &Error) -> bool {
    matches!(
        code(error),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted
        )
    )
}

/// A message that names the file, the cause and, where there is one, the way out.
pub fn describe(name: &str, error: &Error) -> String {
    let cause = Cause(error);
    if extended_code(error) == Some(ffi::SQLITE_READONLY_DBMOVED) {
        return format!("database '{name}' was moved or deleted while in use; restart on a file that stays");
    }
    match code(error) {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("database '{name}' is locked by another process or connection: {cause}")
        }
        Some(ErrorCode::DiskFull) => format!("the disk that holds database '{name}' is full: {cause}"),
        Some(ErrorCode::SystemIoFailure) => {
            format!("database '{name}' could not be read or written: {cause}")
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly)
            if let Some(kept) = kept_from_us(name) =>
        {
            let kept = kept.display();
            format!(
                "database '{name}' cannot be used, as '{kept}' beside it may not be written by this user: {cause}; give that file the owner \
                 and the rights of the database ('chown', 'chmod')"
            )
        }
        Some(ErrorCode::CannotOpen) => {
            format!(
                "database '{name}' or a file beside it cannot be opened: {cause}; check their permissions"
            )
        }
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            format!("database '{name}' or its folder is read-only: {cause}; make both writable")
        }
        Some(ErrorCode::NotADatabase) => {
            format!("file '{name}' is not a SQLite database: {cause}; use another file")
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            format!(
                "database '{name}' is damaged: {cause}; restore a copy, or save what is left with sqlite3's '.recover'"
            )
        }
        _ => format!("database '{name}': {cause}"),
    }
}

/// What another user has left beside a database that may be written.
fn kept_from_us(name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    let files = ["-wal", "-shm", "-journal"].map(|suffix| beside(path, suffix));
    let is_kept = |file: &PathBuf| file.exists() && !is_writable(file);
    files.into_iter().find(is_kept).filter(|_| is_writable(path))
}

/// Whether this process may write to a file.
#[cfg(target_os = "linux")]
pub fn is_writable(path: &Path) -> bool {
    use nix::fcntl::{AT_FDCWD, AtFlags};
    use nix::unistd::{AccessFlags, faccessat};
    faccessat(AT_FDCWD, path, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_ok()
}

/// As far as its rights tell.
#[cfg(not(target_os = "linux"))]
pub fn is_writable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.permissions().readonly())
}

/// SQLite's own words, without the statement that they came from.
pub struct Cause<'e>(pub &'e Error);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Error::SqliteFailure(_, Some(message)) => f.write_str(message),
            Error::SqlInputError { msg, .. } => f.write_str(msg),
            other => write!(f, "{other}"),
        }
    }
}

fn code(error: &Error) -> Option<ErrorCode> {
    error.sqlite_error().map(|error| error.code)
}

fn extended_code(error: &Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: i32) -> Fault {
        Failure::Sql(Error::SqliteFailure(ffi::Error::new(code), None)).into_fault("runs.db")
    }

    #[test]
    fn what_another_or_the_disk_may_undo_is_passing() {
        let codes = [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_BUSY_SNAPSHOT,
            ffi::SQLITE_LOCKED,
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR,
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_CANTOPEN,
        ];
        for code in codes {
            assert!(matches!(fault(code), Fault::Passing(text) if text.contains("runs.db")), "{code}");
        }
    }

    #[test]
    fn what_stays_is_final() {
        let codes = [
            ffi::SQLITE_READONLY,
            ffi::SQLITE_READONLY_DBMOVED,
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_NOTADB,
            ffi::SQLITE_MISUSE,
            ffi::SQLITE_CONSTRAINT,
        ];
        for code in codes {
            assert!(matches!(fault(code), Fault::Final(text) if text.contains("runs.db")), "{code}");
        }
    }
}
