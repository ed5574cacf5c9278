//! Connections for statements of users, which may take as long as they like, and the end of such a statement.
//! Invariant: nothing else uses them, and each reads the file that the store has open.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cloaca_core::port::Halt;
use rusqlite::Connection;

use crate::sqlite::fault::Failure;
use crate::sqlite::open;
use crate::sqlite::shield::Identity;
use crate::sqlite::view::View;

/// So many are kept for the next statements; each is a descriptor and a cache of pages.
const IDLE_MAX: usize = 2;
/// Steps of SQLite's machine between two looks at whether a statement is to end: some ten microseconds.
const STEPS: i32 = 1000;

/// Connections for statements of users.
pub struct Asked {
    path: PathBuf,
    identity: Option<Identity>,
    state: Mutex<State>,
    back: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<View>,
    /// So many are in use.
    out: usize,
    closed: bool,
}

/// Closing waits no longer than this for a statement that was told to end.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

impl Asked {
    /// For the file at `path`.
    pub fn of(path: &Path, identity: Option<Identity>) -> Self {
        Self { path: path.to_owned(), identity, state: Mutex::default(), back: Condvar::new() }
    }

    /// Runs `work` on a connection of its own, until `halt` is asked for.
    pub fn with<T>(
        &self,
        halt: &Halt,
        work: impl Fn(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.lent(|view| view.read(&self.path, |connection| until(connection, halt, &work)))
    }

    /// The same of what cannot be done twice: it is refused if the file has changed meanwhile.
    pub fn with_whole<T>(
        &self,
        halt: &Halt,
        work: impl Fn(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.lent(|view| view.read_whole(&self.path, |connection| until(connection, halt, &work)))
    }

    fn lent<T>(&self, read: impl FnOnce(&mut View) -> Result<T, Failure>) -> Result<T, Failure> {
        let kept = {
            let mut state = self.state();
            if state.closed {
                return Err(Failure::closed());
            }
            state.out += 1;
            state.idle.pop()
        };
        let mut back = Back { asked: self, view: None };
        read(back.view.insert(kept.map_or_else(|| self.another(), Ok)?))
    }

    /// Closes all of them, those in use when they come back, which is waited for.
    pub fn close(&self) {
        let deadline = Instant::now() + CLOSE_PATIENCE;
        let mut state = self.state();
        state.closed = true;
        state.idle.clear();
        while state.out > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.back.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn another(&self) -> Result<View, Failure> {
        let view = View::of(&self.path)?;
        match open::identity(&self.path) == self.identity {
            true => Ok(view),
            false => Err(Failure::Refused(format!(
                "the store is gone: database '{}' was deleted or replaced while in use",
                self.path.display()
            ))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings a connection back, also when its thread unwinds.
struct Back<'a> {
    asked: &'a Asked,
    view: Option<View>,
}

impl Drop for Back<'_> {
    fn drop(&mut self) {
        let mut state = self.asked.state();
        state.out -= 1;
        match self.view.take() {
            Some(view) if !state.closed && state.idle.len() < IDLE_MAX => state.idle.push(view),
            // Closed under the lock: who waits for it to be back waits for its end.
            other => drop(other),
        }
        self.asked.back.notify_all();
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
    let began = Instant::now();
    connection.progress_handler(STEPS, Some(move || asked.ends(began)))?;
    let watched = Watched(connection);
    halt.over(|| work(watched.0))
}
