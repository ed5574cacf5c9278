//! Opens files and sets connections up. Invariant: a file is changed only after it is known to be ours or empty.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::sqlite::fault::{Failure, describe};
use crate::sqlite::shield::Shield;
use crate::sqlite::{mount, schema};
use crate::url::Durability;

/// How long a statement waits for another process's transaction.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// Between two attempts at what SQLite refuses to wait for itself.
const BUSY_PAUSE: Duration = Duration::from_millis(2);
/// More than there are different statements.
const STATEMENTS_MAX: usize = 64;
/// The write-ahead log is cut back to this after a burst, in bytes.
const LOG_BYTES_KEPT: i64 = 16 << 20;
const MEMORY: &str = ":memory:";

/// A file with its two connections.
pub struct File {
    /// Absolute.
    pub path: PathBuf,
    /// The only connection that writes.
    pub writer: Connection,
    /// Sees what is committed.
    pub reader: Connection,
    /// To be lowered before the last connection closes, and dropped after it.
    pub shield: Shield,
}

/// A database of its own that ends with its connection.
pub fn memory() -> Result<Connection, String> {
    let connection =
        Connection::open_in_memory_with_flags(writer_flags()).map_err(|error| describe(MEMORY, &error))?;
    cache_statements(&connection).map_err(|error| describe(MEMORY, &error))?;
    schema::migrate(&connection, MEMORY, &[]).map_err(|failure| told(MEMORY, failure))?;
    Ok(connection)
}

/// The file at `path`, made if there is none.
pub fn file(path: &Path, durability: Durability) -> Result<File, String> {
    let mut path = usable_path(path)?;
    let name = path.display().to_string();
    // Declared first, so that it is dropped after a connection that is given up.
    let shield = Shield::before(&path);
    let given = std::mem::replace(&mut path, shield.path().to_owned());
    let writer = writer(&path, &given, durability, &shield).map_err(|failure| told(&name, failure))?;
    match reader(&path) {
        Ok(reader) => Ok(File { path, writer, reader, shield }),
        Err(failure) => {
            shield.lower();
            Err(told(&name, failure))
        }
    }
}

fn told(name: &str, failure: Failure) -> String {
    match failure {
        Failure::Refused(message) => message,
        Failure::Sql(error) => describe(name, &error),
    }
}

/// `path` made absolute, once nothing but SQLite itself could still object to it.
fn usable_path(path: &Path) -> Result<PathBuf, String> {
    let absolute =
        std::path::absolute(path).map_err(|e| format!("path '{}' cannot be used: {e}", path.display()))?;
    if absolute.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(format!("'{}' is a folder; name a file in it", absolute.display()));
    }
    let folder = absolute.parent().unwrap_or(&absolute);
    if !folder.is_dir() {
        return Err(format!(
            "folder '{}' for database '{}' does not exist; create it first",
            folder.display(),
            absolute.display()
        ));
    }
    if let Some(names @ 2..) = names(&absolute) {
        return Err(format!(
            "database '{}' has {names} names (hard links), and SQLite keeps a log of its own for each, so that commits are \
             lost once it is opened by another one; remove the others ('find -samefile' lists them) or use a copy",
            absolute.display()
        ));
    }
    let place = if absolute.exists() { &absolute } else { folder };
    match mount::network_type(place) {
        Some(kind) => Err(format!(
            "database '{}' lies on a network file system ({kind}), where SQLite loses data; use a local disk",
            absolute.display()
        )),
        None => Ok(absolute),
    }
}

/// Neither URI file names, which would give some paths another meaning, nor SQLite's own mutex, as ours guards.
fn writer_flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn writer(path: &Path, given: &Path, durability: Durability, shield: &Shield) -> Result<Connection, Failure> {
    let connection = connect(path, writer_flags())?;
    match prepare(&connection, path, given, durability, shield) {
        Ok(()) => Ok(connection),
        Err(failure) => {
            // Before the connection closes, which else would leave its log behind.
            shield.lower();
            Err(failure)
        }
    }
}

fn prepare(
    connection: &Connection,
    path: &Path,
    given: &Path,
    durability: Durability,
    shield: &Shield,
) -> Result<(), Failure> {
    let name = path.display().to_string();
    if connection.is_readonly("main")? {
        // SQLite falls back to reading in silence.
        return Err(Failure::Refused(format!("database '{name}' is read-only; make it writable")));
    }
    schema::check(connection, &name)?;
    use_write_ahead_log(connection, &name)?;
    // Before anything is committed.
    shield.raise();
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    match durability {
        Durability::Full => {
            connection.pragma_update(None, "synchronous", "FULL")?;
            // On macOS an ordinary sync does not reach the disk; elsewhere this says nothing.
            connection.pragma_update(None, "fullfsync", true)?;
        }
        Durability::Normal => connection.pragma_update(None, "synchronous", "NORMAL")?,
    }
    schema::migrate(connection, &name, &[path, given])?;
    // Of a new file, the `-shm` file is there from its first transaction on.
    shield.raise();
    Ok(())
}

/// Another connection that sees what is committed.
pub fn reader(path: &Path) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(connect(path, flags)?)
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    cache_statements(&connection)?;
    Ok(connection)
}

/// Keeps statements and their plans. Without the second line SQLite plans anew whenever a parameter changes that a
/// partial index might depend on, which is most of the time.
fn cache_statements(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// Switches to a write-ahead log. SQLite does not wait for this lock by itself, so that several processes that open
/// a new file at once have to try again.
fn use_write_ahead_log(connection: &Connection, name: &str) -> Result<(), Failure> {
    let deadline = Instant::now() + BUSY_WAIT;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                return Err(Failure::Refused(format!(
                    "database '{name}' cannot use a write-ahead log (journal mode stays '{mode}'); use a local disk"
                )));
            }
            Err(error) if is_busy(&error) && Instant::now() < deadline => thread::sleep(BUSY_PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// The path of a file that lies beside the database under its name and `suffix`.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Whether that file is certainly not at `path` any more.
pub fn is_gone(path: &Path, kept: (u64, u64)) -> bool {
    match std::fs::metadata(path) {
        Ok(_) => identity(path).is_some_and(|found| found != kept),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// What tells a file from another one of its name; none where the system has no such thing, or the file is gone.
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().and_then(|found| told_apart(&found))
}

/// The same of an open file.
pub fn identity_of(file: &std::fs::File) -> Option<(u64, u64)> {
    file.metadata().ok().and_then(|found| told_apart(&found))
}

/// How many hard links the file has; none if there is no such file.
#[cfg(unix)]
fn names(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|found| found.nlink())
}

#[cfg(not(unix))]
fn names(_: &Path) -> Option<u64> {
    None
}

#[cfg(unix)]
fn told_apart(found: &std::fs::Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    Some((found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn told_apart(_: &std::fs::Metadata) -> Option<(u64, u64)> {
    None
}
