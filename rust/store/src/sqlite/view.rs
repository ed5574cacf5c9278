//! A connection by which a file is read. Invariant: who may not write the file leaves nothing beside it, as what SQLite would make there were
//! his, and kept the file's owner out.
//!
//! As long as its log holds nothing, all that was committed is in the file itself, and such a reader takes it as it lies, without locks, log and
//! shared memory. Only a checkpoint changes the file then, which needs a log that holds something and shows in the file's times: whatever
//! was read is looked at once more after it was read, and read anew if the file has changed.

use std::fs::{self, Metadata};
use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use crate::sqlite::fault::{Failure, is_writable};
use crate::sqlite::open::{self, beside};

/// So often a file may change while it is read.
const CHANGES_MAX: usize = 20;

/// A connection that sees what is committed.
pub struct View {
    connection: Connection,
    /// How the file lay when it was opened, if it is read as it lies.
    lies: Option<Lie>,
    /// How often the file was opened anew.
    turn: i64,
}

impl View {
    /// Of the file at `path`.
    pub fn of(path: &Path) -> Result<Self, Failure> {
        for _ in 0..CHANGES_MAX {
            let lies = Lie::of(path);
            if lies.is_none() && !is_writable(path) && holds_any(path) && !beside(path, "-shm").exists() {
                return Err(Failure::Refused(unreadable(path)));
            }
            let opened = match lies {
                Some(_) => open::still(path),
                None => open::reader(path),
            };
            match opened {
                Ok(connection) => return Ok(Self { connection, lies, turn: 0 }),
                Err(Failure::Sql(error))
                    if is_unopened(&error) && lies.is_none() && Lie::of(path).is_some() => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::Refused(restless(path)))
    }

    /// Reads something, anew if the file has changed meanwhile.
    pub fn read<T>(
        &mut self,
        path: &Path,
        work: impl Fn(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        for _ in 0..CHANGES_MAX {
            if let Some(done) = self.read_once(path, &work)? {
                return done;
            }
        }
        Err(Failure::Refused(restless(path)))
    }

    /// Reads something, or refuses if the file has changed meanwhile: for what cannot be done twice.
    pub fn read_whole<T>(
        &mut self,
        path: &Path,
        work: impl Fn(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.read_once(path, work)?.unwrap_or_else(|| Err(Failure::Refused(restless(path))))
    }

    /// None if the file has changed meanwhile.
    fn read_once<T>(
        &mut self,
        path: &Path,
        work: impl Fn(&mut Connection) -> Result<T, Failure>,
    ) -> Result<Option<Result<T, Failure>>, Failure> {
        if self.lies.is_some() && self.lies != Lie::of(path) {
            *self = Self { turn: self.turn + 1, ..Self::of(path)? };
        }
        let done = work(&mut self.connection);
        let is_same = self.lies.is_none() || self.lies == Lie::of(path);
        Ok(is_same.then_some(done))
    }

    /// Whether it takes the file as it lies, so that nothing has to be held for it.
    pub fn is_still(&self) -> bool {
        self.lies.is_some()
    }

    /// How often the file was opened anew.
    pub fn turn(&self) -> i64 {
        self.turn
    }
}

/// A file that can be read as it lies, and how it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lie {
    identity: Option<(u64, u64)>,
    bytes: u64,
    changed_at: [(i64, i64); 2],
}

impl Lie {
    /// None if it cannot, or may be opened as any other.
    fn of(path: &Path) -> Option<Self> {
        let (found, identity) = (fs::metadata(path).ok()?, open::identity(path));
        // Not before: who is amidst a checkpoint has a log that holds something.
        if is_writable(path) || beside(path, "-journal").exists() || holds_any(path) {
            return None;
        }
        Some(Self { identity, bytes: found.len(), changed_at: changed_at(&found) })
    }
}

fn holds_any(path: &Path) -> bool {
    fs::metadata(beside(path, "-wal")).is_ok_and(|found| found.len() > 0)
}

#[cfg(unix)]
fn changed_at(found: &Metadata) -> [(i64, i64); 2] {
    use std::os::unix::fs::MetadataExt as _;
    [(found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec())]
}

#[cfg(not(unix))]
fn changed_at(_: &Metadata) -> [(i64, i64); 2] {
    [(0, 0); 2]
}

fn is_unopened(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::CannotOpen)
}

fn unreadable(path: &Path) -> String {
    let name = path.display();
    format!(
        "beside database '{name}' lies '{name}-wal' with what was written last, and '{name}-shm', without which that is not found, is gone; \
         only who may write the database makes that: let its owner look at it once ('cloaca ls')"
    )
}

fn restless(path: &Path) -> String {
    format!("database '{}' changed again and again while it was read; try it once more", path.display())
}
