//! A store on a server whose rows go to another place, or come from one. Invariant: what is read is of one moment; what is written is one transaction under the
//! lock of the store, so that whoever opens it meanwhile waits, and finds all of it or nothing.

use cloaca_core::key::Epoch;
use cloaca_core::port::{Cell, Fault, Stored};
use tokio_postgres::types::Type;

use crate::copy::{BATCH_BYTES, BATCH_ROWS, Put, Shape, Sink, Source, conflict};
use crate::postgres::address::Address;
use crate::postgres::db::{self, Column, Db, Param, Raw, ToParam, Unread, named_params};
use crate::postgres::fault::Failure;
use crate::postgres::open::{self, Use, quoted};
use crate::postgres::{owner, run, schema, seat};

/// Rows of a store on a server.
pub struct Rows<'d> {
    db: &'d Db,
    address: &'d Address,
}

impl<'d> Rows<'d> {
    /// As they are now, for as long as the other side takes.
    pub fn of(db: &'d Db, address: &'d Address) -> Result<Self, Failure> {
        db.execute_batch(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL idle_in_transaction_session_timeout TO 0",
        )?;
        Ok(Self { db, address })
    }

    fn told<T>(&self, done: Result<T, Failure>) -> Stored<T> {
        done.map_err(|failure| failure.into_fault(&self.address.name))
    }

    /// Where rows are, and how large each is: what is large is asked for alone.
    fn places(&self, table: &str, columns: &[(String, String)]) -> Result<(), Failure> {
        let sizes: Vec<String> = columns
            .iter()
            .filter(|(_, ty)| ["text", "bytea"].contains(&ty.as_str()))
            .map(|(column, _)| format!("coalesce(octet_length({}), 0)", quoted(column)))
            .collect();
        let size = if sizes.is_empty() { "0".to_owned() } else { sizes.join(" + ") };
        let sql = format!(
            "DECLARE places NO SCROLL CURSOR FOR SELECT ctid::TEXT, ({size})::BIGINT FROM {}",
            quoted(table)
        );
        Ok(self.db.execute_batch(&sql)?)
    }

    fn rows_at(&self, table: &str, columns: &[String], places: &[String]) -> Result<Vec<Vec<Cell>>, Failure> {
        let sql = format!(
            "SELECT {} FROM {} WHERE ctid = ANY(:places::TEXT[]::TID[])",
            listed(columns),
            quoted(table)
        );
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        let rows = self.db.prepare_cached(&sql)?.query_map(named_params! { ":places": places }, |row| {
            (0..columns.len()).map(|column| row.get(column)).collect::<db::Result<Vec<Cell>>>()
        })?;
        Ok(rows.collect::<db::Result<_>>()?)
    }

    fn next_places(&self) -> Result<Vec<(String, usize)>, Failure> {
        let sql = format!("FETCH {BATCH_ROWS} FROM places");
        let rows = self.db.prepare_cached(&sql)?.query_map([], |row| {
            let size: i64 = row.get(1)?;
            Ok((row.get(0)?, usize::try_from(size).unwrap_or(usize::MAX)))
        })?;
        Ok(rows.collect::<db::Result<_>>()?)
    }
}

impl Source for Rows<'_> {
    fn tables(&self) -> Stored<Vec<Shape>> {
        self.told(tables(self.db, &self.address.schema))
    }

    fn each(&self, table: &str, columns: &[String], put: Put<'_>) -> Stored<()> {
        let typed = self.told(types(self.db, &self.address.schema, table))?;
        self.told(self.places(table, &typed))?;
        loop {
            let found = self.told(self.next_places())?;
            if found.is_empty() {
                break;
            }
            let (mut places, mut bytes) = (Vec::new(), 0);
            for (place, size) in found {
                if bytes + size > BATCH_BYTES && !places.is_empty() {
                    put(self.told(self.rows_at(table, columns, &places))?)?;
                    (places, bytes) = (Vec::new(), 0);
                }
                bytes += size;
                places.push(place);
            }
            put(self.told(self.rows_at(table, columns, &places))?)?;
        }
        self.told(self.db.execute_batch("CLOSE places").map_err(Failure::from))
    }

    fn given(&self) -> Stored<Vec<(String, i64)>> {
        const SQL: &str = "SELECT pg_sequence_last_value(:sequence::TEXT::REGCLASS)";
        let given = || -> Result<Vec<_>, Failure> {
            let mut given = Vec::new();
            for Numbered { table, sequence, .. } in numbered(self.db, &self.address.schema)? {
                let last: Option<i64> = self
                    .db
                    .prepare_cached(SQL)?
                    .query_row(named_params! { ":sequence": sequence }, |row| row.get(0))?;
                given.extend(last.map(|last| (table, last)));
            }
            Ok(given)
        };
        self.told(given())
    }
}

/// A store on a server that is being filled. If it is given up, the server rolls back.
pub struct Filling {
    db: Db,
    address: Address,
}

impl Filling {
    /// Makes the tables, or takes those that are there, which must be empty.
    pub fn begin(address: Address) -> Stored<Self> {
        let begin = || -> Result<Db, Failure> {
            let db = open::connection(&address, Use::Writing)?;
            open::refuse_pooler(&address, &db, &open::connection(&address, Use::Reading)?)?;
            db.execute_batch(
                "BEGIN; SET LOCAL synchronous_commit TO on; SET LOCAL idle_in_transaction_session_timeout TO '60s'",
            )?;
            schema::bring_up(&db, &address.name, &address.schema)?;
            must_be_empty(&db, &address)?;
            Ok(db)
        };
        match begin() {
            Ok(db) => Ok(Self { db, address }),
            Err(failure) => Err(failure.into_fault(&address.name)),
        }
    }

    /// Ends it.
    pub fn commit(self) -> Stored<()> {
        self.db.execute_batch("COMMIT").map_err(|error| {
            let (Fault::Passing(text) | Fault::Final(text)) =
                Failure::from(error).into_fault(&self.address.name);
            Fault::Final(format!("{text}; look whether the copy is there before you copy once more"))
        })
    }

    fn told<T>(&self, done: Result<T, Failure>) -> Stored<T> {
        done.map_err(|failure| failure.into_fault(&self.address.name))
    }

    fn insert(&self, table: &str, columns: &[String], rows: &[Vec<Cell>]) -> Result<(), Failure> {
        let known = types(&self.db, &self.address.schema, table)?;
        let mut lists = Vec::new();
        let mut params: Vec<(String, List<'_>)> = Vec::new();
        for (place, column) in columns.iter().enumerate() {
            let ty = known.iter().find(|(name, _)| name == column).map_or("text", |(_, ty)| ty.as_str());
            let name = format!(":c{place}");
            lists.push(format!("{name}::{ty}[]"));
            params.push((name, List::of(table, column, ty, rows.iter().map(|row| &row[place]))?));
        }
        let sql = format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT * FROM unnest({}) {}",
            quoted(table),
            listed(columns),
            lists.join(", "),
            conflict(table)
        );
        let named: Vec<(&str, &dyn ToParam)> =
            params.iter().map(|(name, list)| (name.as_str(), list as &dyn ToParam)).collect();
        self.db.prepare_cached(&sql)?.execute(named.as_slice())?;
        Ok(())
    }

    /// Runners that were killed at the old place are taken off the list here: no lock tells that they are dead, and their silence would tell it late.
    fn bury(&self) -> Result<(), Failure> {
        const SQL: &str = "SELECT epoch FROM owners WHERE left_at IS NULL";
        let dead = self.db.prepare_cached(SQL)?.query_map([], |row| row.get(0).map(Epoch))?;
        for epoch in dead.collect::<db::Result<Vec<_>>>()? {
            owner::leave(&self.db, epoch, None)?;
            run::free(&self.db, epoch)?;
            seat::forget_owner(&self.db, epoch)?;
        }
        Ok(())
    }

    fn number(&self, given: &[(String, i64)]) -> Result<(), Failure> {
        for Numbered { table, column, sequence } in numbered(&self.db, &self.address.schema)? {
            let given = given.iter().find(|(name, _)| *name == table).map(|(_, given)| *given);
            let sql = format!(
                "SELECT setval(:sequence::TEXT::REGCLASS, last) FROM (SELECT greatest(max({}), :given::BIGINT) AS last FROM {}) AS found \
                 WHERE last > 0",
                quoted(&column),
                quoted(&table)
            );
            let params = named_params! { ":sequence": sequence, ":given": given };
            self.db.prepare_cached(&sql)?.exists(params)?;
        }
        Ok(())
    }
}

impl Sink for Filling {
    fn tables(&self) -> Stored<Vec<Shape>> {
        self.told(tables(&self.db, &self.address.schema))
    }

    fn put(&self, table: &str, columns: &[String], rows: &[Vec<Cell>]) -> Stored<()> {
        self.told(self.insert(table, columns, rows))
    }

    fn go_on_behind(&self, given: &[(String, i64)]) -> Stored<()> {
        self.told(self.number(given).and_then(|()| self.bury()))
    }
}

fn must_be_empty(db: &Db, address: &Address) -> Result<(), Failure> {
    for Shape { name, .. } in tables(db, &address.schema)? {
        if ["meta", "stamps"].contains(&name.as_str()) {
            continue;
        }
        if db.prepare_cached(&format!("SELECT 1 FROM {} LIMIT 1", quoted(&name)))?.exists([])? {
            return Err(Failure::Refused(format!(
                "database '{}' holds a store that is not empty (table '{name}'); name a new schema with '?schema='",
                address.name
            )));
        }
    }
    Ok(())
}

/// A column of one type, as a parameter.
enum List<'c> {
    Numbers(Vec<Option<i64>>),
    Texts(Vec<Option<&'c str>>),
    Bytes(Vec<Option<&'c [u8]>>),
}

impl<'c> List<'c> {
    fn of(
        table: &str,
        column: &str,
        ty: &str,
        cells: impl Iterator<Item = &'c Cell>,
    ) -> Result<Self, Failure> {
        let strange = |cell: &Cell| {
            Failure::Refused(format!(
                "column '{column}' of table '{table}' holds {cell:.40?}, which is no {ty}"
            ))
        };
        Ok(match ty {
            "bigint" | "boolean" => Self::Numbers(
                cells
                    .map(|cell| match cell {
                        Cell::Null => Ok(None),
                        Cell::Int(value) => Ok(Some(*value)),
                        other => Err(strange(other)),
                    })
                    .collect::<Result<_, _>>()?,
            ),
            "bytea" => Self::Bytes(
                cells
                    .map(|cell| match cell {
                        Cell::Null => Ok(None),
                        Cell::Blob(value) => Ok(Some(value.as_slice())),
                        other => Err(strange(other)),
                    })
                    .collect::<Result<_, _>>()?,
            ),
            _ => Self::Texts(
                cells
                    .map(|cell| match cell {
                        Cell::Null => Ok(None),
                        Cell::Text(value) => Ok(Some(value.as_str())),
                        other => Err(strange(other)),
                    })
                    .collect::<Result<_, _>>()?,
            ),
        })
    }
}

impl ToParam for List<'_> {
    fn param(&self) -> Param<'_> {
        match self {
            Self::Numbers(list) => Param::MaybeInts(list),
            Self::Texts(list) => Param::MaybeTexts(list),
            Self::Bytes(list) => Param::MaybeBytes(list),
        }
    }
}

impl Column for Cell {
    fn read(raw: &Raw<'_>) -> Result<Self, Unread> {
        if raw.is_null() {
            return Ok(Self::Null);
        }
        Ok(match *raw.ty() {
            Type::BOOL => Self::Int(i64::from(bool::read(raw)?)),
            Type::INT8 | Type::INT4 | Type::INT2 => Self::Int(i64::read(raw)?),
            Type::FLOAT8 => Self::Real(f64::read(raw)?),
            Type::BYTEA => Self::Blob(Vec::read(raw)?),
            _ => Self::Text(String::read(raw)?),
        })
    }
}

fn tables(db: &Db, in_schema: &str) -> Result<Vec<Shape>, Failure> {
    let mut shapes = Vec::new();
    for table in schema::tables() {
        let columns: Vec<String> =
            types(db, in_schema, table)?.into_iter().map(|(column, _)| column).collect();
        if !columns.is_empty() {
            shapes.push(Shape { name: table.to_owned(), columns });
        }
    }
    Ok(shapes)
}

/// The columns of a table, with their types.
fn types(db: &Db, in_schema: &str, table: &str) -> Result<Vec<(String, String)>, Failure> {
    const SQL: &str = "
        SELECT attname, format_type(atttypid, NULL) FROM pg_catalog.pg_attribute
        JOIN pg_catalog.pg_class ON pg_class.oid = attrelid JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname = :schema AND relname = :table AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let rows = db
        .prepare_cached(SQL)?
        .query_map(named_params! { ":schema": in_schema, ":table": table }, |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    Ok(rows.collect::<db::Result<_>>()?)
}

/// A table whose rows are numbered by a sequence.
struct Numbered {
    table: String,
    column: String,
    sequence: String,
}

fn numbered(db: &Db, in_schema: &str) -> Result<Vec<Numbered>, Failure> {
    const SQL: &str = "
        SELECT relname, attname, pg_get_serial_sequence(quote_ident(nspname) || '.' || quote_ident(relname), attname)
        FROM pg_catalog.pg_attribute
        JOIN pg_catalog.pg_class ON pg_class.oid = attrelid JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname = :schema AND relkind = 'r' AND attidentity <> ''";
    let rows = db.prepare_cached(SQL)?.query_map(named_params! { ":schema": in_schema }, |row| {
        Ok(Numbered { table: row.get(0)?, column: row.get(1)?, sequence: row.get(2)? })
    })?;
    let ours = schema::tables();
    let rows = rows.collect::<db::Result<Vec<_>>>()?;
    Ok(rows.into_iter().filter(|numbered| ours.contains(&numbered.table.as_str())).collect())
}

fn listed(columns: &[String]) -> String {
    columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ")
}
