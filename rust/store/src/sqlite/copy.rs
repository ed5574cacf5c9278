//! A file whose rows go to another kind of store, or come from one. Invariant: what is read is of one moment; and what is written is a file of its own, of which
//! nobody knows before it is whole.

use std::path::Path;

use cloaca_core::port::{Cell, Stored};
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, ToSql, Transaction, named_params, params_from_iter};

use crate::copy::{BATCH_BYTES, BATCH_ROWS, Put, Shape, Sink, Source, bytes_of, conflict};
use crate::sqlite::fault::Failure;
use crate::sqlite::{export, gate, open, query, schema};

/// Rows of a file.
pub struct Rows<'c> {
    db: Transaction<'c>,
    name: &'c str,
}

impl<'c> Rows<'c> {
    /// As they are now.
    pub fn of(db: &'c Connection, name: &'c str) -> Result<Self, Failure> {
        Ok(Self { db: db.unchecked_transaction()?, name })
    }

    fn told<T>(&self, done: Result<T, Failure>) -> Stored<T> {
        done.map_err(|failure| failure.into_fault(self.name))
    }
}

impl Source for Rows<'_> {
    fn tables(&self) -> Stored<Vec<Shape>> {
        self.told(tables(&self.db))
    }

    fn each(&self, table: &str, columns: &[String], put: Put<'_>) -> Stored<()> {
        let sql = format!("SELECT {} FROM {}", listed(columns), quoted(table));
        let mut statement = self.told(self.db.prepare(&sql).map_err(Failure::from))?;
        let mut rows = self.told(statement.query([]).map_err(Failure::from))?;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(row) = self.told(rows.next().map_err(Failure::from))? {
            let row = self.told(query::cells(row, columns.len()).map_err(Failure::from))?;
            bytes += bytes_of(&row);
            batch.push(row);
            if batch.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
                put(std::mem::take(&mut batch))?;
                bytes = 0;
            }
        }
        if batch.is_empty() { Ok(()) } else { put(batch) }
    }

    fn given(&self) -> Stored<Vec<(String, i64)>> {
        const SQL: &str = "SELECT name, seq FROM sqlite_sequence";
        let read = || -> rusqlite::Result<Vec<_>> {
            let mut statement = self.db.prepare(SQL)?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        self.told(read().map_err(Failure::from))
    }
}

/// A new file that is being filled.
pub struct Filling {
    db: Connection,
    name: String,
}

impl Filling {
    /// A file that only its owner may read, as nobody knows who may read what is copied into it.
    pub fn begin(path: &Path) -> Stored<Self> {
        let _entered = gate::enter();
        let name = path.display().to_string();
        let begin = || -> Result<Connection, Failure> {
            export::claim(path, export::OWNER)?;
            let db = open::unlogged(path)?;
            schema::migrate(&db, &name, &[])?;
            db.execute_batch("BEGIN")?;
            Ok(db)
        };
        match begin() {
            Ok(db) => Ok(Self { db, name }),
            Err(failure) => Err(failure.into_fault(&name)),
        }
    }

    /// Ends it. It is not on disk yet.
    pub fn commit(self) -> Stored<()> {
        let _entered = gate::enter();
        self.told(self.db.execute_batch("COMMIT").map_err(Failure::from))
    }

    fn told<T>(&self, done: Result<T, Failure>) -> Stored<T> {
        done.map_err(|failure| failure.into_fault(&self.name))
    }

    fn insert(&self, table: &str, columns: &[String], rows: &[Vec<Cell>]) -> Result<(), Failure> {
        let marks = vec!["?"; columns.len()].join(", ");
        let sql = format!(
            "INSERT INTO {} ({}) VALUES ({marks}) {}",
            quoted(table),
            listed(columns),
            conflict(table)
        );
        let mut statement = self.db.prepare_cached(&sql)?;
        for row in rows {
            statement.execute(params_from_iter(row.iter().map(Value)))?;
        }
        Ok(())
    }
}

impl Sink for Filling {
    fn tables(&self) -> Stored<Vec<Shape>> {
        let _entered = gate::enter();
        self.told(tables(&self.db))
    }

    fn put(&self, table: &str, columns: &[String], rows: &[Vec<Cell>]) -> Stored<()> {
        let _entered = gate::enter();
        self.told(self.insert(table, columns, rows))
    }

    /// Other tables than these give numbers anew.
    fn go_on_behind(&self, given: &[(String, i64)]) -> Stored<()> {
        const COUNTS: &str =
            "SELECT count(*) > 0 FROM sqlite_schema WHERE name = :table AND sql LIKE '%AUTOINCREMENT%'";
        const FORGET: &str = "DELETE FROM sqlite_sequence WHERE name = :table";
        const NOTE: &str = "INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :given)";
        let _entered = gate::enter();
        let note = || -> Result<(), Failure> {
            for (table, given) in given {
                if self.db.query_row(COUNTS, named_params! { ":table": table }, |row| row.get(0))? {
                    self.db.execute(FORGET, named_params! { ":table": table })?;
                    self.db.execute(NOTE, named_params! { ":table": table, ":given": given })?;
                }
            }
            Ok(())
        };
        self.told(note())
    }
}

/// A cell as a parameter.
struct Value<'c>(&'c Cell);

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self.0 {
            Cell::Null => Ok(ToSqlOutput::from(rusqlite::types::Null)),
            Cell::Int(value) => value.to_sql(),
            Cell::Real(value) => value.to_sql(),
            Cell::Text(value) => value.to_sql(),
            Cell::Blob(value) => value.to_sql(),
        }
    }
}

fn tables(db: &Connection) -> Result<Vec<Shape>, Failure> {
    const SQL: &str = "SELECT name FROM pragma_table_info(:table) ORDER BY cid";
    let mut statement = db.prepare(SQL)?;
    let mut shapes = Vec::new();
    for table in schema::tables() {
        let columns = statement.query_map(named_params! { ":table": table }, |row| row.get(0))?;
        let columns = columns.collect::<rusqlite::Result<Vec<String>>>()?;
        if !columns.is_empty() {
            shapes.push(Shape { name: table.to_owned(), columns });
        }
    }
    Ok(shapes)
}

fn listed(columns: &[String]) -> String {
    columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
