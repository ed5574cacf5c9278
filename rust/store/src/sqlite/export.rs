//! Copies the database into a new file. Invariant: under the name of the copy there is a whole one or none, whenever who makes it is
//! killed; a file that was there before is never touched, and a copy that failed leaves none behind.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Error, OpenFlags, ToSql, ffi, named_params};

use crate::rename_to_new;
use crate::sqlite::fault::{Cause, Failure, passes};
use crate::sqlite::open::beside;

/// What a copy is called, behind its later name, until it is whole.
const PART: &str = "-exporting-";
/// So much of the later name leaves room for what follows, and for what SQLite puts behind that.
const NAME_BYTES: usize = 190;

/// Writes a consistent copy to `path`.
pub fn run(db: &Connection, path: &Path) -> Result<(), Failure> {
    refuse_taken(path)?;
    let part = part_of(path);
    claim_for(&part, path, mode_of(db) | OWNER)?;
    let done = write(db, &part).map_err(|error| refused(path, error)).and_then(|()| name(&part, path));
    if done.is_err() {
        let _ = fs::remove_file(&part);
        let _ = fs::remove_file(beside(&part, "-journal"));
    }
    done
}

fn write(db: &Connection, part: &Path) -> Result<(), Error> {
    // Our build of SQLite reads a name that begins with `file:` as a URI; none that begins with the root does.
    let target = std::path::absolute(part).unwrap_or_else(|_| part.to_owned());
    // SQLite takes an empty file for a new one.
    db.execute("VACUUM INTO :path", named_params! { ":path": Named(&target) })?;
    mark(&target)
}

/// Gives a copy that is whole, and on disk, its name.
fn name(part: &Path, path: &Path) -> Result<(), Failure> {
    let done = fs::File::open(part).and_then(|file| file.sync_all()).and_then(|()| rename_to_new(part, path));
    done.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => taken(path),
        _ => Failure::Refused(format!("export to '{}' failed: {error}", path.display())),
    })?;
    // Where a folder cannot be opened, its names are on disk when they are.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

fn part_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    // What is cut amidst a character is none.
    let mut start = match name.len() > NAME_BYTES {
        true => OsString::from(String::from_utf8_lossy(&name[..NAME_BYTES]).trim_end_matches('\u{fffd}')),
        false => path.file_name().unwrap_or_default().to_owned(),
    };
    let random = cloaca_core::key::new_id().simple().to_string().split_off(24);
    start.push(format!("{PART}{}-{random}", process::id()));
    path.with_file_name(start)
}

fn taken(path: &Path) -> Failure {
    Failure::Refused(format!("export target '{}' exists already; name a new file", path.display()))
}

fn refuse_taken(path: &Path) -> Result<(), Failure> {
    if path.symlink_metadata().is_ok() {
        return Err(taken(path));
    }
    // A log of a database that has gone would be taken for the copy's.
    match ["-wal", "-journal"].iter().map(|left| beside(path, left)).find(|left| left.exists()) {
        None => Ok(()),
        Some(left) => Err(Failure::Refused(format!(
            "export target '{}' has left '{}'; name another file",
            path.display(),
            left.display()
        ))),
    }
}

/// Notes in a copy that it is one: when it was made, and the last runner that the original had by then.
fn mark(path: &Path) -> Result<(), Error> {
    const SQL: &str = "
        INSERT OR REPLACE INTO meta (name, value) VALUES
            ('copied_at', CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
            ('copied_after', (SELECT coalesce(max(epoch), 0) FROM owners))";
    let copy = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    copy.execute(SQL, []).map(drop)
}

/// What failed, by the file that it happened to: only the target is written.
fn refused(path: &Path, error: Error) -> Failure {
    let name = path.display();
    match error.sqlite_error().map(|error| error.extended_code) {
        Some(ffi::SQLITE_FULL) => {
            Failure::Refused(format!("export to '{name}' failed: its disk has no room"))
        }
        Some(code) if WRITING.contains(&code) => Failure::Refused(format!(
            "export to '{name}' failed: {}; see that its disk has room and is sound",
            Cause(&error)
        )),
        _ if passes(&error) => Failure::Sql(error),
        _ => Failure::Refused(format!("export to '{name}' failed: {}", Cause(&error))),
    }
}

const WRITING: [i32; 7] = [
    ffi::SQLITE_IOERR_WRITE,
    ffi::SQLITE_IOERR_FSYNC,
    ffi::SQLITE_IOERR_DIR_FSYNC,
    ffi::SQLITE_IOERR_TRUNCATE,
    ffi::SQLITE_IOERR_DELETE,
    ffi::SQLITE_IOERR_CLOSE,
    ffi::SQLITE_CANTOPEN,
];

/// A path as SQLite takes it: bytes that need not be text.
struct Named<'p>(&'p Path);

impl ToSql for Named<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0.as_os_str().as_encoded_bytes())))
    }
}

/// The rights of the database, which its copy must not exceed, but for who makes it; those of its owner alone if it has gone.
fn mode_of(db: &Connection) -> u32 {
    let Some(source) = db.path().filter(|path| !path.is_empty()) else { return ANYBODY };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::metadata(source).map_or(OWNER, |found| found.permissions().mode() & ANYBODY)
    }
    #[cfg(not(unix))]
    {
        let _ = source;
        ANYBODY
    }
}

/// What the process's own mask allows.
const ANYBODY: u32 = 0o666;
/// Its owner alone.
pub const OWNER: u32 = 0o600;

/// Makes an empty file, so that nobody else's can be taken for ours.
pub fn claim(path: &Path, mode: u32) -> Result<(), Failure> {
    claim_for(path, path, mode)
}

/// The same of what is called `named` in messages.
fn claim_for(path: &Path, named: &Path, mode: u32) -> Result<(), Failure> {
    let name = named.display();
    let mut options = fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(mode);
    }
    #[cfg(not(unix))]
    let _ = mode;
    let message = match options.open(path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(taken(named)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = named.parent().unwrap_or(named);
            format!("export target '{name}': folder '{}' does not exist; create it first", folder.display())
        }
        Err(error) => format!("export target '{name}' cannot be made: {error}"),
    };
    Err(Failure::Refused(message))
}
