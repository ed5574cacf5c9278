//! Copies the database into a new file. Invariant: a file that was there before is never touched, and a copy that
//! failed leaves no file behind.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Error, OpenFlags, ToSql, ffi, named_params};

use crate::sqlite::fault::{Cause, Failure, passes};
use crate::sqlite::open::beside;

/// Writes a consistent copy to `path`.
pub fn run(db: &Connection, path: &Path) -> Result<(), Failure> {
    let journal = beside(path, "-journal");
    let is_foreign = journal.exists();
    claim(path, mode_of(db) | OWNER)?;
    // Our build of SQLite reads a name that begins with `file:` as a URI; none that begins with the root does.
    let target = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // SQLite takes an empty file for a new one.
    let copied = db.execute("VACUUM INTO :path", named_params! { ":path": Named(&target) });
    // What stands beside it is not ours to be rolled back.
    let marked = copied.and_then(|_| if is_foreign { Ok(()) } else { mark(&target) });
    marked.map_err(|error| {
        let _ = fs::remove_file(path);
        if !is_foreign {
            let _ = fs::remove_file(journal);
        }
        refused(path, error)
    })
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
    let name = path.display();
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
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            format!("export target '{name}' exists already; name a new file")
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(path);
            format!("export target '{name}': folder '{}' does not exist; create it first", folder.display())
        }
        Err(error) => format!("export target '{name}' cannot be made: {error}"),
    };
    Err(Failure::Refused(message))
}
