//! What listings and logs hide. The store keeps what is to be hidden, and keeps the values themselves as they are.

/// What the programs of a store have asked to be hidden.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redacted {
    /// Keys whose values are hidden, in their order.
    pub keys: Vec<String>,
    /// Whether a function decides beside them, which only its own process can call.
    pub by_function: bool,
}

/// Of so many keys at most the store keeps that they are hidden.
pub const REDACTED_KEYS_MAX: usize = 1000;
