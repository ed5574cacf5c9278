//! Statements of the user that are being answered, each on a thread of the user's.
//! Invariant: what is answered when the runner closes ends soon, and nothing is asked after that.

use std::collections::HashMap;

use crate::error::{Error, Kind, Result};
use crate::port::{Halt, Store, Stored};
use crate::runtime::park::lock;
use crate::runtime::{Runtime, Shared, store_error};

/// So many statements of users are answered at once; more are refused.
pub const QUESTIONS_MAX: usize = 64;

#[derive(Default)]
pub(super) struct Questions {
    open: HashMap<u64, Halt>,
    asked: u64,
    closed: bool,
}

/// Takes a question off the list, also when its thread unwinds.
pub(super) struct Open<'s>(&'s Shared, u64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        lock(&self.0.questions).open.remove(&self.1);
    }
}

impl Runtime {
    /// Asks the store what may take long. Closing the runner, or `halt`, ends it.
    ///
    /// # Errors
    /// [`Kind::Runner`] if it was ended or there are too many, [`Kind::Store`] for a fault of the store.
    pub fn ask<T>(&self, halt: &Halt, ask: impl FnOnce(&dyn Store) -> Stored<T>) -> Result<T> {
        let shared = &*self.shared;
        let _open = shared.open(halt)?;
        ask(&*shared.store).map_err(|fault| match halt.is_asked() && lock(&shared.questions).closed {
            true => Error::new(Kind::Runner, "the question to the store was ended: the runner shuts down"),
            false => store_error(fault),
        })
    }
}

impl Shared {
    pub(super) fn open(&self, halt: &Halt) -> Result<Open<'_>> {
        let mut questions = lock(&self.questions);
        if questions.closed {
            return Err(self.refusal());
        }
        if questions.open.len() >= QUESTIONS_MAX {
            let text = format!("{QUESTIONS_MAX} queries and exports are being answered; wait for one to end");
            return Err(Error::new(Kind::Runner, text));
        }
        questions.asked += 1;
        let number = questions.asked;
        questions.open.insert(number, halt.clone());
        Ok(Open(self, number))
    }

    /// Ends what is being answered.
    pub(super) fn close_questions(&self) {
        let mut questions = lock(&self.questions);
        questions.closed = true;
        questions.open.values().for_each(Halt::ask);
    }
}
