//! A copy of everything, which a server's own tools write. Invariant: no file is made.

use std::path::Path;

use crate::postgres::db::Db;
use crate::postgres::fault::Failure;

/// Says how.
pub fn run(_db: &Db, path: &Path) -> Result<(), Failure> {
    Err(Failure::Refused(format!(
        "export to '{}' is for a file of SQLite; a store on PostgreSQL is copied by its own tools: pg_dump --schema=cloaca",
        path.display()
    )))
}
