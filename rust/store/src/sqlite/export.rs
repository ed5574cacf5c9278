//! Copies the database into a new file. Invariant: a file that was there before is never touched, and a copy that
//! failed leaves no file behind.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use rusqlite::{Connection, named_params};

use crate::sqlite::fault::{Cause, Failure, passes};

/// Writes a consistent copy to `path`.
pub fn run(db: &Connection, path: &Path) -> Result<(), Failure> {
    claim(path)?;
    // Our build of SQLite reads a name that begins with `file:` as a URI; none that begins with the root does.
    let target = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // SQLite takes an empty file for a new one.
    let copied = db.execute("VACUUM INTO :path", named_params! { ":path": target.to_string_lossy() });
    copied.map(drop).map_err(|error| {
        let _ = fs::remove_file(path);
        match passes(&error) {
            true => Failure::Sql(error),
            false => Failure::Refused(format!("export to '{}' failed: {}", path.display(), Cause(&error))),
        }
    })
}

/// Makes an empty file, so that nobody else's can be taken for ours.
fn claim(path: &Path) -> Result<(), Failure> {
    let name = path.display();
    let message = match fs::File::create_new(path) {
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
