//! How everything is kept: the trait [`Store`] of `cloaca-core`, over one SQLite file, over memory or on a server of PostgreSQL.
//! Decides nothing about triggers and runs; knows no Python. Invariant: what a receipt tells is on disk.
//!
//! Reading order: `url` says which store is meant, `sqlite` and `postgres` are the two kinds, and below either `open` (files and
//! connections), `schema` (tables), `batch` (what a commit writes), then a file for each noun; those in `sql` are
//! one source of both, over the `db`, `dialect` and `value` of each.

#![forbid(unsafe_code)]
// The files of `sql` are compiled for each store, over its own `db`, `dialect` and `value`.
#![allow(clippy::duplicate_mod)]

mod copy;
mod door;
mod postgres;
mod reader;
mod rename;
mod sqlite;
mod tables;
mod tenant;
mod url;

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use cloaca_core::port::{Fault, Store};

use crate::postgres::{Address, PostgresStore};
use crate::sqlite::SqliteStore;
use crate::url::Target;

pub use crate::reader::Reader;
pub use crate::rename::rename_to_new;
pub use crate::tenant::{Credentials, create_tenant, remove_tenant};

/// A store that is ready for use.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The absolute path of its file; none for memory.
    pub path: Option<PathBuf>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Why no store could be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// The URL or an option is malformed: the caller's argument is wrong.
    Url(String),
    /// The URL is fine, but the store that it names cannot be used.
    Store(String),
    /// Its server is not there, or does not serve now: the same may go well later.
    Away(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(message) | Self::Store(message) | Self::Away(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for OpenError {}

/// What SQLite asks of the system about descriptors, and what is done instead.
#[cfg(target_os = "linux")]
pub mod descriptors {
    pub use crate::sqlite::descriptors::{
        Purpose, close_nameless, closed, forgotten, is_kept_free, is_still, kept, lock, nameless, opened,
        still,
    };
}

/// This process is about to fork: keeps its threads out of SQLite until [`after_fork`] is called on this thread.
pub fn before_fork() {
    sqlite::close_gate();
}

/// The fork is over, in the parent or in the child.
pub fn after_fork() {
    sqlite::open_gate();
}

/// Tells this crate that it runs in a forked child now: what it holds belongs to the parent.
pub fn forked() {
    sqlite::forked();
    postgres::forked();
}

/// Opens the store that `url` names, making its file and tables if there are none yet.
///
/// `durability` is `"full"` or `"normal"` and means the same as the URL's option of that name.
///
/// # Errors
/// [`OpenError::Url`] if the URL or an option is malformed, [`OpenError::Store`] if the file cannot be used.
///
/// ```
/// let opened = cloaca_store::open(":memory:", None).expect("memory needs no file");
/// assert_eq!(opened.path, None);
/// ```
pub fn open(url: impl AsRef<OsStr>, durability: Option<&str>) -> Result<Opened, OpenError> {
    leave_standard_ones();
    let location = url::parse(url.as_ref(), durability)?;
    match location.target {
        Target::Memory => {
            let store = SqliteStore::in_memory().map_err(OpenError::Store)?;
            Ok(Opened { store: Arc::new(store), path: None })
        }
        Target::File(path) => {
            let (store, path) = SqliteStore::in_file(&path, location.durability).map_err(OpenError::Store)?;
            Ok(Opened { store: Arc::new(store), path: Some(path) })
        }
        Target::Server(address) => open_server(*address),
    }
}

/// In a process whose standard input, output or error output is closed the next file would come by that number, and what libraries print there
/// would be written into it: they are opened on nothing.
#[cfg(unix)]
fn leave_standard_ones() {
    use std::os::fd::{AsRawFd as _, IntoRawFd as _};
    // The lowest number that is free.
    while let Ok(nothing) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        if nothing.as_raw_fd() > 2 {
            break;
        }
        let _stays_open = nothing.into_raw_fd();
    }
}

#[cfg(not(unix))]
fn leave_standard_ones() {}

/// Apart, so that who opens a file has no room on its stack for what this needs.
#[inline(never)]
fn open_server(address: Address) -> Result<Opened, OpenError> {
    let store = PostgresStore::open(address).map_err(OpenError::Store)?;
    Ok(Opened { store: Arc::new(store), path: None })
}

/// The same of who reads.
#[inline(never)]
fn read_server(address: Address) -> Result<Reader, OpenError> {
    postgres::Reader::of(address).map(Box::new).map(Reader::Server).map_err(OpenError::Store)
}

/// Opens the store that `url` names for reading alone, beside those who serve it: nothing is made, and nobody joins.
///
/// # Errors
/// [`OpenError::Url`] if the URL or an option is malformed, [`OpenError::Store`] if there is no such store, or none of this
/// program's version.
///
/// ```
/// let Err(refused) = cloaca_store::read(":memory:") else { panic!("nobody else reads memory") };
/// assert!(refused.to_string().contains("name a file"));
/// ```
pub fn read(url: impl AsRef<OsStr>) -> Result<Reader, OpenError> {
    leave_standard_ones();
    match url::parse(url.as_ref(), None)?.target {
        Target::Memory => {
            let text = "':memory:' is a store that only its own runner can read; name a file";
            Err(OpenError::Url(text.to_owned()))
        }
        Target::File(path) => {
            sqlite::Reader::in_file(&path).map(Box::new).map(Reader::File).map_err(OpenError::Store)
        }
        Target::Server(address) => read_server(*address),
    }
}

/// The file that `url` names, which need not be there; none for memory.
///
/// # Errors
/// [`OpenError::Url`] if the URL is malformed.
///
/// ```
/// let path = cloaca_store::path_of("sqlite://runs.db").expect("it is a URL");
/// assert_eq!(path, Some("runs.db".into()));
/// ```
pub fn path_of(url: impl AsRef<OsStr>) -> Result<Option<PathBuf>, OpenError> {
    Ok(match url::parse(url.as_ref(), None)?.target {
        Target::Memory | Target::Server(_) => None,
        Target::File(path) => Some(path),
    })
}

/// Whether `text`, which is to name a file, is meant for a server instead, also if that is misspelt: it may hold a password, and is not to be shown.
///
/// ```
/// assert!(cloaca_store::means_server("postgresql:ann:secret@db.example"));
/// assert!(!cloaca_store::means_server("./ann:secret@copy.db"));
/// ```
pub fn means_server(text: impl AsRef<OsStr>) -> bool {
    url::means_server(&text.as_ref().to_string_lossy())
}

/// What messages call the store that `url` names: the URL itself, but of a store on a server its database and host, as the URL may hold a password.
///
/// # Errors
/// [`OpenError::Url`] if the URL is malformed.
///
/// ```
/// let name = cloaca_store::name_of("postgresql://ann:secret@db.example/app").expect("it is a URL");
/// assert_eq!(name, "app at db.example:5432");
/// ```
pub fn name_of(url: impl AsRef<OsStr>) -> Result<String, OpenError> {
    Ok(match url::parse(url.as_ref(), None)?.target {
        Target::Memory | Target::File(_) => url.as_ref().to_string_lossy().into_owned(),
        Target::Server(address) => address.name,
    })
}

/// Which schema version the store has that `url` names, and the SQL by which opening it would bring it to this program's, step by step.
/// Nothing is changed. On a server nothing is version zero.
///
/// # Errors
/// As [`read`], but that an older version is none, and [`OpenError::Away`] if the server is not there.
///
/// ```
/// let Err(refused) = cloaca_store::schema_of("none.db") else { panic!("there is no such file") };
/// assert!(refused.to_string().contains("there is no database"));
/// ```
pub fn schema_of(url: impl AsRef<OsStr>) -> Result<(usize, Vec<String>), OpenError> {
    match url::parse(url.as_ref(), None)?.target {
        Target::Memory => {
            Err(OpenError::Url("':memory:' is a store that begins anew each time; name a file".to_owned()))
        }
        Target::File(path) => {
            let (seen, steps) = sqlite::schema_of(&path).map_err(OpenError::Store)?;
            Ok((seen, steps.into_iter().map(str::to_owned).collect()))
        }
        Target::Server(address) => postgres::schema_of(&address).map_err(|fault| match fault {
            Fault::Passing(text) => OpenError::Away(text),
            Fault::Final(text) => OpenError::Store(text),
        }),
    }
}
