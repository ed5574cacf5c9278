//! The keys under which a store keeps its rows, each a kind of its own: one in another's place does not compile.

use std::fmt::{Display, Formatter, Result};

macro_rules! keys {
    ($($(#[$doc:meta])* $key:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $key(pub i64);

        impl Display for $key {
            fn fmt(&self, f: &mut Formatter<'_>) -> Result {
                self.0.fmt(f)
            }
        }
    )+};
}

keys! {
    /// The number of a living runner, which fences off what a stale one writes; larger than all before it in its store.
    Epoch,
    /// The row of a trigger or a cron.
    ScheduleKey,
    /// The row of a run.
    RunRow,
}
