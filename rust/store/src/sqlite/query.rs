//! A user's own statement. Invariant: it reads; whatever could write, lock or attach is refused before it runs.

use cloaca_core::port::{Cell, Table};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Row, Statement};

use crate::sqlite::fault::{Cause, Failure};

const READING_WORDS: [&str; 3] = ["SELECT", "WITH", "VALUES"];
/// Pragmas that only tell, also when given an argument in parentheses.
const TELLING_PRAGMAS: [&str; 10] = [
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "index_xinfo",
    "foreign_key_list",
    "foreign_key_check",
    "integrity_check",
    "quick_check",
];
/// Pragmas that tell while they are given no argument.
const SETTING_PRAGMAS: [&str; 12] = [
    "user_version",
    "schema_version",
    "application_id",
    "synchronous",
    "page_count",
    "page_size",
    "freelist_count",
    "encoding",
    "cache_size",
    "busy_timeout",
    "database_list",
    "compile_options",
];

/// Column names and rows of one read-only statement.
pub fn run(db: &Connection, sql: &str, params: &[Cell]) -> Result<Table, Failure> {
    let sql = only_statement(sql)?;
    if !is_reading(sql) {
        return Err(refused(db, sql));
    }
    let _guard = ReadOnly::set(db)?;
    let mut statement = db.prepare(sql).map_err(not_prepared)?;
    if !statement.readonly() {
        return Err(writes());
    }
    bind(&mut statement, params)?;
    let columns = statement.column_names().map(str::to_owned).collect::<Vec<_>>();
    let mut rows = statement.raw_query();
    let mut table = Vec::new();
    while let Some(row) = rows.next()? {
        table.push(cells(row, columns.len())?);
    }
    drop(rows);
    Ok((columns, table))
}

/// Keeps SQLite itself from writing while the user's statement runs: in memory it runs on the writer's connection.
struct ReadOnly<'c>(&'c Connection);

impl<'c> ReadOnly<'c> {
    fn set(db: &'c Connection) -> rusqlite::Result<Self> {
        db.pragma_update(None, "query_only", true)?;
        Ok(Self(db))
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        // Cannot fail: it sets a flag of the connection. If it did, the next write would say so.
        let _ = self.0.pragma_update(None, "query_only", false);
    }
}

/// What is wrong with a statement that does not begin like one that reads: a typing error or a write. A pragma may
/// act while it is prepared, so that none is.
fn refused(db: &Connection, sql: &str) -> Failure {
    if is_any(first_word(sql).0, &["PRAGMA", "EXPLAIN"]) {
        return writes();
    }
    db.prepare(sql).map_or_else(not_prepared, |_| writes())
}

fn writes() -> Failure {
    Failure::Refused(
        "query runs statements that read: SELECT, WITH, VALUES, EXPLAIN, or a PRAGMA that only tells; \
         this one would change the database or the connection"
            .to_owned(),
    )
}

fn not_prepared(error: Error) -> Failure {
    match error {
        Error::Empty => Failure::Refused("query was given no statement".to_owned()),
        Error::SqlInputError { .. } | Error::NulError(_) => {
            Failure::Refused(format!("query cannot be run: {}", Cause(&error)))
        }
        other => Failure::Sql(other),
    }
}

/// The one statement of `sql`. The others must not even be prepared, as a pragma may act while it is.
fn only_statement(sql: &str) -> Result<&str, Failure> {
    let (statement, rest) = sql.split_at(statement_end(sql));
    match first_word(rest.trim_start_matches(|c: char| c == ';' || c.is_whitespace())) {
        ("", "") => Ok(statement),
        _ => Err(Failure::Refused("query runs one statement at a time; the text has several".to_owned())),
    }
}

/// Where the first semicolon stands that is neither quoted nor in a comment; the length if there is none.
fn statement_end(sql: &str) -> usize {
    let mut at = 0;
    while let Some(first) = sql[at..].chars().next() {
        let after = &sql[at + first.len_utf8()..];
        let rest = match first {
            ';' => return at,
            '\'' | '"' | '`' => behind(after, first),
            '[' => behind(after, ']'),
            _ => comment_end(&sql[at..]).unwrap_or(after),
        };
        at = sql.len() - rest.len();
    }
    at
}

fn behind(text: &str, end: char) -> &str {
    text.split_once(end).map_or("", |(_, after)| after)
}

/// SQLite calls some statements read-only that change the connection, such as ATTACH and BEGIN, so the first word
/// is looked at too.
fn is_reading(sql: &str) -> bool {
    match first_word(sql) {
        (first, rest) if is_any(first, &["PRAGMA"]) => is_telling(rest),
        (first, rest) if is_any(first, &["EXPLAIN"]) => is_any(explained_word(rest), &READING_WORDS),
        (first, _) => is_any(first, &READING_WORDS),
    }
}

fn is_any(word: &str, known: &[&str]) -> bool {
    known.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// The word behind `EXPLAIN` or `EXPLAIN QUERY PLAN`.
fn explained_word(rest: &str) -> &str {
    match first_word(rest) {
        (word, rest) if is_any(word, &["QUERY"]) => first_word(first_word(rest).1).0,
        (word, _) => word,
    }
}

fn is_telling(pragma: &str) -> bool {
    let (mut name, mut rest) = first_word(pragma);
    if let Some(after) = rest.strip_prefix('.') {
        (name, rest) = first_word(after);
    }
    let has_argument =
        !first_word(rest).1.trim_end_matches(|c: char| c == ';' || c.is_whitespace()).is_empty();
    (is_any(name, &TELLING_PRAGMAS) && !rest.contains('='))
        || (is_any(name, &SETTING_PRAGMAS) && !has_argument)
}

/// The word at the start, behind space and comments, and what follows it.
fn first_word(sql: &str) -> (&str, &str) {
    let mut rest = sql.trim_start();
    while let Some(after) = comment_end(rest) {
        rest = after.trim_start();
    }
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    rest.split_at(end)
}

/// What follows a comment at the start; none if there is none.
fn comment_end(sql: &str) -> Option<&str> {
    if let Some(comment) = sql.strip_prefix("--") {
        return Some(comment.split_once('\n').map_or("", |(_, after)| after));
    }
    let comment = sql.strip_prefix("/*")?;
    Some(comment.split_once("*/").map_or("", |(_, after)| after))
}

fn bind(statement: &mut Statement<'_>, params: &[Cell]) -> Result<(), Failure> {
    let expected = statement.parameter_count();
    if params.len() != expected {
        return Err(Failure::Refused(format!(
            "query has {expected} parameters, but {} values were given",
            params.len()
        )));
    }
    for (index, cell) in (1..).zip(params) {
        match cell {
            Cell::Null => statement.raw_bind_parameter(index, None::<i64>)?,
            Cell::Int(value) => statement.raw_bind_parameter(index, value)?,
            Cell::Real(value) => statement.raw_bind_parameter(index, value)?,
            Cell::Text(value) => statement.raw_bind_parameter(index, value)?,
            Cell::Blob(value) => statement.raw_bind_parameter(index, value)?,
        }
    }
    Ok(())
}

pub fn cells(row: &Row<'_>, count: usize) -> rusqlite::Result<Vec<Cell>> {
    (0..count).map(|column| row.get_ref(column).map(cell)).collect()
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(value) => Cell::Int(value),
        ValueRef::Real(value) => Cell::Real(value),
        ValueRef::Text(bytes) => Cell::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => Cell::Blob(bytes.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_read_are_known_by_their_first_word() {
        for sql in [
            "select 1",
            "  \n-- why\n/* and */ WITH a AS (SELECT 1) SELECT * FROM a",
            "VALUES (1)",
            "EXPLAIN QUERY PLAN SELECT 1",
            "PRAGMA table_info(runs)",
            "pragma main.table_info('runs')",
            "PRAGMA user_version",
            "PRAGMA page_count /* now */ ",
        ] {
            assert!(is_reading(sql), "{sql}");
        }
    }

    #[test]
    fn all_others_are_not() {
        for sql in [
            "DELETE FROM runs",
            "ATTACH 'x.db' AS x",
            "BEGIN",
            "PRAGMA user_version = 7",
            "PRAGMA user_version(7)",
            "PRAGMA main.journal_mode = delete",
            "PRAGMA journal_mode(delete)",
            "PRAGMA /* x */ query_only = 0",
            "PRAGMA query_only",
            "PRAGMA wal_checkpoint",
            "PRAGMA optimize",
            "EXPLAIN PRAGMA query_only = 0",
            "EXPLAIN QUERY PLAN DELETE FROM runs",
            "/* SELECT */ VACUUM",
            "-- SELECT",
            "",
        ] {
            assert!(!is_reading(sql), "{sql}");
        }
    }

    #[test]
    fn only_a_semicolon_outside_quotes_and_comments_ends_a_statement() {
        for sql in ["SELECT 1", "SELECT ';' /* ; */ -- ;", "SELECT 'it''s;' AS [a;b], \"c;\", `d;é`"] {
            assert_eq!(only_statement(sql).unwrap(), sql);
        }
        assert_eq!(only_statement("SELECT 1; ;-- done\n").unwrap(), "SELECT 1");
        assert!(only_statement("SELECT 1; PRAGMA hard_heap_limit = 1").is_err());
    }
}
