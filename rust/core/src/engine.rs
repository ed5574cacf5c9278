//! Decides what follows from every event in a runner: `step(event, now)` fills [`Effects`] and does nothing else. It never
//! sleeps, locks, reads a clock, touches a database or calls Python, so a simulator runs the same code as the runtime.
//! Invariant: what must be durable before it is acted upon leaves as a commit, and the action follows from its receipt.

mod crons;
mod decided;
mod delays;
mod drive;
mod effect;
mod event;
mod fires;
mod hands;
mod line;
mod meter;
mod moments;
mod note;
mod overtime;
mod pauses;
mod random;
mod receipts;
mod rehearse;
mod seats;
mod share;
mod stuck;
mod timers;
mod triggers;
mod why;

pub use effect::{Counts, Effects, MomentDue, Ready, Rearm, Then};
pub use event::{Backfilled, Declared, Event, Fire, Job, Polled, Request};
pub use meter::{CallCounts, Counted, FireCounts, RunCounts, TaskCounts};
pub use moments::cron_context;
pub use note::{About, Level, Note, is_told, poll_timed_out};
pub use rehearse::{Asked, Foretold, Poll, Rehearsal, Verdict, rehearse, starts};
pub use share::Claims;
pub use stuck::Foreseen;
pub use why::RunStanding;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::admit::Gate;
use crate::context::Bounds;
use crate::engine::crons::Crons;
use crate::engine::delays::Delays;
use crate::engine::line::Turn;
use crate::engine::meter::Meter;
use crate::engine::pauses::Pauses;
use crate::engine::seats::Seats;
use crate::engine::share::Hands;
use crate::engine::stuck::Stuck;
use crate::engine::timers::Timer;
use crate::key::{ById, Epoch};
use crate::port::{Body, Change, Schedule, Unfinished, WorkflowRow};
use crate::run::Run;
use crate::time::{Mono, Now, Wall};
use crate::wheel::Wheel;
use crate::workflow::Workflow;

/// An attempt that lasts longer is put on record before its end, for others to see. What is shorter needs one record.
const BEGINNING_SHOWN: Duration = Duration::from_millis(5);
/// What a store refuses of a trigger may come with each poll: the log hears of it at most so often.
const REFUSAL_TOLD_EVERY: Duration = Duration::from_secs(60);
/// Resolution of time-outs and retry delays.
const TIMER_TICK_NS: u64 = 1_000_000;

/// Settings that the engine itself obeys.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// A task's attempt that takes longer fails, unless its task says otherwise.
    pub task_timeout: Duration,
    /// A body that was told to end has so long to do so.
    pub timeout_grace: Duration,
    /// A run that takes longer fails.
    pub workflow_timeout: Duration,
    /// A task that is cut off by the death of its process is attempted again, whatever its policy; after more deaths than this it is taken
    /// for their cause and fails.
    pub interruptions_max: u32,
    /// Whether cron schedules start runs.
    pub crons_enabled: bool,
    /// At most so many missed moments of one cron are made up for.
    pub catchup_max: u64,
    /// What the contexts of a run may cost.
    pub contexts: Bounds,
    /// So many attempts run at once in each executor: on workers' threads, on the event loop, in those that the program has named.
    pub permits: Vec<usize>,
    /// So many runs that could go on are in hand at most, the others lie in the store; if none, as many as keep the permits busy, and all
    /// of workflows that nobody else declares.
    pub runs_in_hand: Option<usize>,
    /// Whether what lies in the store is claimed here.
    pub shares: bool,
}

/// The whole state of one runner's decisions.
#[derive(Debug)]
pub struct Engine {
    epoch: Epoch,
    settings: Settings,
    workflows: BTreeMap<Arc<str>, Arc<Workflow>>,
    /// The names of those that others declare.
    elsewhere: BTreeSet<Arc<str>>,
    /// By their places in the poller, which are dense.
    triggers: Vec<Option<Declared>>,
    parked: BTreeSet<u32>,
    /// Places that hold the bodies of crons.
    by_calendar: BTreeSet<u32>,
    /// Places whose triggers the program declares no more.
    withdrawn: BTreeSet<u32>,
    /// Places whose triggers are let go, because others declare newer versions or are to poll them; until that is kept.
    giving_way: BTreeSet<u32>,
    runs: ById<Uuid, Run>,
    gate: Gate,
    /// Runs in the gate that other owners drive, or may claim.
    others: BTreeSet<Uuid>,
    turns: ById<Uuid, Turn>,
    waiting: HashMap<String, Vec<Unfinished>>,
    delays: Delays,
    seats: Seats,
    pauses: Pauses,
    hands: Hands,
    timers: Wheel,
    timer_of: Vec<Option<Timer>>,
    timer_free: Vec<u32>,
    job_timer: ById<Job, u32>,
    /// What is left of the time of attempts that wait without a permit.
    paused: ById<Job, (Timer, Duration)>,
    /// When it is to be on record that they wait.
    resting: ById<Job, u32>,
    /// Bodies that nobody waits for and that still run.
    overdue: ById<Job, Body>,
    /// First attempts that have begun, and when that is to be on record if they still run then.
    begun: VecDeque<(Mono, Job)>,
    /// So many of them are on their way to the store.
    begun_unkept: usize,
    run_timer: ById<Uuid, u32>,
    crons: Crons,
    lives: u32,
    is_recovered: bool,
    /// It ends what is in hand, and takes nothing more.
    drains: bool,
    left: usize,
    vacancies: u64,
    news: u64,
    /// With how often news had been read when they were asked for.
    undeclared: Vec<(u64, Rearm)>,
    places: HashMap<Arc<str>, u32>,
    /// Rows that cannot go on, by their triggers' places.
    stuck: HashMap<u32, Stuck>,
    /// When the log was last told that ticks of a place are refused, or history is, and how many were since.
    refusals: HashMap<Option<u32>, (Mono, u64)>,
    /// Triggers that were warned of losing events.
    warned: BTreeSet<Arc<str>>,
    counts: Counts,
    meter: Box<Meter>,
    tells_debug: bool,
    random: u64,
    /// By how much the wall clock stood above the monotonic one, at most since it last fell back.
    wall_ahead_us: i64,
}

impl Engine {
    /// The same where it stays: it is large, and whoever starts a runner may have little room on its stack.
    #[inline(never)]
    pub fn boxed(epoch: Epoch, settings: Settings, seed: u64) -> Box<Self> {
        Box::new(Self::new(epoch, settings, seed))
    }

    /// An engine for the owner of `epoch`. `seed` feeds the jitter of retry delays and the ids of runs that crons start.
    pub fn new(epoch: Epoch, settings: Settings, seed: u64) -> Self {
        let hands = Hands::new(&settings);
        Self {
            epoch,
            settings,
            workflows: BTreeMap::new(),
            elsewhere: BTreeSet::new(),
            triggers: Vec::new(),
            parked: BTreeSet::new(),
            by_calendar: BTreeSet::new(),
            withdrawn: BTreeSet::new(),
            giving_way: BTreeSet::new(),
            runs: ById::default(),
            gate: Gate::default(),
            others: BTreeSet::new(),
            turns: ById::default(),
            waiting: HashMap::new(),
            delays: Delays::default(),
            seats: Seats::default(),
            pauses: Pauses::default(),
            hands,
            timers: Wheel::new(TIMER_TICK_NS),
            timer_of: Vec::new(),
            timer_free: Vec::new(),
            job_timer: ById::default(),
            paused: ById::default(),
            resting: ById::default(),
            overdue: ById::default(),
            begun: VecDeque::new(),
            begun_unkept: 0,
            run_timer: ById::default(),
            crons: Crons::default(),
            lives: 0,
            is_recovered: false,
            drains: false,
            left: 0,
            vacancies: 0,
            news: 0,
            undeclared: Vec::new(),
            places: HashMap::new(),
            stuck: HashMap::new(),
            refusals: HashMap::new(),
            warned: BTreeSet::new(),
            counts: Counts::default(),
            meter: Box::default(),
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

    /// All workflows as others hear of them, sorted by their names.
    pub fn workflow_rows(&self) -> Vec<WorkflowRow> {
        let row = |(name, workflow): (&Arc<str>, &Arc<Workflow>)| WorkflowRow {
            name: Arc::clone(name),
            version: Arc::clone(&workflow.version),
            priority: workflow.priority,
            limits: workflow.limits.clone(),
            tells: workflow.tells,
            graph: Arc::clone(&workflow.graph_text),
        };
        self.workflows.iter().map(row).collect()
    }

    /// Where tasks of workflows run whose beginnings limits decide; none if there is no such workflow.
    pub fn executors_of_limited(&self) -> BTreeSet<u32> {
        let holds = |workflow: &&Arc<Workflow>| workflow.limits.as_ref().is_some_and(|limits| limits.holds());
        let limited = self.workflows.values().filter(holds);
        limited.flat_map(|workflow| &workflow.tasks).map(|task| task.executor.0).collect()
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
        // Bodies of crons have places, too, and what is declared no more keeps its own.
        let is_polled = |place: &&u32| !self.by_calendar.contains(place) && !self.withdrawn.contains(place);
        let (workflows, triggers) = (self.workflows.len(), self.places.values().filter(is_polled).count());
        Note::RunnerReady { epoch: self.epoch, workflows, triggers, crons: self.crons.len() }
    }

    /// The workflow of a run in hand.
    pub fn workflow_of(&self, run: Uuid) -> Arc<str> {
        self.runs.get(&run).map_or_else(|| "".into(), |run| Arc::clone(&run.workflow.name))
    }

    /// What a run in hand began with, JSON text.
    pub fn began_with(&self, run: Uuid) -> Option<Arc<str>> {
        self.runs.get(&run).map(|run| Arc::clone(run.initial()))
    }

    /// How many runs are in hand.
    pub fn runs_unfinished(&self) -> usize {
        self.runs.len()
    }

    /// How many were left to others since this runner takes nothing more.
    pub fn runs_left(&self) -> usize {
        self.left
    }

    /// The names of the triggers that are declared here, without crons.
    pub fn triggers_declared(&self) -> Vec<Arc<str>> {
        let polled = |(_, place): &(&Arc<str>, &u32)| !self.by_calendar.contains(place);
        self.places.iter().filter(polled).map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Whether that an attempt has begun is on its way to the store.
    pub fn is_showing(&self) -> bool {
        self.begun_unkept > 0
    }

    /// The names of crons that are declared here and left over, since what had taken them over is not among all these any more.
    pub fn crons_left(&self, all: &[Schedule]) -> Vec<String> {
        self.crons.left(all)
    }

    /// Counts since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The same by the names of what was driven.
    pub fn counted(&self) -> &Counted {
        self.meter.counted()
    }

    /// How long until [`Event::Clock`] has something to do; none means until another event.
    pub fn next_wake(&self, now: Now) -> Option<Duration> {
        let timer = self.timers.next_due().map(|due| due.since(now.mono));
        let until = |at: Wall| Duration::from_micros(u64::try_from(at.0 - now.wall.0).unwrap_or(0));
        let cron = self.crons.next().filter(|_| !self.drains).map(until);
        let delayed = self.delays.next().map(until);
        let seat = self.seats.next().map(until);
        let pause = self.pauses.next().map(until);
        let beginning = self.begun.front().map(|(due, _)| due.since(now.mono));
        timer.into_iter().chain(cron).chain(delayed).chain(seat).chain(pause).chain(beginning).min()
    }

    /// Decides what follows from `event`.
    pub fn step(&mut self, event: Event, now: Now, out: &mut Effects) {
        self.heed_clock(now, out);
        match event {
            Event::Workflow(workflow) => self.declared(workflow, now, out),
            Event::WorkflowsElsewhere(names) => self.elsewhere = names.into_iter().collect(),
            Event::WorkflowGone(name) => drop(self.workflows.remove(&name)),
            Event::Triggers(triggers) => {
                out.commits.reserve(triggers.len());
                triggers.into_iter().for_each(|(place, declared)| self.trigger(place, declared, now, out));
            }
            Event::Start { workflow, requests } => self.start(&workflow, requests, now, out),
            Event::Offer { workflow, version, requests } => {
                self.offer(&workflow, &version, requests, now, out);
            }
            Event::Backfill { workflow, schedule, waits, runs } => {
                self.backfill(&workflow, schedule, waits, runs, now, out);
            }
            Event::Polled(polled) => self.polled(polled, now, out),
            Event::History(history) => {
                if !history.is_empty() {
                    out.commits.push((Change::History(history), Then::Nothing));
                }
            }
            Event::Committed(then, receipt) => self.committed(then, receipt, now, out),
            Event::Taken(job) => self.taken(job, now, out),
            Event::Deferred(job, is_away) => {
                self.deferred(job, is_away, now, out);
                if is_away {
                    self.rest(job, now, out);
                }
            }
            Event::WantsSeats(job) => self.wants_seats_again(job, now, out),
            Event::Paused(pauses) => self.paused(pauses, now, out),
            Event::SeatsMoved => self.look_for_seats(now, out),
            Event::Interrupted(job) => self.interrupted(job, now, out),
            Event::Stopped(job) => self.stopped(job, now, out),
            Event::Draining => self.drains = true,
            Event::CutOff(in_flight) => self.cut_off(in_flight, now, out),
            Event::Leaving(in_flight) => self.leaving(&in_flight, now, out),
            Event::Settled(job) => self.settled(job, now, out),
            Event::Looked(looked) => self.looked(&looked, now, out),
            Event::Vacancy => {
                self.is_recovered = true;
                self.vacancies += 1;
                for (news, mut rearm) in std::mem::take(&mut self.undeclared) {
                    rearm.is_stale = news != self.news;
                    // It may have been let go since.
                    rearm.elsewhere |=
                        [&self.giving_way, &self.parked].iter().any(|set| set.contains(&rearm.place));
                    out.rearm.push(rearm);
                }
                self.ask_for_parked(now, out);
                self.look_at_left_moments();
            }
            Event::NextDue(due) => self.delays.wait_until(due),
            Event::Cancel(id) => self.cancel(id, now, out),
            Event::Claims { hand, is_all } => self.claimed_all(hand, is_all, out),
            Event::Excess(jobs) => self.leave_to_others(jobs, out),
            Event::Claimed(runs) => runs.into_iter().for_each(|run| self.claimed(run, now, out)),
            Event::News => self.news += 1,
            Event::OthersMoved(runs) => {
                runs.into_iter().for_each(|(run, behind)| self.other_moved(run, behind, now, out));
            }
            Event::OthersEnded(runs) => runs.into_iter().for_each(|run| self.other_ended(run, now, out)),
            Event::CronDeclared(schedule, digest, body) => {
                self.crons.declare(&schedule, digest);
                if let Some((place, declared)) = body {
                    self.embody(place, declared);
                }
                self.step(Event::Cron(schedule), now, out);
            }
            Event::CalledOff(place) => self.call_off(place, out),
            Event::CronWithdrawn(name) => self.crons.withdraw(&name),
            Event::Withdrawn(place) => self.withdrawn(place),
            Event::Vacated(places) => {
                places.into_iter().for_each(|(place, owes)| self.vacated(place, owes, now, out));
            }
            Event::GiveWay(triggers) => self.give_way_to_others(&triggers, out),
            Event::Free(triggers) => self.ask_for_free(&triggers, now, out),
            Event::Cron(schedule) => {
                let row = schedule.row;
                self.cron(schedule, now, out);
                self.put_right(&[row], now, out);
            }
            Event::CronGone(row) => {
                self.crons.remove(row);
            }
            Event::CronsElsewhere(rows) => self.crons.leave_to_others(rows.into_iter().collect()),
            Event::Crons(schedules) => {
                let known = self.crons.rows();
                self.crons.clear();
                schedules.into_iter().for_each(|schedule| self.cron(schedule, now, out));
                // Whose the name of one that runs here no more is by now may have waited for its last answer.
                out.tells |= known.into_iter().any(|row| self.crons.get(row).is_none());
                self.put_right(&self.crons.rows(), now, out);
            }
            Event::Shown => self.record_beginnings(Mono(u64::MAX), out),
            Event::Clock => self.clock(now, out),
        }
    }

    fn declared(&mut self, workflow: Arc<Workflow>, now: Now, out: &mut Effects) {
        let waiting = self.waiting.remove(&*workflow.name).unwrap_or_default();
        // Moments that came before the workflow did are still unclaimed in the store.
        self.crons.of(&workflow.name).into_iter().for_each(|row| self.crons.look_again(row));
        self.declare_limits(&workflow, out);
        self.meter.slots(&workflow);
        self.workflows.insert(Arc::clone(&workflow.name), workflow);
        for unfinished in waiting {
            let workflow = self.workflows[&*unfinished.workflow].clone();
            self.resume(unfinished, workflow, now, out);
        }
    }
}
