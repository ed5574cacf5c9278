//! A copy of everything, which a server's own tools write. Invariant: no file is made.

use std::path::Path;

use crate::postgres::db::{Db, named_params};
use crate::postgres::fault::Failure;

/// Says how.
pub fn run(db: &Db, path: &Path) -> Result<(), Failure> {
    const SQL: &str = "SELECT current_schema()";
    let schema: Option<String> = db.prepare_cached(SQL)?.query_row(named_params! {}, |row| row.get(0))?;
    Err(Failure::Refused(format!(
        "export to '{}' is for a file of SQLite; a store on PostgreSQL is copied by its own tools: pg_dump --schema={}",
        path.display(),
        pattern(&schema.unwrap_or_default())
    )))
}

/// A schema's name as `pg_dump` takes it from a shell.
fn pattern(schema: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    match schema.chars().all(is_plain) {
        true => schema.to_owned(),
        false => format!("'\"{}\"'", schema.replace('"', "\"\"").replace('\'', r"'\''")),
    }
}
