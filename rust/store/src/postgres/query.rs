//! Statements of users, which only read. Invariant: the server refuses whatever would write, and a value comes back as the one of five kinds that it is
//! nearest to.

use cloaca_core::port::{Cell, Table};
use tokio_postgres::Statement;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use crate::postgres::db::{Db, Error, Param, Row};
use crate::postgres::fault::{Cause, Failure};

const READING_WORDS: [&str; 6] = ["SELECT", "WITH", "VALUES", "TABLE", "EXPLAIN", "SHOW"];

/// Column names and rows of one read-only statement.
pub fn run(db: &Db, sql: &str, params: &[Cell]) -> Result<Table, Failure> {
    let word = first_word(sql);
    if word.is_empty() && sql.trim().trim_end_matches(';').is_empty() {
        return Err(Failure::Refused("query was given no statement".to_owned()));
    }
    if !READING_WORDS.iter().any(|known| known.eq_ignore_ascii_case(word)) {
        return Err(writes());
    }
    // The connection takes what only reads, and each statement is of one moment by itself.
    let text = spoken(sql);
    let mut statement = prepared(db, &text)?;
    let columns: Vec<String> = statement.columns().iter().map(|column| column.name().to_owned()).collect();
    let expected = statement.params().len();
    if params.len() != expected {
        return Err(Failure::Refused(format!(
            "query has {expected} parameters, but {} values were given",
            params.len()
        )));
    }
    let types: Vec<Type> = statement.columns().iter().map(|column| column.type_().clone()).collect();
    if !types.iter().all(is_plain) {
        statement = prepared(db, &as_text(&text, &types))?;
    }
    let params: Vec<Param<'_>> = params.iter().map(param).collect();
    let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|param| param as &(dyn ToSql + Sync)).collect();
    let rows = db.wait(db.client().query(&statement, &params)).map_err(refused)?;
    let rows = rows.into_iter().map(|row| cells(&Row::from(row), &types)).collect::<Result<_, _>>()?;
    Ok((columns, rows))
}

fn prepared(db: &Db, sql: &str) -> Result<Statement, Failure> {
    db.prepare_plain(sql).map_err(refused)
}

fn writes() -> Failure {
    Failure::Refused(
        "query runs statements that read: SELECT, WITH, VALUES, TABLE, EXPLAIN or SHOW; this one would change the database or the \
         connection"
            .to_owned(),
    )
}

/// What is wrong with a statement stands in the server's answer.
fn refused(error: Error) -> Failure {
    let state = match &error {
        Error::Server(error) => error.code().cloned(),
        _ => None,
    };
    match state {
        Some(state) if state == SqlState::READ_ONLY_SQL_TRANSACTION => writes(),
        // Syntax, rights, data: nothing that passes.
        Some(state) if ["42", "22", "0A", "21", "25"].iter().any(|class| state.code().starts_with(class)) => {
            Failure::Refused(format!("query cannot be run: {}", Cause(&error)))
        }
        _ => Failure::Sql(error),
    }
}

/// A statement for SQLite as the server has it: `?` and `?1` as `$1`, no word of the index to take, and SQLite's ways with JSON. One that has a `$1` of its own
/// is written for the server.
fn spoken(sql: &str) -> String {
    if sql.as_bytes().windows(2).any(|pair| pair[0] == b'$' && pair[1].is_ascii_digit()) {
        return sql.to_owned();
    }
    let mut text = String::with_capacity(sql.len() + 8);
    let mut number = 0;
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        let next = match first {
            '\'' | '"' => after.split_once(first).map_or("", |(_, after)| after),
            '?' => {
                let named = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                number = after[..named].parse().unwrap_or(number + 1);
                text.push_str(&format!("${number}"));
                rest = &after[named..];
                continue;
            }
            'I' if rest.starts_with(INDEXED) => {
                let name = &rest[INDEXED.len()..];
                rest = &name
                    [name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len())..];
                continue;
            }
            'j' if rest.starts_with(EXTRACT) => match extracted(&rest[EXTRACT.len()..]) {
                Some((member, after)) => {
                    text.push_str(&member);
                    rest = after;
                    continue;
                }
                None => after,
            },
            'I' if rest.starts_with(AMONG) => {
                let operand = operand_at(&text);
                let list = &rest[AMONG.len()..];
                let (list, after) = list.split_once("))").unwrap_or((list, ""));
                // The list names its parameter, which may be a bare question mark.
                let list = spoken_list(list, &mut number);
                text.insert_str(operand, "to_jsonb(");
                let end = operand + "to_jsonb(".len() + word_length(&text[operand + "to_jsonb(".len()..]);
                text.insert(end, ')');
                text.push_str(&format!("IN (SELECT value FROM jsonb_array_elements({list}::TEXT::JSONB))"));
                rest = after;
                continue;
            }
            _ => comment_end(rest).unwrap_or(after),
        };
        text.push_str(&rest[..rest.len() - next.len()]);
        rest = next;
    }
    text
}

const INDEXED: &str = "INDEXED BY ";
const EXTRACT: &str = "json_extract(";
const AMONG: &str = "IN (SELECT value FROM json_each(";

/// `column, '$.name')` as the server has it, and what comes behind.
fn extracted(rest: &str) -> Option<(String, &str)> {
    let (column, rest) = rest.split_once(", '$.")?;
    let (name, after) = rest.split_once("')")?;
    Some((format!("({column}::JSON ->> '{name}')"), after))
}

fn spoken_list(list: &str, number: &mut usize) -> String {
    *number = list.trim_start_matches('?').parse().unwrap_or(*number + 1);
    format!("${number}")
}

/// Where the column begins that stands at the end of a text, but for a NOT.
fn operand_at(text: &str) -> usize {
    let before = text.trim_end();
    let before = before.strip_suffix("NOT").unwrap_or(before).trim_end();
    before.rfind(|c: char| !is_of_name(c)).map_or(0, |place| place + 1)
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !is_of_name(c)).unwrap_or(text.len())
}

fn is_of_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_' || character == '.'
}

/// The word at the start, behind space, brackets and comments.
fn first_word(sql: &str) -> &str {
    let skipped = |text: &'_ str| text.trim_start_matches(|c: char| c.is_whitespace() || c == '(').len();
    let mut rest = &sql[sql.len() - skipped(sql)..];
    while let Some(after) = comment_end(rest) {
        rest = &after[after.len() - skipped(after)..];
    }
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    &rest[..end]
}

/// What follows a comment at the start; none if there is none.
fn comment_end(sql: &str) -> Option<&str> {
    if let Some(comment) = sql.strip_prefix("--") {
        return Some(comment.split_once('\n').map_or("", |(_, after)| after));
    }
    let comment = sql.strip_prefix("/*")?;
    Some(comment.split_once("*/").map_or("", |(_, after)| after))
}

fn param(cell: &Cell) -> Param<'_> {
    match cell {
        Cell::Null => Param::Null,
        Cell::Int(value) => Param::Int(*value),
        Cell::Real(value) => Param::Real(*value),
        Cell::Text(value) => Param::Text(value),
        Cell::Blob(value) => Param::Bytes(value),
    }
}

fn is_plain(ty: &Type) -> bool {
    is_text(ty)
        || [Type::BOOL, Type::INT2, Type::INT4, Type::INT8, Type::FLOAT8, Type::BYTEA, Type::UUID]
            .contains(ty)
}

fn is_text(ty: &Type) -> bool {
    [Type::TEXT, Type::VARCHAR, Type::BPCHAR, Type::NAME, Type::JSON, Type::UNKNOWN].contains(ty)
}

/// The same statement, with the columns of other types as the server spells them.
fn as_text(sql: &str, types: &[Type]) -> String {
    let names: Vec<String> = (0..types.len()).map(|column| format!("c{column}")).collect();
    let shown = types
        .iter()
        .zip(&names)
        .map(|(ty, name)| if is_plain(ty) { name.clone() } else { format!("{name}::TEXT") });
    let inner = sql.trim_end().trim_end_matches(';');
    format!(
        "SELECT {} FROM ({inner}\n) AS asked ({})",
        shown.collect::<Vec<_>>().join(", "),
        names.join(", ")
    )
}

fn cells(row: &Row, types: &[Type]) -> Result<Vec<Cell>, Failure> {
    let cell = |(column, ty): (usize, &Type)| -> Result<Cell, Failure> {
        if row.is_null(column)? {
            return Ok(Cell::Null);
        }
        Ok(match *ty {
            Type::BOOL => Cell::Int(i64::from(row.get::<_, bool>(column)?)),
            Type::INT2 | Type::INT4 | Type::INT8 => Cell::Int(row.get(column)?),
            Type::FLOAT8 => Cell::Real(row.get(column)?),
            Type::BYTEA => Cell::Blob(row.get(column)?),
            // Sums of whole numbers are of this type.
            Type::NUMERIC | Type::FLOAT4 | Type::OID => number(row.get(column)?),
            _ => Cell::Text(row.get(column)?),
        })
    };
    types.iter().enumerate().map(cell).collect()
}

fn number(text: String) -> Cell {
    match (text.parse(), text.parse()) {
        (Ok(whole), _) => Cell::Int(whole),
        (_, Ok(real)) => Cell::Real(real),
        _ => Cell::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_for_sqlite_is_put_in_the_words_of_the_server() {
        for (sql, text) in [
            (
                "SELECT ?, '?' /* ? */, \"?\" FROM t -- ?\nWHERE a = ?",
                "SELECT $1, '?' /* ? */, \"?\" FROM t -- ?\nWHERE a = $2",
            ),
            ("SELECT ?2, ?1, ?2", "SELECT $2, $1, $2"),
            ("SELECT a ? 'b', $1", "SELECT a ? 'b', $1"),
            ("SELECT 1 FROM runs INDEXED BY runs_id WHERE id = ?", "SELECT 1 FROM runs  WHERE id = $1"),
            ("SELECT 'INDEXED BY x'", "SELECT 'INDEXED BY x'"),
            (
                "a = ? AND r.owner NOT IN (SELECT value FROM json_each(?)) AND b IN (SELECT value FROM json_each(?1)) OR c = ?4",
                "a = $1 AND to_jsonb(r.owner) NOT IN (SELECT value FROM jsonb_array_elements($2::TEXT::JSONB)) \
                 AND to_jsonb(b) IN (SELECT value FROM jsonb_array_elements($1::TEXT::JSONB)) OR c = $4",
            ),
            ("SELECT json_extract(runs.context, '$.at') AS at", "SELECT (runs.context::JSON ->> 'at') AS at"),
        ] {
            assert_eq!(spoken(sql), text);
        }
    }

    #[test]
    fn a_statement_is_known_by_its_first_word() {
        for (sql, word) in [
            ("  (select 1)", "select"),
            ("-- why\n/* and */ ( WITH a AS (SELECT 1) SELECT 1)", "WITH"),
            ("/* SELECT */ VACUUM", "VACUUM"),
            ("-- SELECT", ""),
        ] {
            assert_eq!(first_word(sql), word);
        }
    }
}
