//! Connections for statements of users, which may take as long as they like, and the end of such a statement.
//! Invariant: nothing else uses them, and each reads the file that the store has open.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cloaca_core::port::Halt;
use rusqlite::Connection;

use crate::sqlite::fault::Failure;
use crate::sqlite::open;
use crate::sqlite::shield::Identity;

/// So many are kept for the next statements; each is a descriptor and a cache of pages.
const IDLE_MAX: usize = 2;
/// Steps of SQLite's machine between two looks at whether a statement is to end: some ten microseconds.
const STEPS: i32 = 1000;

/// Connections that nobody uses now.
pub struct Asked {
    path: PathBuf,
    identity: Option<Identity>,
    idle: Mutex<Vec<Connection>>,
}

impl Asked {
    /// For the file at `path`.
    pub fn of(path: &Path, identity: Option<Identity>) -> Self {
        Self { path: path.to_owned(), identity, idle: Mutex::default() }
    }

    /// Runs `work` on a connection of its own, until `halt` is asked for.
    pub fn with<T>(
        &self,
        halt: &Halt,
        work: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let kept = self.idle().pop();
        let mut connection = kept.map_or_else(|| self.another(), Ok)?;
        let done = until(&mut connection, halt, work);
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        done
    }

    fn another(&self) -> Result<Connection, Failure> {
        let connection = open::reader(&self.path)?;
        match open::identity(&self.path) == self.identity {
            true => Ok(connection),
            false => Err(Failure::Refused(format!(
                "the store is gone: database '{}' was deleted or replaced while in use",
                self.path.display()
            ))),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the look at `halt` off a connection again.
struct Watched<'c>(&'c mut Connection);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        // Cannot fail: the connection is open. If it did, the next statement would end early and say so.
        let _ = self.0.progress_handler(0, None::<fn() -> bool>);
    }
}

/// Runs `work` until `halt` is asked for.
pub fn until<T>(
    connection: &mut Connection,
    halt: &Halt,
    work: impl FnOnce(&Connection) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let asked = halt.clone();
    connection.progress_handler(STEPS, Some(move || asked.is_asked()))?;
    let watched = Watched(connection);
    work(watched.0)
}
