//! The world around the decisions: threads, parking, the job queue and the writer. It carries out what
//! [`crate::engine`] and [`crate::poll`] decide, and decides nothing. Threads made here never call user code; workers come from
//! outside, take a job or a poll and wait in here.
//! Invariant: what steps decide reaches the writer and the poller in the order of the steps, because both happen under the engine's
//! lock. Whoever holds the poller's lock therefore never takes the engine's.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::context::{self, hash_json};
use crate::engine::{
    Counts, Declared, Effects, Engine, Event, Fire, Job, Level, Polled, Rearm, Request, Settings, Then,
};
use crate::error::{Error, Kind, Result};
use crate::fault_point::{Step, around};
use crate::poll::{Finish, Overdue, Plan, PollCounts, Poller, Standing, TickState, Ticket, Turn};
use crate::port::{
    Change, Fault, Page, Receipt, RunEnd, Schedule, ScheduleFilter, Store, TaskRecord, TriggerState,
};
use crate::run::{Ended, Ruling, Run};
use crate::time::{Mono, Now, Wall};
use crate::workflow::Workflow;

/// At most so many changes share one transaction.
const BATCH_MAX: usize = 4096;
/// At most so many threads poll at once; more bodies than that, all blocked, delay the others.
pub const POLLERS_MAX: usize = 64;
/// A body that takes longer than this no longer holds up the others: the next poller goes on.
/// More than two of the interpreter's switch intervals: a body that another thread has interrupted is not stuck.
const BODY_GRACE: Duration = Duration::from_millis(12);
/// So many pollers wait beside the one that polls; more of them go home.
const SPARE_POLLERS_MAX: usize = 2;
/// Log lines that wait for the keeper; more are counted and dropped.
const LOG_LINES_MAX: usize = 10_000;
/// So many unfinished runs are taken over at once, so that the first can start early.
const CLAIM_CHUNK: u64 = 200;
/// Between two attempts to read unfinished runs from a store that does not let itself be read.
const RECOVERY_PAUSE: Duration = Duration::from_millis(10);
/// Old rows are deleted in steps of so many, so that no step holds up the writer.
const PRUNE_CHUNK: u64 = 500;
/// Between two steps while there is more to delete.
const PRUNE_PAUSE: Duration = Duration::from_millis(100);
/// Between two looks for what has grown too old.
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// Between two looks at whether a poll in flight has come back.
const DRAIN_PAUSE: Duration = Duration::from_millis(2);
/// Between two looks of who waits for the writer at whether the runner closes.
const FLUSH_PAUSE: Duration = Duration::from_millis(50);
/// Between two looks at whether the record of a resumed attempt is kept.
const RECORD_PAUSE: Duration = Duration::from_micros(500);
/// So long shutting down waits for polls in flight, which may have taken something away from their source.
const POLL_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at whether a runner on a manual clock is idle.
const SETTLE_PAUSE: Duration = Duration::from_micros(200);
/// Quiet history reaches the store so often.
const HISTORY_EVERY: Duration = Duration::from_secs(30);
/// News from another process on the store is looked for so often while there is one. Also a jump of the wall clock is noticed then.
const NEWS_EVERY: Duration = Duration::from_millis(50);
/// And so often while this runner is alone.
const NEWS_EVERY_ALONE: Duration = Duration::from_millis(500);
/// So many triggers are switched at once by news from another process.
const NEWS_CHUNK: usize = 1000;
/// Of runs that others drive so many are looked at together, whether they are over.
const OTHERS_CHUNK: usize = 1000;
/// Runs in hand at once; more are refused.
pub const RUNS_MAX: usize = 4_000_000;

/// What the keeper, a thread made by Python, is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Write this to the user's log.
    Log(Level, String),
    /// Start another thread that takes jobs.
    SpawnWorker,
    /// Start another thread that polls.
    SpawnPoller,
    /// The runner is closed.
    Close,
}

/// What a poller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollTurn {
    /// Call this trigger's body.
    Poll(Ticket, Now),
    /// Wait, detached, by [`Runtime::poll_wait`].
    Wait,
    /// Go home.
    Leave,
}

/// A context as JSON text, and a run key with the time for which it holds.
pub type AskedFire = (Arc<str>, Option<(String, Option<Duration>)>);

/// What a poll that was more than a plain skip answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// In the order returned.
    pub fires: Vec<AskedFire>,
    /// The cursor as JSON text, if it moved.
    pub cursor: Option<String>,
    /// What it said about itself without firing, or what went wrong.
    pub reason: std::result::Result<String, String>,
}

/// A job with what its body needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// Which attempt of which task.
    pub job: Job,
    /// Names the Python function.
    pub body: u64,
    /// The task's id.
    pub task: Arc<str>,
    /// The context, as JSON text.
    pub context: Arc<str>,
    /// The error to report, if only the callback is to be called.
    pub error: String,
}

/// How an attempt begins that a worker has taken.
#[derive(Debug, Clone, PartialEq)]
pub enum Beginning {
    /// Its body is to be called now.
    Begun(Work),
    /// Not before it is on record: wait by [`Runtime::begin_recorded`].
    Recording,
    /// Nobody waits for it any more.
    Stale,
}

/// Why a worker that waited for a job goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// A job is ready; another worker may be faster.
    Ready,
    /// There was none for too long.
    Idle,
    /// The runner is closed.
    Closed,
}

/// How a run ended, with its beginning.
pub type Finished = (Wall, RunEnd);

/// What a thread that asked for a run knows of it.
#[derive(Debug, Clone, PartialEq)]
enum News {
    Sent,
    Started,
    Ended(Finished),
    Lost(String),
}

/// One for each watched run, so that its end wakes only those who wait for it.
struct Watch {
    state: Mutex<WatchState>,
    wake: Condvar,
}

/// A wake-up costs a call of the kernel even if nobody waits, and more if it wakes one who goes on waiting.
struct WatchState {
    news: News,
    /// So many wait for the commit.
    await_start: usize,
    /// So many wait for the end.
    await_end: usize,
}

impl Watch {
    fn new(news: News) -> Arc<Self> {
        let state = WatchState { news, await_start: 0, await_end: 0 };
        Arc::new(Self { state: Mutex::new(state), wake: Condvar::new() })
    }

    fn tell(&self, news: News) {
        let mut state = lock(&self.state);
        let is_awaited = state.await_start > 0 || state.await_end > 0 && news != News::Started;
        state.news = news;
        if is_awaited {
            self.wake.notify_all();
        }
    }

    /// Waits at most `span` for the run's commit, or its end; none if it did not come.
    fn wait(&self, span: Duration, for_end: bool) -> Option<News> {
        let deadline = Instant::now() + span;
        let mut state = lock(&self.state);
        loop {
            match state.news {
                News::Sent => {}
                News::Started if for_end => {}
                _ => return Some(state.news.clone()),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            *state.awaiting(for_end) += 1;
            state = wait_on(&self.wake, state, Some(left));
            *state.awaiting(for_end) -= 1;
        }
    }
}

impl WatchState {
    fn awaiting(&mut self, end: bool) -> &mut usize {
        if end { &mut self.await_end } else { &mut self.await_start }
    }
}

#[derive(Default)]
struct WriterState {
    items: VecDeque<(Change, Then)>,
    busy: bool,
    /// So many wait until all is written.
    flushing: usize,
    closed: bool,
}

#[derive(Default)]
struct JobState {
    ready: VecDeque<Job>,
    running: HashSet<Job>,
    idle: usize,
    /// Attempts that wait for a slot to go on with.
    regaining: usize,
    threads: usize,
    spawning: bool,
    /// A worker is on its way to a job: until it is there, no other one is woken.
    is_waking: bool,
    closed: bool,
}

#[derive(Default)]
struct PollState {
    poller: Poller,
    leader: Option<u64>,
    body_since: Option<Mono>,
    /// Until when the leader sleeps, if it does, and the last follower that went to sleep.
    leader_until: Option<Mono>,
    followers_until: Option<Mono>,
    followers: usize,
    threads: usize,
    seats: u64,
    closed: bool,
}

#[derive(Default)]
struct Orders {
    queue: VecDeque<Order>,
    dropped: u64,
}

/// What a runtime does beside what the engine decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Services {
    /// So many attempts run at once.
    pub slots_max: usize,
    /// Whether unfinished runs of runners that are gone are taken over.
    pub recovery: bool,
    /// Final runs and history older than this are deleted; none keeps everything.
    pub retention: Option<Duration>,
    /// How finely polls are timed: those that are due within one such step share a wake-up, at its end.
    pub resolution: Duration,
}

/// Where a runtime takes the time from.
#[derive(Debug)]
pub enum Clock {
    /// The machine's clocks: monotonic time counts from the first, the second is the wall clock at that moment.
    System(Instant, AtomicI64),
    /// One that stands still unless [`Runtime::advance`] moves it.
    Manual(Mutex<Now>),
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self::System(Instant::now(), AtomicI64::new(wall_now().0))
    }

    /// A clock that stands at `start`.
    pub fn manual(start: Wall) -> Self {
        Self::Manual(Mutex::new(Now { mono: Mono(0), wall: start }))
    }

    fn now(&self) -> Now {
        match self {
            Self::System(born, offset) => {
                let now = Now { mono: Mono(born.elapsed().as_nanos() as u64), wall: wall_now() };
                offset.store(now.wall.0 - (now.mono.0 / 1000) as i64, Ordering::Relaxed);
                now
            }
            Self::Manual(now) => *lock(now),
        }
    }

    /// Like [`Clock::now`] for half the price: the wall clock is taken to move with the monotonic one since it was last looked at,
    /// which the timekeeper does twice a second.
    fn quick(&self) -> Now {
        match self {
            Self::System(born, offset) => {
                let mono = Mono(born.elapsed().as_nanos() as u64);
                Now { mono, wall: Wall(offset.load(Ordering::Relaxed) + (mono.0 / 1000) as i64) }
            }
            Self::Manual(now) => *lock(now),
        }
    }

    /// How long a thread sleeps that is to wake after `span` of this clock; none means until it is woken.
    fn nap(&self, span: Duration) -> Option<Duration> {
        match self {
            Self::System(..) => Some(span),
            Self::Manual(_) => None,
        }
    }
}

struct Shared {
    epoch: i64,
    store: Arc<dyn Store>,
    clock: Clock,
    slots_max: usize,
    retention: Option<Duration>,
    engine: Mutex<Engine>,
    writer: Mutex<WriterState>,
    writer_wake: Condvar,
    writer_idle: Condvar,
    jobs: Mutex<JobState>,
    jobs_wake: Condvar,
    slots_wake: Condvar,
    jobs_done: Condvar,
    closing_wake: Condvar,
    polls: Mutex<PollState>,
    leader_wake: Condvar,
    follower_wake: Condvar,
    orders: Mutex<Orders>,
    orders_wake: Condvar,
    clock_dirty: Mutex<bool>,
    clock_until_ns: AtomicU64,
    clock_wake: Condvar,
    ready: AtomicBool,
    workflow_is_new: AtomicBool,
    /// Whether the timekeeper is to look how triggers are switched, also if no sibling says so.
    has_news: AtomicBool,
    /// Runs of other owners whose end the timekeeper is to ask for.
    cancels: Mutex<Vec<Uuid>>,
    watches: Mutex<HashMap<Uuid, Arc<Watch>>>,
    closing: AtomicBool,
}

/// One runner's engine with its threads.
pub struct Runtime {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere is reported there; what the lock guards is changed by whole steps and stays usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn store_error(fault: Fault) -> Error {
    let (Fault::Passing(text) | Fault::Final(text)) = fault;
    Error::new(Kind::Store, text)
}

impl Runtime {
    /// Starts the threads over a store: a writer and a timekeeper.
    ///
    /// # Errors
    /// [`Kind::Store`] if the store does not take a new owner.
    pub fn start(
        store: Arc<dyn Store>,
        settings: Settings,
        services: &Services,
        clock: Clock,
    ) -> Result<Self> {
        let epoch = store.join(clock.now().wall).map_err(store_error)?;
        let seed = Uuid::now_v7().as_u128() as u64;
        let shared = Arc::new(Shared {
            epoch,
            store,
            clock,
            slots_max: services.slots_max,
            retention: services.retention,
            engine: Mutex::new(Engine::new(epoch, settings, seed)),
            writer: Mutex::default(),
            writer_wake: Condvar::new(),
            writer_idle: Condvar::new(),
            jobs: Mutex::default(),
            jobs_wake: Condvar::new(),
            slots_wake: Condvar::new(),
            jobs_done: Condvar::new(),
            closing_wake: Condvar::new(),
            polls: Mutex::new(PollState { poller: Poller::new(services.resolution), ..PollState::default() }),
            leader_wake: Condvar::new(),
            follower_wake: Condvar::new(),
            orders: Mutex::default(),
            orders_wake: Condvar::new(),
            clock_dirty: Mutex::new(false),
            clock_until_ns: AtomicU64::new(0),
            clock_wake: Condvar::new(),
            ready: AtomicBool::new(false),
            workflow_is_new: AtomicBool::new(false),
            has_news: AtomicBool::new(false),
            cancels: Mutex::default(),
            watches: Mutex::default(),
            closing: AtomicBool::new(false),
        });
        let writer = spawn("cloaca-writer", &shared, Shared::write_all)?;
        let recovery = services.recovery;
        let timekeeper = spawn("cloaca-clock", &shared, move |shared| shared.keep_time(recovery))?;
        Ok(Self { shared, threads: Mutex::new(vec![writer, timekeeper]) })
    }

    /// The store, for listings.
    pub fn store(&self) -> &dyn Store {
        &*self.shared.store
    }

    /// This moment on both clocks.
    pub fn now(&self) -> Now {
        self.shared.now()
    }

    /// Sends an event through the engine and carries out what follows.
    pub fn step(&self, event: Event) {
        // Runs of a workflow wait in the store until somebody declares it.
        let is_new = match &event {
            Event::Workflow(workflow) => lock(&self.shared.engine).workflow(&workflow.name).is_none(),
            _ => false,
        };
        self.shared.step(event);
        if is_new {
            self.shared.workflow_is_new.store(true, Ordering::Release);
            self.shared.wake_clock();
        }
    }

    /// The workflow of that name, or an error that names those that exist.
    ///
    /// # Errors
    /// [`Kind::Workflow`] for an unknown name.
    pub fn workflow(&self, name: &str) -> Result<Arc<Workflow>> {
        let engine = lock(&self.shared.engine);
        engine.workflow(name).cloned().ok_or_else(|| {
            let names: Vec<String> = engine.workflow_names().iter().map(ToString::to_string).collect();
            let known = if names.is_empty() { "none is declared yet".to_owned() } else { names.join(", ") };
            let text =
                format!("workflow '{}' not found; known workflows: {known}", crate::error::excerpt(name));
            Error::new(Kind::Workflow, text)
        })
    }

    /// Starts runs of a workflow, one for each context, in one transaction, and returns their ids. With `watched`, [`Runtime::wait`]
    /// must be called once for each.
    ///
    /// # Errors
    /// [`Kind::Workflow`] for an unknown workflow, [`Kind::Runner`] when closed or when too many runs are in hand.
    pub fn submit(&self, workflow: &str, contexts: Vec<Arc<str>>, watched: bool) -> Result<Vec<Uuid>> {
        let workflow = self.workflow(workflow)?;
        if self.shared.closing.load(Ordering::Acquire) {
            return Err(Error::new(Kind::Runner, "the runner is shut down"));
        }
        if lock(&self.shared.engine).runs_unfinished() + contexts.len() > RUNS_MAX {
            let text = format!("{RUNS_MAX} runs are unfinished; wait for some to end");
            return Err(Error::new(Kind::Runner, text));
        }
        let requests: Vec<Request> =
            contexts.into_iter().map(|context| Request { id: Uuid::now_v7(), context }).collect();
        let ids: Vec<Uuid> = requests.iter().map(|request| request.id).collect();
        if watched {
            lock(&self.shared.watches).extend(ids.iter().map(|&id| (id, Watch::new(News::Sent))));
        }
        self.step(Event::Start { workflow, requests });
        // A runner that closed meanwhile has told those who waited then, but not these.
        if lock(&self.shared.writer).closed {
            self.shared.lose_all();
        }
        Ok(ids)
    }

    /// Waits at most `span` for a watched run's commit; true once it is kept.
    ///
    /// # Errors
    /// [`Kind::Runner`] if the runner shuts down first or the store refuses the run.
    pub fn wait_started(&self, id: Uuid, span: Duration) -> Result<bool> {
        Ok(self.news_of(id, span, false)?.is_some())
    }

    /// Waits at most `span` for a watched run's end, which is then no longer watched.
    ///
    /// # Errors
    /// [`Kind::Runner`] if the runner shuts down first, or does not drive the run any more.
    pub fn wait(&self, id: Uuid, span: Duration) -> Result<Option<Finished>> {
        match self.news_of(id, span, true)? {
            Some(News::Ended(finished)) => {
                self.unwatch(id);
                Ok(Some(finished))
            }
            _ => Ok(None),
        }
    }

    fn news_of(&self, id: Uuid, span: Duration, for_end: bool) -> Result<Option<News>> {
        let watch = lock(&self.shared.watches).get(&id).cloned();
        let watch = watch.ok_or_else(|| Error::new(Kind::Runner, format!("run {id} is not watched")))?;
        match watch.wait(span, for_end) {
            Some(News::Lost(why)) => Err(Error::new(Kind::Runner, format!("run {id} {why}"))),
            news => Ok(news),
        }
    }

    /// Stops watching a run.
    pub fn unwatch(&self, id: Uuid) {
        lock(&self.shared.watches).remove(&id);
    }

    /// The program has declared what it had to declare: crons may start runs from now on.
    pub fn ready(&self) {
        self.shared.ready.store(true, Ordering::Release);
        self.shared.wake_clock();
    }

    /// Opens a run that failed or was cancelled again, from the tasks that did not complete, and watches it. False if there is none
    /// such.
    ///
    /// # Errors
    /// A [`Fault`] of the store, and if an equal run of its trigger is unfinished.
    pub fn retry(&self, id: Uuid) -> std::result::Result<bool, Fault> {
        self.flush();
        let reopened = self.shared.store.reopen(self.shared.epoch, id)?;
        let found = reopened.is_some();
        if found {
            // Before the step: the run may be final at once.
            lock(&self.shared.watches).insert(id, Watch::new(News::Started));
        }
        self.step(Event::Claimed(reopened.into_iter().collect()));
        Ok(found)
    }

    /// When a run in hand began its first task.
    pub fn begun_at(&self, id: Uuid) -> Option<Wall> {
        lock(&self.shared.engine).run(id).and_then(Run::begun_at)
    }

    /// The tasks of a run in hand that are being attempted, or wait for their next attempt.
    pub fn active_tasks(&self, id: Uuid) -> Vec<TaskRecord> {
        lock(&self.shared.engine).run(id).map(Run::active_tasks).unwrap_or_default()
    }

    /// Declares triggers and returns the first one's slot; the others follow it. They are polled once their rows are kept.
    pub fn declare(&self, triggers: Vec<(Arc<Plan>, Declared)>) -> u32 {
        let mut declared = Vec::with_capacity(triggers.len());
        {
            let mut polls = lock(&self.shared.polls);
            if polls.threads == 0 && !triggers.is_empty() {
                polls.threads = 1;
                self.shared.order(Order::SpawnPoller);
            }
            let now = self.now().mono;
            declared.extend(triggers.into_iter().map(|(plan, declared)| {
                (polls.poller.declare(Arc::clone(&declared.row.name), plan, now), declared)
            }));
        }
        let first = declared.first().map_or(0, |&(slot, _)| slot);
        self.step(Event::Triggers(declared));
        first
    }

    /// Forgets a slot whose trigger was declared again.
    pub fn retire(&self, slot: u32) {
        lock(&self.shared.polls).poller.retire(slot);
    }

    /// Asks for a run's end, whoever drives it. False if it is unknown or final.
    ///
    /// # Errors
    /// A [`Fault`] of the store.
    pub fn cancel(&self, id: Uuid) -> std::result::Result<bool, Fault> {
        self.flush();
        let found = self.shared.store.request_cancel(self.shared.epoch, id, self.now().wall)?;
        self.step(Event::Cancel(id));
        self.wake_others();
        Ok(found)
    }

    /// Tells the other runners on the store that something changed that they keep in memory.
    pub fn wake_others(&self) {
        self.shared.store.wake_others(self.shared.epoch);
    }

    /// Switches a trigger's polling in memory.
    pub fn set_polled(&self, schedule: i64, enabled: bool) {
        self.shared.switch([(schedule, enabled)]);
        self.shared.wake_pollers();
    }

    /// When the trigger with that row was last polled.
    pub fn last_poll_at(&self, schedule: i64) -> Option<Wall> {
        lock(&self.shared.polls).poller.last_poll_at(schedule)
    }

    /// Waits until everything sent to the store so far is kept, quiet history included.
    pub fn flush(&self) {
        let history = lock(&self.shared.polls).poller.take_history();
        self.step(Event::History(history));
        let mut writer = lock(&self.shared.writer);
        while (writer.busy || !writer.items.is_empty()) && !writer.closed {
            writer.flushing += 1;
            writer = wait_on(&self.shared.writer_idle, writer, Some(FLUSH_PAUSE));
            writer.flushing -= 1;
            if self.shared.closing.load(Ordering::Acquire) {
                return;
            }
        }
    }

    /// Counts of polls and of what followed since the start, and the runs in hand.
    pub fn counts(&self) -> (PollCounts, Counts, usize) {
        let polls = lock(&self.shared.polls).poller.counts();
        let engine = lock(&self.shared.engine);
        (polls, engine.counts(), engine.runs_unfinished())
    }

    /// Moves a manual clock by `span`, stopping wherever something is due; true once nothing is left to do at its new time, false
    /// if that takes longer than `patience`. Of the machine's clock it only waits for that.
    pub fn advance(&self, span: Duration, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let target = self.now().mono.after(span);
        loop {
            if !self.settle(deadline) {
                return false;
            }
            let Clock::Manual(clock) = &self.shared.clock else { return true };
            let now = self.now().mono;
            if now >= target {
                return true;
            }
            let due = self.next_due().map_or(target, |due| due.clamp(now, target));
            let mut at = lock(clock);
            *at = Now { mono: due, wall: at.wall.after(due.since(now)) };
        }
    }

    /// When something is due next, be it a poll, a retry, a time-out or a cron.
    pub fn next_due(&self) -> Option<Mono> {
        let poll = lock(&self.shared.polls).poller.next_due();
        let now = self.now();
        let timer = lock(&self.shared.engine).next_wake(now).map(|left| now.mono.after(left));
        poll.into_iter().chain(timer).min()
    }

    /// Waits until nothing is due, running, or on its way to the store.
    fn settle(&self, deadline: Instant) -> bool {
        loop {
            self.shared.leader_wake.notify_all();
            self.shared.wake_clock();
            if self.is_idle() {
                return true;
            }
            let jobs = lock(&self.shared.jobs);
            if jobs.closed || Instant::now() > deadline {
                return false;
            }
            drop(wait_on(&self.shared.closing_wake, jobs, Some(SETTLE_PAUSE)));
        }
    }

    fn is_idle(&self) -> bool {
        let now = self.now();
        let polls = lock(&self.shared.polls);
        let is_due = polls.poller.next_due().is_some_and(|due| due <= now.mono);
        if is_due || polls.poller.is_busy() {
            return false;
        }
        drop(polls);
        let is_timer_due = lock(&self.shared.engine).next_wake(now).is_some_and(|left| left.is_zero());
        let jobs = lock(&self.shared.jobs);
        let works = !jobs.ready.is_empty() || !jobs.running.is_empty();
        drop(jobs);
        let writer = lock(&self.shared.writer);
        !is_timer_due && !works && !writer.busy && writer.items.is_empty()
    }

    /// A seat for a thread that polls.
    pub fn poll_seat(&self) -> u64 {
        let mut polls = lock(&self.shared.polls);
        polls.seats += 1;
        polls.seats
    }

    /// What the poller in `seat` does next. Never waits.
    pub fn poll_turn(&self, seat: u64) -> PollTurn {
        let polls = lock(&self.shared.polls);
        let now = self.shared.clock.quick();
        self.next_turn(polls, seat, now)
    }

    /// Ends a poll that was a plain skip without a reason, and takes the next turn: what [`Runtime::poll_skipped`] and
    /// [`Runtime::poll_turn`] do, for one look at the lock and the clock.
    pub fn poll_on(&self, seat: u64, ticket: Ticket, began: Now) -> PollTurn {
        let mut polls = lock(&self.shared.polls);
        let now = self.shared.clock.quick();
        let finish = Finish { began: began.wall, took_us: now.mono.since_us(began.mono), pause: None };
        let Some(stretch) = polls.poller.skipped(ticket, "", finish, now.mono) else {
            return self.next_turn(polls, seat, now);
        };
        drop(polls);
        self.step(Event::History(vec![stretch]));
        self.poll_turn(seat)
    }

    fn next_turn<'a>(&'a self, mut polls: MutexGuard<'a, PollState>, seat: u64, now: Now) -> PollTurn {
        if polls.closed {
            polls.threads -= 1;
            return PollTurn::Leave;
        }
        if polls.leader != Some(seat) {
            let stuck = polls.body_since.is_some_and(|since| now.mono.since(since) >= BODY_GRACE);
            if polls.leader.is_some() && !stuck {
                return self.follow(&mut polls);
            }
            self.lead(&mut polls, seat);
        }
        loop {
            match polls.poller.next(now.mono) {
                Turn::Poll(ticket) => {
                    polls.body_since = Some(now.mono);
                    return PollTurn::Poll(ticket, now);
                }
                Turn::TimedOut(overdue) => {
                    drop(polls);
                    self.poll_given_up(overdue, self.now());
                    polls = lock(&self.shared.polls);
                    polls.body_since = None;
                }
                // To wait would give the interpreter away, and cost a busy one's switch interval.
                Turn::Again => {
                    drop(polls);
                    polls = lock(&self.shared.polls);
                }
                Turn::Wait => {
                    polls.body_since = None;
                    return PollTurn::Wait;
                }
            }
        }
    }

    fn poll_given_up(&self, overdue: Overdue, now: Now) {
        let Overdue { slot, timeout, ended } = overdue;
        let duration_us = timeout.as_micros() as u64;
        let text = format!("timed out after {timeout:?}; it is polled again when its body returns");
        let trigger = lock(&self.shared.polls).poller.name(slot);
        self.shared.order(Order::Log(Level::Error, format!("trigger '{trigger}' {text}")));
        self.step(Event::Polled(Polled {
            slot,
            schedule: ended.schedule,
            at: Wall(now.wall.0.saturating_sub_unsigned(duration_us)),
            duration_us,
            fires: Vec::new(),
            cursor: None,
            reason: Err(format!("TimeoutError: {text}")),
            history: ended.history,
            disable: ended.disable,
        }));
    }

    fn lead(&self, polls: &mut PollState, seat: u64) {
        polls.leader = Some(seat);
        polls.body_since = None;
        if polls.followers == 0 && polls.threads < POLLERS_MAX {
            polls.threads += 1;
            self.shared.order(Order::SpawnPoller);
        }
    }

    fn follow(&self, polls: &mut PollState) -> PollTurn {
        // A body that took long comes back on a thread that no longer leads, and has just armed its trigger.
        let due = polls.poller.next_due().unwrap_or(Mono(u64::MAX));
        if polls.leader_until.is_some_and(|until| due < until) {
            self.shared.leader_wake.notify_all();
        }
        if polls.followers >= SPARE_POLLERS_MAX {
            polls.threads -= 1;
            return PollTurn::Leave;
        }
        PollTurn::Wait
    }

    /// Parks the poller in `seat` until there is something to do for it. Call detached: a follower that finds the leader at work goes on
    /// waiting without a turn for the interpreter.
    pub fn poll_wait(&self, seat: u64) {
        while !self.poll_waited(seat) {}
    }

    /// Waits once; true if the poller is to take its turn.
    fn poll_waited(&self, seat: u64) -> bool {
        let mut polls = lock(&self.shared.polls);
        if polls.closed {
            return true;
        }
        // Until when is found out here, under the lock of the wait: what changed since the turn would be slept through.
        let now = self.now().mono;
        let due = polls.poller.next_due();
        let is_leader = polls.leader == Some(seat);
        let until = match polls.body_since.filter(|_| !is_leader) {
            Some(since) => Some(since.after(BODY_GRACE)),
            None if is_leader => due,
            // The leader is asleep; if it is not back soon after the next poll was due, it is stuck in that.
            None => due.map(|due| due.max(now).after(BODY_GRACE)),
        };
        let left = until.map(|until| until.since(now));
        if left.is_some_and(|left| left.is_zero()) {
            return true;
        }
        let left = left.and_then(|left| self.shared.clock.nap(left));
        if is_leader {
            polls.leader_until = until.or(Some(Mono(u64::MAX)));
            let mut polls = wait_on(&self.shared.leader_wake, polls, left);
            polls.leader_until = None;
            return true;
        }
        polls.followers += 1;
        polls.followers_until = until.or(Some(Mono(u64::MAX)));
        let mut polls = wait_on(&self.shared.follower_wake, polls, left);
        polls.followers -= 1;
        is_needed(&polls, self.now().mono)
    }

    /// A poll out of turn; none while another of the same trigger is in flight.
    pub fn poll_now(&self, schedule: i64) -> Option<(Ticket, Now)> {
        let mut polls = lock(&self.shared.polls);
        let slot = polls.poller.slot_of(schedule)?;
        let now = self.now();
        polls.poller.poll_now(slot, now.mono).map(|ticket| (ticket, now))
    }

    /// Ends a poll of [`Runtime::poll_now`] without a trace.
    pub fn poll_looked(&self, ticket: Ticket) {
        lock(&self.shared.polls).poller.looked(ticket, self.now().mono);
        self.shared.wake_pollers();
    }

    /// What a trigger's function may know in this poll, and when it was due.
    pub fn tick_state(&self, slot: u32) -> (TickState, Wall) {
        let state = lock(&self.shared.polls).poller.tick_state(slot);
        let now = self.now();
        let late_us = now.mono.since(state.due).as_micros() as u64;
        (state, Wall(now.wall.0.saturating_sub_unsigned(late_us)))
    }

    /// Where a trigger stands, and when it is polled next; none if it is not declared here.
    pub fn standing(&self, schedule: i64) -> Option<(Standing, Option<Wall>)> {
        let standing = lock(&self.shared.polls).poller.standing(schedule)?;
        let now = self.now();
        Some((standing, standing.due.map(|due| now.wall.after(due.since(now.mono)))))
    }

    /// Ends a poll that was a plain skip.
    pub fn poll_skipped(&self, ticket: Ticket, reason: &str, began: Now, pause: Option<Duration>) {
        let now = self.now();
        let finish = Finish { began: began.wall, took_us: now.mono.since_us(began.mono), pause };
        let closed = lock(&self.shared.polls).poller.skipped(ticket, reason, finish, now.mono);
        // The answer may come from a thread that does not poll.
        self.shared.wake_pollers();
        if let Some(stretch) = closed {
            self.step(Event::History(vec![stretch]));
        }
    }

    /// Ends any other poll.
    pub fn poll_ended(&self, ticket: Ticket, began: Now, answer: Answer) {
        let now = self.now();
        let finish = Finish { began: began.wall, took_us: now.mono.since_us(began.mono), pause: None };
        let (ended, trigger) = {
            let mut polls = lock(&self.shared.polls);
            let ended = polls.poller.ended(ticket, answer.reason.is_err(), finish, now.mono);
            (ended, polls.poller.name(ticket.slot))
        };
        let Some(ended) = ended else { return self.shared.wake_pollers() };
        self.step(Event::Polled(Polled {
            slot: ticket.slot,
            schedule: ended.schedule,
            at: began.wall,
            duration_us: finish.took_us,
            fires: answer.fires.into_iter().map(|fire| hashed(&trigger, fire, began.wall)).collect(),
            cursor: answer.cursor,
            reason: answer.reason,
            history: ended.history,
            disable: ended.disable,
        }));
    }

    /// Whether the engine can be entered without waiting for another thread, as far as can be told: then it costs less than giving the
    /// interpreter away for it.
    pub fn is_at_hand(&self) -> bool {
        !matches!(self.shared.engine.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// The next job, if one is ready and a slot is free. `was_woken` says that [`Runtime::wait_job`] has just found one. Never waits, so
    /// that a job is only taken by a thread that can run it.
    pub fn ready_job(&self, was_woken: bool) -> Option<Job> {
        let mut jobs = lock(&self.shared.jobs);
        if was_woken {
            jobs.is_waking = false;
        }
        let is_free = !jobs.closed && jobs.running.len() < self.shared.slots_max;
        let job = if is_free { jobs.ready.pop_front() } else { None };
        jobs.running.extend(job);
        self.shared.call_for_workers(&mut jobs);
        job
    }

    /// Waits at most `span` until a job is ready. Call detached.
    pub fn wait_job(&self, span: Duration) -> Waited {
        let mut jobs = lock(&self.shared.jobs);
        let deadline = Instant::now() + span;
        loop {
            if jobs.closed {
                return Waited::Closed;
            }
            if !jobs.ready.is_empty() && jobs.running.len() < self.shared.slots_max {
                jobs.is_waking = true;
                return Waited::Ready;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Waited::Idle;
            }
            jobs.idle += 1;
            jobs = wait_on(&self.shared.jobs_wake, jobs, Some(left));
            jobs.idle -= 1;
            jobs.is_waking = false;
        }
    }

    /// Begins an attempt that was taken by [`Runtime::ready_job`].
    pub fn begin(&self, job: Job) -> Beginning {
        let beginning = around(Step::Attempt, || self.taken(job));
        if beginning == Beginning::Stale {
            self.release(job);
        }
        beginning
    }

    /// Begins it once it is on record; never if the runner closes before. Call detached.
    pub fn begin_recorded(&self, job: Job) -> Beginning {
        if self.is_recorded(job) {
            return self.begin(job);
        }
        self.release(job);
        Beginning::Stale
    }

    fn taken(&self, job: Job) -> Beginning {
        let mut effects = Effects::default();
        let now = self.now();
        let mut engine = lock(&self.shared.engine);
        engine.step(Event::Taken(job), now, &mut effects);
        let beginning = match engine.is_recording(job) {
            true => Beginning::Recording,
            false => work(&engine, job).map_or(Beginning::Stale, Beginning::Begun),
        };
        self.shared.carry_out(engine, effects);
        beginning
    }

    /// Waits until an attempt is on record; false if the runner closes before.
    fn is_recorded(&self, job: Job) -> bool {
        while lock(&self.shared.engine).is_recording(job) {
            let jobs = lock(&self.shared.jobs);
            if jobs.closed {
                return false;
            }
            drop(wait_on(&self.shared.closing_wake, jobs, Some(RECORD_PAUSE)));
        }
        true
    }

    /// A thread that takes jobs has come (+1) or goes (-1).
    pub fn worker_present(&self, present: bool) {
        let mut jobs = lock(&self.shared.jobs);
        if present {
            jobs.spawning = false;
            jobs.threads += 1;
        } else {
            jobs.threads -= 1;
            jobs.is_waking = false;
        }
    }

    /// Reports an attempt's end. After [`Ruling::Final`] with a callback, tell it and call [`Runtime::settled`].
    pub fn attempt_ended(&self, job: Job, ended: Ended, has_callback: bool) -> Ruling {
        let shared = &self.shared;
        let mut effects = Effects::default();
        let now = self.now();
        let mut engine = lock(&shared.engine);
        let ruling = around(Step::AttemptEnd, || {
            let ruling = engine.attempt_ended(job, ended, has_callback, now, &mut effects);
            shared.carry_out(engine, effects);
            ruling
        });
        if !(ruling == Ruling::Final && has_callback) {
            self.release(job);
        }
        ruling
    }

    /// The callback of a final attempt has been told.
    pub fn settled(&self, job: Job) {
        around(Step::Settle, || self.step(Event::Settled(job)));
        self.release(job);
    }

    /// Gives an attempt's slot back while it waits for its condition.
    pub fn yield_slot(&self, job: Job) {
        self.step(Event::Deferred(job, true));
        self.release(job);
    }

    /// Takes a slot again within `span`. Call detached.
    pub fn regain_slot(&self, job: Job, span: Duration) -> bool {
        let mut jobs = lock(&self.shared.jobs);
        let deadline = Instant::now() + span;
        while jobs.running.len() >= self.shared.slots_max && !jobs.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            jobs.regaining += 1;
            jobs = wait_on(&self.shared.slots_wake, jobs, Some(left));
            jobs.regaining -= 1;
        }
        jobs.running.insert(job);
        drop(jobs);
        self.step(Event::Deferred(job, false));
        true
    }

    /// Waits `span`, or until the runner closes; true if it does. Call detached.
    pub fn wait_closing(&self, span: Duration) -> bool {
        let deadline = Instant::now() + span;
        let mut jobs = lock(&self.shared.jobs);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if jobs.closed || left.is_zero() {
                return jobs.closed;
            }
            jobs = wait_on(&self.shared.closing_wake, jobs, Some(left));
        }
    }

    fn release(&self, job: Job) {
        let mut jobs = lock(&self.shared.jobs);
        jobs.running.remove(&job);
        self.shared.call_for_regainer(&jobs);
        self.shared.call_for_workers(&mut jobs);
        if jobs.closed && jobs.running.is_empty() {
            self.shared.jobs_done.notify_all();
        }
    }

    /// The keeper's next order. Call detached.
    pub fn next_order(&self) -> Order {
        let mut orders = lock(&self.shared.orders);
        loop {
            if let Some(order) = orders.queue.pop_front() {
                return order;
            }
            if orders.dropped > 0 {
                let text = format!("{} log lines were dropped", std::mem::take(&mut orders.dropped));
                return Order::Log(Level::Warning, text);
            }
            orders = wait_on(&self.shared.orders_wake, orders, None);
        }
    }

    /// Stops polling, lets running attempts finish within `span`, writes what has gathered, and ends the threads. What is
    /// unfinished is left to recovery. True if nothing was still running.
    pub fn close(&self, span: Duration) -> bool {
        let deadline = Instant::now() + span;
        let shared = &self.shared;
        if shared.closing.swap(true, Ordering::AcqRel) {
            return true;
        }
        lock(&shared.polls).closed = true;
        shared.wake_pollers();
        self.drain_polls(deadline.min(Instant::now() + POLL_PATIENCE));
        let clean = self.drain_jobs(deadline);
        let history = lock(&shared.polls).poller.take_history();
        self.step(Event::History(history));
        lock(&shared.writer).closed = true;
        shared.writer_wake.notify_all();
        shared.wake_clock();
        for thread in lock(&self.threads).drain(..) {
            // A thread that panicked has been reported by its own log line.
            let _ = thread.join();
        }
        let _ = shared.store.leave(shared.epoch);
        shared.lose_all();
        shared.order(Order::Close);
        clean
    }

    fn drain_polls(&self, deadline: Instant) {
        while lock(&self.shared.polls).poller.is_in_body() && Instant::now() < deadline {
            let jobs = lock(&self.shared.jobs);
            drop(wait_on(&self.shared.closing_wake, jobs, Some(DRAIN_PAUSE)));
        }
    }

    fn drain_jobs(&self, deadline: Instant) -> bool {
        let shared = &self.shared;
        let mut jobs = lock(&shared.jobs);
        jobs.closed = true;
        shared.jobs_wake.notify_all();
        shared.slots_wake.notify_all();
        shared.closing_wake.notify_all();
        while !jobs.running.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            jobs = wait_on(&shared.jobs_done, jobs, Some(left));
        }
        true
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Never joins here: a drop may happen attached to the interpreter, where joining would deadlock.
        self.shared.closing.store(true, Ordering::Release);
        lock(&self.shared.polls).closed = true;
        lock(&self.shared.jobs).closed = true;
        lock(&self.shared.writer).closed = true;
        self.shared.writer_wake.notify_all();
        self.shared.wake_clock();
        self.shared.order(Order::Close);
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

    fn carry_out(&self, engine: MutexGuard<'_, Engine>, effects: Effects) {
        let Effects { commits, jobs, ended, started, released, lost, rearm, cancels, logs } = effects;
        if !commits.is_empty() {
            let mut writer = lock(&self.writer);
            let wake = writer.items.is_empty() && !writer.busy;
            writer.items.extend(commits);
            if wake {
                self.writer_wake.notify_one();
            }
        }
        let wake = engine.next_wake(self.now()).map_or(u64::MAX, |left| self.now().mono.after(left).0);
        // Under the engine's lock: of two steps about one trigger the later must win.
        let is_rearmed = !rearm.is_empty();
        if is_rearmed {
            self.rearm(rearm);
        }
        drop(engine);
        if is_rearmed {
            self.wake_pollers();
        }
        if wake < self.clock_until_ns.load(Ordering::Acquire) {
            self.wake_clock();
        }
        if !jobs.is_empty() || !released.is_empty() {
            let mut state = lock(&self.jobs);
            for job in released {
                state.running.remove(&job);
                self.call_for_regainer(&state);
            }
            state.ready.extend(jobs);
            self.call_for_workers(&mut state);
        }
        if !cancels.is_empty() {
            lock(&self.cancels).extend(cancels);
            self.wake_clock();
        }
        if !(ended.is_empty() && started.is_empty() && lost.is_empty()) {
            self.tell_watches(ended, started, lost);
        }
        for (level, text) in logs {
            self.order(Order::Log(level, text));
        }
    }

    fn tell_watches(&self, ended: Vec<(Uuid, Wall, RunEnd)>, started: Vec<Uuid>, lost: Vec<(Uuid, String)>) {
        let watches = lock(&self.watches);
        let tell =
            |id: &Uuid, news: News| watches.get(id).into_iter().for_each(|watch| watch.tell(news.clone()));
        started.iter().for_each(|id| tell(id, News::Started));
        ended.into_iter().for_each(|(id, created_at, end)| tell(&id, News::Ended((created_at, end))));
        lost.into_iter().for_each(|(id, why)| tell(&id, News::Lost(why)));
    }

    /// A thread of the engine panicked: nothing can be relied upon any more but what is in the store.
    fn give_in(&self) {
        let text =
            "the engine met a fault and has stopped, please report it; the next runner resumes its runs";
        self.order(Order::Log(Level::Error, text.to_owned()));
        self.closing.store(true, Ordering::Release);
        lock(&self.writer).closed = true;
        self.writer_wake.notify_all();
        self.lose_all();
    }

    /// Tells whoever still waits that no news will come.
    fn lose_all(&self) {
        let watches: Vec<Arc<Watch>> = lock(&self.watches).values().cloned().collect();
        for watch in watches {
            if matches!(lock(&watch.state).news, News::Sent | News::Started) {
                watch.tell(News::Lost(
                    "had not ended when the runner shut down; the next runner resumes it".to_owned(),
                ));
            }
        }
    }

    fn rearm(&self, rearm: Vec<Rearm>) {
        let now = self.now().mono;
        let mut is_disputed = false;
        let mut polls = lock(&self.polls);
        for Rearm { slot, row, cursor, fired_at, disables, elsewhere, is_stale } in rearm {
            is_disputed |= is_stale;
            match row {
                // Not polled until news has been read again.
                Some(row) if is_stale => {
                    let row = TriggerState { enabled: false, ..row };
                    polls.poller.enable(slot, &row, elsewhere, now);
                }
                Some(row) => is_disputed |= polls.poller.enable(slot, &row, elsewhere, now),
                None if elsewhere => polls.poller.park(slot),
                None => {
                    if let Some(schedule) = disables {
                        polls.poller.set_enabled(schedule, false, now);
                    }
                    polls.poller.rearm(slot, cursor.map(Arc::from), fired_at, now);
                }
            }
        }
        if is_disputed {
            self.has_news.store(true, Ordering::Release);
            self.wake_clock();
        }
    }

    /// What is due when has changed: whoever sleeps longer than that has to look again.
    fn wake_pollers(&self) {
        let polls = lock(&self.polls);
        let due = polls.poller.next_due().unwrap_or(Mono(u64::MAX));
        if polls.closed || polls.leader_until.is_some_and(|until| due < until) {
            self.leader_wake.notify_all();
        }
        if polls.closed || polls.followers_until.is_some_and(|until| due.after(BODY_GRACE) < until) {
            self.follower_wake.notify_all();
        }
    }

    /// An attempt that gave its slot back may want one of those that are free now.
    fn call_for_regainer(&self, jobs: &JobState) {
        if jobs.regaining > 0 {
            self.slots_wake.notify_one();
        }
    }

    /// One more worker for one more job that could start: woken if one idles, otherwise asked for.
    fn call_for_workers(&self, jobs: &mut JobState) {
        let is_full = jobs.running.len() >= self.slots_max;
        if jobs.ready.is_empty() || is_full || jobs.is_waking || jobs.closed {
            return;
        }
        if jobs.idle > 0 {
            jobs.is_waking = true;
            self.jobs_wake.notify_one();
        } else if !jobs.spawning {
            jobs.spawning = true;
            self.order(Order::SpawnWorker);
        }
    }

    fn order(&self, order: Order) {
        let mut orders = lock(&self.orders);
        if matches!(order, Order::Log(..)) && orders.queue.len() >= LOG_LINES_MAX {
            orders.dropped += 1;
            return;
        }
        orders.queue.push_back(order);
        self.orders_wake.notify_one();
    }

    fn wake_clock(&self) {
        let mut dirty = lock(&self.clock_dirty);
        if !*dirty {
            *dirty = true;
            self.clock_wake.notify_one();
        }
    }

    /// The writer: takes whatever has gathered since its last commit, so that a lone change never waits.
    fn write_all(&self) {
        loop {
            let batch = {
                let mut writer = lock(&self.writer);
                writer.busy = false;
                if writer.flushing > 0 {
                    self.writer_idle.notify_all();
                }
                while writer.items.is_empty() {
                    if writer.closed {
                        return;
                    }
                    writer = wait_on(&self.writer_wake, writer, None);
                }
                writer.busy = true;
                next_batch(&mut writer.items)
            };
            self.write(batch);
        }
    }

    fn write(&self, batch: Vec<(Change, Then)>) {
        let (changes, thens): (Vec<Change>, Vec<Then>) = batch.into_iter().unzip();
        let Some(receipts) = self.commit(&changes) else { return };
        let mut effects = Effects::default();
        let now = self.now();
        let mut engine = lock(&self.engine);
        around(Step::Receipts, || {
            for (then, receipt) in thens.into_iter().zip(receipts) {
                engine.step(Event::Committed(then, receipt), now, &mut effects);
            }
            self.carry_out(engine, effects);
        });
    }

    /// Commits until it succeeds; gives up only when the runner closes meanwhile, and then recovery has the last committed state.
    fn commit(&self, changes: &[Change]) -> Option<Vec<Receipt>> {
        let mut pause = Duration::from_millis(5);
        let mut reported = false;
        loop {
            let fault = match self.store.commit(changes) {
                Ok(receipts) => {
                    if reported {
                        self.order(Order::Log(Level::Warning, "the store takes writes again".to_owned()));
                    }
                    return Some(receipts);
                }
                Err(fault) => fault,
            };
            let (Fault::Passing(text) | Fault::Final(text)) = &fault;
            if !reported {
                reported = true;
                let text = format!("the store refuses writes, which are kept and tried again: {text}");
                self.order(Order::Log(Level::Error, text));
            }
            let writer = lock(&self.writer);
            if writer.closed {
                return None;
            }
            drop(wait_on(&self.writer_wake, writer, Some(pause)));
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// The timekeeper: retries, time-outs, crons, news from other processes, and quiet history now and then. Takes over
    /// unfinished runs first.
    fn keep_time(&self, recovery: bool) {
        self.wait_ready();
        let mut known = None;
        let mut has_siblings = self.look_for_vacancy(recovery, false, &mut known);
        self.load_crons();
        let mut has_news = false;
        let mut last_other = Uuid::nil();
        let mut is_troubled = false;
        let mut prune_due = self.now().mono;
        let mut history_due = self.now().mono.after(HISTORY_EVERY);
        while !self.closing.load(Ordering::Acquire) {
            let now = self.now();
            if now.mono >= history_due {
                history_due = now.mono.after(HISTORY_EVERY);
                let history = lock(&self.polls).poller.take_history();
                self.step(Event::History(history));
            }
            if let Some(retention) = self.retention
                && now.mono >= prune_due
            {
                prune_due = now.mono.after(self.prune(retention, now.wall));
            }
            if self.workflow_is_new.swap(false, Ordering::AcqRel) && recovery {
                self.recover();
            }
            if let Some(trouble) = self.store.trouble().filter(|_| !is_troubled) {
                is_troubled = true;
                self.order(Order::Log(Level::Error, trouble));
            }
            let is_woken = self.store.woken(self.epoch);
            has_news |= is_woken | self.has_news.swap(false, Ordering::AcqRel);
            if has_news {
                has_news = self.read_news().is_err();
            }
            if is_woken || has_siblings || known.is_none() {
                has_siblings = self.look_for_vacancy(recovery, is_woken, &mut known);
            }
            self.ask_for_ends();
            last_other = self.look_at_others(last_other);
            self.step(Event::Clock);
            self.sleep(if has_siblings { NEWS_EVERY } else { NEWS_EVERY_ALONE });
        }
    }

    /// Sleeps until the program has declared what it had to declare: before, there is nothing to take over for it.
    fn wait_ready(&self) {
        let mut dirty = lock(&self.clock_dirty);
        while !self.ready.load(Ordering::Acquire) && !self.closing.load(Ordering::Acquire) {
            // Whoever finds it set takes the timekeeper for awake and does not wake it.
            *dirty = false;
            dirty = wait_on(&self.clock_wake, dirty, None);
        }
    }

    /// Sleeps until a timer is due, at most `span`; whoever arms a timer before that wakes the timekeeper.
    fn sleep(&self, span: Duration) {
        let left = {
            let now = self.now();
            let engine = lock(&self.engine);
            let left = engine.next_wake(now).unwrap_or(span).min(span);
            self.clock_until_ns.store(now.mono.after(left).0, Ordering::Release);
            left
        };
        let dirty = lock(&self.clock_dirty);
        let nap = self.clock.nap(left);
        let mut dirty = if *dirty { dirty } else { wait_on(&self.clock_wake, dirty, nap) };
        *dirty = false;
    }

    /// Takes over what owners left that are gone; true if others live. `known` holds those that lived at the last look; none before the
    /// first that succeeded. Who joins and leaves between two looks is in none of them, but has told that there is news.
    fn look_for_vacancy(&self, recovery: bool, is_woken: bool, known: &mut Option<Vec<i64>>) -> bool {
        let Ok(siblings) = self.store.bury(self.epoch) else { return true };
        let is_gone = |epoch: &i64| !siblings.living.contains(epoch);
        let is_vacant = siblings.buried > 0 || known.as_ref().is_none_or(|known| known.iter().any(is_gone));
        if recovery && (is_vacant || is_woken) {
            self.recover();
        }
        if is_vacant {
            self.step(Event::Vacancy);
        }
        let has_siblings = !siblings.living.is_empty();
        *known = Some(siblings.living);
        has_siblings
    }

    /// Asks other owners for the ends of runs that a trigger of this one wants to be over.
    fn ask_for_ends(&self) {
        let runs = std::mem::take(&mut *lock(&self.cancels));
        if runs.is_empty() {
            return;
        }
        for id in runs {
            if self.store.request_cancel(self.epoch, id, self.now().wall).is_err() {
                lock(&self.cancels).push(id);
            }
        }
        self.store.wake_others(self.epoch);
    }

    /// Lets those go on who wait for runs of others that are over by now; returns the last that was looked at.
    fn look_at_others(&self, last: Uuid) -> Uuid {
        let others = lock(&self.engine).others_after(last, OTHERS_CHUNK);
        if others.is_empty() {
            return last;
        }
        if let Ok(ended) = self.store.ended(&others)
            && !ended.is_empty()
        {
            self.step(Event::OthersEnded(ended));
        }
        others.last().copied().unwrap_or(last)
    }

    /// Forgets a little of what is older than `retention`; returns how long to wait before the next look.
    fn prune(&self, retention: Duration, now: Wall) -> Duration {
        let before = Wall(now.0.saturating_sub(i64::try_from(retention.as_micros()).unwrap_or(i64::MAX)));
        match self.store.prune(before, now, PRUNE_CHUNK) {
            Ok(rows) if rows >= PRUNE_CHUNK => PRUNE_PAUSE,
            _ => PRUNE_EVERY,
        }
    }

    /// Another process changed something that is kept in memory here.
    fn read_news(&self) -> std::result::Result<(), Fault> {
        let triggers = self.all_schedules(ScheduleFilter::Triggers)?;
        for some in triggers.chunks(NEWS_CHUNK) {
            self.switch(some.iter().map(|trigger| (trigger.row, trigger.enabled)));
        }
        self.wake_pollers();
        let crons = self.all_schedules(ScheduleFilter::Crons)?;
        self.step(Event::CronsGone);
        crons.into_iter().for_each(|cron| self.step(Event::Cron(cron)));
        let cancelled = self.store.cancel_requests(self.epoch)?;
        cancelled.into_iter().for_each(|id| self.step(Event::Cancel(id)));
        Ok(())
    }

    /// Switches triggers as the store has them. Under the engine's lock: a row that arrives later must know that it may be older.
    fn switch(&self, triggers: impl IntoIterator<Item = (i64, bool)>) {
        let now = self.now();
        let mut engine = lock(&self.engine);
        engine.step(Event::News, now, &mut Effects::default());
        let poller = &mut lock(&self.polls).poller;
        for (row, enabled) in triggers {
            poller.set_enabled(row, enabled, now.mono);
        }
    }

    fn recover(&self) {
        let mut after = 0;
        while !self.closing.load(Ordering::Acquire) {
            let workflows = lock(&self.engine).workflow_names();
            match self.store.claim_runs(self.epoch, after, CLAIM_CHUNK, &workflows) {
                Ok(runs) => {
                    let Some(last) = runs.last() else { return };
                    after = last.row;
                    self.step(Event::Claimed(runs));
                }
                Err(Fault::Passing(_)) => std::thread::sleep(RECOVERY_PAUSE),
                Err(Fault::Final(text)) => {
                    let text = format!("unfinished runs cannot be resumed: {text}");
                    return self.order(Order::Log(Level::Error, text));
                }
            }
        }
    }

    fn load_crons(&self) {
        let crons = self.all_schedules(ScheduleFilter::Crons).unwrap_or_default();
        crons.into_iter().for_each(|cron| self.step(Event::Cron(cron)));
    }

    fn all_schedules(&self, filter: ScheduleFilter) -> std::result::Result<Vec<Schedule>, Fault> {
        let mut page = Page { limit: 1000, offset: 0 };
        let mut all = Vec::new();
        loop {
            let found = self.store.schedules(filter, false, page)?;
            if found.is_empty() {
                return Ok(all);
            }
            page.offset += page.limit;
            all.extend(found);
        }
    }
}

/// Up to [`BATCH_MAX`] changes from the front. What a burst has made room for is given back as it drains.
fn next_batch(items: &mut VecDeque<(Change, Then)>) -> Vec<(Change, Then)> {
    if items.len() <= BATCH_MAX {
        return std::mem::take(items).into();
    }
    let batch = items.drain(..BATCH_MAX).collect();
    if items.len() < items.capacity() / 4 {
        items.shrink_to_fit();
    }
    batch
}

fn hashed(trigger: &str, fire: AskedFire, at: Wall) -> Fire {
    let (context, run_key) = fire;
    let object = context::parse(&context).expect("the Python layer encodes contexts as JSON objects");
    let run_key = run_key.map(|(key, ttl)| (key, ttl.map(|ttl| at.after(ttl))));
    Fire { hash: hash_json(trigger, &object), context, run_key }
}

/// What an attempt's body needs, if somebody still waits for it.
fn work(engine: &Engine, job: Job) -> Option<Work> {
    if !engine.expects(job) {
        return None;
    }
    let run = engine.run(job.run)?;
    let task = job.task as usize;
    let spec = &run.workflow.tasks[task];
    Some(Work {
        job,
        body: spec.body,
        task: Arc::clone(&spec.id),
        context: run.input(task),
        error: run.error(task).to_owned(),
    })
}

/// Whether a follower has to look for itself: the leader is stuck, or gone, or everything ends.
fn is_needed(polls: &PollState, now: Mono) -> bool {
    let is_stuck = polls.body_since.is_some_and(|since| now.since(since) >= BODY_GRACE);
    polls.closed || is_stuck || polls.leader.is_none()
}

fn wait_on<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>, span: Option<Duration>) -> MutexGuard<'a, T> {
    match span {
        Some(span) => condvar.wait_timeout(guard, span).unwrap_or_else(PoisonError::into_inner).0,
        None => condvar.wait(guard).unwrap_or_else(PoisonError::into_inner),
    }
}

fn wall_now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

fn spawn(
    name: &str,
    shared: &Arc<Shared>,
    body: impl FnOnce(&Shared) + Send + 'static,
) -> Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let guarded = move || {
        if catch_unwind(AssertUnwindSafe(|| body(&shared))).is_err() {
            shared.give_in();
        }
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(guarded);
    thread.map_err(|error| Error::new(Kind::Runner, format!("cannot start thread {name}: {error}")))
}
