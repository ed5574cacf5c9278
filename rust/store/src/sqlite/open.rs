//! Opens files and sets connections up. Invariant: a file is changed only after it is known to be ours or empty.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cloaca_core::port::Halt;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::sqlite::busy::{self, BUSY_WAIT};
#[cfg(target_os = "linux")]
use crate::sqlite::descriptors;
use crate::sqlite::fault::{Failure, describe};
use crate::sqlite::mount::Mounts;
use crate::sqlite::schema;
use crate::sqlite::shield::{Shield, Use};
use crate::sqlite::view::View;
use crate::url::Durability;

/// A store opens within this, however many statements wait.
pub const OPEN_WAIT: Duration = Duration::from_secs(10);
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
    // Before anything makes the file.
    must_not_be_lost(&path)?;
    // Declared first, so that it is dropped after a connection that is given up.
    let shield = Shield::before(&path, Use::Writing);
    let given = std::mem::replace(&mut path, shield.path().to_owned());
    must_be_whole(&shield, &name)?;
    must_have_its_own_log(&shield)?;
    let writer = writer(&path, &given, durability, &shield).map_err(|failure| told(&name, failure))?;
    match reader(&path) {
        Ok(reader) => {
            share(&path);
            Ok(File { path, writer, reader, shield })
        }
        Err(failure) => {
            shield.lower();
            Err(told(&name, failure))
        }
    }
}

/// The file at `path`, as it is, for who only reads: its path, the connection, and what is to be dropped after that.
pub fn file_for_reading(path: &Path) -> Result<(PathBuf, View, Shield), String> {
    let (path, view, shield, ()) = opened_for_reading(path, schema::check_for_reading)?;
    Ok((path, view, shield))
}

/// Which schema version the file at `path` has, and what would bring it to this program's.
pub fn schema_of(path: &Path) -> Result<(usize, Vec<&'static str>), String> {
    let (_, view, shield, found) = opened_for_reading(path, schema::outlook)?;
    drop(view);
    shield.close();
    Ok(found)
}

fn opened_for_reading<T>(
    path: &Path,
    check: impl Fn(&Connection, &str) -> Result<T, Failure>,
) -> Result<(PathBuf, View, Shield, T), String> {
    let path = usable_path(path)?;
    let name = path.display().to_string();
    must_not_be_lost(&path)?;
    if !path.exists() {
        return Err(format!("there is no database '{name}'; name one that a runner has made"));
    }
    // Declared first, so that it is dropped after the view.
    let shield = Shield::before(&path, Use::Reading);
    let path = shield.path().to_owned();
    must_be_whole(&shield, &name)?;
    must_have_its_own_log(&shield)?;
    let opened = View::of(&path).and_then(|mut view| {
        let checked = view.read(&path, |connection| check(connection, &name))?;
        hold(&mut view, &path, &shield)?;
        if !view.is_still() {
            share(&path);
        }
        Ok((view, checked))
    });
    let (view, checked) = opened.map_err(|failure| told(&name, failure))?;
    Ok((path, view, shield, checked))
}

/// Gives what lies beside a database the database's group. Where a folder does not hand its group on, what SQLite makes there has that of
/// whoever opens the file first, and keeps others of the database's group out for as long as it lies there. Who may not change that has not
/// made it.
#[cfg(unix)]
fn share(path: &Path) {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let Ok(group) = std::fs::metadata(path).map(|found| found.gid()) else { return };
    for suffix in ["-wal", "-shm"] {
        let path = beside(path, suffix);
        if std::fs::metadata(&path).is_ok_and(|found| found.gid() != group) {
            let _ = chown(&path, None, Some(group));
        }
    }
}

#[cfg(not(unix))]
fn share(_: &Path) {}

/// Holds the file for a view that uses its log.
pub fn hold(view: &mut View, path: &Path, shield: &Shield) -> Result<(), Failure> {
    let mode = |connection: &mut Connection| -> Result<String, Failure> {
        Ok(connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?)
    };
    // A copy that no runner has opened has no such log, and who gives it one needs the file alone.
    if !view.is_still() && view.read(path, mode)? == "wal" {
        shield.raise();
    }
    Ok(())
}

/// What this process has had of the file must be there still: SQLite shares it among all of a process's connections.
#[cfg(target_os = "linux")]
fn must_be_whole(shield: &Shield, name: &str) -> Result<(), String> {
    let files = [shield.identity()].into_iter();
    let files: Vec<_> =
        files.chain(["-wal", "-shm"].map(|end| identity(&beside(shield.path(), end)))).collect();
    if shield.has_lost() || descriptors::is_robbed(&files) {
        return Err(format!(
            "something in this program closed descriptors of database '{name}' that were not its own (os.closerange, or what makes a \
             daemon); shut down the runners of this process that were made before that, then make a new one"
        ));
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn must_be_whole(_: &Shield, _: &str) -> Result<(), String> {
    Ok(())
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
    let Some(mounts) = Mounts::of(place) else { return Ok(absolute) };
    if place.is_file() && mounts.is_alone() {
        return Err(format!(
            "database '{}' is mounted by itself (a bind mount of one file, such as 'docker run -v runs.db:/data/runs.db'), and SQLite keeps \
             its log beside it, where who opens the file by its other path does not find it, so that commits are lost; mount its folder",
            absolute.display()
        ));
    }
    match mounts.network_type() {
        Some(kind) => Err(format!(
            "database '{}' lies on a network file system ({kind}), where SQLite loses data; use a local disk",
            absolute.display()
        )),
        None => Ok(absolute),
    }
}

/// Of a file that was deleted under its runner the next one must not begin anew in silence: all that was done by it would be done once more.
fn must_not_be_lost(path: &Path) -> Result<(), String> {
    if std::fs::metadata(path).is_ok_and(|found| found.len() > 0) {
        return Ok(());
    }
    let Some(rescue) = rescues_of(path).filter(|rescue| rescue.exists()).last() else { return Ok(()) };
    let (name, rescue) = (path.display(), rescue.display());
    Err(format!(
        "database '{name}' is gone, and '{rescue}' is what a runner still saw of it when somebody deleted, moved or replaced \
         it; to go on with that, end every program of this store, delete '{name}-wal' and '{name}-shm' and rename it to \
         '{name}'; to begin anew, move it elsewhere"
    ))
}

/// Where runners save what they see of databases that are taken from under them, one after the other.
fn rescues_of(path: &Path) -> impl Iterator<Item = PathBuf> {
    let first = beside(&path.canonicalize().unwrap_or_else(|_| path.to_owned()), "-rescue");
    let numbered =
        move |number| if number == 1 { first.clone() } else { beside(&first, &format!("-{number}")) };
    (1..=RESCUES_MAX).map(numbered)
}

/// So many are kept beside one name.
const RESCUES_MAX: u32 = 100;

/// Where what `lost` sees is to be saved, and whether another process has done so: a rescue that lies there already may be of an older
/// database, and is never written over.
pub fn rescue_for(path: &Path, lost: &Connection) -> (PathBuf, bool) {
    let mut last = path.to_owned();
    for rescue in rescues_of(path) {
        if std::fs::symlink_metadata(&rescue).is_err() {
            return (rescue, false);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let saved = Connection::open_with_flags(&rescue, flags).ok().and_then(|saved| newest_owner(&saved));
        if saved.is_some() && saved == newest_owner(lost) {
            return (rescue, true);
        }
        last = rescue;
    }
    (last, false)
}

/// Who came last to a database, and when, by which it is told from others of its name: whoever writes to one joins it before.
fn newest_owner(connection: &Connection) -> Option<(i64, i64)> {
    let sql = "SELECT epoch, joined_at FROM owners ORDER BY epoch DESC LIMIT 1";
    connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).ok()
}

/// SQLite plays whatever log has its name into a database, also one that was renamed to where another one had been.
fn must_have_its_own_log(shield: &Shield) -> Result<(), String> {
    if !shield.has_strange_log() {
        return Ok(());
    }
    let name = shield.path().display();
    Err(format!(
        "beside database '{name}' lies '{name}-wal', the write-ahead log of another one, which would damage it; end every \
         program of this store, and delete '{name}-wal' and '{name}-shm'"
    ))
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

/// The empty file at `path` for who fills it before anybody knows of it: without a log, and without waiting for the disk.
pub fn unlogged(path: &Path) -> Result<Connection, Failure> {
    let connection = connect(path, writer_flags())?;
    connection.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    Ok(connection)
}

/// Another connection that sees what is committed.
pub fn reader(path: &Path) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(connect(path, flags)?)
}

/// One that takes the file as it lies, and nothing beside it: for as long as nobody changes it.
pub fn still(path: &Path) -> Result<Connection, Failure> {
    let mut name = String::from("file:");
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => name.push(byte.into()),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name.push_str("?immutable=1");
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Ok(connect(Path::new(&name), flags)?)
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_handler(Some(busy::wait))?;
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
    let (halt, began) = (Halt::current(), Instant::now());
    let may_wait = || began.elapsed() < BUSY_WAIT && !halt.ends(began);
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                return Err(Failure::Refused(format!(
                    "database '{name}' cannot use a write-ahead log (journal mode stays '{mode}'); use a local disk"
                )));
            }
            Err(error) if is_busy(&error) && may_wait() => thread::sleep(BUSY_PAUSE),
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
