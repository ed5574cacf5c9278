//! One simulated process: an engine, a poller and what runtime.rs keeps beside them. All of it is lost in a crash.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cloaca_core::engine::{Engine, Event, Job, Then};
use cloaca_core::grid;
use cloaca_core::key::{Epoch, RunRow, ScheduleKey};
use cloaca_core::poll::{Poller, RESOLUTION, Ticket};
use cloaca_core::port::{Admitted, Change, Company, ContextHash, NewRun, Receipt, TickChange, Unfinished};
use cloaca_core::run::Look;
use cloaca_core::time::{Mono, Now, Wall};
use uuid::Uuid;

use crate::family::Awaited;
use crate::scenario::Trigger;
use crate::store::{Kept, State};

/// Within so long a poll makes up for what was missed.
const LONG_AGO: i64 = 0;
/// By so much a wait may seem to end behind the beat with which it does.
const BEAT_SLACK_US: i64 = 1_000;
pub const CATCH_UP: Duration = Duration::from_secs(10);

/// Something that the program of a process has yet to declare.
#[derive(Clone)]
pub enum Declaration {
    Workflow {
        number: usize,
        version: usize,
    },
    Triggers(Vec<Trigger>),
    /// A trigger of that name is declared no more.
    Gone(Arc<str>),
}

/// What a transaction of the writer's consists of; the same changes again as long as the store refuses them.
pub struct Batch {
    pub changes: Vec<Change>,
    pub thens: Vec<Then>,
    /// Committed, but the engine has not heard of it.
    pub receipts: Option<Vec<Receipt>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waits until it is on record that the attempt begins.
    Recording,
    Body,
    /// Waits for its condition without a permit.
    Deferred,
    Callback,
}

/// A worker and the attempt that it is at.
pub struct Worker {
    pub job: Job,
    pub task: Arc<str>,
    pub input: Arc<str>,
    pub stage: Stage,
    /// Since when its body is to end.
    pub told_at: Option<Mono>,
    /// Its time-out has ruled; nobody waits for it.
    pub is_given_up: bool,
    pub since: Mono,
    /// How often its body has called for each workflow.
    pub calls: HashMap<Arc<str>, u32>,
    /// The child that its body waits for.
    pub awaits: Option<Awaited>,
}

/// A trigger's body that runs.
pub struct Polling {
    pub ticket: Ticket,
    pub began: Now,
    pub cursor: Option<u64>,
    pub is_given_up: bool,
    /// How many ends of runs there were when it began, whether or not that was known.
    pub ends: i64,
}

/// Where the beats of a trigger lie.
pub struct Grid {
    /// One of them, in nanoseconds of the process; before its time if another process began the grid.
    pub beat_ns: i128,
    /// A grid that is taken over falls on whole steps of this clock.
    pub slack_ns: u64,
    /// The first comes later than that.
    pub after: Mono,
}

impl Grid {
    /// The grid that begins at `origin`.
    pub fn new(origin: Mono) -> Self {
        Self { beat_ns: origin.0.into(), slack_ns: 0, after: origin }
    }

    pub fn has(&self, beat: Mono, interval_ns: u64) -> bool {
        let off_ns = (i128::from(beat.0) - self.beat_ns).rem_euclid(interval_ns.into());
        beat > self.after && off_ns <= self.slack_ns.into()
    }
}

/// A trigger's place in the poller.
pub struct Place {
    pub trigger: Trigger,
    pub grid: Grid,
    /// When it makes up for what was missed, if it is to.
    pub make_up: Option<Mono>,
    pub was_polled: bool,
    /// Its tick is on its way to the store.
    pub in_commit: bool,
    pub row: Option<ScheduleKey>,
    pub is_retired: bool,
    pub is_enabled: bool,
    pub is_elsewhere: bool,
    pub failures: u32,
    pub last_beat: Mono,
    /// When the last poll beside the grid was due; what it asks for counts from there.
    pub asked: Mono,
    /// No poll before this, because of failures or its own wish.
    pub not_before: Mono,
    /// The same because of a wait that the store had of it, as it was read last.
    pub kept_wait: Mono,
}

impl Place {
    /// Polled from now on, or not; whoever switches a trigger on forgives it.
    pub fn switch(&mut self, is_enabled: bool, now: Mono) {
        if is_enabled && !self.is_enabled {
            (self.failures, self.not_before, self.kept_wait) = (0, Mono(0), Mono(0));
            // What came while it was off is not made up for.
            self.make_up = self.make_up.filter(|at| now.since(*at) <= CATCH_UP);
        }
        self.is_enabled = is_enabled;
    }

    /// The same as was read of its row, with its failures and its wait unless it was another owner's then. What comes on without having been
    /// switched on by anybody is not forgiven.
    pub fn switch_as_read(
        &mut self,
        is_enabled: bool,
        kept: Option<(u32, Option<grid::Wait>)>,
        is_busy: bool,
        now: Now,
    ) {
        let comes_on = is_enabled && !self.is_enabled;
        let before = (self.failures, self.not_before, self.kept_wait);
        self.switch(is_enabled, now.mono);
        if !comes_on || is_busy || self.is_elsewhere {
            return;
        }
        let until = |wait: grid::Wait| {
            let left_us = (wait.not_before.0 - now.wall.0).min(wait.span_us) - BEAT_SLACK_US;
            Mono(now.mono.0 + left_us.max(0) as u64 * 1000)
        };
        // What was known here before is over when it is by the steady clock, wherever the other one was set since.
        (self.failures, self.not_before, self.kept_wait) = match kept {
            Some((failures, wait)) if failures > 0 && failures == before.0 => {
                (failures, Mono(0), wait.map_or(Mono(0), until).min(before.1.max(before.2)))
            }
            Some((failures, wait)) => (failures, Mono(0), wait.map_or(Mono(0), until)),
            None => before,
        };
    }

    /// Its grid as the store has it, and what was missed of that. Counts beats, where the engine computes the next.
    pub fn resume(&mut self, kept: Option<&grid::Kept>, pending: Option<Mono>, was_polled: bool, now: Now) {
        self.make_up = None;
        if let Some(kept) = kept {
            let interval = self.trigger.plan.interval.as_micros() as i64;
            let [wall, origin] = [now.wall.0, kept.origin_at.0];
            let mono = |at: i64| Mono(now.mono.0 + (at - wall).max(0) as u64 * 1000);
            let is_ahead = origin - wall > interval;
            let beats = |at: i64| match is_ahead {
                true => (at - origin).div_euclid(interval),
                false => (at - origin).div_euclid(interval).max(0),
            };
            let wait = kept.wait.map_or(LONG_AGO, |wait| wait.not_before.0.min(wall + wait.span_us));
            let past = |at: Option<Wall>| at.map_or(LONG_AGO, |at| if at.0 > wall { LONG_AGO } else { at.0 });
            let heeded = kept.heeded_until.map_or(wall, |until| until.0.min(wall));
            let heeded = heeded.max(past(kept.last_at)).max(wait);
            if heeded < wall && beats(heeded) < beats(wall) && interval > CATCH_UP.as_micros() as i64 {
                let left = origin + (beats(wall) + 1) * interval - wall;
                self.make_up = Some(mono(wall + left * 10 / (interval / 1_000_000)));
            }
            self.grid = Grid {
                beat_ns: i128::from(now.mono.0) + i128::from(origin - wall) * 1000,
                slack_ns: RESOLUTION.as_nanos() as u64,
                after: now.mono,
            };
            self.last_beat = self.last_beat.min(now.mono);
            // A beat just before its end is the one that it was to end with.
            self.kept_wait = if wait > wall { mono(wait - BEAT_SLACK_US) } else { Mono(0) };
        }
        let is_new = !was_polled && kept.is_none_or(|kept| kept.last_at.is_none());
        if is_new && self.trigger.plan.polls_at_start {
            self.make_up = Some(now.mono);
        }
        self.make_up = self.make_up.or(pending);
        if self.is_elsewhere {
            self.make_up = None;
        }
    }
}

/// An unfinished run of a trigger, as the gate should know it.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    pub schedule: ScheduleKey,
    pub hash: Option<ContextHash>,
    pub order: i64,
}

/// What a tick on its way to the store does to the cursor.
pub struct Moved {
    pub from: Option<u64>,
    /// Where the poll set it.
    pub to: Option<u64>,
    /// Of a row every item that the poll saw, in order; empty if its fires carry no cursors.
    pub row: Vec<u64>,
    /// How many ends of runs there were when the poll began.
    pub ends: i64,
}

impl Moved {
    /// A fire that guards its hash and has neither key nor cursor was polled after the last equal run ended.
    pub fn is_no_ghost(&self, new: &NewRun, store: &State) {
        if self.to.is_some() || !new.unique_hash || new.run_key.is_some() {
            return;
        }
        let is_equal =
            |other: &&Kept| other.new.schedule == new.schedule && other.new.context_hash == new.context_hash;
        let last = store.runs.iter().filter(is_equal).filter_map(|kept| kept.number).max();
        let is_old = last.is_none_or(|last| last <= self.ends);
        assert!(is_old, "run {} was polled after {} ends; an equal one ended as {last:?}", new.id, self.ends);
    }

    /// Where the cursor stands after the fates of its fires, if it moves: no item before it may be lost.
    pub fn after(&self, tick: &TickChange, fates: &[Admitted]) -> Option<u64> {
        if self.row.is_empty() {
            return self.to;
        }
        let is_behind =
            |fate: &Admitted| matches!(fate, Admitted::Started { .. } | Admitted::DuplicateKey { .. });
        let taken = fates.iter().take_while(|fate| is_behind(fate)).count();
        assert!(!fates[taken..].iter().any(is_behind), "nothing is tried behind what was dropped: {fates:?}");
        assert!(tick.fires.len() <= self.row.len());
        match taken == self.row.len() {
            true => self.to.or(self.row.last().map(|item| item + 1)),
            false => self.row[..taken].last().map(|item| item + 1),
        }
    }
}

#[derive(Default)]
pub struct Recovery {
    /// Unfinished runs of the dead, and those that are due, are being claimed.
    pub claims: bool,
    /// What the store has handed over, and the engine has not been told.
    pub claimed: Option<Vec<Unfinished>>,
    /// Of which share of the work, and whether that was all there is.
    pub share: Option<(usize, bool)>,
    /// The look that began it was for what owners left.
    pub is_vacancy: bool,
    /// A workflow was declared whose runs nobody here could claim before.
    pub workflow_is_new: bool,
    /// The program has declared what it had to declare.
    pub is_ready: bool,
    /// Other owners that lived at the last look; none before the first.
    pub company: Option<Company>,
    pub is_due: bool,
    /// Others may have left runs to whoever declares their workflows.
    pub has_news: bool,
}

pub struct Process {
    pub epoch: Epoch,
    /// When its monotonic clock began.
    pub born_ns: u64,
    /// How many ends of runs are known here.
    pub ends: i64,
    /// Others may take it for dead although it is not.
    pub is_zombie: bool,
    pub is_leaving: bool,
    /// It works on nothing, and offers runs to others.
    pub is_client: bool,
    pub engine: Engine,
    pub poller: Poller,
    pub queue: VecDeque<(Change, Then)>,
    pub batch: Option<Batch>,
    pub ready: VecDeque<Job>,
    /// Attempts whose bodies rest and gave their seats back, and whether they want them again.
    pub seatless: HashMap<Job, bool>,
    /// Attempts whose records are kept, or that nobody waits for any more.
    pub recorded: VecDeque<Job>,
    pub looks: Vec<Look>,
    pub workers: Vec<Worker>,
    pub polls: Vec<Polling>,
    pub places: Vec<Place>,
    pub sharing: HashMap<u64, u64>,
    pub program: VecDeque<Declaration>,
    pub recovery: Recovery,
    pub held: BTreeMap<Uuid, Held>,
    /// Runs of others whose end is to be asked for.
    pub cancels: Vec<Uuid>,
    pub orders: i64,
    pub moves: VecDeque<Moved>,
    /// Runs whose end is on its way to the store or there.
    pub concluded: HashSet<RunRow>,
    /// Runs of which no further body may start here.
    pub halted: HashSet<Uuid>,
    /// No earlier may a task be tried again.
    pub retry_due: HashMap<(Uuid, u32), Mono>,
    /// Attempts that have ended, to be delivered again.
    pub past: Vec<Job>,
    pub polls_kept: u64,
    /// A poll's answer was discarded, with its place in the history.
    pub has_lost_polls: bool,
}

impl Process {
    pub fn new(epoch: Epoch, born_ns: u64, engine: Engine, program: VecDeque<Declaration>) -> Self {
        Self {
            epoch,
            born_ns,
            ends: 0,
            is_zombie: false,
            is_leaving: false,
            is_client: false,
            engine,
            poller: Poller::default(),
            queue: VecDeque::new(),
            batch: None,
            ready: VecDeque::new(),
            seatless: HashMap::new(),
            recorded: VecDeque::new(),
            looks: Vec::new(),
            workers: Vec::new(),
            polls: Vec::new(),
            places: Vec::new(),
            sharing: HashMap::new(),
            program,
            recovery: Recovery { is_due: true, ..Recovery::default() },
            held: BTreeMap::new(),
            cancels: Vec::new(),
            orders: 0,
            moves: VecDeque::new(),
            concluded: HashSet::new(),
            halted: HashSet::new(),
            retry_due: HashMap::new(),
            past: Vec::new(),
            polls_kept: 0,
            has_lost_polls: false,
        }
    }

    /// Notes an unfinished run of a trigger behind the others, as the gate does.
    pub fn hold(&mut self, id: Uuid, schedule: ScheduleKey, hash: Option<ContextHash>) {
        self.orders += 1;
        let order = self.held.get(&id).map_or(self.orders, |held| held.order);
        self.held.insert(id, Held { schedule, hash, order });
    }

    /// Of those that are noted one came right behind the last of those before it.
    pub fn stand_behind(&mut self, id: Uuid, before: &[Uuid]) {
        let mut line = self.line(self.held[&id].schedule);
        line.retain(|&other| other != id);
        let place = line.iter().rposition(|other| before.contains(other)).map_or(0, |last| last + 1);
        line.insert(place, id);
        self.renumber(line);
    }

    /// Notes unfinished runs of a trigger that came right before a fire.
    pub fn hold_before(&mut self, fire: Uuid, opened: &[Uuid]) {
        let Some(schedule) = self.held.get(&fire).map(|held| held.schedule) else { return };
        let opened: Vec<Uuid> = opened.iter().filter(|id| !self.held.contains_key(id)).copied().collect();
        let mut line = self.line(schedule);
        let place = line.iter().position(|&other| other == fire).expect("it is held");
        line.splice(place..place, opened.iter().copied());
        self.hold_others(&opened, schedule);
        self.renumber(line);
    }

    fn renumber(&mut self, line: Vec<Uuid>) {
        for id in line {
            self.orders += 1;
            self.held.get_mut(&id).expect("it is held").order = self.orders;
        }
    }

    /// Notes unfinished runs of a trigger that others drive.
    pub fn hold_others(&mut self, ids: &[Uuid], schedule: ScheduleKey) {
        for &id in ids {
            if !self.held.contains_key(&id) {
                self.hold(id, schedule, None);
            }
        }
    }

    /// Unfinished runs of that trigger in the order of their fires.
    pub fn line(&self, schedule: ScheduleKey) -> Vec<Uuid> {
        let mut line: Vec<(i64, Uuid)> = self
            .held
            .iter()
            .filter(|(_, held)| held.schedule == schedule)
            .map(|(&id, held)| (held.order, id))
            .collect();
        line.sort_unstable();
        line.into_iter().map(|(_, id)| id).collect()
    }

    /// Whether all that was decided is kept and has been heard of.
    pub fn is_flushed(&self) -> bool {
        self.queue.is_empty() && self.batch.is_none()
    }

    /// The attempts whose bodies or callbacks run, and what becomes of each when it is over too late to be ruled upon.
    pub fn late_ends(&self) -> Vec<(Job, Event)> {
        let is_waited_for = |worker: &&Worker| !worker.is_given_up && worker.stage != Stage::Recording;
        let end = |worker: &Worker| match worker.stage {
            Stage::Callback => (worker.job, Event::Settled(worker.job)),
            _ => (worker.job, Event::Interrupted(worker.job)),
        };
        self.workers.iter().filter(is_waited_for).map(end).collect()
    }

    /// The attempts whose bodies run although they were given up, and what becomes of each when it is over.
    pub fn overdue_ends(&self) -> Vec<(Job, Event)> {
        let runs = |worker: &&Worker| worker.is_given_up && worker.stage != Stage::Callback;
        self.workers.iter().filter(runs).map(|worker| (worker.job, Event::Interrupted(worker.job))).collect()
    }

    pub fn permits_taken(&self) -> usize {
        let takes = |worker: &&Worker| worker.stage != Stage::Deferred && !worker.is_given_up;
        self.workers.iter().filter(takes).count()
    }

    /// Nothing moves here until time passes.
    pub fn is_at_rest(&self) -> bool {
        self.is_flushed()
            && self.ready.is_empty()
            && self.recorded.is_empty()
            && self.looks.is_empty()
            && self.workers.is_empty()
            && self.polls.is_empty()
            && self.program.is_empty()
            && self.cancels.is_empty()
            && !self.recovery.claims
            && !self.recovery.is_due
            && !self.recovery.has_news
            && !self.recovery.workflow_is_new
    }
}
