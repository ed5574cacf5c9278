//! Turns what the server says into what a user can act upon, and tells what will pass from what will not.
//! Invariant: only a failure after which the same batch may succeed is passing, and no message holds a password.

use std::fmt;

use cloaca_core::port::Fault;
use tokio_postgres::error::SqlState;

use crate::postgres::db::Error;

/// Why a transaction was given up.
#[derive(Debug)]
pub enum Failure {
    /// The server failed or refused, or did not answer.
    Sql(Error),
    /// We refuse, with the complete message.
    Refused(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Sql(error)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Sql(error.into())
    }
}

impl Failure {
    /// What every method of a store says once it is closed.
    pub fn closed() -> Self {
        Self::Refused("the store is closed".to_owned())
    }

    /// Whether the same may succeed later.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Sql(error) if passes(error))
    }

    /// What it says of itself, without the store's name.
    pub fn cause(&self) -> String {
        match self {
            Self::Refused(message) => message.clone(),
            Self::Sql(error) => Cause(error).to_string(),
        }
    }

    /// What the trait's caller sees; `name` is the store's, without secrets.
    pub fn into_fault(self, name: &str) -> Fault {
        match self {
            Self::Refused(message) => Fault::Final(message),
            Self::Sql(error) if passes(&error) => Fault::Passing(describe(name, &error)),
            Self::Sql(error) => Fault::Final(describe(name, &error)),
        }
    }
}

/// Whether the same statement may succeed later, on another connection if need be.
pub fn passes(error: &Error) -> bool {
    match error {
        Error::Silent | Error::Ended => true,
        Error::Unreached(unreached) => unreached.passes,
        Error::Server(error) => match error.code() {
            Some(code) => state_passes(code),
            // Of the way to the server, unless it is we who asked for nonsense.
            None => {
                error.is_closed()
                    || std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
            }
        },
        Error::NoRows | Error::Column(..) => false,
    }
}

fn state_passes(code: &SqlState) -> bool {
    // Connections, resources, what an operator did, the system; and what a standby refuses while another server takes over.
    let passing = ["08", "53", "57", "58", "40"];
    passing.iter().any(|class| code.code().starts_with(class))
        || [
            &SqlState::LOCK_NOT_AVAILABLE,
            &SqlState::READ_ONLY_SQL_TRANSACTION,
            &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        ]
        .contains(&code)
}

/// Whether the connection, and not the statement, has failed: whether its transaction was committed is not known.
pub fn is_lost(error: &Error) -> bool {
    match error {
        Error::Silent | Error::Ended | Error::Unreached(_) => true,
        Error::Server(error) => match error.code() {
            Some(code) => ["08", "57P"].iter().any(|class| code.code().starts_with(class)),
            None => true,
        },
        Error::NoRows | Error::Column(..) => false,
    }
}

/// Whether there is no server, as far as can be told: another connection would fare no better.
pub fn is_silence(error: &Error) -> bool {
    match error {
        Error::Silent => true,
        Error::Unreached(unreached) => unreached.is_silent,
        Error::Ended | Error::Server(_) | Error::NoRows | Error::Column(..) => false,
    }
}

/// Whether it was lost while it was idle, so that another connection may do.
pub fn is_stale(error: &Error) -> bool {
    matches!(error, Error::Server(_)) && is_lost(error)
}

/// A message that names the store and the cause.
pub fn describe(name: &str, error: &Error) -> String {
    let cause = Cause(error);
    match error {
        Error::Silent | Error::Ended => format!("database '{name}' does not answer: {cause}"),
        Error::Server(error) if error.code() == Some(&SqlState::DISK_FULL) => {
            format!("the disk that holds database '{name}' is full: {cause}")
        }
        Error::Server(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => format!(
            "database '{name}' does not let this user: {cause}; grant what docs/guides/postgresql.md lists under 'Roles'"
        ),
        Error::Server(error) if error.code().is_none() && error.is_closed() => {
            format!("the connection to database '{name}' is gone: {cause}")
        }
        _ => format!("database '{name}': {cause}"),
    }
}

/// The server's own words.
pub struct Cause<'e>(pub &'e Error);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Error::Server(error) => match error.as_db_error() {
                Some(said) => write!(f, "{} (SQLSTATE {})", said.message(), said.code().code()),
                None => match std::error::Error::source(error) {
                    Some(source) => write!(f, "{error}: {source}"),
                    None => write!(f, "{error}"),
                },
            },
            Error::Unreached(unreached) => f.write_str(&unreached.text),
            Error::Silent => f.write_str("no answer came in time"),
            Error::Ended => f.write_str("the wait for it was ended"),
            Error::NoRows => f.write_str("a row is missing"),
            Error::Column(column, why) => write!(f, "column {column}: {why}"),
        }
    }
}
