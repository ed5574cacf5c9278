//! Triggers and crons as a store keeps them.

use uuid::Uuid;

use crate::time::Wall;

/// A trigger's or a cron's row.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The store's key.
    pub row: i64,
    /// The public id.
    pub id: Uuid,
    /// The trigger's name; empty for a cron registered by hand.
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
    /// Whether it is a cron that a program declares: then it runs only where its name is declared.
    pub declared: bool,
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
    },
}

/// A cron that is to exist.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NewCron<'a> {
    /// UUIDv7, kept if there is no such cron yet.
    pub id: Uuid,
    /// The declaring function's name; empty for a cron registered by hand.
    pub name: &'a str,
    /// What it fires.
    pub workflow: &'a str,
    /// Five or six fields, or a nickname.
    pub expression: &'a str,
    /// IANA name.
    pub timezone: &'a str,
    /// When it runs next.
    pub next_at: Option<Wall>,
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
