//! What the engine wants written, and what became of it. Invariant: a [`Receipt`] stands at the position of its
//! [`Change`], and tells only what is durable.

use std::sync::Arc;

use uuid::Uuid;

use crate::admit::Overlap;
use crate::grid;
use crate::key::{Epoch, RunRow, ScheduleKey};
use crate::limit::{Dropped, Limits};
use crate::past::Passage;
use crate::port::end::{OnRun, Outcomes, Told};
use crate::port::logged::Logged;
use crate::record::{ContextHash, Parent, RunEnd, Stretch, TaskRecord};
use crate::seat::{Ask, Differs, Limit, Pass, Pause, Seat};
use crate::time::Wall;
use crate::urgency::Priority;

/// A run that is to exist.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// UUIDv7, known before the commit.
    pub id: Uuid,
    /// The workflow's name.
    pub workflow: Arc<str>,
    /// The workflow's content version.
    pub version: Arc<str>,
    /// The first context, as JSON text.
    pub context: Arc<str>,
    /// The trigger's or cron's row that fired it; none if started by hand.
    pub schedule: Option<ScheduleKey>,
    /// Kept for the history of every fire.
    pub context_hash: Option<ContextHash>,
    /// Refuse while an unfinished run of the same schedule has the same hash.
    pub unique_hash: bool,
    /// Starts at most one run until it expires; never expires if the time is none.
    pub run_key: Option<(String, Option<Wall>)>,
    /// The cron moment; at most one run per schedule and moment.
    pub scheduled_at: Option<Wall>,
    /// Held back while an earlier run of its schedule is unfinished.
    pub waits: bool,
    /// The trigger's cursor once this fire is behind it, as JSON text; only of a fire that carries one.
    pub cursor: Option<String>,
    /// Refuse if a run of the same schedule with the same hash has ended later than by this count of ends: its poll looked before that.
    pub ends: Option<i64>,
    /// By what it was started, if another run did. Apart, because most have none.
    pub parent: Option<Box<Parent>>,
    /// How urgent it is; as its workflow's declaration says if none, as far as the store knows one.
    pub priority: Option<Priority>,
    /// When it may begin, if whoever asked for it has said so.
    pub due_at: Option<Wall>,
    /// How long after it was asked for that is, in microseconds, if that was said: then it waits for no longer, whatever a clock said.
    pub delay_us: Option<i64>,
    /// What limits its workflow's runs where it is declared; what the store knows goes before that.
    pub limits: Option<Arc<Limits>>,
    /// Whether it is nobody's for now, and whoever has room claims it.
    pub is_anyones: bool,
    /// What the telemetry of whoever asked for it hands on to its bodies, as JSON text. It changes nothing.
    pub trace: Option<Arc<str>>,
    /// When the fire was decided.
    pub created_at: Wall,
}

impl NewRun {
    /// Who has it once it is kept, if `by` asked for it.
    pub fn owner(&self, by: Epoch) -> Option<Epoch> {
        (!self.is_delayed() && !self.is_anyones).then_some(by)
    }

    /// Whether it has to wait for its time: until then it is nobody's.
    pub fn is_delayed(&self) -> bool {
        self.due_at.is_some_and(|due| due > self.created_at)
    }
}

/// What became of one [`NewRun`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// Committed under this row.
    Started {
        /// The store's integer key, for later changes.
        row: RunRow,
    },
    /// Committed under this row, and nobody's: it is claimed once the limits of its workflow let it begin.
    Held {
        /// The store's integer key.
        row: RunRow,
    },
    /// Dropped by a limit of its workflow.
    Limited(Box<Dropped>),
    /// Dropped: its context has not the key by which its workflow is limited, as this says.
    Unkeyed(Box<str>),
    /// Dropped: this unfinished run has the same trigger and context hash.
    DuplicateHash {
        /// The run that stands in the way.
        of: Uuid,
    },
    /// Dropped: its run key, its cron moment, or the same call of an attempt before, was used before.
    DuplicateKey {
        /// The run that used it first, where still kept.
        of: Option<Uuid>,
    },
    /// Dropped: a run with the same trigger and context hash ended after its poll began.
    Ended {
        /// That run.
        of: Uuid,
        /// Its number among the ends.
        number: i64,
    },
    /// Dropped, and with it the rest of its row if it carries a cursor: no further run of its trigger may start while this one is unfinished.
    Overlaps {
        /// The run that stands in the way.
        with: Uuid,
    },
    /// Not tried, because one of its row before it was dropped.
    HeldBack,
}

impl Admitted {
    /// The row that it is kept under, if it is.
    pub fn row(&self) -> Option<RunRow> {
        match *self {
            Self::Started { row } | Self::Held { row } => Some(row),
            _ => None,
        }
    }

    /// What its context lacks, if it is none for that.
    pub fn unkeyed(&self) -> Option<&str> {
        match self {
            Self::Unkeyed(why) => Some(why),
            _ => None,
        }
    }

    /// Whether it is a run now.
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Started { .. } | Self::Held { .. })
    }

    /// Whether there was no room for it, so that it comes again with a later poll.
    pub fn is_put_off(&self) -> bool {
        matches!(self, Self::Overlaps { .. } | Self::Limited(_) | Self::HeldBack)
    }
}

/// How many runs of a trigger may still start, and which one stands in the way of more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// So many.
    pub runs: u64,
    /// The first unfinished one.
    pub with: Option<Uuid>,
}

/// One poll's decision, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct TickChange {
    /// The trigger's row.
    pub schedule: ScheduleKey,
    /// The lease under which it was polled; a write under an older one changes nothing.
    pub epoch: Epoch,
    /// The new cursor as JSON text, if the poll set it. Where fires carry their own, it stands behind them all.
    pub cursor: Option<String>,
    /// How often somebody had moved the trigger on when the poll began, by its cursor or past an end: if that was done since, nothing of this change is written. A cron's moment
    /// counts all the same, and only leaves the cursor as it was set.
    pub cursor_set: i64,
    /// When the poll began.
    pub at: Wall,
    /// What its fires do while a run of the trigger is unfinished: some may have been opened again elsewhere.
    pub overlap: Overlap,
    /// The runs that it fires.
    pub fires: Vec<NewRun>,
    /// How many of them may start; any number if none, or what was more is left out already.
    pub room: Option<Room>,
    /// Fires that overlap had dropped before.
    pub dropped: u64,
    /// Fires that were held back before.
    pub held_back: u64,
    /// History that ends with this poll: what was gathered before it, and itself. If every fire is dropped by the store, the last one is kept
    /// as a skip whose reason says so.
    pub history: Vec<Stretch>,
    /// Why the trigger is to be disabled, if it is.
    pub disable: Option<String>,
    /// How long it is not to be polled from `at` on, in microseconds, because of failures or its own wish; none if it is.
    pub wait_us: Option<i64>,
    /// How many polls in a row have failed, this one among them; zero if it went well.
    pub failures: u32,
    /// The end of a run that the trigger was told of: it is not told again, with this. If it has been told before, nothing of this is written.
    pub told: Option<Told>,
    /// Of a cron: its step, with which the right to decide its moment ends.
    pub cron: Option<CronMove>,
}

impl TickChange {
    /// Whether fires carry cursors: then the row of them decides where the cursor stands.
    pub fn has_row(&self) -> bool {
        self.fires.iter().any(|fire| fire.cursor.is_some())
    }
}

/// New states of tasks of one run, and its end if this is the end.
#[derive(Debug, Clone, PartialEq)]
pub struct RunChange {
    /// The run's row.
    pub run: RunRow,
    /// The lease under which it is driven.
    pub epoch: Epoch,
    /// Inserted or replaced by name.
    pub tasks: Vec<TaskRecord>,
    /// Set once.
    pub end: Option<RunEnd>,
}

/// A body of an attempt that is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The run's row.
    pub run: RunRow,
    /// The lease under which it was driven.
    pub epoch: Epoch,
    /// The task's id in its workflow.
    pub task: Arc<str>,
    /// Which attempt of it.
    pub attempt: u32,
    /// When that was said.
    pub at: Wall,
}

/// A trigger as declared by the program.
#[derive(Debug, Clone, PartialEq)]
pub struct TriggerRow {
    /// Unique name.
    pub name: Arc<str>,
    /// The workflow that it fires; empty if none.
    pub workflow: Arc<str>,
    /// The poll interval in microseconds.
    pub interval_us: i64,
    /// Whether every fire starts a run.
    pub allow_concurrent: bool,
    /// Of which ends it is to be told, if it is not polled.
    pub on_run: Option<OnRun>,
    /// Of its arguments and its function: what tells its versions apart, in all processes.
    pub digest: i64,
    /// Where its grid begins if it has none yet.
    pub origin_at: Wall,
}

/// A workflow as declared by a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowRow {
    /// Unique name.
    pub name: Arc<str>,
    /// Its content version.
    pub version: Arc<str>,
    /// How urgent its runs are, unless whoever asks for one says so.
    pub priority: Priority,
    /// What limits its runs, if anything does.
    pub limits: Option<Arc<Limits>>,
    /// Of which ends of its runs its callbacks are to be told.
    pub tells: Outcomes,
    /// What is kept of it under its name and version for as long as runs refer to those; empty for nothing.
    pub graph: Arc<str>,
}

/// A cron's step from one moment to the next. It is not kept if the cron was changed since `seen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CronMove {
    /// Its row.
    pub row: ScheduleKey,
    /// [`crate::port::Schedule::updated_at`] of what this was decided by.
    pub seen: Wall,
    /// When it runs next.
    pub next_at: Option<Wall>,
    /// When it ran last, if it ran.
    pub last_at: Option<Wall>,
    /// The moments that are over with this, if any are.
    pub decided: Option<Passage>,
}

/// One change among those that share a transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A poll's decision.
    Tick(TickChange),
    /// Runs started by hand or by a cron moment, with the cron's next and last due times where one moved. All or none.
    Start {
        /// The owner that will drive them.
        epoch: Epoch,
        /// The runs.
        runs: Vec<NewRun>,
        /// The cron of whose moments these are, if they are.
        cron: Option<CronMove>,
    },
    /// Runs that nobody has in hand: whoever declares their workflow may claim them. All or none.
    Offer {
        /// The owner that offers them, and works on none.
        epoch: Epoch,
        /// The runs.
        runs: Vec<NewRun>,
    },
    /// Runs of which nothing has begun are nobody's again.
    Release {
        /// The owner that has them; those that it has no more stay as they are.
        epoch: Epoch,
        /// Their rows.
        runs: Vec<RunRow>,
    },
    /// A run's progress.
    Run(RunChange),
    /// A trigger's declaration: inserted, or its settings updated; `enabled` and cursor are kept. It stays with another living
    /// owner that polls it, and is nobody's while another one declares a version that was declared for the first time after this one. One that
    /// nobody polls is left to whose it is by right, of those that declare this version: see [`crate::spread::owner_of`]. Who has not taken it
    /// for a while is not waited for.
    Declare {
        /// The owner that will poll it.
        epoch: Epoch,
        /// Its settings.
        trigger: TriggerRow,
        /// When.
        at: Wall,
    },
    /// A trigger that its program declares no more, or in an older version than another: whoever else declares it may poll it.
    LetGo {
        /// The owner that polled it; it is left alone if another one does.
        epoch: Epoch,
        /// Its name.
        trigger: Arc<str>,
        /// Of its declaration; a later one stays.
        digest: i64,
        /// Until when it was polled; none if it still owes a poll for what was missed before it was its.
        at: Option<Wall>,
    },
    /// The right to decide a moment of a cron: until the tick that comes of it nobody else has it.
    TakeMoment {
        /// The owner that wants to decide it.
        epoch: Epoch,
        /// The cron's row.
        row: ScheduleKey,
        /// [`crate::port::Schedule::updated_at`] of what this was decided by.
        seen: Wall,
        /// The moment.
        moment: Wall,
    },
    /// Gives that right back, and leaves the moment undecided.
    LeaveMoment {
        /// The owner that has it; nothing changes if another one has.
        epoch: Epoch,
        /// The cron's row.
        row: ScheduleKey,
    },
    /// From now on a run has so much of its time left, while this owner has it.
    Timed {
        /// The run's row.
        run: RunRow,
        /// The owner that has it; nothing changes if another one has.
        epoch: Epoch,
        /// In microseconds.
        left_us: i64,
        /// When.
        at: Wall,
    },
    /// A body still runs that nobody waits for any more: until that is told to have ended, or its owner is gone, nothing of its task may
    /// begin again.
    Overdue(Body),
    /// It has ended.
    Returned(Body),
    /// An attempt wants a seat of each of its limits, and waits if they are not free. Nothing of it is written if its run is another owner's.
    Ask(Ask),
    /// An attempt waits no longer for its seats, or gives them back, and what is free by that goes to others.
    Unseat {
        /// Which.
        seat: Seat,
        /// The owner that asked for them.
        epoch: Epoch,
        /// When.
        at: Wall,
    },
    /// Gives what is free of these limits to those that wait, and tells an owner of all its attempts that have seats.
    LookForSeats {
        /// The owner.
        epoch: Epoch,
        /// The names of the limits.
        limits: Vec<Arc<str>>,
        /// When.
        at: Wall,
    },
    /// What a program says of limits: it holds until another one says otherwise, unless somebody has set the limit by hand.
    DeclareLimits {
        /// The owner whose program it is.
        epoch: Epoch,
        /// The limits.
        limits: Vec<Limit>,
    },
    /// A body wants something held up; what is held up for longer stays so.
    Pause(Pause),
    /// What bodies of a run logged, whoever drives it by now.
    Logged(Logged),
    /// History gathered since the last write: runs of equal outcomes, appended to the last row where equal.
    History(Vec<Stretch>),
}

/// What became of one [`Change`], at the same position.
#[derive(Debug, Clone, PartialEq)]
pub enum Receipt {
    /// A tick is kept.
    Tick {
        /// What became of each fire, in order.
        fates: Vec<Admitted>,
        /// The cursor that it left, if it moved.
        cursor: Option<String>,
        /// Unfinished runs of its trigger that were opened again, in their order: where runs wait for each other they stand before these fires.
        opened: Vec<Uuid>,
    },
    /// Somebody has set the trigger's cursor since this poll looked at it, or skipped the end that it is about: nothing of the tick was written.
    Overtaken {
        /// The cursor as it is now.
        cursor: Option<String>,
        /// [`TriggerState::cursor_set`] now.
        cursor_set: i64,
    },
    /// The trigger has been told of the end that a tick is about, or is not to be told any more: nothing of the tick was written.
    ToldBefore,
    /// Each run of a start or an offer, in order.
    Start(Vec<Admitted>),
    /// The run's progress is kept; if it ended, and guards its hash, with its number among the ends.
    Run(Option<i64>),
    /// The run is kept as cancelled, and with it the wish that these unfinished children of it end, and theirs.
    Cancelled {
        /// As of [`Receipt::Run`].
        number: Option<i64>,
        /// Those whose end nobody had asked for before.
        children: Vec<Uuid>,
    },
    /// Where the trigger stands now.
    Declared(TriggerState),
    /// Whose a moment is.
    Moment(Moment),
    /// The history is kept.
    History,
    /// What was said of a body is kept.
    Noted,
    /// What bodies logged is kept, if their run is.
    Logged,
    /// Who has seats now.
    Seats(Pass),
    /// What was declared of limits is kept; in place of these somebody has set others by hand, which hold.
    Limits(Vec<Differs>),
    /// The trigger is free.
    LetGo,
    /// The runs are anyone's.
    Released,
    /// The lease was lost: nothing of this change was written.
    Fenced,
    /// The store will never take this change, and says why: nothing of it was written. Made by who commits, out of a [`crate::port::Fault::Final`].
    Refused(String),
}

/// Whose a moment of a cron is.
#[derive(Debug, Clone, PartialEq)]
pub enum Moment {
    /// The asker's; this is where the cron stands.
    Yours(TriggerState),
    /// Another living owner's, who decides it now.
    Others,
    /// Nobody's any more: it is decided, or has a run. What was read of the cron was older than that.
    Over {
        /// Which is next.
        next_at: Option<Wall>,
    },
    /// Nobody's: the cron was changed, switched off or deleted.
    Changed,
}

/// What polling a declared trigger needs of its row. The rest of the row is what was declared, and need not come back.
#[derive(Debug, Clone, PartialEq)]
pub struct TriggerState {
    /// The store's key.
    pub row: ScheduleKey,
    /// Whether it is polled at all.
    pub enabled: bool,
    /// The cursor as JSON text.
    pub cursor: Option<String>,
    /// How often somebody has set it, beside its polls.
    pub cursor_set: i64,
    /// When it last fired a run.
    pub last_fired_at: Option<Wall>,
    /// Who polls it.
    pub owner: Option<Epoch>,
    /// Its unfinished runs, whoever drives them or may claim them, oldest first; told to whom it is handed, and to who decides a moment of it.
    pub unfinished: Vec<Uuid>,
    /// How many polls in a row had failed when one of them was last written down.
    pub failures: u32,
    /// When it is due, if that was kept before this declaration.
    pub grid: Option<grid::Kept>,
    /// How often a poll of it has been asked for, if none has begun since the last time.
    pub asked: Option<i64>,
    /// Whether it was being called about an end of a run when the process of a former owner ended.
    pub has_died: bool,
    /// Another living owner declares a newer version: who asks does not poll it, and lets it go if it has it.
    pub is_outdated: bool,
    /// Others have to hear of it: they declare an older version and don't poll it any more, or a newer one than is declared here by now.
    pub is_awaited: bool,
}
