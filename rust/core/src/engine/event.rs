//! What happens to a runner, and the words for it. Decides nothing.
//! Invariant: whatever the engine learns of the world is one of these.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::admit::Overlap;
use crate::engine::Then;
use crate::key::ScheduleKey;
use crate::port::{ContextHash, Parent, Receipt, Schedule, Stretch, Told, TriggerRow, Unfinished};
use crate::run::Looked;
use crate::seat::Pause;
use crate::time::Wall;
use crate::urgency::Urgency;
use crate::workflow::Workflow;

/// A trigger as its fires are judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// What the store keeps of it.
    pub row: TriggerRow,
    /// What a fire does while a run is unfinished.
    pub overlap: Overlap,
}

/// A fire that a poll asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Fire {
    /// JSON text.
    pub context: Arc<str>,
    /// Of the context, or of the key that stands for it.
    pub hash: ContextHash,
    /// The key under which it may happen once, and when that ends.
    pub run_key: Option<(String, Option<Wall>)>,
    /// Its own cursor as JSON text: it is one of a row, and equal contexts are different events.
    pub cursor: Option<String>,
    /// When its run is to begin.
    pub urgency: Urgency,
    /// The run that it was said to come of.
    pub parent: Option<Uuid>,
    /// What the telemetry of whoever asked for it hands on to its bodies, as JSON text. It changes nothing.
    pub trace: Option<Arc<str>>,
}

/// A poll that was not a plain skip.
#[derive(Debug, Clone, PartialEq)]
pub struct Polled {
    /// The trigger's place in the poller; its next poll waits for [`Effects::rearm`](crate::engine::Effects::rearm).
    pub place: u32,
    /// The store's row.
    pub schedule: ScheduleKey,
    /// When the poll began.
    pub at: Wall,
    /// How often somebody had set its cursor when the poll looked at it.
    pub cursor_set: i64,
    /// How many ends of runs were known then.
    pub ends: i64,
    /// How long its body took, in microseconds.
    pub duration_us: u64,
    /// In the order returned.
    pub fires: Vec<Fire>,
    /// The cursor as JSON text, if it was set. Where fires carry their own, it stands behind them all.
    pub cursor: Option<String>,
    /// What it said about itself without firing, or what went wrong.
    pub reason: Result<String, String>,
    /// Quiet polls gathered before this one.
    pub history: Vec<Stretch>,
    /// Why the trigger is to be disabled, if it is.
    pub disable: Option<String>,
    /// How long it is not to be polled, if it waits because of failures or its own wish.
    pub wait: Option<Duration>,
    /// How many polls in a row have failed, this one among them.
    pub failures: u32,
    /// The end of a run that it was told of, unless it is to be told again.
    pub told: Option<Told>,
    /// A limit under which no attempt is to begin for so long.
    pub holds: Option<(Arc<str>, Duration)>,
}

/// A run to be started by hand.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// UUIDv7.
    pub id: Uuid,
    /// JSON text.
    pub context: Arc<str>,
    /// Starts at most one run of its workflow until it expires.
    pub run_key: Option<(String, Wall)>,
    /// By what it is started, if another run does.
    pub parent: Option<Box<Parent>>,
    /// When it is to begin.
    pub urgency: Urgency,
    /// What the telemetry of whoever asked for it hands on to its bodies, as JSON text. It changes nothing.
    pub trace: Option<Arc<str>>,
}

impl Request {
    /// One that asks for nothing else.
    pub fn of(id: Uuid, context: Arc<str>) -> Self {
        Self { id, context, run_key: None, parent: None, urgency: Urgency::default(), trace: None }
    }
}

/// A run to be started for a moment of a cron that has gone by.
#[derive(Debug, Clone, PartialEq)]
pub struct Backfilled {
    /// UUIDv7.
    pub id: Uuid,
    /// The moment, which starts at most one run that names it.
    pub moment: Option<Wall>,
    /// JSON text.
    pub context: Arc<str>,
}

/// One attempt at one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Job {
    /// The run.
    pub run: Uuid,
    /// The task's position in its workflow.
    pub task: u32,
    /// From 1.
    pub attempt: u32,
    /// Tells it from an attempt of the same run before that was opened again.
    pub life: u32,
    /// Whether only `on_failure` is to be called: the body was given up.
    pub callback_only: bool,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// The program declared a workflow, anew or again.
    Workflow(Arc<Workflow>),
    /// The program declares the workflow of that name no more. Its runs in hand go on.
    WorkflowGone(Arc<str>),
    /// Other runners declare the workflows of these names, and no others.
    WorkflowsElsewhere(Vec<Arc<str>>),
    /// The program declared triggers, each with its place in the poller.
    Triggers(Vec<(u32, Declared)>),
    /// Somebody asked for runs; the workflow was looked up by the caller.
    Start {
        /// Whose tasks to run.
        workflow: Arc<Workflow>,
        /// One run each.
        requests: Vec<Request>,
    },
    /// Somebody asked for runs that others are to drive.
    Offer {
        /// The workflow's name.
        workflow: Arc<str>,
        /// Its content version, as far as that is known here.
        version: Arc<str>,
        /// One run each.
        requests: Vec<Request>,
    },
    /// Somebody asked for runs of moments of a cron that have gone by.
    Backfill {
        /// Whose tasks to run.
        workflow: Arc<Workflow>,
        /// The cron's row.
        schedule: ScheduleKey,
        /// Whether one begins after another.
        waits: bool,
        /// In this order.
        runs: Vec<Backfilled>,
    },
    /// A poll ended with more than a plain skip.
    Polled(Polled),
    /// Quiet polls gathered so far.
    History(Vec<Stretch>),
    /// The store answered.
    Committed(Then, Receipt),
    /// A worker begins an attempt.
    Taken(Job),
    /// A task stops counting against its time-out while it waits for its condition, or starts again.
    Deferred(Job, bool),
    /// An attempt of a limited task that gave its seats back, to wait for its condition, wants them again.
    WantsSeats(Job),
    /// What is paused, as the store has it now.
    Paused(Vec<Pause>),
    /// Seats that attempts here wait for may be theirs or free, by what others did.
    SeatsMoved,
    /// An attempt's body went home without an end, because the runner closes.
    Interrupted(Job),
    /// An attempt's body will never begin, because it was stopped before: by that it has failed if it was told to end, and is cut off if not.
    Stopped(Job),
    /// The runner is to end once what it has in hand is over: it claims nothing more, and crons start nothing here.
    Draining,
    /// The runner could not say for so long that it lives that others may soon go on with these attempts' runs.
    CutOff(Vec<Job>),
    /// The runner gives its runs up, but for the attempts whose bodies or callbacks are in flight.
    Leaving(Vec<Job>),
    /// A task's callback has been told, or it has none.
    Settled(Job),
    /// A look of [`Effects::looks`](crate::engine::Effects::looks) was taken.
    Looked(Looked),
    /// What dead owners left was claimed, for the first time or again: polling may begin, and triggers that were polled elsewhere are asked
    /// for.
    Vacancy,
    /// What was due was claimed, and the next run that waits for its time, as the store knew it then, is due at that instant.
    NextDue(Option<Wall>),
    /// Somebody asked for a run's end.
    Cancel(Uuid),
    /// What a share of the work wanted was claimed as far as there was any, or there may be more of it.
    Claims {
        /// As [`Claims`](crate::engine::Claims) says.
        hand: usize,
        /// Whether it was all.
        is_all: bool,
    },
    /// More is in hand than is to be, and these attempts stood last in their queues: the last first.
    Excess(Vec<Job>),
    /// Unfinished runs were handed to this runner.
    Claimed(Vec<Unfinished>),
    /// How triggers are switched was read from the store, and holds for those that have their rows.
    News,
    /// Runs that other owners drove are over.
    OthersEnded(Vec<Uuid>),
    /// Runs of others that were opened again once they were over, each with one of here that it stands behind by now.
    OthersMoved(Vec<(Uuid, Uuid)>),
    /// The program declared a cron, anew or again, in the version of that digest: it runs here while that is in force. With a body that
    /// decides its moments, if it has one, in that place of the poller.
    CronDeclared(Schedule, i64, Option<(u32, Declared)>),
    /// The body of a cron in that place is not called any more, for whatever moment it was to decide.
    CalledOff(u32),
    /// The program declares no cron of that name any more.
    CronWithdrawn(Arc<str>),
    /// The program declares what is polled in that place no more.
    Withdrawn(u32),
    /// Nothing of what was withdrawn in these places, or gives way, is in flight any more; with whether it owes a poll for what was missed.
    Vacated(Vec<(u32, bool)>),
    /// These triggers, which are this runner's as far as the store knows, are to be others': those declare newer versions, or want them by
    /// right.
    GiveWay(Vec<Arc<str>>),
    /// Nobody polls the triggers of these names, as far as the store knows.
    Free(Vec<Arc<str>>),
    /// A cron was registered, changed or read from the store.
    Cron(Schedule),
    /// A cron was deleted or disabled.
    CronGone(ScheduleKey),
    /// The crons of these rows, and no others, are run by other runners by right: their moments are left to those for a while.
    CronsElsewhere(Vec<ScheduleKey>),
    /// Somebody is about to look at runs: what has begun is to be on record.
    Shown,
    /// All crons, as the store has them.
    Crons(Vec<Schedule>),
    /// Time has passed.
    Clock,
}
