//! Opens connections to a store. Invariant: every connection of the store finds its tables by their bare names, and gives up its locks within a few seconds if
//! whoever has it is stopped.

use std::time::Duration;

use cloaca_core::port::Halt;
use tokio_postgres::error::SqlState;

use crate::postgres::address::Address;
use crate::postgres::connect::{connect, tls_of};
use crate::postgres::db::{Db, Error};
use crate::postgres::fault::Failure;

/// A store opens within this.
const PATIENCE: Duration = Duration::from_secs(10);
/// And within this, once a server that the URL wants to wait for longer lets us in.
const OWN: Duration = Duration::from_secs(2);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It writes, under the lock of the store.
    Writing,
    /// It reads what is committed.
    Reading,
    /// It answers users, for as long as they wait.
    Asking,
    /// It tells that owners live, and what is new.
    Beating,
}

/// How long who opens a store at `address` waits, unless he is to wait for less: longer than ours only where the URL says so.
pub fn patience(address: &Address) -> Halt {
    let asked = address.patience.unwrap_or_default() * u32::try_from(address.hosts.len()).unwrap_or(u32::MAX);
    Halt::within(PATIENCE.max(asked + OWN))
}

/// A connection to the store at `address`, whose tables need not be there yet.
pub fn connection(address: &Address, kind: Use) -> std::result::Result<Db, Failure> {
    let db = Db::open(address, tls_of(address), async {
        let (client, connected) = connect(address).await?;
        Ok((client, async move {
            // What became of it the client tells.
            let _ = connected.await;
        }))
    })?;
    db.execute_batch(&settings(address, kind))?;
    Ok(db)
}

/// Refuses a pooler that gives each transaction another session: what is set for a session, the tables' schema too, and statements that were prepared
/// are not there in the next one. Told by a statement that another session does not know, while who else asks has the first.
pub fn refuse_pooler(address: &Address, one: &Db, other: &Db) -> std::result::Result<(), Failure> {
    const SQL: &str = "SELECT 1";
    one.prepare_cached(SQL)?.exists([])?;
    other.execute_batch("BEGIN; SELECT 1")?;
    let found = one.prepare_cached(SQL).and_then(|mut prepared| prepared.exists([]));
    let ended = other.execute_batch("COMMIT");
    match found {
        Err(Error::Server(error)) if error.code() == Some(&SqlState::INVALID_SQL_STATEMENT_NAME) => {
            Err(Failure::Refused(format!(
                "there is a pooler in transaction mode before database '{}', which takes a runner's session away from it: give it one in \
                 session mode (pool_mode = session), or the server itself",
                address.name
            )))
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(ended?),
    }
}

/// Who holds the lock and is stopped must not hold up all others for long.
pub fn settings(address: &Address, kind: Use) -> String {
    let schema = quoted(&address.schema);
    let mut settings = format!(
        "SET search_path TO {schema}, pg_catalog; SET client_min_messages TO warning; SET standard_conforming_strings TO on; \
         SET timezone TO 'UTC'; SET idle_in_transaction_session_timeout TO '2s'; SET jit TO off"
    );
    if kind != Use::Asking {
        // Every statement of ours goes by an index. A plan that was made while a table was empty must not walk it once it is full.
        settings
            .push_str("; SET enable_seqscan TO off; SET enable_hashjoin TO off; SET enable_mergejoin TO off");
    }
    match kind {
        Use::Writing => settings.push_str("; SET lock_timeout TO '20s'; SET statement_timeout TO '25s'"),
        // They take as long as they like, whatever the server or the role says.
        Use::Asking => {
            settings.push_str("; SET default_transaction_read_only TO on; SET statement_timeout TO 0");
        }
        Use::Beating => settings.push_str(
            "; SET synchronous_commit TO off; SET lock_timeout TO '3s'; SET statement_timeout TO '4s'",
        ),
        Use::Reading => {
            settings.push_str("; SET default_transaction_read_only TO on; SET statement_timeout TO '25s'")
        }
    }
    settings
}

/// A name as SQL has it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
