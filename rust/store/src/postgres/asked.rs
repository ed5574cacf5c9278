//! Statements of users, which may take as long as they like, on a connection of their own, and the end of such a statement.
//! Invariant: nothing that the store itself asks waits for one.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cloaca_core::port::Halt;

use crate::postgres::address::Address;
use crate::postgres::db::{Db, Error};
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

/// A connection that has been idle for so long may have been cut off by what lies between.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// The connection that answered last: of who looks the next question comes at once, and to connect takes as long as five questions.
#[derive(Default)]
pub struct Spare(Mutex<Option<(Db, Instant)>>);

impl Spare {
    /// As [`with`], on this connection if it is free, and kept for the next one.
    pub fn with<T>(
        &self,
        address: &Address,
        halt: &Halt,
        work: impl Fn(&Db) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((db, at)) = kept
            && at.elapsed() < IDLE_MAX
            && !db.is_lost()
        {
            match halt.over(|| work(&db)) {
                Ok(done) => return Ok(self.kept(db, done)),
                Err(failure @ (Failure::Refused(_) | Failure::Sql(Error::Ended))) => return Err(failure),
                // Something became of it, or of what it had prepared.
                Err(_) => {}
            }
        }
        halt.over(|| {
            let db = open::connection(address, Use::Asking)?;
            db.be_patient();
            let done = work(&db)?;
            Ok(self.kept(db, done))
        })
    }

    /// Lets go of it.
    pub fn close(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn kept<T>(&self, db: Db, done: T) -> T {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((db, Instant::now()));
        done
    }
}
