//! Statements of users, which may take as long as they like, on a connection of their own, and the end of such a statement.
//! Invariant: nothing that the store itself asks waits for one.

use cloaca_core::port::Halt;

use crate::postgres::address::Address;
use crate::postgres::db::Db;
use crate::postgres::fault::Failure;
use crate::postgres::open::{self, Use};

/// Runs `work` on a connection of its own, until `halt` is asked for.
pub fn with<T>(
    address: &Address,
    halt: &Halt,
    work: impl FnOnce(&Db) -> Result<T, Failure>,
) -> Result<T, Failure> {
    halt.over(|| {
        let db = open::connection(address, Use::Asking)?;
        db.be_patient();
        work(&db)
    })
}
