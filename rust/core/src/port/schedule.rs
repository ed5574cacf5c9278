//! Triggers and crons as a store keeps them.

use std::sync::Arc;

use uuid::Uuid;

use crate::admit::Overlap;
use crate::grid::Kept;
use crate::key::{Epoch, ScheduleKey};
use crate::past::Past;
use crate::port::end::OnRun;
use crate::time::Wall;

/// A trigger's or a cron's row.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The store's key.
    pub row: ScheduleKey,
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
    /// Since when it is off, if it is.
    pub disabled_at: Option<Wall>,
    /// The cursor as JSON text.
    pub cursor: Option<String>,
    /// How often somebody has set it, beside its polls, or has skipped the end of a run that was next.
    pub cursor_set: i64,
    /// How many polls of a trigger in a row, or calls of a cron's function, had failed when one of them was last written down.
    pub failures: u32,
    /// A trigger's last poll that was written down, or a cron's last run.
    pub last_at: Option<Wall>,
    /// When the trigger last fired a run.
    pub last_fired_at: Option<Wall>,
    /// Which moments of a cron are over: what came before it was declared, and what has run or been passed over.
    pub past: Past,
    /// When it was first registered.
    pub created_at: Wall,
    /// When its settings last changed.
    pub updated_at: Wall,
    /// Who polls it.
    pub owner: Option<Epoch>,
    /// Whose it is.
    pub origin: Origin,
    /// Of the declaration that is in force, if it was declared since there are versions.
    pub digest: Option<i64>,
    /// Its number among the versions declared under this name, by when each was declared for the first time.
    pub version: i64,
    /// The highest number of those that living owners declare beside who polls it; zero if none does.
    pub newest: i64,
    /// Since when a poll of it has been in its body for too long, as its owner last said.
    pub in_body_since: Option<Wall>,
    /// Of which ends a trigger is to be told, if it is not polled.
    pub on_run: Option<OnRun>,
    /// What is kept of when a trigger is due; none of a cron.
    pub grid: Option<Kept>,
    /// How often a poll of a trigger has been asked for, if none has begun since the last time.
    pub asked: Option<i64>,
}

impl Schedule {
    /// Whether a version is declared, by somebody who lives, that is newer than the one in force.
    pub fn is_outdated(&self) -> bool {
        self.newest > self.version
    }

    /// What texts call it: its name, or the id of a cron without one.
    pub fn called(&self) -> Arc<str> {
        match &*self.name {
            "" => self.id.to_string().into(),
            name => name.into(),
        }
    }
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
    /// Of its arguments and its function, if a program declares it: what tells its versions apart.
    pub digest: i64,
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

/// What is written down of a poll before its body is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    /// The trigger.
    pub row: ScheduleKey,
    /// What [`Schedule::asked`] was when it was heard, if somebody asked for the poll.
    pub answers: Option<i64>,
    /// Whether it is about an end of a run.
    pub is_call: bool,
}

/// Where triggers are to change hands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wished {
    /// Names of triggers that are polled by who asks, and wanted by others.
    pub of_us: Vec<Arc<str>>,
    /// Names of triggers that who asks has wanted, and nobody polls by now.
    pub granted: Vec<Arc<str>>,
    /// How many triggers nobody polls that others have wanted, and not taken yet.
    pub untaken: usize,
}

/// What came of forgetting a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forgotten {
    /// The rows that are gone, with all that hung on them but the runs; none if the name was not known.
    Gone(Vec<ScheduleKey>),
    /// Nothing is gone: that living owner polls the trigger, or declares it.
    Polled {
        /// Its epoch.
        by: Epoch,
    },
}

/// What came of renaming a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renamed {
    /// The rows that have the other name now; none if the name was not known.
    Done(Vec<ScheduleKey>),
    /// Nothing is renamed: that living owner polls the trigger, or declares it.
    Polled {
        /// Its epoch.
        by: Epoch,
    },
    /// Nothing is renamed: something has the other name already.
    Taken,
}

/// Which schedules a listing shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleFilter {
    /// Polled triggers.
    Triggers,
    /// Calendar schedules.
    Crons,
}
