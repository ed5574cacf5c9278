//! Decides what follows from every event in a runner: `step(event, now)` fills [`Effects`] and does nothing else. It never
//! sleeps, locks, reads a clock, touches a database or calls Python, so a simulator runs the same code as the runtime.
//! Invariant: what must be durable before it is acted upon leaves as a commit, and the action follows from its receipt.

mod crons;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::admit::{Admission, Gate, Overlap};
use crate::context::Bounds;
use crate::cron::Cron;
use crate::engine::crons::{CronState, Crons};
use crate::port::{
    Admitted, Change, ContextHash, CronMove, NewRun, Outcome, Receipt, RunChange, RunEnd, RunStatus,
    Schedule, ScheduleKind, Stretch, TickChange, TriggerRow, TriggerState, Unfinished,
};
use crate::run::{At, CANCELLED, Ended, Look, Looked, Progress, Ruling, Run};
use crate::time::{Mono, Now, Wall};
use crate::wheel::Wheel;
use crate::workflow::Workflow;

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
    /// Of the trigger's name and the context.
    pub hash: ContextHash,
    /// The key under which it may happen once, and when that ends.
    pub run_key: Option<(String, Option<Wall>)>,
}

/// A poll that was not a plain skip.
#[derive(Debug, Clone, PartialEq)]
pub struct Polled {
    /// The trigger's place in the poller; its next poll waits for [`Effects::rearm`].
    pub slot: u32,
    /// The store's row.
    pub schedule: i64,
    /// When the poll began.
    pub at: Wall,
    /// How long its body took, in microseconds.
    pub duration_us: u64,
    /// In the order returned.
    pub fires: Vec<Fire>,
    /// The cursor as JSON text, if it moved.
    pub cursor: Option<String>,
    /// What it said about itself without firing, or what went wrong.
    pub reason: Result<String, String>,
    /// Quiet polls gathered before this one.
    pub history: Vec<Stretch>,
    /// Why the trigger is to be disabled, if it is.
    pub disable: Option<String>,
}

/// A run to be started by hand.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// UUIDv7.
    pub id: Uuid,
    /// JSON text.
    pub context: Arc<str>,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// The program declared a workflow, anew or again.
    Workflow(Arc<Workflow>),
    /// The program declared triggers, each with its place in the poller.
    Triggers(Vec<(u32, Declared)>),
    /// Somebody asked for runs; the workflow was looked up by the caller.
    Start {
        /// Whose tasks to run.
        workflow: Arc<Workflow>,
        /// One run each.
        requests: Vec<Request>,
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
    /// A task's callback has been told, or it has none.
    Settled(Job),
    /// A look of [`Effects::looks`] was taken.
    Looked(Looked),
    /// What dead owners left was claimed, for the first time or again: polling may begin, and triggers that were polled elsewhere are asked
    /// for.
    Vacancy,
    /// Somebody asked for a run's end.
    Cancel(Uuid),
    /// Unfinished runs were handed to this runner.
    Claimed(Vec<Unfinished>),
    /// How triggers are switched was read from the store, and holds for those that have their rows.
    News,
    /// Runs that other owners drove are over.
    OthersEnded(Vec<Uuid>),
    /// A cron was registered, changed or read from the store.
    Cron(Schedule),
    /// A cron was deleted or disabled.
    CronGone(i64),
    /// All crons, as the store has them.
    Crons(Vec<Schedule>),
    /// Time has passed.
    Clock,
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

/// What to do when a commit is acknowledged.
#[derive(Debug, Clone, PartialEq)]
pub enum Then {
    /// Start these runs.
    Start(Vec<Uuid>),
    /// Start the admitted ones, free the others' hashes, poll the trigger again.
    Tick {
        /// The poller's slot.
        slot: u32,
        /// The runs that were sent, in order.
        runs: Vec<Uuid>,
        /// The cursor that was sent.
        cursor: Option<String>,
        /// When the poll began.
        at: Wall,
        /// The trigger's row, if this disables it.
        disables: Option<i64>,
    },
    /// Start these tasks of a run, or end it.
    Progress {
        /// The run.
        run: Uuid,
        /// Tasks that may start now.
        jobs: Vec<usize>,
        /// What may be looked at now.
        looks: Vec<At>,
        /// A task that may start at that time.
        delayed: Option<(usize, Mono)>,
        /// Its end.
        end: Option<RunEnd>,
    },
    /// The attempt of this task may begin.
    Recorded {
        /// The run.
        run: Uuid,
        /// The task.
        task: usize,
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
        /// The poller's slot.
        slot: u32,
        /// How many vacancies there had been when it was asked for: one since then may be the reason to ask again.
        vacancies: u64,
        /// How often news had been read by then: what came since may be newer than the answer.
        news: u64,
    },
    /// Nothing.
    Nothing,
}

/// How grave a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Something was lost sight of or put off.
    Warning,
    /// Something that the user asked for did not happen.
    Error,
}

/// What the world is asked to do, in this order.
#[derive(Debug, Default)]
pub struct Effects {
    /// To the writer.
    pub commits: Vec<(Change, Then)>,
    /// To the workers.
    pub jobs: Vec<Job>,
    /// To whoever has the time; what is seen comes back as [`Event::Looked`].
    pub looks: Vec<Look>,
    /// Runs that are over, for whoever waits.
    pub ended: Vec<(Uuid, Wall, RunEnd)>,
    /// Runs asked for by hand that are committed now.
    pub started: Vec<Uuid>,
    /// Attempts that are not waited for any more: their slots are free.
    pub released: Vec<Job>,
    /// Runs that this runner does not drive any more, and why.
    pub lost: Vec<(Uuid, String)>,
    /// Triggers that may be polled again.
    pub rearm: Vec<Rearm>,
    /// Runs whose end other owners are asked for.
    pub cancels: Vec<Uuid>,
    /// To the user's log.
    pub logs: Vec<(Level, String)>,
    /// Whether the store takes this runner for dead: nothing that it writes counts any more.
    pub is_buried: bool,
}

/// A trigger that may be polled again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rearm {
    /// Its place in the poller.
    pub slot: u32,
    /// Its row, if that has just become known.
    pub row: Option<TriggerState>,
    /// Its cursor as kept, if that moved.
    pub cursor: Option<String>,
    /// When it fired, if a run of it was started.
    pub fired_at: Option<Wall>,
    /// Its row, if it is disabled now.
    pub disables: Option<i64>,
    /// Whether another owner polls it, so that this one must not.
    pub elsewhere: bool,
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
    /// Polls that raised, and fires that could not start.
    pub errors: u64,
    /// Runs committed.
    pub started: u64,
    /// Runs that completed.
    pub completed: u64,
    /// Runs that ended otherwise.
    pub failed: u64,
    /// From their commit to their end, together, in microseconds.
    pub run_sum_us: u64,
    /// The longest.
    pub run_max_us: u64,
}

#[derive(Debug, Clone, Copy)]
enum Timer {
    Retry(Uuid, usize, u32),
    CallbackTimeout(Job),
    TaskTimeout(Job),
    RunTimeout(Uuid),
}

/// What a run's acknowledged records allow.
struct Follows {
    jobs: Vec<usize>,
    looks: Vec<At>,
    delayed: Option<(usize, Mono)>,
    end: Option<RunEnd>,
}

/// A run that starts when no earlier one of its trigger is unfinished.
#[derive(Debug)]
struct Turn {
    /// Its commit is acknowledged, so that it may start.
    kept: bool,
    /// Whether the earlier ones are to be cancelled for it.
    cancels: bool,
    /// What it goes on with, if it had begun before.
    resumed: Option<Progress>,
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
    run_timer: HashMap<Uuid, u32>,
    crons: Crons,
    lives: u32,
    is_recovered: bool,
    vacancies: u64,
    news: u64,
    /// With how often news had been read when they were asked for.
    undeclared: Vec<(u64, Rearm)>,
    slot_of: HashMap<Arc<str>, u32>,
    counts: Counts,
    random: u64,
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
            runs: HashMap::new(),
            gate: Gate::default(),
            others: BTreeSet::new(),
            turns: HashMap::new(),
            waiting: HashMap::new(),
            timers: Wheel::new(TIMER_TICK_NS),
            timer_of: Vec::new(),
            timer_free: Vec::new(),
            job_timer: HashMap::new(),
            run_timer: HashMap::new(),
            crons: Crons::default(),
            lives: 0,
            is_recovered: false,
            vacancies: 0,
            news: 0,
            undeclared: Vec::new(),
            slot_of: HashMap::new(),
            counts: Counts::default(),
            random: seed | 1,
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

    /// How many runs are in hand.
    pub fn runs_unfinished(&self) -> usize {
        self.runs.len()
    }

    /// Up to `many` runs of others that somebody here waits for, those after `last` first and then from the beginning.
    pub fn others_after(&self, last: Uuid, many: usize) -> Vec<Uuid> {
        let (behind, ahead) =
            (self.others.range(..=last), self.others.range((Bound::Excluded(last), Bound::Unbounded)));
        ahead.chain(behind).take(many).copied().collect()
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
        timer.into_iter().chain(cron).min()
    }

    /// Rules on an attempt's end and keeps what follows. After [`Ruling::Final`] the caller tells the callback, if `has_callback`,
    /// and then sends [`Event::Settled`]; without one the task is settled here.
    pub fn attempt_ended(
        &mut self,
        job: Job,
        ended: Ended,
        has_callback: bool,
        now: Now,
        out: &mut Effects,
    ) -> Ruling {
        let random = self.next_random();
        let Some(run) = self.run_of(job) else { return Ruling::Stale };
        let (ruling, progress) = run.attempt_ended(job.task as usize, job.attempt, ended, random);
        if ruling == Ruling::Stale {
            return ruling;
        }
        self.disarm_job(job);
        self.follow(job.run, progress, now, out);
        match ruling {
            Ruling::Final if has_callback => self.arm_callback(job, now.mono),
            Ruling::Final => self.settled(job, now, out),
            Ruling::Retry | Ruling::Stale => {}
        }
        ruling
    }

    /// Decides what follows from `event`.
    pub fn step(&mut self, event: Event, now: Now, out: &mut Effects) {
        match event {
            Event::Workflow(workflow) => self.declared(workflow, now, out),
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
            Event::Cron(schedule) => {
                self.cron(schedule, now, out);
            }
            Event::CronGone(row) => {
                self.crons.remove(row);
            }
            Event::Crons(schedules) => {
                self.crons.clear();
                schedules.into_iter().for_each(|schedule| self.cron(schedule, now, out));
            }
            Event::Clock => self.clock(now, out),
        }
    }

    fn trigger(&mut self, slot: u32, declared: Declared, now: Now, out: &mut Effects) {
        let trigger = declared.row.clone();
        // What the old declaration still polls must not move the cursor behind the new one's back.
        if let Some(old) = self.slot_of.insert(Arc::clone(&trigger.name), slot) {
            // Its poll in flight still counts, for the workflow that it named.
            self.parked.remove(&old);
        }
        let place = slot as usize;
        if place >= self.triggers.len() {
            self.triggers.resize(place + 1, None);
        }
        self.triggers[place] = Some(declared);
        let change = Change::Declare { epoch: self.epoch, trigger, at: now.wall };
        out.commits.push((change, Then::Declared { slot, vacancies: self.vacancies, news: self.news }));
    }

    /// The newest place of the trigger of that name.
    pub fn place_of(&self, trigger: &str) -> Option<u32> {
        self.slot_of.get(trigger).copied()
    }

    /// Whether a place holds its trigger's newest declaration.
    fn is_newest(&self, slot: u32) -> bool {
        self.declared_in(slot).is_some_and(|declared| self.place_of(&declared.row.name) == Some(slot))
    }

    /// The trigger polled in that place, as it was declared there.
    fn declared_in(&self, slot: u32) -> Option<&Declared> {
        self.triggers.get(slot as usize)?.as_ref()
    }

    fn ask_for_parked(&mut self, now: Now, out: &mut Effects) {
        self.parked.iter().for_each(|&slot| self.ask_for(slot, now, out));
    }

    fn ask_for(&self, slot: u32, now: Now, out: &mut Effects) {
        let trigger = self.declared_in(slot).expect("a parked trigger is declared").row.clone();
        let change = Change::Declare { epoch: self.epoch, trigger, at: now.wall };
        out.commits.push((change, Then::Declared { slot, vacancies: self.vacancies, news: self.news }));
    }

    /// Whether a trigger of this program is polled by another owner.
    pub fn has_parked(&self) -> bool {
        !self.parked.is_empty()
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

    fn start(&mut self, workflow: &Arc<Workflow>, requests: Vec<Request>, now: Now, out: &mut Effects) {
        let ids = requests.iter().map(|request| request.id).collect();
        let mut runs = Vec::with_capacity(requests.len());
        for request in requests {
            self.take_new(request.id, workflow, &request.context, now);
            runs.push(by_hand(workflow, &request, now.wall));
        }
        out.commits.push((Change::Start { epoch: self.epoch, runs, cron: None }, Then::Start(ids)));
    }

    fn polled(&mut self, mut polled: Polled, now: Now, out: &mut Effects) {
        let Some(declared) = self.declared_in(polled.slot).cloned() else { return };
        let fires = std::mem::take(&mut polled.fires);
        let mut verdict = Verdict::of(&polled.reason);
        self.counts.fires += fires.len() as u64;
        let mut runs = Vec::with_capacity(fires.len());
        for fire in fires {
            match self.admit(&declared, polled.schedule, fire, now) {
                Ok(run) => runs.push(run),
                Err(refusal) => verdict = refusal,
            }
        }
        if !runs.is_empty() && verdict.outcome != Outcome::Error {
            verdict = Verdict { outcome: Outcome::Fire, reason: String::new() };
        }
        if verdict.outcome == Outcome::Error {
            self.counts.errors += 1;
            // Who called the body has logged what it raised, with its traceback.
            if polled.reason.is_ok() {
                out.logs.push((Level::Error, verdict.reason.clone()));
            }
        }
        if let Some(cause) = &polled.disable {
            let text = format!("trigger '{}' is disabled: {cause}", declared.row.name);
            out.logs.push((Level::Error, text));
        }
        self.send_tick(polled, verdict, runs, out);
    }

    fn send_tick(&self, polled: Polled, verdict: Verdict, fires: Vec<NewRun>, out: &mut Effects) {
        let Polled { slot, schedule, at, duration_us, cursor, mut history, disable, .. } = polled;
        history.push(Stretch {
            schedule,
            outcome: verdict.outcome,
            reason: verdict.reason.into(),
            count: 1,
            first_at: at,
            last_at: at,
            min_us: duration_us,
            max_us: duration_us,
            sum_us: duration_us,
        });
        let runs = fires.iter().map(|run| run.id).collect();
        let disables = disable.is_some().then_some(schedule);
        let then = Then::Tick { slot, runs, cursor: cursor.clone(), at, disables };
        let change = TickChange { schedule, epoch: self.epoch, cursor, at, fires, history, disable };
        out.commits.push((Change::Tick(change), then));
    }

    fn admit(&mut self, trigger: &Declared, schedule: i64, fire: Fire, now: Now) -> Result<NewRun, Verdict> {
        let Declared { row, overlap } = trigger;
        let Some(workflow) = self.workflows.get(&row.workflow).cloned() else {
            return Err(Verdict::error(self.unknown_workflow(&row.name, &row.workflow)));
        };
        let guard = (!row.allow_concurrent).then_some(fire.hash);
        let drop = |reason| Verdict { outcome: Outcome::Skip, reason };
        let refusal = match self.gate.admit(schedule, guard, *overlap) {
            Admission::Run => None,
            Admission::Duplicate { of } => {
                self.counts.deduplicated += 1;
                Some(format!("deduplicated: run {of} with an equal context is unfinished"))
            }
            Admission::Overlaps { with } => Some(format!("overlap: run {with} is unfinished")),
            Admission::QueueFull => Some("overlap: the queue is full".to_owned()),
        };
        if let Some(reason) = refusal {
            return Err(drop(reason));
        }
        let id = self.new_id(now.wall);
        self.gate.hold(schedule, guard, id);
        if overlap.waits() {
            self.turns
                .insert(id, Turn { kept: false, cancels: *overlap == Overlap::CancelRunning, resumed: None });
        }
        self.take_new(id, &workflow, &fire.context, now);
        let request = Request { id, context: fire.context };
        Ok(NewRun {
            schedule: Some(schedule),
            context_hash: Some(fire.hash),
            unique_hash: guard.is_some(),
            run_key: fire.run_key,
            waits: overlap.waits(),
            ..by_hand(&workflow, &request, now.wall)
        })
    }

    fn unknown_workflow(&self, trigger: &str, workflow: &str) -> String {
        let names: Vec<&str> = self.workflows.keys().map(|name| &**name).collect();
        let known = if names.is_empty() { "there are none yet".to_owned() } else { names.join(", ") };
        match workflow.is_empty() {
            true => format!("trigger '{trigger}' fired, but names no workflow; known workflows: {known}"),
            false => {
                format!("trigger '{trigger}' fired unknown workflow '{workflow}'; known workflows: {known}")
            }
        }
    }

    fn committed(&mut self, then: Then, receipt: Receipt, now: Now, out: &mut Effects) {
        match (then, receipt) {
            (then, Receipt::Refused(why)) => self.refused(then, &why, now, out),
            (Then::Start(ids), Receipt::Start(admitted)) => {
                out.started.extend(&ids);
                self.begin_all(ids, admitted, now, out);
            }
            (Then::Start(ids), _) => {
                out.is_buried = true;
                let why = "was not started: the store takes this runner for dead";
                ids.into_iter().for_each(|id| self.lose(id, why, now, out));
            }
            (Then::Tick { slot, runs, cursor, at, disables }, Receipt::Tick(admitted)) => {
                let fired = admitted.iter().any(|fate| matches!(fate, Admitted::Started { .. }));
                self.begin_all(runs, admitted, now, out);
                out.rearm.push(Rearm {
                    slot,
                    row: None,
                    cursor,
                    fired_at: fired.then_some(at),
                    disables,
                    ..Rearm::default()
                });
            }
            (Then::Tick { slot, runs, .. }, _) => {
                let trigger = self.declared_in(slot).map_or("", |trigger| &*trigger.row.name);
                let text =
                    format!("trigger '{trigger}': another runner polls it now; its last poll was discarded");
                out.logs.push((Level::Warning, text));
                runs.into_iter().for_each(|id| self.drop_run(id, now, out));
                if self.is_newest(slot) {
                    self.parked.insert(slot);
                }
                out.rearm.push(Rearm { slot, elsewhere: true, ..Rearm::default() });
            }
            (Then::Progress { run, .. } | Then::Recorded { run, .. }, Receipt::Fenced) => {
                out.logs.push((Level::Warning, format!("run {run} was taken over by another runner")));
                out.lost.push((run, "was taken over by another runner".to_owned()));
                self.drop_run(run, now, out);
            }
            (Then::Progress { run, jobs, looks, delayed, end }, _) => {
                self.kept(run, Follows { jobs, looks, delayed, end }, now, out);
            }
            (Then::Recorded { run, task }, _) => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.recorded(task);
                }
            }
            (Then::Forgotten { run, created_at, end }, _) => {
                out.ended.push((run, created_at, end));
                self.drop_run(run, now, out);
            }
            (Then::Declared { slot, vacancies, news }, Receipt::Declared(mut state)) => {
                self.wait_for_others(state.row, std::mem::take(&mut state.others));
                let elsewhere = state.owner != Some(self.epoch);
                if elsewhere && self.is_newest(slot) {
                    self.parked.insert(slot);
                    // The answer may be older than the vacancy, which found nothing parked.
                    if vacancies != self.vacancies {
                        self.ask_for(slot, now, out);
                    }
                } else {
                    self.parked.remove(&slot);
                }
                let is_stale = news != self.news;
                let rearm = Rearm { slot, row: Some(state), elsewhere, is_stale, ..Rearm::default() };
                // Not before the gate knows the runs that a dead owner left unfinished.
                match self.is_recovered {
                    true => out.rearm.push(rearm),
                    false => self.undeclared.push((news, rearm)),
                }
            }
            (Then::Declared { .. }, _) => out.is_buried = true,
            (Then::Nothing, _) => {}
        }
    }

    /// What the store will never take is given up alone, and said.
    fn refused(&mut self, then: Then, why: &str, now: Now, out: &mut Effects) {
        let mut say = |what: String| out.logs.push((Level::Error, format!("{what} cannot be kept: {why}")));
        match then {
            Then::Start(ids) => {
                let why = format!("was not started: {why}");
                ids.into_iter().for_each(|id| self.lose(id, &why, now, out));
            }
            Then::Tick { slot, runs, .. } => {
                let trigger = self.declared_in(slot).map_or("", |trigger| &*trigger.row.name);
                say(format!("the tick of trigger '{trigger}'"));
                self.counts.errors += 1;
                runs.into_iter().for_each(|id| self.drop_run(id, now, out));
                out.rearm.push(Rearm { slot, ..Rearm::default() });
            }
            Then::Progress { run, .. } | Then::Recorded { run, .. } | Then::Forgotten { run, .. } => {
                say(format!("the progress of run {run}"));
                self.lose(run, &format!("cannot be kept: {why}"), now, out);
            }
            Then::Declared { slot, .. } => {
                let trigger = self.declared_in(slot).map_or("", |trigger| &*trigger.row.name);
                say(format!("the declaration of trigger '{trigger}'"));
            }
            Then::Nothing => say("history of polls".to_owned()),
        }
    }

    fn lose(&mut self, id: Uuid, why: &str, now: Now, out: &mut Effects) {
        out.lost.push((id, why.to_owned()));
        self.drop_run(id, now, out);
    }

    /// Runs of a trigger that others drive stand in its line, too.
    fn wait_for_others(&mut self, schedule: i64, runs: Vec<Uuid>) {
        for id in runs {
            if !self.runs.contains_key(&id) && self.others.insert(id) {
                self.gate.hold(schedule, None, id);
            }
        }
    }

    fn other_ended(&mut self, id: Uuid, now: Now, out: &mut Effects) {
        if self.others.remove(&id)
            && let Some(next) = self.gate.release(id)
        {
            self.take_turn(next, now, out);
        }
    }

    fn begin_all(&mut self, ids: Vec<Uuid>, admitted: Vec<Admitted>, now: Now, out: &mut Effects) {
        for (id, fate) in ids.into_iter().zip(admitted) {
            match fate {
                Admitted::Started { row } => self.kept_first(id, row, now, out),
                Admitted::DuplicateHash { .. } | Admitted::DuplicateKey { .. } => {
                    self.counts.deduplicated += 1;
                    self.drop_run(id, now, out);
                }
            }
        }
    }

    /// A new run is committed: it begins, or waits for its turn.
    fn kept_first(&mut self, id: Uuid, row: i64, now: Now, out: &mut Effects) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.row = row;
        self.counts.started += 1;
        if run.is_halted() {
            self.turns.remove(&id);
        }
        match self.turns.get_mut(&id) {
            None => self.begin(id, now, out),
            Some(turn) => {
                turn.kept = true;
                let before = if turn.cancels { self.gate.before(id) } else { Vec::new() };
                before.into_iter().for_each(|other| self.cancel(other, now, out));
                self.take_turn(id, now, out);
            }
        }
    }

    /// Begins a run that waited, if it is its turn.
    fn take_turn(&mut self, id: Uuid, now: Now, out: &mut Effects) {
        if !(self.turns.get(&id).is_some_and(|turn| turn.kept) && self.gate.is_first(id)) {
            return;
        }
        match self.turns.remove(&id).and_then(|turn| turn.resumed) {
            None => self.begin(id, now, out),
            Some(progress) => {
                self.arm_run(id, now.mono);
                self.follow(id, progress, now, out);
            }
        }
    }

    fn take_new(&mut self, id: Uuid, workflow: &Arc<Workflow>, context: &Arc<str>, now: Now) {
        let (workflow, context) = (Arc::clone(workflow), Arc::clone(context));
        self.take_in_hand(Run::new(id, workflow, context, self.settings.contexts, now.wall));
    }

    fn take_in_hand(&mut self, mut run: Run) {
        self.lives = self.lives.wrapping_add(1);
        run.life = self.lives;
        self.runs.insert(run.id, run);
    }

    /// The run that waits for this job, unless it was opened again since.
    fn run_of(&mut self, job: Job) -> Option<&mut Run> {
        self.runs.get_mut(&job.run).filter(|run| run.life == job.life)
    }

    /// Whether the record of this attempt's beginning is on its way to the store.
    pub fn is_recording(&self, job: Job) -> bool {
        let run = self.runs.get(&job.run).filter(|run| run.life == job.life);
        run.is_some_and(|run| run.is_recording(job.task as usize))
    }

    /// Whether a worker should still take this job.
    pub fn expects(&self, job: Job) -> bool {
        let run = self.runs.get(&job.run).filter(|run| run.life == job.life);
        run.is_some_and(|run| job.callback_only || run.expects(job.task as usize, job.attempt))
    }

    fn begin(&mut self, id: Uuid, now: Now, out: &mut Effects) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let progress = run.begin(now.wall);
        self.arm_run(id, now.mono);
        self.follow(id, progress, now, out);
    }

    /// Takes a run out of hand, and lets the one begin that waited for it.
    fn drop_run(&mut self, id: Uuid, now: Now, out: &mut Effects) {
        self.runs.remove(&id);
        self.turns.remove(&id);
        if let Some(timer) = self.run_timer.remove(&id) {
            self.disarm(timer);
        }
        if let Some(next) = self.gate.release(id) {
            self.take_turn(next, now, out);
        }
    }

    /// Ends a run on somebody's wish, whether it has begun, waits for its turn, or for its workflow.
    fn cancel(&mut self, id: Uuid, now: Now, out: &mut Effects) {
        if self.runs.contains_key(&id) {
            let is_kept = self.turns.get(&id).is_some_and(|turn| turn.kept);
            let turn = if is_kept { self.turns.remove(&id) } else { None };
            let begins = match turn {
                None => false,
                Some(Turn { resumed: None, .. }) => true,
                Some(Turn { resumed: Some(progress), .. }) => {
                    self.follow(id, progress, now, out);
                    false
                }
            };
            self.halt(id, RunStatus::Cancelled, CANCELLED, now, out);
            if begins {
                self.begin(id, now, out);
            }
            return;
        }
        if self.others.contains(&id) {
            out.cancels.push(id);
            return;
        }
        let waiting = self.waiting.values_mut().find_map(|runs| {
            let place = runs.iter().position(|run| run.id == id)?;
            Some(runs.swap_remove(place))
        });
        if let Some(run) = waiting {
            let error = Some(CANCELLED.to_owned());
            let context = run.context.into();
            let end = RunEnd { status: RunStatus::Cancelled, context, error, completed_at: now.wall };
            let tasks = Vec::new();
            let change = RunChange { run: run.row, epoch: self.epoch, tasks, end: Some(end.clone()) };
            let then = Then::Forgotten { run: id, created_at: run.created_at, end };
            out.commits.push((Change::Run(change), then));
        }
    }

    /// Sends what a run's step asks for on its way: records first, jobs once they are kept.
    fn follow(&mut self, id: Uuid, progress: Progress, now: Now, out: &mut Effects) {
        let Progress { records, jobs, mut looks, callbacks, delayed, end } = progress;
        for task in callbacks {
            out.jobs.push(self.job(id, task, true));
        }
        let delayed = delayed.map(|(task, delay)| (task, now.mono.after(delay)));
        if records.is_empty() && end.is_none() {
            out.jobs.extend(jobs.into_iter().map(|task| self.job(id, task, false)));
            out.looks.extend(looks.into_iter().map(|at| self.runs[&id].look(at)));
            return;
        }
        let run = &self.runs[&id];
        // The end is written after these records anyway, and who shuts down waits for looks, but not for commits.
        let ends = looks.extract_if(.., |at| *at == At::End);
        out.looks.extend(ends.map(|at| run.look(at)));
        let run = run.row;
        let change = RunChange { run, epoch: self.epoch, tasks: records, end: end.clone() };
        out.commits.push((Change::Run(change), Then::Progress { run: id, jobs, looks, delayed, end }));
    }

    fn kept(&mut self, id: Uuid, follows: Follows, now: Now, out: &mut Effects) {
        let Some(run) = self.runs.get(&id) else { return };
        let (created_at, life) = (run.created_at, run.life);
        let Follows { jobs, looks, delayed, end } = follows;
        out.looks.extend(looks.into_iter().map(|at| run.look(at)));

        // Only now: an attempt must not begin before the record that tells its number.
        if let Some((task, due)) = delayed {
            self.arm(due, Timer::Retry(id, task, life));
        }
        out.jobs.extend(jobs.into_iter().map(|task| self.job(id, task, false)));
        if let Some(end) = end {
            match end.status {
                RunStatus::Completed => self.counts.completed += 1,
                _ => self.counts.failed += 1,
            }
            let took_us = u64::try_from(end.completed_at.0 - created_at.0).unwrap_or(0);
            self.counts.run_sum_us += took_us;
            self.counts.run_max_us = self.counts.run_max_us.max(took_us);
            out.ended.push((id, created_at, end));
            self.drop_run(id, now, out);
        }
    }

    fn job(&self, id: Uuid, task: usize, callback_only: bool) -> Job {
        let run = &self.runs[&id];
        let (attempt, life) = (run.attempt(task), run.life);
        Job { run: id, task: u32::try_from(task).expect("tasks are few"), attempt, life, callback_only }
    }

    fn taken(&mut self, job: Job, now: Now, out: &mut Effects) {
        if job.callback_only {
            if self.run_of(job).is_some() {
                self.arm_callback(job, now.mono);
            }
            return;
        }
        let Some(run) = self.run_of(job) else { return };
        let task = job.task as usize;
        if !run.expects(task, job.attempt) {
            return;
        }
        match run.started(task, now.wall) {
            None => self.arm_job(job, now.mono),
            Some(record) => {
                let change = RunChange { run: run.row, epoch: self.epoch, tasks: vec![record], end: None };
                out.commits.push((Change::Run(change), Then::Recorded { run: job.run, task }));
            }
        }
    }

    fn settled(&mut self, job: Job, now: Now, out: &mut Effects) {
        self.disarm_job(job);
        let Some(run) = self.run_of(job) else { return };
        let progress = run.settle(job.task as usize, now.wall);
        self.follow(job.run, progress, now, out);
    }

    fn looked(&mut self, looked: &Looked, now: Now, out: &mut Effects) {
        let run = self.runs.get_mut(&looked.run).filter(|run| run.life == looked.life);
        let Some(run) = run else { return };
        let progress = run.looked(looked, now.wall);
        self.follow(looked.run, progress, now, out);
    }

    fn halt(&mut self, id: Uuid, status: RunStatus, cause: &str, now: Now, out: &mut Effects) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let life = run.life;
        let (progress, active) = run.halt(status, cause, now.wall);
        self.follow(id, progress, now, out);
        if status == RunStatus::Failed {
            for (task, attempt) in active {
                let job = Job { run: id, task: task as u32, attempt, life, callback_only: false };
                self.give_up(job, cause, now, out);
            }
        }
    }

    /// Fails an attempt whose body is not waited for any more.
    fn give_up(&mut self, job: Job, error: &str, now: Now, out: &mut Effects) {
        let Some(run) = self.run_of(job) else { return };
        let has_callback = run.workflow.tasks[job.task as usize].has_failure_callback;
        let ended = Ended::Failure(format!("TimeoutError: {error}"));
        out.released.push(job);
        if self.attempt_ended(job, ended, has_callback, now, out) == Ruling::Final && has_callback {
            self.disarm_job(job);
            out.jobs.push(Job { callback_only: true, ..job });
        }
    }

    fn claimed(&mut self, mut unfinished: Unfinished, now: Now, out: &mut Effects) {
        if self.runs.contains_key(&unfinished.id) {
            return;
        }
        self.others.remove(&unfinished.id);
        if let Some(schedule) = unfinished.schedule {
            self.wait_for_others(schedule, std::mem::take(&mut unfinished.behind));
            self.gate.hold(schedule, unfinished.context_hash, unfinished.id);
        }
        let Some(workflow) = self.workflows.get(&*unfinished.workflow).cloned() else {
            let (id, cancelled) = (unfinished.id, unfinished.cancelled);
            self.waiting.entry(unfinished.workflow.clone()).or_default().push(unfinished);
            if cancelled {
                self.cancel(id, now, out);
            }
            return;
        };
        self.resume(unfinished, workflow, now, out);
    }

    fn resume(&mut self, unfinished: Unfinished, workflow: Arc<Workflow>, now: Now, out: &mut Effects) {
        let id = unfinished.id;
        if *workflow.version != *unfinished.version {
            let text = format!(
                "run {id} of workflow '{}' goes on under a version that differs from the one it began with",
                unfinished.workflow
            );
            out.logs.push((Level::Warning, text));
        }
        let is_held = unfinished.waits && !self.gate.is_first(id);
        let (run, progress) = Run::resume(&unfinished, workflow, self.settings.contexts, now.wall);
        self.take_in_hand(run);
        if is_held {
            self.turns.insert(id, Turn { kept: true, cancels: false, resumed: Some(progress) });
        } else {
            self.arm_run(id, now.mono);
            self.follow(id, progress, now, out);
        }
        if unfinished.cancelled {
            self.cancel(id, now, out);
        }
    }

    fn cron(&mut self, schedule: Schedule, now: Now, out: &mut Effects) {
        let ScheduleKind::Cron { expression, timezone, next_at } = &schedule.kind else { return };
        if !self.settings.crons_enabled || !schedule.enabled {
            self.crons.remove(schedule.row);
            return;
        }
        match self.crons.read(expression, timezone) {
            Ok(cron) => {
                let next = next_at.or_else(|| cron.next(now.wall));
                let row = schedule.row;
                match next {
                    Some(next) => self.crons.insert(CronState { schedule, cron, next }),
                    None => drop(self.crons.remove(row)),
                }
            }
            Err(error) => {
                let text = format!("cron schedule {} is left out: {error}", schedule.id);
                out.logs.push((Level::Error, text));
            }
        }
    }

    fn clock(&mut self, now: Now, out: &mut Effects) {
        while let Some((timer, _)) = self.timers.pop(now.mono) {
            let payload = self.timer_of[timer as usize].take();
            self.timer_free.push(timer);
            match payload.expect("an armed timer has a purpose") {
                Timer::CallbackTimeout(job) => {
                    self.job_timer.remove(&job);
                    let text = format!(
                        "a callback of run {} does not come back; the run goes on without it",
                        job.run
                    );
                    out.logs.push((Level::Error, text));
                    out.released.push(job);
                    self.settled(job, now, out);
                }
                Timer::Retry(id, task, life) => {
                    let Some(run) = self.runs.get_mut(&id).filter(|run| run.life == life) else { continue };
                    let progress = run.delay_over(task, now.wall);
                    self.follow(id, progress, now, out);
                }
                Timer::TaskTimeout(job) => {
                    self.job_timer.remove(&job);
                    let text = format!("timed out after {:?}", self.settings.task_timeout);
                    self.give_up(job, &text, now, out);
                }
                Timer::RunTimeout(id) => {
                    self.run_timer.remove(&id);
                    let text = format!("workflow timed out after {:?}", self.settings.workflow_timeout);
                    self.halt(id, RunStatus::Failed, &text, now, out);
                }
            }
        }
        for row in self.crons.due(now.wall) {
            self.cron_due(row, now, out);
        }
    }

    /// Starts a run for every slot that has come, up to the bound of catching up: the newest are kept.
    fn cron_due(&mut self, row: i64, now: Now, out: &mut Effects) {
        let mut state = self.crons.remove(row).expect("a due cron is known");
        let slots_max = usize::try_from(self.settings.catchup_max.max(1)).unwrap_or(usize::MAX);
        let (slots, has_older) = newest_slots(&state.cron, state.next, now.wall, slots_max);
        let next = slots.back().and_then(|&last| state.cron.next(last));
        if has_older {
            let text = format!(
                "cron schedule {}: of the slots that were missed only the newest {slots_max} are made up for",
                state.schedule.id
            );
            out.logs.push((Level::Warning, text));
        }
        let schedule = state.schedule.clone();
        if self.workflows.contains_key(&*schedule.workflow)
            && let ScheduleKind::Cron { next_at, .. } = &mut state.schedule.kind
        {
            *next_at = next;
        }
        if let Some(next) = next {
            state.next = next;
            self.crons.insert(state);
        }
        self.cron_fire(&schedule, slots, next, now, out);
    }

    fn cron_fire(
        &mut self,
        schedule: &Schedule,
        slots: VecDeque<Wall>,
        next: Option<Wall>,
        now: Now,
        out: &mut Effects,
    ) {
        let workflow = self.workflows.get(&*schedule.workflow).cloned();
        let Some(workflow) = workflow else {
            self.counts.errors += 1;
            let text = self.unknown_workflow(&format!("cron {}", schedule.id), &schedule.workflow);
            out.logs.push((Level::Error, text));
            return;
        };
        let (mut ids, mut runs) = (Vec::new(), Vec::new());
        for slot in slots {
            let id = self.new_id(now.wall);
            let context = cron_context(schedule, slot);
            self.take_new(id, &workflow, &context, now);
            let run = by_hand(&workflow, &Request { id, context }, now.wall);
            runs.push(NewRun { schedule: Some(schedule.row), scheduled_at: Some(slot), ..run });
            ids.push(id);
        }
        let cron =
            Some(CronMove { row: schedule.row, seen: schedule.updated_at, next_at: next, last_at: now.wall });
        out.commits.push((Change::Start { epoch: self.epoch, runs, cron }, Then::Start(ids)));
    }

    fn arm(&mut self, due: Mono, timer: Timer) -> u32 {
        let id = self.timer_free.pop().unwrap_or_else(|| {
            self.timer_of.push(None);
            u32::try_from(self.timer_of.len() - 1).expect("timers are fewer than 2^32")
        });
        self.timer_of[id as usize] = Some(timer);
        self.timers.arm(id, due);
        id
    }

    fn disarm(&mut self, timer: u32) {
        self.timers.cancel(timer);
        self.timer_of[timer as usize] = None;
        self.timer_free.push(timer);
    }

    fn arm_run(&mut self, id: Uuid, now: Mono) {
        let timer = self.arm(now.after(self.settings.workflow_timeout), Timer::RunTimeout(id));
        self.run_timer.insert(id, timer);
    }

    fn arm_job(&mut self, job: Job, now: Mono) {
        self.disarm_job(job);
        let timer = self.arm(now.after(self.settings.task_timeout), Timer::TaskTimeout(job));
        self.job_timer.insert(job, timer);
    }

    /// A callback has as long as a body; a run must not wait for one that hangs.
    fn arm_callback(&mut self, job: Job, now: Mono) {
        self.disarm_job(job);
        let timer = self.arm(now.after(self.settings.task_timeout), Timer::CallbackTimeout(job));
        self.job_timer.insert(job, timer);
    }

    fn disarm_job(&mut self, job: Job) {
        if let Some(timer) = self.job_timer.remove(&job) {
            self.disarm(timer);
        }
    }

    /// xorshift64*: jitter needs no better, and a seed replays it.
    fn next_random_bits(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn next_random(&mut self) -> f64 {
        (self.next_random_bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn new_id(&mut self, now: Wall) -> Uuid {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.next_random_bits().to_le_bytes());
        random[8..].copy_from_slice(&self.next_random_bits().to_le_bytes()[..2]);
        let millis = u64::try_from(now.0 / 1000).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }
}

/// What a tick's row in the history says.
struct Verdict {
    outcome: Outcome,
    reason: String,
}

impl Verdict {
    fn of(reason: &Result<String, String>) -> Self {
        match reason {
            Ok(reason) => Self { outcome: Outcome::Skip, reason: reason.clone() },
            Err(error) => Self::error(error.clone()),
        }
    }

    fn error(reason: String) -> Self {
        Self { outcome: Outcome::Error, reason }
    }
}

/// The newest slots from `first` to `now`, at most `slots_max`, and whether there were older ones. Looks back from `now` in growing steps: a
/// schedule of each second has a hundred million slots in three years.
fn newest_slots(cron: &Cron, first: Wall, now: Wall, slots_max: usize) -> (VecDeque<Wall>, bool) {
    let mut span_us: i64 = 60_000_000;
    loop {
        let from = Wall(now.0.saturating_sub(span_us));
        let reaches_first = from <= first;
        let mut slots = VecDeque::new();
        let mut next = if reaches_first { Some(first) } else { cron.next(from) };
        let mut count = 0_usize;
        while let Some(slot) = next.filter(|&slot| slot <= now) {
            count += 1;
            if slots.len() == slots_max {
                slots.pop_front();
            }
            slots.push_back(slot);
            next = cron.next(slot);
        }
        if reaches_first || count > slots_max {
            return (slots, count > slots_max);
        }
        span_us = span_us.saturating_mul(2);
    }
}

fn by_hand(workflow: &Workflow, request: &Request, now: Wall) -> NewRun {
    NewRun {
        id: request.id,
        workflow: Arc::clone(&workflow.name),
        version: Arc::clone(&workflow.version),
        context: Arc::clone(&request.context),
        schedule: None,
        context_hash: None,
        unique_hash: false,
        run_key: None,
        scheduled_at: None,
        waits: false,
        created_at: now,
    }
}

fn cron_context(schedule: &Schedule, slot: Wall) -> Arc<str> {
    let ScheduleKind::Cron { expression, timezone, .. } = &schedule.kind else {
        unreachable!("only crons have slots")
    };
    let context = json!({
        "scheduled_time": slot.rfc3339(),
        "schedule_id": schedule.id.to_string(),
        "schedule_timezone": timezone,
        "schedule_expression": expression,
    });
    context.to_string().into()
}
