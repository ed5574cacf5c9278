//! What a context is worth: its canonical bytes, its hash, and how the contexts of several tasks become one.
//! Never refuses a value; whoever takes it from Python does. The encoding is specified in docs/context-hash.md.

mod canon;
mod join;
mod merge;
mod read;

pub use canon::{Canon, hash_json};
pub use join::join;
pub use merge::merge;
pub use read::parse;

/// How deep a context may nest, itself counted.
pub const DEPTH_MAX: usize = 200;

/// How long a context's JSON text may be.
pub const CONTEXT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How many states before a parting of branches one join reconstructs; past it the latest common task's output stands for
/// the state. Only crossing branches, many wide and many deep, come near it.
pub const BASES_MAX: usize = 1_000;
