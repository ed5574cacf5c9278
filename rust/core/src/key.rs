//! The keys under which a store keeps its rows, each a kind of its own: one in another's place does not compile.
//! And tables by ids that are made here, which nobody can choose to collide.

use std::collections::{HashMap, HashSet};
use std::fmt::{Display, Formatter, Result};
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::{ContextV7, Timestamp, Uuid};

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

/// A new id, which grows with the clock. Of one that stands before 1970 no id can tell the time; those grow among themselves.
pub fn new_id() -> Uuid {
    static BEFORE: Mutex<AssertUnwindSafe<ContextV7>> = Mutex::new(AssertUnwindSafe(ContextV7::new()));
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(_) => Uuid::now_v7(),
        Err(_) => Uuid::new_v7(Timestamp::from_unix(&BEFORE, 0, 0)),
    }
}

/// A table by ids of runs, or of what belongs to them. They are looked up many times a run.
pub type ById<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// The same of ids alone.
pub type Ids<K> = HashSet<K, foldhash::fast::FixedState>;

keys! {
    /// The number of a living runner, which fences off what a stale one writes; larger than all before it in its store.
    Epoch,
    /// The row of a trigger or a cron.
    ScheduleKey,
    /// The row of a run.
    RunRow,
    /// The row of an end that somebody is to be told of.
    EndKey,
}
