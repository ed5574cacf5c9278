//! What a poller and who calls the bodies say to one another.

use std::time::Duration;

use uuid::Uuid;

use crate::key::ScheduleKey;
use crate::port::{Stretch, Told};
use crate::time::{Mono, Wall};

/// What a poller does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// Poll this trigger now.
    Poll(Ticket),
    /// A body took too long: its poll failed without it.
    TimedOut(Overdue),
    /// A call about an end of a run ended the process that made it: it failed, and nobody has counted that yet.
    Died(Died),
    /// So many triggers are on the move in the wheel that it stops half-way: ask again at once.
    Again,
    /// Nothing is due before [`Poller::next_due`](crate::poll::Poller::next_due), which is later than now.
    Wait,
}

/// The right to poll a trigger once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The trigger's place.
    pub place: u32,
    /// Tells this poll from a later one of the same trigger.
    pub serial: u32,
    /// When it was due.
    pub due: Mono,
    /// How many ends of runs were known when it began; whoever hands it out says so.
    pub ends: i64,
    /// Whether something is to be written down before its body is called: see [`Poller::beginning`](crate::poll::Poller::beginning).
    pub is_noted: bool,
}

/// A poll that was given up.
#[derive(Debug, Clone, PartialEq)]
pub struct Overdue {
    /// The trigger's place.
    pub place: u32,
    /// Which poll of it.
    pub serial: u32,
    /// How long it was waited for.
    pub timeout: Duration,
    /// What follows for its trigger.
    pub ended: Ended,
}

/// A call that ended its process, as whoever polls the trigger next finds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Died {
    /// The trigger's place.
    pub place: u32,
    /// The run about whose end it is.
    pub run: Uuid,
    /// What follows for its trigger.
    pub ended: Ended,
}

/// What a poll that was more than a plain skip leaves for the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// The trigger's row.
    pub schedule: ScheduleKey,
    /// How often somebody had set its cursor when the poll looked at it.
    pub cursor_set: i64,
    /// Quiet polls gathered before it.
    pub history: Vec<Stretch>,
    /// The end of a run that the poll was about, unless it is to be told again.
    pub told: Option<Told>,
    /// Why the trigger is to be disabled, if it is.
    pub disable: Option<String>,
    /// How long it is not to be polled, if it waits because of failures or its own wish.
    pub wait: Option<Duration>,
    /// Since when it waits, if not since the poll began: a late poll lengthens no wait, nor does the shift of its due time.
    pub waits_from: Option<Mono>,
    /// How many polls in a row have failed, this one among them.
    pub failures: u32,
}

impl Ended {
    /// How long it waits after the poll began.
    pub fn wait_after(&self, began: Mono) -> Option<Duration> {
        let late = self.waits_from.map(|from| began.since(from)).unwrap_or_default();
        self.wait.map(|wait| wait.saturating_sub(late))
    }
}

/// What a poll's body came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// When it began.
    pub began: Wall,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// How long its function asked not to be called.
    pub pause: Option<Duration>,
}
