//! What the files of `sql` call the database, as SQLite's driver has it. Decides nothing. Invariant: `postgres::db` has the same names with the same meaning.

pub use rusqlite::{Connection as Db, OptionalExtension, Result, Row, ToSql as ToParam, named_params};
