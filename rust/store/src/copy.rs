//! Takes all that a store holds to another kind of place, table by table. Invariant: what the new place cannot hold is refused and not left out, but for
//! further ids of a run, and what is there is whole or not there.
//!
//! Both kinds of store have the same tables and columns; the few that only one has say how it is served, and not what it holds.

use std::path::Path;
use std::time::SystemTime;

use cloaca_core::port::{Cell, Fault, Halt, Stored};
use cloaca_core::time::Wall;

use crate::OpenError;
use crate::reader::Reader;
use crate::url::{self, Target};
use crate::{postgres, sqlite};

/// Rows are handed on in batches of no more than these, but for one row that is larger by itself.
pub const BATCH_ROWS: usize = 1_000;
/// The bytes of its texts.
pub const BATCH_BYTES: usize = 4 << 20;

/// What only a server has, or says of the store and not of what it holds.
const OWN_TABLES: [&str; 2] = ["stamps", "beats"];
const OWN_COLUMNS: [(&str, &str); 2] = [("owners", "boot"), ("owners", "place")];
const OWN_WORDS: [&str; 4] = ["version", "store", "copied_at", "copied_after"];
/// Where only a server keeps what a file can do without: the ids that were given before it was seen that a run key was in use.
const SPARED_TABLE: &str = "aliases";
/// What a server has in place of a NUL.
const NUL: char = '\u{2400}';

/// A table of ours, as it is somewhere.
pub struct Shape {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<String>,
}

/// Takes a batch of rows.
pub type Put<'p> = &'p mut dyn FnMut(Vec<Vec<Cell>>) -> Stored<()>;

/// Where rows come from, all of one moment.
pub trait Source {
    /// Our tables there.
    fn tables(&self) -> Stored<Vec<Shape>>;
    /// Hands on these columns of all rows of a table.
    fn each(&self, table: &str, columns: &[String], put: Put<'_>) -> Stored<()>;
    /// The largest number that each table has given to a row, where none is given twice.
    fn given(&self) -> Stored<Vec<(String, i64)>>;
}

/// Where they go to, in one transaction.
pub trait Sink {
    /// Our tables there.
    fn tables(&self) -> Stored<Vec<Shape>>;
    /// Adds rows.
    fn put(&self, table: &str, columns: &[String], rows: &[Vec<Cell>]) -> Stored<()>;
    /// Goes on with numbers behind those that were given.
    fn go_on_behind(&self, given: &[(String, i64)]) -> Stored<()>;
}

/// What is done with a row whose key is there already.
pub fn conflict(table: &str) -> &'static str {
    match table {
        "meta" => "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        // On a server two keys may be one.
        "run_keys" => "ON CONFLICT DO NOTHING",
        _ => "",
    }
}

/// Takes everything from `source` to `sink`, and tells how many rows that were.
pub fn all(source: &dyn Source, sink: &dyn Sink) -> Stored<u64> {
    let there = sink.tables()?;
    let mut count = 0;
    for Shape { name, mut columns } in source.tables()? {
        if OWN_TABLES.contains(&name.as_str()) {
            continue;
        }
        columns.retain(|column| !OWN_COLUMNS.contains(&(name.as_str(), column.as_str())));
        let fitting = there.iter().find(|shape| shape.name == name);
        if fitting.is_none() && name == SPARED_TABLE {
            continue;
        }
        let lost = columns.iter().find(|column| !fitting.is_some_and(|shape| shape.columns.contains(column)));
        source.each(&name, &columns, &mut |mut rows| {
            if let Some(lost) = lost {
                return Err(Fault::Final(format!(
                    "table '{name}' has rows, and the store that it is to be copied to has no place for their '{lost}': let a runner \
                     work until that table is empty"
                )));
            }
            match name.as_str() {
                "meta" => rows.retain(|row| !is_one_of(&row[0], &OWN_WORDS)),
                "run_keys" => rows.extend(with_nul(&columns, &rows)),
                _ => {}
            }
            count += rows.len() as u64;
            sink.put(&name, &columns, &rows)
        })?;
    }
    let given = source.given()?;
    sink.go_on_behind(&given)?;
    let last = given.iter().find(|(table, _)| table == "owners").map_or(0, |(_, given)| *given);
    let word = |name: &str, value| vec![Cell::Text(name.to_owned()), Cell::Int(value)];
    let marks = [word("copied_at", now().0), word("copied_after", last)];
    sink.put("meta", &["name".to_owned(), "value".to_owned()], &marks)?;
    Ok(count)
}

fn is_one_of(cell: &Cell, words: &[&str]) -> bool {
    matches!(cell, Cell::Text(text) if words.contains(&text.as_str()))
}

/// Keys that a server keeps may have been asked for with a NUL: under either name they are used.
fn with_nul(columns: &[String], rows: &[Vec<Cell>]) -> Vec<Vec<Cell>> {
    let Some(key) = columns.iter().position(|column| column == "key") else { return Vec::new() };
    let twin = |row: &Vec<Cell>| match &row[key] {
        Cell::Text(text) if text.contains(NUL) => {
            let mut row = row.clone();
            row[key] = Cell::Text(text.replace(NUL, "\0"));
            Some(row)
        }
        _ => None,
    };
    rows.iter().filter_map(twin).collect()
}

/// How much of a batch a row is.
pub fn bytes_of(row: &[Cell]) -> usize {
    let bytes = |cell: &Cell| match cell {
        Cell::Text(text) => text.len(),
        Cell::Blob(bytes) => bytes.len(),
        Cell::Null | Cell::Int(_) | Cell::Real(_) => 8,
    };
    row.iter().map(bytes).sum()
}

fn now() -> Wall {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// More runners than that serve no store.
const OWNERS_MAX: u64 = 1_000;

/// The number of the newest runner of a store; refused while one lives.
pub fn unserved(reader: &Reader) -> Stored<i64> {
    let owners = reader.owners(OWNERS_MAX, Wall(i64::MAX))?;
    match owners.iter().find(|owner| owner.left_at.is_none() && !owner.is_dead) {
        Some(owner) => Err(Fault::Final(format!(
            "store '{}' is served by runner {}; stop that first, or make a backup beside it",
            reader.name(),
            owner.epoch.0
        ))),
        None => Ok(owners.iter().map(|owner| owner.epoch.0).max().unwrap_or(0)),
    }
}

impl Reader {
    /// Copies everything to a store on a server, which must be empty, and tells how many rows that were.
    ///
    /// # Errors
    /// What either store met, a runner that serves one of them, or that is not empty which should be.
    pub fn copy_to_server(&self, url: &str, halt: &Halt) -> Stored<u64> {
        let Target::Server(address) = url::parse(url.as_ref(), None).map_err(fault)?.target else {
            return Err(Fault::Final("the target of this copy is on no server".to_owned()));
        };
        let before = unserved(self)?;
        let sink = postgres::Filling::begin(*address)?;
        let count = self.hand_over(halt, &sink)?;
        self.must_be_unchanged(before)?;
        sink.commit()?;
        Ok(count)
    }

    /// Copies everything to a new file, which is not on disk yet. Who gives it its name looks whether a runner has come meanwhile.
    ///
    /// # Errors
    /// What the store or the file met.
    pub fn copy_to_file(&self, path: &Path, halt: &Halt) -> Stored<u64> {
        let sink = sqlite::Filling::begin(path)?;
        let count = self.hand_over(halt, &sink)?;
        sink.commit()?;
        Ok(count)
    }

    fn hand_over(&self, halt: &Halt, sink: &dyn Sink) -> Stored<u64> {
        match self {
            Self::File(reader) => reader.hand_over(halt, sink),
            Self::Server(reader) => reader.hand_over(halt, sink),
        }
    }

    fn must_be_unchanged(&self, before: i64) -> Stored<()> {
        match unserved(self)? == before {
            true => Ok(()),
            false => Err(Fault::Final(format!(
                "store '{}' was opened while it was copied; stop its runner and copy it again",
                self.name()
            ))),
        }
    }
}

fn fault(refused: OpenError) -> Fault {
    Fault::Final(refused.to_string())
}
