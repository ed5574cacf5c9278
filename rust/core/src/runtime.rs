//! The world around the decisions: threads, parking, the job queue and the writer. It carries out what
//! [`crate::engine`] and [`crate::poll`] decide, and decides nothing. Threads made here never call user code; workers come from
//! outside, take a job or a poll and wait in here.
//! Invariant: what steps decide reaches the writer and the poller in the order of the steps, because both happen under the engine's
//! lock. Whoever holds the poller's lock therefore never takes the engine's.
//! Longer than a room should be: what the threads of the rooms below share, how it is made, and the questions that need nothing else.

mod answers;
mod carrier;
mod checkpoints;
mod clock;
mod closing;
mod elsewhere;
mod endings;
mod flights;
mod forget;
mod hear;
mod jobs;
mod keeper;
mod lanes;
mod liaison;
mod limited;
mod logged;
mod looks;
mod manual;
mod many;
mod meter;
#[cfg(feature = "races")]
mod modelled;
mod nested;
mod outlooks;
mod overtime;
mod park;
mod places;
mod pollers;
mod questions;
mod refused;
mod schedules;
mod seats;
mod signs;
mod spread;
mod tellings;
mod timekeeper;
mod watch;
mod writer;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::engine::{Counts, Effects, Engine, Event, Job, Note, Request, Settings};
use crate::error::{Error, Kind, Result, excerpt};
use crate::key::{ById, Epoch, ScheduleKey};
use crate::near::hint;
use crate::poll::PollCounts;
use crate::port::{Ear, Fault, Halt, Minute, Parent, Store, WorkflowRow};
use crate::runtime::jobs::JobState;
use crate::runtime::keeper::Orders;
use crate::runtime::looks::LookState;
use crate::runtime::park::{
    AtomicBool, AtomicI64, AtomicU64, Builder, Condvar, JoinHandle, Mutex, MutexGuard, is_free, lock,
};
use crate::runtime::pollers::PollState;
use crate::runtime::questions::Questions;
use crate::runtime::refused::Stream;
use crate::runtime::watch::News;
use crate::runtime::writer::WriterState;
use crate::time::{Mono, Now};
use crate::urgency::Urgency;
use crate::workflow::Workflow;

pub use answers::{Answer, AskedFire};
pub(crate) use answers::{hashed, play};
pub use carrier::{Carrier, Fetched, Report};
pub use checkpoints::Checkpointing;
pub use clock::Clock;
pub use forget::Kept;
pub use hear::{Heard, Hearer};
pub use jobs::{Taken, Waited, Work};
pub use keeper::{FailedPoll, Order};
pub use lanes::Waker;
pub use manual::Advance;
pub use meter::{Doings, Metered};
pub use pollers::PollTurn;
pub use questions::QUESTIONS_MAX;
pub use schedules::CronBody;
pub use tellings::PutOff;
pub use watch::{Finished, Watch};
pub use writer::Flush;

/// So long shutting down waits for polls in flight, which may have taken something away from their source.
pub const POLL_PATIENCE: Duration = Duration::from_secs(5);

/// Runs in hand at once; more are refused.
pub const RUNS_MAX: usize = 4_000_000;

/// What a runtime does beside what the engine decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// While so many bodies run on workers' threads that were given up, no other begins there.
    pub overdue_max: usize,
    /// At most so many threads poll at once; more bodies than that, all blocked, delay the others.
    pub pollers_max: usize,
    /// Whether unfinished runs of runners that are gone are taken over.
    pub recovery: bool,
    /// What the program calls this runner.
    pub name: Option<String>,
    /// Whether anything is polled, run and forgotten here; a runner that only asks others for that does not.
    pub works: bool,
    /// How long what is over is kept.
    pub kept: Kept,
    /// How finely polls are timed: those that are due within one such step share a wake-up, at its end.
    pub resolution: Duration,
    /// Whether triggers that share an interval are polled all at once, and not spread over it.
    pub in_step: bool,
}

/// A run that somebody wants.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// JSON text.
    pub context: Arc<str>,
    /// Starts at most one run of its workflow for so long.
    pub run_key: Option<(String, Duration)>,
    /// By what it is started, if another run does.
    pub parent: Option<Box<Parent>>,
    /// When it is to begin.
    pub urgency: Urgency,
    /// What the telemetry of whoever asked for it hands on to its bodies, as JSON text. It changes nothing.
    pub trace: Option<Arc<str>>,
}

/// What a thread that closes the runner is itself in the middle of.
#[derive(Debug, Clone, Copy, Default)]
pub struct Own {
    /// The attempt whose body asks.
    pub job: Option<Job>,
    /// So many polls in flight are not waited for: the one that asks.
    pub polls: usize,
    /// The same of calls about ends.
    pub ends: usize,
}

struct Shared {
    epoch: Epoch,
    store: Arc<dyn Store>,
    /// Until when this runner's threads wait for the store.
    halt: Halt,
    /// Until everything ends.
    ear: Mutex<Option<Arc<dyn Ear>>>,
    clock: Clock,
    /// Until when a manual clock is being moved; zero if it is not.
    target: Mutex<Mono>,
    kept: Kept,
    works: bool,
    /// Whether it takes over what others left.
    recovers: bool,
    engine: Mutex<Box<Engine>>,
    writer: Mutex<WriterState>,
    writer_wake: Condvar,
    writer_idle: Condvar,
    jobs: Mutex<JobState>,
    jobs_wake: Condvar,
    permits_wake: Condvar,
    jobs_done: Condvar,
    closing_wake: Condvar,
    looks: Mutex<LookState>,
    looks_wake: Condvar,
    looks_done: Condvar,
    /// Steps whose effects are being carried out, and how many ever were.
    stepping: AtomicU64,
    steps: AtomicU64,
    /// How many ends of runs that guard their hashes are known here.
    ends: AtomicI64,
    polls: Mutex<PollState>,
    leader_wake: Condvar,
    follower_wake: Condvar,
    orders: Mutex<Orders>,
    orders_wake: Condvar,
    carried_out: Condvar,
    clock_dirty: Mutex<bool>,
    liaison_dirty: Mutex<bool>,
    liaison_wake: Condvar,
    /// When the liaison has something to do of itself.
    liaison_due_ns: AtomicU64,
    clock_until_ns: AtomicU64,
    clock_wake: Condvar,
    ready: AtomicBool,
    /// Who is not ready is to be told of, and lives.
    is_paused: AtomicBool,
    workflow_is_new: AtomicBool,
    /// What others know of the workflows of this program.
    workflows_told: Mutex<Vec<WorkflowRow>>,
    /// When runs are taken over that others were to go on with first.
    strangers_due_ns: AtomicU64,
    /// How often a run was due that waited for its time, and up to which of these the liaison has looked.
    due_asked: AtomicU64,
    due_done: AtomicU64,
    /// The same of runs that limits may let begin.
    limited_asked: AtomicU64,
    limited_done: AtomicU64,
    /// Runs that limits have held may begin, and there was no permit for them.
    limited_waits: AtomicBool,
    /// And whoever gives one back is to ask for them.
    wants_permit: AtomicBool,
    /// Whether the liaison is to look how triggers are switched, also if no sibling says so.
    has_news: AtomicBool,
    /// Runs of other owners whose end the liaison is to ask for.
    cancels: Mutex<Vec<Uuid>>,
    watches: Mutex<ById<Uuid, Arc<Watch>>>,
    /// Runs whose ends somebody waits for while others may drive them.
    elsewhere: Mutex<elsewhere::Elsewhere>,
    /// Whoever waited was told that no news will come.
    has_lost: AtomicBool,
    /// And each of those who waited then has been told.
    is_lost_told: AtomicBool,
    hearers: hear::Hearers,
    endings: endings::Endings,
    tellings: Mutex<tellings::Tellings>,
    tellings_wake: Condvar,
    /// As these have it, so that who ends a run need not ask.
    tells_ends: AtomicBool,
    /// Held by who changes a schedule, from the store to the engine.
    schedules: Mutex<schedules::DeclaredCrons>,
    /// Of crons that this program declares another version may be in force now.
    crons_due: AtomicBool,
    /// Crons that others were to run, and may not have run.
    doubtful: Mutex<Vec<Uuid>>,
    schedules_version: AtomicU64,
    questions: Mutex<Questions>,
    closing: AtomicBool,
    /// It closes once the runs in hand are over.
    draining: AtomicBool,
    has_given_in: AtomicBool,
    /// Runs have come into hand since the store was last asked which of them are to end.
    cancels_due: AtomicBool,
    /// What the liaison is about to take over.
    take_over: Mutex<liaison::TakeOver>,
    /// Every thread is to end.
    is_stopped: AtomicBool,
    /// The writer is gone, so that nothing that ends now can be kept.
    is_over: AtomicBool,
    /// The epoch under which this runner's runs stand; none once it has left. One thread leaves at a time.
    stays: Mutex<Option<Epoch>>,
    is_finished: AtomicBool,
    is_closed: AtomicBool,
    /// Whoever closes has been told not to wait.
    is_hurried: AtomicBool,
    /// Until when the store, which did not answer, is not asked once more.
    silent_until: Mutex<Option<Instant>>,
    /// What bodies have logged, and whether there is any.
    logged: Mutex<logged::Gathered>,
    has_logged: AtomicBool,
    /// What signs of life have told of what was done.
    counted: Mutex<Minute>,
    /// What its threads count.
    doings: Mutex<Doings>,
    /// As the engine has it, so that to say it again costs no lock.
    tells_debug: AtomicBool,
}

/// Where the writer is among the threads: who closes waits for it first.
const WRITER: usize = 0;

/// One runner's engine with its threads.
pub struct Runtime {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

fn store_error(fault: Fault) -> Error {
    let (Fault::Passing(text) | Fault::Final(text)) = fault;
    Error::new(Kind::Store, text)
}

fn spawn(
    name: &str,
    shared: &Arc<Shared>,
    body: impl FnOnce(&Shared) + Send + 'static,
) -> Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let guarded = move || {
        if catch_unwind(AssertUnwindSafe(|| shared.halt.over(|| body(&shared)))).is_err() {
            shared.give_in(Note::EngineFault);
        }
    };
    let thread = Builder::new().name(name.to_owned()).spawn(guarded);
    thread.map_err(|error| Error::new(Kind::Runner, format!("cannot start thread {name}: {error}")))
}

impl Shared {
    /// Apart, as it is large: who starts a runner may have little room on its stack, and asks the store beside.
    #[inline(never)]
    fn of(
        store: Arc<dyn Store>,
        epoch: Epoch,
        (ear, ends, seed): (Option<Arc<dyn Ear>>, i64, u64),
        settings: Settings,
        services: &Services,
        clock: Clock,
    ) -> Arc<Self> {
        let jobs = JobState::new(&settings.permits, services.overdue_max);
        let engine = Engine::boxed(epoch, settings, seed);
        Arc::new(Shared {
            epoch,
            store,
            halt: Halt::default(),
            ear: Mutex::new(ear),
            clock,
            target: Mutex::default(),
            kept: services.kept,
            works: services.works,
            recovers: services.recovery && services.works,
            jobs: Mutex::new(jobs),
            engine: Mutex::new(engine),
            writer: Mutex::default(),
            writer_wake: Condvar::new(),
            writer_idle: Condvar::new(),
            jobs_wake: Condvar::new(),
            permits_wake: Condvar::new(),
            jobs_done: Condvar::new(),
            closing_wake: Condvar::new(),
            looks: Mutex::default(),
            looks_wake: Condvar::new(),
            looks_done: Condvar::new(),
            stepping: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            ends: AtomicI64::new(ends),
            polls: Mutex::new(PollState::new(services)),
            leader_wake: Condvar::new(),
            follower_wake: Condvar::new(),
            orders: Mutex::default(),
            orders_wake: Condvar::new(),
            carried_out: Condvar::new(),
            clock_dirty: Mutex::new(false),
            liaison_dirty: Mutex::new(false),
            liaison_wake: Condvar::new(),
            liaison_due_ns: AtomicU64::new(0),
            clock_until_ns: AtomicU64::new(0),
            clock_wake: Condvar::new(),
            ready: AtomicBool::new(false),
            is_paused: AtomicBool::new(false),
            workflow_is_new: AtomicBool::new(false),
            workflows_told: Mutex::default(),
            strangers_due_ns: AtomicU64::new(u64::MAX),
            due_asked: AtomicU64::new(0),
            due_done: AtomicU64::new(0),
            limited_asked: AtomicU64::new(0),
            limited_done: AtomicU64::new(0),
            limited_waits: AtomicBool::new(false),
            wants_permit: AtomicBool::new(false),
            has_news: AtomicBool::new(false),
            cancels: Mutex::default(),
            watches: Mutex::default(),
            elsewhere: Mutex::default(),
            has_lost: AtomicBool::new(false),
            is_lost_told: AtomicBool::new(false),
            hearers: hear::Hearers::default(),
            endings: endings::Endings::default(),
            tellings: Mutex::default(),
            tellings_wake: Condvar::new(),
            tells_ends: AtomicBool::new(false),
            schedules: Mutex::default(),
            crons_due: AtomicBool::new(false),
            doubtful: Mutex::default(),
            schedules_version: AtomicU64::new(0),
            questions: Mutex::default(),
            closing: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            has_given_in: AtomicBool::new(false),
            cancels_due: AtomicBool::new(false),
            take_over: Mutex::default(),
            is_stopped: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            stays: Mutex::new(Some(epoch)),
            is_finished: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            is_hurried: AtomicBool::new(false),
            silent_until: Mutex::default(),
            logged: Mutex::default(),
            has_logged: AtomicBool::new(false),
            counted: Mutex::default(),
            doings: Mutex::default(),
            tells_debug: AtomicBool::new(false),
        })
    }
}

impl Runtime {
    /// Starts the threads over a store: a writer, a timekeeper, a liaison, and one that looks at contexts.
    ///
    /// # Errors
    /// [`Kind::Store`] if the store does not take a new owner.
    pub fn start(
        store: Arc<dyn Store>,
        settings: Settings,
        services: &Services,
        clock: Clock,
    ) -> Result<Self> {
        if let Some(ahead_us) = store.clock_ahead_us().map_err(store_error)? {
            clock.set_ahead(ahead_us);
        }
        let epoch = store.join(clock.now().wall).map_err(store_error)?;
        if !services.works {
            store.stand_by(epoch).map_err(store_error)?;
        }
        if let Some(name) = &services.name {
            store.name_owner(epoch, name).map_err(store_error)?;
        }
        if services.works && !settings.crons_enabled {
            store.without_crons(epoch).map_err(store_error)?;
        }
        let ends = store.ends().map_err(store_error)?;
        // A clock that somebody moves by hand says when anybody looks, and who stands by is told nothing.
        let is_told = services.works && !matches!(clock, Clock::Manual(_));
        let ear = if is_told { store.ear(epoch) } else { None };
        let seed = crate::key::new_id().as_u128() as u64;
        let shared = Shared::of(store, epoch, (ear.clone(), ends, seed), settings, services, clock);
        shared.read_pauses();
        let writer = spawn("cloaca-writer", &shared, Shared::write_all)?;
        let timekeeper = spawn("cloaca-clock", &shared, Shared::keep_time)?;
        let liaison = spawn("cloaca-liaison", &shared, Shared::keep_touch)?;
        let looks = spawn("cloaca-looks", &shared, Shared::look_all)?;
        let mut threads = vec![writer, timekeeper, liaison, looks];
        if let Some(ear) = ear {
            threads.push(spawn("cloaca-news", &shared, move |shared| shared.listen(&*ear))?);
        }
        Ok(Self { shared, threads: Mutex::new(threads) })
    }

    /// The store, for listings.
    pub fn store(&self) -> &dyn Store {
        &*self.shared.store
    }

    /// The name of the workflow of a run in hand; empty if it is not.
    pub fn workflow_of(&self, run: Uuid) -> Arc<str> {
        lock(&self.shared.engine).workflow_of(run)
    }

    /// What a run in hand began with, JSON text; none if it is not in hand.
    pub fn began_with(&self, run: Uuid) -> Option<Arc<str>> {
        lock(&self.shared.engine).began_with(run)
    }

    /// This moment on both clocks.
    pub fn now(&self) -> Now {
        self.shared.now()
    }

    /// Sends an event through the engine and carries out what follows.
    pub fn step(&self, event: Event) {
        // Runs of a workflow wait in the store until somebody declares it.
        let is_new = match &event {
            Event::Workflow(workflow) => {
                let engine = lock(&self.shared.engine);
                let is_same = |known: &Arc<Workflow>| {
                    (&known.version, known.priority, &known.limits)
                        == (&workflow.version, workflow.priority, &workflow.limits)
                };
                !engine.workflow(&workflow.name).is_some_and(is_same)
            }
            Event::WorkflowGone(_) => true,
            _ => false,
        };
        self.shared.step(event);
        if is_new {
            self.shared.workflow_is_new.store(true, Ordering::Release);
            self.shared.wake_liaison();
        }
    }

    /// The workflow of that name, or an error that names those that exist.
    ///
    /// # Errors
    /// [`Kind::Workflow`] for an unknown name.
    pub fn workflow(&self, name: &str) -> Result<Arc<Workflow>> {
        let engine = lock(&self.shared.engine);
        engine.workflow(name).cloned().ok_or_else(|| {
            let known = hint(name, "workflows", &engine.workflow_names());
            Error::new(Kind::Workflow, format!("workflow '{}' not found{known}", excerpt(name)))
        })
    }

    /// Starts runs of a workflow, one for each context, in one transaction, and returns a watch on each. One whose run key is in use,
    /// or that an attempt before has started, is not started: see [`Watch::stands_for`].
    ///
    /// # Errors
    /// [`Kind::Workflow`] for an unknown workflow, [`Kind::Runner`] when closed or when too many runs are in hand.
    pub fn submit(&self, workflow: &str, wanted: Vec<Wanted>) -> Result<Vec<Arc<Watch>>> {
        let workflow = self.workflow(workflow)?;
        self.refuse_closed()?;
        let is_called = |wanted: &Wanted| wanted.parent.is_some();
        if self.shared.draining.load(Ordering::Acquire) && !wanted.iter().all(is_called) {
            return Err(self.shared.refusal());
        }
        if lock(&self.shared.engine).runs_unfinished() + wanted.len() > RUNS_MAX {
            let text = format!("{RUNS_MAX} runs are unfinished; wait for some to end");
            return Err(Error::new(Kind::Runner, text));
        }
        let (requests, watches) = self.asked_for(wanted);
        self.look_for_delayed(&requests);
        self.step(Event::Start { workflow, requests });
        self.shared.lose_late();
        Ok(watches)
    }

    /// The same of runs that others are to drive: kept as nobody's, and claimed by whoever declares the workflow. What its content version
    /// is here says nothing to who claims it.
    ///
    /// # Errors
    /// [`Kind::Runner`] when closed.
    pub fn offer(&self, workflow: &str, version: &str, wanted: Vec<Wanted>) -> Result<Vec<Arc<Watch>>> {
        self.refuse_closed()?;
        let (requests, watches) = self.asked_for(wanted);
        if !self.look_for_delayed(&requests) {
            self.shared.look_for_ends_of(watches.iter().map(|watch| watch.id));
        }
        self.step(Event::Offer { workflow: workflow.into(), version: version.into(), requests });
        self.shared.lose_late();
        Ok(watches)
    }

    fn refuse_closed(&self) -> Result<()> {
        match self.shared.closing.load(Ordering::Acquire) {
            true => Err(self.shared.refusal()),
            false => Ok(()),
        }
    }

    fn asked_for(&self, wanted: Vec<Wanted>) -> (Vec<Request>, Vec<Arc<Watch>>) {
        let now = self.now().wall;
        let request = |Wanted { context, run_key, parent, urgency, trace }| Request {
            id: crate::key::new_id(),
            context,
            run_key: run_key.map(|(key, span)| (key, now.after(span))),
            parent,
            urgency,
            trace,
        };
        let requests: Vec<Request> = wanted.into_iter().map(request).collect();
        let watches: Vec<Arc<Watch>> =
            requests.iter().map(|request| Watch::new(request.id, News::Sent)).collect();
        lock(&self.shared.watches).extend(watches.iter().map(|watch| (watch.id, Arc::clone(watch))));
        (requests, watches)
    }

    /// The program lets it do nothing until [`Runtime::ready`], which who looks at the store is told. Call detached.
    ///
    /// # Errors
    /// A [`Fault`] of the store.
    pub fn wait_for_program(&self) -> std::result::Result<(), Fault> {
        self.shared.store.waits(self.shared.epoch, Some(self.shared.now().wall))?;
        self.shared.is_paused.store(true, Ordering::Release);
        self.shared.wake_liaison();
        Ok(())
    }

    /// The program has declared what it had to declare: crons may start runs from now on, and other programs may ask for its workflows. Call
    /// detached.
    pub fn ready(&self) {
        if self.shared.recovers {
            self.shared.say_workflows();
        }
        self.shared.ready.store(true, Ordering::Release);
        if self.shared.is_paused.swap(false, Ordering::AcqRel) {
            // What cannot be noted now its first sign of life says.
            let _ = self.shared.store.waits(self.shared.epoch, None);
        }
        self.shared.wake_liaison();
    }

    /// Opens a run that failed or was cancelled again, from the tasks that did not complete, and watches it. None if there is none
    /// such. What was sent before should be kept: see [`Runtime::flushing`].
    ///
    /// # Errors
    /// A [`Fault`] of the store, and if an equal run of its trigger is unfinished.
    pub fn retry(&self, id: Uuid) -> std::result::Result<Option<Arc<Watch>>, Fault> {
        if self.shared.draining.load(Ordering::Acquire) {
            return Err(Fault::Final(self.shared.refusal().message));
        }
        // It goes on in the version that is declared here, as it is on record.
        self.shared.say_workflows();
        let Some(reopened) = self.shared.store.reopen(self.shared.epoch, id)? else { return Ok(None) };
        // Before the step: the run may be final at once.
        let watch = Watch::new(reopened.id, News::Started);
        lock(&self.shared.watches).insert(reopened.id, Arc::clone(&watch));
        self.step(Event::Claimed(vec![reopened]));
        self.shared.cancels_due.store(true, Ordering::Release);
        self.shared.wake_liaison();
        self.shared.lose_late();
        Ok(Some(watch))
    }

    /// Puts on record what has begun, for somebody who is about to look at runs.
    pub fn show_begun(&self) -> Flush {
        let mut effects = Effects::default();
        let now = self.now();
        let mut engine = lock(&self.shared.engine);
        engine.step(Event::Shown, now, &mut effects);
        let is_showing = engine.is_showing();
        self.shared.carry_out(engine, effects);
        if is_showing { self.flushing() } else { Flush::default() }
    }

    /// Asks for the ends of a run and of its unfinished children, whoever drives them. False if it is unknown or final. What was sent before should be kept: see
    /// [`Runtime::flushing`].
    ///
    /// # Errors
    /// A [`Fault`] of the store.
    pub fn cancel(&self, id: Uuid) -> std::result::Result<bool, Fault> {
        let at = self.now().wall;
        let asked = self.shared.store.request_cancel(self.shared.epoch, id, at)?;
        self.shared.count_cancelled(&asked, at);
        self.shared.ends_came();
        self.step(Event::Cancel(id));
        self.shared.cancel_children(id, &asked);
        self.shared.look_for_cancelled(&asked);
        self.wake_others();
        Ok(!asked.is_empty())
    }

    /// Tells the other runners on the store that something changed that they keep in memory.
    pub fn wake_others(&self) {
        self.shared.store.wake_others(self.shared.epoch);
    }

    /// Why the store takes nothing of this runner's at the moment, if it does not.
    pub fn trouble(&self) -> Option<String> {
        let refusal = lock(&self.shared.writer).refusal.clone();
        refusal.or_else(|| self.shared.store.trouble())
    }

    /// The same, or that it has not answered for a while.
    pub fn takes_nothing(&self) -> Option<String> {
        self.trouble().or_else(|| {
            let seconds = lock(&self.shared.writer).tries_for()?.as_secs();
            let noun = if seconds == 1 { "second" } else { "seconds" };
            (seconds > 0).then(|| format!("it has not answered for {seconds} {noun}"))
        })
    }

    /// What the store refuses of what became of runs and crons, and is asked again, if it refuses any.
    pub fn refused(&self) -> Option<String> {
        let writer = lock(&self.shared.writer);
        let (runs, others, why) = writer.refused.all()?;
        Some(refused::told(runs, others, why))
    }

    /// Why what became of a run is not kept, if the store refuses it.
    pub fn run_refused(&self, id: Uuid) -> Option<String> {
        let row = lock(&self.shared.engine).run(id)?.row;
        lock(&self.shared.writer).refused.why(row).map(str::to_owned)
    }

    /// Why what became of a cron's moments is not kept, if the store refuses it.
    pub fn cron_refused(&self, row: ScheduleKey) -> Option<String> {
        lock(&self.shared.writer).refused.why_of(&Stream::Cron(row)).map(str::to_owned)
    }

    /// Counts of polls and of what followed since the start, and the runs in hand.
    pub fn counts(&self) -> (PollCounts, Counts, usize) {
        let polls = lock(&self.shared.polls).poller.counts();
        let engine = lock(&self.shared.engine);
        (polls, engine.counts(), engine.runs_unfinished())
    }

    /// Whether the engine can be entered without waiting for another thread, as far as can be told: then it costs less than giving the
    /// interpreter away for it.
    pub fn is_at_hand(&self) -> bool {
        is_free(&self.shared.engine)
    }
}

impl Shared {
    fn now(&self) -> Now {
        self.clock.now()
    }

    fn step(&self, event: Event) {
        let mut effects = Effects::default();
        let now = self.now();
        let mut engine = lock(&self.engine);
        engine.step(event, now, &mut effects);
        self.carry_out(engine, effects);
    }

    fn carry_out(&self, engine: MutexGuard<'_, Box<Engine>>, effects: Effects) {
        self.stepping.fetch_add(1, Ordering::AcqRel);
        let Effects {
            commits,
            jobs,
            recorded,
            unseated,
            seatless,
            reseated,
            seats_of,
            looks,
            ended,
            started,
            keyed,
            dropped,
            unkeyed,
            released,
            told,
            overdue,
            lost,
            rearm,
            moments,
            doubtful,
            cancels,
            tells,
            is_open,
            is_due,
            is_offered,
            elsewhere,
            logs,
            ends,
            is_buried,
        } = effects;
        if let Some(ends) = ends {
            // Before anybody is told: who waits for a run may poll at once.
            self.ends.fetch_max(ends, Ordering::AcqRel);
        }
        if !commits.is_empty() {
            self.send_logged();
            self.send(commits);
        }
        let wake = engine.next_wake(self.now()).map_or(u64::MAX, |left| self.now().mono.after(left).0);
        // Under the engine's lock: of two steps about one trigger the later must win.
        let is_rearmed = !(rearm.is_empty() && moments.is_empty());
        if is_rearmed {
            self.rearm(rearm);
            self.ask(moments);
        }
        drop(engine);
        if is_rearmed {
            self.wake_pollers();
        }
        if wake < self.clock_until_ns.load(Ordering::Acquire) {
            self.wake_clock();
        }
        if !(told.is_empty() && overdue.is_empty()) {
            self.tell_bodies(told, overdue);
        }
        if !(jobs.is_empty() && recorded.is_empty() && released.is_empty()) {
            self.hand_out(jobs, recorded, released);
        }
        if !(unseated.is_empty() && seatless.is_empty() && reseated.is_empty()) {
            self.change_seats(unseated, seatless, reseated);
        }
        seats_of.into_iter().for_each(|other| self.store.wake(other));
        if !looks.is_empty() {
            self.look_soon(looks);
        }
        if !doubtful.is_empty() {
            lock(&self.doubtful).extend(doubtful);
            self.wake_liaison();
        }
        if !cancels.is_empty() {
            lock(&self.cancels).extend(cancels);
            self.wake_liaison();
        }
        if tells {
            self.store.wake_others(self.epoch);
            // What is declared here under the same name may be in force now.
            self.crons_due.store(true, Ordering::Release);
        }
        if !elsewhere.is_empty() {
            self.look_for_awaited(elsewhere);
        }
        if is_offered {
            self.store.wake_others(self.epoch);
        }
        if is_open {
            self.ask_for_open();
        }
        if is_due {
            self.due_asked.fetch_add(1, Ordering::AcqRel);
            self.wake_liaison();
        }
        let is_refused = !(dropped.is_empty() && unkeyed.is_empty());
        if !(ended.is_empty() && started.is_empty() && keyed.is_empty() && lost.is_empty()) || is_refused {
            let ended = ended.into_iter().map(|(id, created_at, end)| (id, News::Ended((created_at, end))));
            let keyed = keyed.into_iter().map(|(id, of)| (id, News::Keyed(of)));
            let lost = lost.into_iter().map(|(id, why)| (id, News::Lost(why)));
            self.tell_unawaited(&dropped, &unkeyed);
            let dropped = dropped.into_iter().map(|(id, dropped)| (id, News::Dropped(dropped)));
            let unkeyed = unkeyed.into_iter().map(|(id, why)| (id, News::Unkeyed(why)));
            self.tell_watches(started, ended.chain(keyed).chain(lost).chain(dropped).chain(unkeyed));
        }
        for note in logs {
            self.order(Order::Log(note));
        }
        if is_buried {
            self.give_in(Note::Buried);
        }
        self.steps.fetch_add(1, Ordering::AcqRel);
        self.stepping.fetch_sub(1, Ordering::AcqRel);
    }

    /// How many steps there were so far; none while the effects of one are being carried out.
    fn steps_at_rest(&self) -> Option<u64> {
        let steps = self.steps.load(Ordering::Acquire);
        (self.stepping.load(Ordering::Acquire) == 0).then_some(steps)
    }
}
