//! What is known of one trigger, in two halves: what each quiet poll touches, and the rest.
//! Invariant: the hot half says of the other what [`Rest::is_live`] and [`Rest::is_plain`] say.

use std::sync::Arc;
use std::time::Duration;

use crate::history::{Streak, Tally};
use crate::key::{EndKey, ScheduleKey};
use crate::poll::plan::Plan;
use crate::port::{Beginning, Ending};
use crate::time::{Mono, Wall};

/// What every quiet poll touches, in one line of the cache: with many triggers its misses are what a poll costs.
#[derive(Debug)]
pub(super) struct Hot {
    pub serial: u32,
    pub in_body: bool,
    pub in_commit: bool,
    /// Whether it is to be polled at all: its row is kept, and nothing in [`Rest`] stands against it.
    pub is_live: bool,
    /// Whether nothing else in [`Rest`] need be looked at: no jitter, time-out, failure, pause, reason or
    /// first beat.
    pub is_plain: bool,
    pub interval_ns: u64,
    /// The beat of the last poll; the poll is due later than that by the jitter.
    pub last_beat: Mono,
    pub quiet: Tally,
}

#[derive(Debug)]
pub(super) struct Rest {
    pub name: Arc<str>,
    pub plan: Arc<Plan>,
    /// The store's row; none until it is kept.
    pub schedule: Option<ScheduleKey>,
    pub enabled: bool,
    /// Another owner polls it.
    pub elsewhere: bool,
    pub retired: bool,
    /// The program declares it no more, or another one in a newer version: another owner may poll it, once nothing is in flight here.
    pub is_leaving: bool,
    /// That nothing was in flight any more is noted, and nobody has heard of it yet.
    pub is_vacated: bool,
    /// It was to make up for a poll, and leaves that to who polls it next.
    pub owes: bool,
    /// The place of the same trigger as it was declared before, while its last poll is in flight: no two bodies of one trigger run at once.
    pub waits_for: Option<u32>,
    /// The place that waits for this one.
    pub successor: Option<u32>,
    /// The place in which the same trigger was declared before, and so on.
    pub older: Option<u32>,
    /// Its body has not come back in time, and is not waited for.
    pub given_up: bool,
    pub failures: u32,
    pub pause: Option<Duration>,
    /// The beat for which it is armed, if jitter keeps that from being told from the due time.
    pub next_beat: Mono,
    /// Its first beat here, until it is polled on it: the grid is older than this process.
    pub first: Option<Mono>,
    /// A poll before its next beat, for what came while nobody polled it.
    pub make_up: Option<Mono>,
    /// When the poll out of turn was asked for that is in flight.
    pub asked_at: Option<Mono>,
    /// Which moment of a cron its poll decides, and what a run of that begins with, as JSON text.
    pub moment: Option<(Wall, Arc<str>)>,
    /// Of a trigger that is told of ends of runs: the one that is next, the one that its poll in flight or the last one is about, and the last
    /// one that is not to be told again.
    pub ending: Option<Arc<Ending>>,
    pub shown: Option<EndKey>,
    pub told: Option<EndKey>,
    /// When the last poll was asked for, if it was: what it wished for counts from there, and not from a beat.
    pub waits_from: Option<Mono>,
    /// It is to be polled as soon as it can be.
    pub is_wanted: bool,
    /// How many polls of it had been asked for by others when that was heard, until one begins.
    pub asked: Option<i64>,
    /// The last call about an end went well here: of the next one nothing is written down before it begins.
    pub is_proven: bool,
    /// The process of a former owner ended while it was called about an end, which nobody has counted yet.
    pub has_died: bool,
    /// What is to be written down of the poll in flight.
    pub beginning: Option<Beginning>,
    /// The poll in flight answers others, who look for what it comes to.
    pub is_answer: bool,
    pub fired_at: Option<Wall>,
    pub cursor: Option<Arc<str>>,
    /// How often somebody has set it, beside its polls; and how often that was when the tick on its way to the store left.
    pub cursor_set: i64,
    pub cursor_sent: i64,
    /// The same when the poll in flight began, if somebody has set it since then: what that poll answers counts for nothing.
    pub cursor_seen: Option<i64>,
    /// Skips with a reason; empty while [`Hot::quiet`] gathers.
    pub streak: Streak,
    pub has_streak: bool,
}

impl Rest {
    /// How long the trigger is not to be polled, by its own wish or because of failures.
    pub fn pause(&self) -> Duration {
        self.pause.unwrap_or_else(|| self.plan.backoff.delay(self.failures))
    }

    pub fn is_live(&self) -> bool {
        self.schedule.is_some()
            && self.enabled
            && !self.elsewhere
            && !self.retired
            && self.waits_for.is_none()
    }

    pub fn is_plain(&self) -> bool {
        let is_timed = !self.plan.jitter.is_zero() || self.plan.timeout.is_some();
        let is_called = self.plan.by_calendar || self.plan.by_ends;
        let is_pausing = self.failures > 0 || self.pause.is_some();
        let is_new = self.first.is_some() || self.make_up.is_some();
        let is_asked = self.asked_at.is_some() || self.is_wanted || self.is_answer;
        let is_void = self.cursor_seen.is_some();
        !(is_timed || is_called || is_pausing || is_new || is_asked || is_void || self.has_streak)
    }
}
