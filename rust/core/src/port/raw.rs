//! What a statement of the user takes and gives.

/// A value of a `query` row or parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// NULL.
    Null,
    /// INTEGER.
    Int(i64),
    /// REAL.
    Real(f64),
    /// TEXT.
    Text(String),
    /// BLOB.
    Blob(Vec<u8>),
}

/// Column names, then rows.
pub type Table = (Vec<String>, Vec<Vec<Cell>>);
