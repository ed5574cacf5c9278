//! Statements of users, which only read. Invariant: a value comes back as the one of five kinds that it is nearest to.

use cloaca_core::port::{Cell, Table};

use crate::postgres::db::Db;
use crate::postgres::fault::Failure;

/// Runs one statement.
pub fn run(_db: &Db, _sql: &str, _params: &[Cell]) -> Result<Table, Failure> {
    Err(Failure::Refused("a store on PostgreSQL is not asked by SQL of users yet".to_owned()))
}
