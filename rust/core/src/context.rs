//! What a context is worth: its canonical bytes, its hash, and how the contexts of several tasks become one.
//! Never refuses a value; whoever takes it from Python does. The encoding is specified in docs/context-hash.md.

mod canon;
mod foreign;
mod join;
mod memo;
mod merge;
mod read;
mod relay;
mod size;

pub use canon::{Canon, hash_json, hash_text};
pub use foreign::taken_in;
pub use join::{given, join};
pub use merge::merge;
pub use read::parse;
pub(crate) use read::parse_shallow;
pub use relay::{Given, Relay};
pub use size::too_large;

/// How deep a context may nest, itself counted.
pub const DEPTH_MAX: usize = 200;

/// How long a context's JSON text may be, if nothing else was asked for.
pub const CONTEXT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How many states before partings of branches are reconstructed for one run; past it the latest common task's output stands for
/// the state. Only crossing branches, many wide and many deep, come near it.
pub const BASES_MAX: usize = 10_000;

/// So many bytes of such states are remembered for one run; past it they are reconstructed when they are needed again.
pub const REMEMBERED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What takes more bytes of JSON to read than this is left to a thread that holds up nobody else meanwhile.
pub const LIGHT_BYTES_MAX: usize = 16 * 1024;

/// What the contexts of a run may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// What takes more bytes of JSON to read is not done under a lock or with the interpreter in hand.
    pub light_bytes_max: usize,
    /// The longest that a context's JSON text may be.
    pub bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { light_bytes_max: LIGHT_BYTES_MAX, bytes_max: CONTEXT_BYTES_MAX }
    }
}
