//! Decides what follows from every event in a runner: `step(event, now)` fills [`Effects`] and does nothing else. It never
//! sleeps, locks, reads a clock, touches a database or calls Python, so a simulator runs the same code as the runtime.
//! Invariant: what must be durable before it is acted upon leaves as a commit, and the action follows from its receipt.

mod crons;
mod drive;
mod effect;
mod event;
mod fires;
mod hands;
mod line;
mod moments;
mod note;
mod random;
mod receipts;
mod stuck;
mod timers;
mod triggers;
mod why;

pub use effect::{Counts, Effects, Rearm, Then};
pub use event::{Declared, Event, Fire, Job, Polled, Request};
pub use note::{About, Level, Note, is_told, poll_timed_out};
pub use stuck::Foreseen;
pub use why::RunStanding;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::admit::Gate;
use crate::context::Bounds;
use crate::engine::crons::Crons;
use crate::engine::line::Turn;
use crate::engine::stuck::Stuck;
use crate::engine::timers::Timer;
use crate::port::{Change, ScheduleKind, Unfinished};
use crate::run::Run;
use crate::time::{Mono, Now, Wall};
use crate::wheel::Wheel;
use crate::workflow::Workflow;

/// An attempt that lasts longer is put on record before its end, for others to see. What is shorter needs one record.
const BEGINNING_SHOWN: Duration = Duration::from_millis(5);
/// Resolution of time-outs and retry delays.
const TIMER_TICK_NS: u64 = 1_000_000;

/// Settings that the engine itself obeys.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// A task's attempt that takes longer fails.
    pub task_timeout: Duration,
    /// A run that takes longer fails.
    pub workflow_timeout: Duration,
    /// Whether cron schedules start runs.
    pub crons_enabled: bool,
    /// At most so many missed slots of one cron are made up for.
    pub catchup_max: u64,
    /// What the contexts of a run may cost.
    pub contexts: Bounds,
}

/// The whole state of one runner's decisions.
#[derive(Debug)]
pub struct Engine {
    epoch: i64,
    settings: Settings,
    workflows: BTreeMap<Arc<str>, Arc<Workflow>>,
    /// By their places in the poller, which are dense.
    triggers: Vec<Option<Declared>>,
    parked: BTreeSet<u32>,
    /// Places whose triggers the program declares no more.
    withdrawn: BTreeSet<u32>,
    runs: HashMap<Uuid, Run>,
    gate: Gate,
    /// Runs in the gate that other owners drive, or may claim.
    others: BTreeSet<Uuid>,
    turns: HashMap<Uuid, Turn>,
    waiting: HashMap<String, Vec<Unfinished>>,
    timers: Wheel,
    timer_of: Vec<Option<Timer>>,
    timer_free: Vec<u32>,
    job_timer: HashMap<Job, u32>,
    /// First attempts that have begun, and when that is to be on record if they still run then.
    begun: VecDeque<(Mono, Job)>,
    /// So many of them are on their way to the store.
    begun_unkept: usize,
    run_timer: HashMap<Uuid, u32>,
    crons: Crons,
    lives: u32,
    is_recovered: bool,
    vacancies: u64,
    news: u64,
    /// With how often news had been read when they were asked for.
    undeclared: Vec<(u64, Rearm)>,
    slot_of: HashMap<Arc<str>, u32>,
    /// Rows that cannot go on, by their triggers' places.
    stuck: HashMap<u32, Stuck>,
    /// Triggers that were warned of losing events.
    warned: BTreeSet<Arc<str>>,
    counts: Counts,
    tells_debug: bool,
    random: u64,
    /// By how much the wall clock stood above the monotonic one, at most since it last fell back.
    wall_ahead_us: i64,
}

impl Engine {
    /// An engine for the owner of `epoch`. `seed` feeds the jitter of retry delays and the ids of runs that crons start.
    pub fn new(epoch: i64, settings: Settings, seed: u64) -> Self {
        Self {
            epoch,
            settings,
            workflows: BTreeMap::new(),
            triggers: Vec::new(),
            parked: BTreeSet::new(),
            withdrawn: BTreeSet::new(),
            runs: HashMap::new(),
            gate: Gate::default(),
            others: BTreeSet::new(),
            turns: HashMap::new(),
            waiting: HashMap::new(),
            timers: Wheel::new(TIMER_TICK_NS),
            timer_of: Vec::new(),
            timer_free: Vec::new(),
            job_timer: HashMap::new(),
            begun: VecDeque::new(),
            begun_unkept: 0,
            run_timer: HashMap::new(),
            crons: Crons::default(),
            lives: 0,
            is_recovered: false,
            vacancies: 0,
            news: 0,
            undeclared: Vec::new(),
            slot_of: HashMap::new(),
            stuck: HashMap::new(),
            warned: BTreeSet::new(),
            counts: Counts::default(),
            tells_debug: false,
            random: seed | 1,
            wall_ahead_us: i64::MIN,
        }
    }

    /// The workflow of that name.
    pub fn workflow(&self, name: &str) -> Option<&Arc<Workflow>> {
        self.workflows.get(name)
    }

    /// The names of all workflows, sorted.
    pub fn workflow_names(&self) -> Vec<Arc<str>> {
        self.workflows.keys().cloned().collect()
    }

    /// A run in hand.
    pub fn run(&self, id: Uuid) -> Option<&Run> {
        self.runs.get(&id)
    }

    /// Whether somebody reads what a healthy day has to say; if not, it is not even made.
    pub fn tell_debug(&mut self, tells: bool) {
        self.tells_debug = tells;
    }

    /// Greets the log.
    pub fn ready_note(&self) -> Note {
        let (workflows, triggers) = (self.workflows.len(), self.slot_of.len());
        Note::RunnerReady { epoch: self.epoch, workflows, triggers, crons: self.crons.len() }
    }

    /// The workflow of a run in hand.
    pub fn workflow_of(&self, run: Uuid) -> Arc<str> {
        self.runs.get(&run).map_or_else(|| "".into(), |run| Arc::clone(&run.workflow.name))
    }

    /// How many runs are in hand.
    pub fn runs_unfinished(&self) -> usize {
        self.runs.len()
    }

    /// Whether that an attempt has begun is on its way to the store.
    pub fn is_showing(&self) -> bool {
        self.begun_unkept > 0
    }

    /// Counts since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How long until [`Event::Clock`] has something to do; none means until another event.
    pub fn next_wake(&self, now: Now) -> Option<Duration> {
        let timer = self.timers.next_due().map(|due| due.since(now.mono));
        let until = |at: Wall| Duration::from_micros(u64::try_from(at.0 - now.wall.0).unwrap_or(0));
        let cron = self.crons.next().map(until);
        let beginning = self.begun.front().map(|(due, _)| due.since(now.mono));
        timer.into_iter().chain(cron).chain(beginning).min()
    }

    /// Decides what follows from `event`.
    pub fn step(&mut self, event: Event, now: Now, out: &mut Effects) {
        self.heed_clock(now, out);
        match event {
            Event::Workflow(workflow) => self.declared(workflow, now, out),
            Event::WorkflowGone(name) => drop(self.workflows.remove(&name)),
            Event::Triggers(triggers) => {
                out.commits.reserve(triggers.len());
                triggers.into_iter().for_each(|(slot, declared)| self.trigger(slot, declared, now, out));
            }
            Event::Start { workflow, requests } => self.start(&workflow, requests, now, out),
            Event::Polled(polled) => self.polled(polled, now, out),
            Event::History(history) => {
                if !history.is_empty() {
                    out.commits.push((Change::History(history), Then::Nothing));
                }
            }
            Event::Committed(then, receipt) => self.committed(then, receipt, now, out),
            Event::Taken(job) => self.taken(job, now, out),
            Event::Deferred(job, true) => self.disarm_job(job),
            Event::Deferred(job, false) => self.arm_job(job, now.mono),
            Event::Interrupted(job) => self.interrupted(job, now, out),
            Event::Leaving(in_flight) => self.leaving(&in_flight, now, out),
            Event::Settled(job) => self.settled(job, now, out),
            Event::Looked(looked) => self.looked(&looked, now, out),
            Event::Vacancy => {
                self.is_recovered = true;
                self.vacancies += 1;
                let is_stale = |news| news != self.news;
                let undeclared = std::mem::take(&mut self.undeclared).into_iter();
                out.rearm.extend(undeclared.map(|(news, rearm)| Rearm { is_stale: is_stale(news), ..rearm }));
                self.ask_for_parked(now, out);
            }
            Event::Cancel(id) => self.cancel(id, now, out),
            Event::Claimed(runs) => runs.into_iter().for_each(|run| self.claimed(run, now, out)),
            Event::News => self.news += 1,
            Event::OthersEnded(runs) => runs.into_iter().for_each(|run| self.other_ended(run, now, out)),
            Event::CronDeclared(schedule) => {
                self.crons.declare(&schedule);
                self.step(Event::Cron(schedule), now, out);
            }
            Event::CronWithdrawn(name) => self.crons.withdraw(&name),
            Event::Withdrawn(slot) => self.withdrawn(slot),
            Event::Vacated(slots) => slots.into_iter().for_each(|slot| self.vacated(slot, now, out)),
            Event::Free(triggers) => self.ask_for_free(&triggers, now, out),
            Event::Cron(schedule) => {
                let row = schedule.row;
                self.cron(schedule, now, out);
                self.put_right(&[row], now, out);
            }
            Event::CronGone(row) => {
                self.crons.remove(row);
            }
            Event::Crons(schedules) => {
                self.crons.clear();
                schedules.into_iter().for_each(|schedule| self.cron(schedule, now, out));
                self.put_right(&self.crons.rows(), now, out);
            }
            Event::Shown => self.record_beginnings(Mono(u64::MAX), out),
            Event::Clock => self.clock(now, out),
        }
    }

    fn declared(&mut self, workflow: Arc<Workflow>, now: Now, out: &mut Effects) {
        let waiting = self.waiting.remove(&*workflow.name).unwrap_or_default();
        // Slots that came before the workflow did are still unclaimed in the store.
        for row in self.crons.of(&workflow.name) {
            let mut state = self.crons.remove(row).expect("a cron of that row is known");
            if let ScheduleKind::Cron { next_at: Some(kept), .. } = state.schedule.kind {
                state.next = state.next.min(kept);
            }
            self.crons.insert(state);
        }
        self.workflows.insert(Arc::clone(&workflow.name), workflow);
        for unfinished in waiting {
            let workflow = self.workflows[&*unfinished.workflow].clone();
            self.resume(unfinished, workflow, now, out);
        }
    }
}
