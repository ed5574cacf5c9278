//! What can go wrong, as a closed set of kinds. A kind decides which exception a Python caller sees; nothing
//! else may be told apart by text. Invariant: a message names the argument, the value and the way out.

use std::fmt;

/// The longest excerpt of an offending value that a message shows, in characters.
pub const EXCERPT_CHARS_MAX: usize = 80;

/// Which part of the program refused, and so which exception class is raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A context's value is not what JSON can hold.
    Context,
    /// A workflow, task, rule or retry policy is malformed or unknown.
    Workflow,
    /// A trigger's settings or what its poll answered is malformed.
    Trigger,
    /// A cron expression, time zone or schedule id is malformed or unknown.
    Schedule,
    /// The store cannot be opened, read or written.
    Store,
    /// The runner is closed, forked, or has met a fault of its own.
    Runner,
}

/// A refusal with its kind and its complete message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Decides the exception class.
    pub kind: Kind,
    /// Complete text for the user.
    pub message: String,
}

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind` with its complete message.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// `text` on one line and shortened to [`EXCERPT_CHARS_MAX`] characters, for use in a message.
pub fn excerpt(text: &str) -> String {
    let mut letters = text.chars();
    let mut short = String::new();
    for letter in letters.by_ref().take(EXCERPT_CHARS_MAX - 1) {
        match letter.is_control() {
            true => short.extend(letter.escape_default()),
            false => short.push(letter),
        }
    }
    match (letters.next(), letters.next()) {
        (Some(last), None) if !last.is_control() => short.push(last),
        (Some(_), _) => short.push('…'),
        (None, _) => {}
    }
    short
}
