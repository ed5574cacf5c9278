//! Triggers and crons as a store keeps them.

use std::sync::Arc;

use uuid::Uuid;

use crate::admit::Overlap;
use crate::time::Wall;

/// A trigger's or a cron's row.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The store's key.
    pub row: i64,
    /// The public id.
    pub id: Uuid,
    /// The trigger's name, or the one that a cron was registered with; empty for a cron without one.
    pub name: String,
    /// What it fires.
    pub workflow: String,
    /// Interval or expression.
    pub kind: ScheduleKind,
    /// Whether it is polled or run at all.
    pub enabled: bool,
    /// Why it was disabled, if by the engine.
    pub disabled_cause: Option<String>,
    /// The cursor as JSON text.
    pub cursor: Option<String>,
    /// A trigger's last poll that was written down, or a cron's last run.
    pub last_at: Option<Wall>,
    /// When the trigger last fired a run.
    pub last_fired_at: Option<Wall>,
    /// When it was first registered.
    pub created_at: Wall,
    /// When its settings last changed.
    pub updated_at: Wall,
    /// Who polls it.
    pub owner: Option<i64>,
    /// Whose it is.
    pub origin: Origin,
}

/// Whose a schedule is, and so where it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// A program's: it runs where its name is declared.
    #[default]
    Declared,
    /// A call's: it is data, and runs everywhere.
    Registered,
    /// A program's of release 0.1.0, and nobody has declared it since: it runs everywhere.
    OldRelease,
}

/// What becomes of a cron's moments that nobody was there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Catchup {
    /// All are made up for, up to a bound.
    #[default]
    All,
    /// The newest is.
    Last,
    /// None is.
    Nothing,
}

impl Catchup {
    /// The public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Last => "last",
            Self::Nothing => "none",
        }
    }

    /// The policy of that public name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::All, Self::Last, Self::Nothing].into_iter().find(|policy| policy.name() == name)
    }
}

/// What a cron's runs obey, and find in their contexts beside the moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Terms {
    /// A JSON object as text.
    pub context: Option<Arc<str>>,
    /// What a moment does while a run of the cron is unfinished.
    pub overlap: Overlap,
    /// What becomes of moments that were missed.
    pub catchup: Catchup,
}

/// How a schedule becomes due.
#[derive(Debug, Clone, PartialEq)]
pub enum ScheduleKind {
    /// A polled trigger.
    Trigger {
        /// Poll interval in microseconds.
        interval_us: i64,
        /// Whether every fire starts a run.
        allow_concurrent: bool,
    },
    /// A calendar expression.
    Cron {
        /// Five or six fields, or a nickname.
        expression: String,
        /// IANA name.
        timezone: String,
        /// When it runs next.
        next_at: Option<Wall>,
        /// How.
        terms: Terms,
    },
}

/// A cron that is to exist.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NewCron<'a> {
    /// UUIDv7, kept if there is no such cron yet.
    pub id: Uuid,
    /// By which it is known; empty for a cron that is known by its workflow, expression and zone.
    pub name: &'a str,
    /// Who asks for it.
    pub origin: Origin,
    /// What it fires.
    pub workflow: &'a str,
    /// Five or six fields, or a nickname.
    pub expression: &'a str,
    /// IANA name.
    pub timezone: &'a str,
    /// When it runs next.
    pub next_at: Option<Wall>,
    /// A JSON object as text, for the contexts of its runs.
    pub context: Option<&'a str>,
    /// What a moment does while a run of the cron is unfinished.
    pub overlap: Overlap,
    /// What becomes of moments that were missed.
    pub catchup: Catchup,
    /// When it was registered.
    pub at: Wall,
}

/// What came of forgetting a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forgotten {
    /// The rows that are gone, with all that hung on them but the runs; none if the name was not known.
    Gone(Vec<i64>),
    /// Nothing is gone: that living owner polls the trigger.
    Polled {
        /// Its epoch.
        by: i64,
    },
}

/// Which schedules a listing shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleFilter {
    /// Polled triggers.
    Triggers,
    /// Calendar schedules.
    Crons,
}
