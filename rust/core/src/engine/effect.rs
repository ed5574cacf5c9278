//! What a runner's engine asks of the world. Decides nothing.
//! Invariant: what must be durable before it is acted upon stands in [`Then`], and nowhere else.

use std::sync::Arc;

use uuid::Uuid;

use crate::engine::{Job, Note};
use crate::key::{Epoch, ScheduleKey};
use crate::limit::Dropped;
use crate::port::{Change, RunEnd, TriggerState};
use crate::run::{At, Look};
use crate::time::{Mono, Wall};
use crate::urgency::Rank;
use crate::workflow::Executor;

/// What the world is asked to do, in this order.
#[derive(Debug, Default)]
pub struct Effects {
    /// To the writer.
    pub commits: Vec<(Change, Then)>,
    /// To whoever runs them.
    pub jobs: Vec<Ready>,
    /// Attempts that were taken, and could not begin before they were on record: they may now, or are found to be stale.
    pub recorded: Vec<(Executor, Job)>,
    /// Attempts that were taken, hold permits, and have to wait for seats of limits, or are found to be stale: the permits are free.
    pub unseated: Vec<(Executor, Job)>,
    /// Attempts that gave their seats back with their permits, and need them again to go on.
    pub seatless: Vec<Job>,
    /// Attempts that wait without a permit, and have or need no seats: nothing of that kind holds them up any more.
    pub reseated: Vec<Job>,
    /// Owners of which attempts have seats now that waited for them.
    pub seats_of: Vec<Epoch>,
    /// To whoever has the time; what is seen comes back as [`Event::Looked`](crate::engine::Event::Looked).
    pub looks: Vec<Look>,
    /// Runs that are over, for whoever waits.
    pub ended: Vec<(Uuid, Wall, RunEnd)>,
    /// Runs asked for by hand that are committed now.
    pub started: Vec<Uuid>,
    /// Runs that were asked for, and the one that has their run key already.
    pub keyed: Vec<(Uuid, Uuid)>,
    /// Runs that were asked for and that limits have dropped.
    pub dropped: Vec<(Uuid, Dropped)>,
    /// Runs that were asked for without the key by which their workflow is limited, and what that is.
    pub unkeyed: Vec<(Uuid, String)>,
    /// Attempts whose callbacks are not waited for any more: their permits are free, and what can be stopped is to be.
    pub released: Vec<Job>,
    /// Attempts whose bodies are to end, with what the log is told of it.
    pub told: Vec<(Job, Option<Note>)>,
    /// Attempts whose bodies were to end and did not: they are not waited for any more, and their permits are free.
    pub overdue: Vec<Job>,
    /// Runs that this runner does not drive any more, and why.
    pub lost: Vec<(Uuid, String)>,
    /// Triggers that may be polled again.
    pub rearm: Vec<Rearm>,
    /// Moments that the bodies of crons are to decide.
    pub moments: Vec<MomentDue>,
    /// Crons of which a moment was left to other runners, which may not have run it: they are to be read again.
    pub doubtful: Vec<Uuid>,
    /// Runs whose end other owners are asked for.
    pub cancels: Vec<Uuid>,
    /// Whether there is news for other owners.
    pub tells: bool,
    /// Whether limits may let a run begin: whoever claims is to look for those.
    pub is_open: bool,
    /// Whether a run is due that waited for its time: whoever claims is to look.
    pub is_due: bool,
    /// Whether runs are kept that whoever has room may claim.
    pub is_offered: bool,
    /// Runs that others may drive from now on, or will.
    pub elsewhere: Vec<Uuid>,
    /// To the user's log.
    pub logs: Vec<Note>,
    /// How many ends of runs are known now, if more than before.
    pub ends: Option<i64>,
    /// Whether the store takes this runner for dead: nothing that it writes counts any more.
    pub is_buried: bool,
}

/// An attempt that may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Where.
    pub executor: Executor,
    /// Before and after which others.
    pub rank: Rank,
    /// Which.
    pub job: Job,
}

/// What to do when a commit is acknowledged.
#[derive(Debug, Clone, PartialEq)]
pub enum Then {
    /// Start these runs.
    Start(Vec<Uuid>),
    /// These runs are anyone's.
    Offered(Vec<Uuid>),
    /// These are anyone's again, of those shares of the work in hand.
    Released(Vec<usize>),
    /// Start the admitted ones, free the others' hashes, poll the trigger again.
    Tick {
        /// So many fires its poll had.
        fires: u64,
        /// Whether its cursor moves past them all, also past what the store drops.
        passes: bool,
        /// The poller's place.
        place: u32,
        /// The runs that were sent, in order.
        runs: Vec<Uuid>,
        /// When the poll began.
        at: Wall,
        /// The trigger's row, if this disables it.
        disables: Option<ScheduleKey>,
        /// Whether it is about an end of a run, which is not told again.
        is_told: bool,
    },
    /// Start these tasks of a run, or end it.
    Progress {
        /// The run.
        run: Uuid,
        /// Which of its lives: the answer is nothing to a later one.
        life: u32,
        /// Tasks that may start now.
        jobs: Vec<usize>,
        /// What may be looked at now.
        looks: Vec<At>,
        /// Tasks that may start, each at its time.
        delayed: Vec<(usize, Mono)>,
        /// Its end.
        end: Option<RunEnd>,
    },
    /// The attempt of this task may begin.
    Recorded {
        /// The run.
        run: Uuid,
        /// Which of its lives.
        life: u32,
        /// The task.
        task: usize,
        /// The attempt.
        attempt: u32,
        /// Where it holds a permit.
        executor: Executor,
    },
    /// The attempt has its seats or waits for them. It holds a permit in that executor, or is away without one.
    Seated {
        /// Which.
        job: Job,
        /// Where it holds a permit.
        executor: Option<Executor>,
        /// Which question it is that is answered.
        number: u64,
    },
    /// Some that waited for seats have them.
    Seats,
    /// What was declared of limits is kept.
    Limits,
    /// The checkpoint of that number is kept.
    Checkpointed {
        /// The run.
        run: Uuid,
        /// Which of its lives.
        life: u32,
        /// The task.
        task: usize,
        /// Its number among those of the task.
        number: u64,
    },
    /// A run that was never in hand is over.
    Forgotten {
        /// The run.
        run: Uuid,
        /// When it was decided.
        created_at: Wall,
        /// Its end.
        end: RunEnd,
    },
    /// Poll the trigger from now on.
    Declared {
        /// The poller's place.
        place: u32,
        /// How many vacancies there had been when it was asked for: one since then may be the reason to ask again.
        vacancies: u64,
        /// How often news had been read by then: what came since may be newer than the answer.
        news: u64,
    },
    /// Decide the moment of the cron with that row, if it may be.
    Moment {
        /// The row.
        row: ScheduleKey,
        /// Which question this answers.
        number: u64,
    },
    /// Start the admitted ones, of a cron's moment.
    Decided(Vec<Uuid>),
    /// That an attempt has begun is on record.
    Begun,
    /// Tell others that the trigger in that place, or the moment of a cron, is free.
    LetGo(Option<u32>),
    /// Nothing.
    Nothing,
}

/// A moment that the body of a cron is to decide.
#[derive(Debug, Clone, PartialEq)]
pub struct MomentDue {
    /// Its place in the poller.
    pub place: u32,
    /// Where the cron stands.
    pub row: TriggerState,
    /// The moment.
    pub moment: Wall,
    /// What a run of it begins with, as JSON text.
    pub context: Arc<str>,
}

/// A trigger that may be polled again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rearm {
    /// Its place in the poller.
    pub place: u32,
    /// Its row, if that has just become known.
    pub row: Option<TriggerState>,
    /// Its cursor as kept, if that moved.
    pub cursor: Option<String>,
    /// Its cursor as somebody has set it meanwhile, and how often that has been done.
    pub set: Option<(Option<String>, i64)>,
    /// Whether not all of what it fired was taken: what stands behind that comes with a later poll, in its time.
    pub is_cut: bool,
    /// When it fired, if a run of it was started.
    pub fired_at: Option<Wall>,
    /// Whether the end of a run that it was told of is not to be told again.
    pub is_told: bool,
    /// Its row, if it is disabled now.
    pub disables: Option<ScheduleKey>,
    /// Whether another owner polls it, so that this one must not.
    pub elsewhere: bool,
    /// Whether it is to be another owner's, once nothing of it is in flight here.
    pub gives_way: bool,
    /// Whether its row may be older than news that was read: then news is to be read again.
    pub is_stale: bool,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Fires that polls asked for.
    pub fires: u64,
    /// Fires dropped because an equal one was unfinished or used up.
    pub deduplicated: u64,
    /// Fires dropped by their overlap policy.
    pub dropped: u64,
    /// Fires with a cursor that were not tried, because one before them was dropped.
    pub held_back: u64,
    /// Polls that raised, and fires that could not start.
    pub errors: u64,
    /// Runs committed.
    pub started: u64,
    /// Runs that completed.
    pub completed: u64,
    /// Runs that failed.
    pub failed: u64,
    /// Runs that somebody ended.
    pub cancelled: u64,
    /// From their commit to their end, together, in microseconds.
    pub run_sum_us: u64,
    /// The longest.
    pub run_max_us: u64,
}
