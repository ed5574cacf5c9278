//! A store in memory that keeps the promises of the port, and nothing else: what a simulated process committed stays when
//! the process is gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use cloaca_core::admit::Overlap;
use cloaca_core::fate::{self, Judge, Next};
use cloaca_core::graph;
use cloaca_core::grid::{self, Wait};
use cloaca_core::key::{EndKey, Epoch, RunRow, ScheduleKey};
use cloaca_core::port::{
    Admitted, Allowed, BURIED, Backlog, Beginning, Body, Cell, Change, CronStats, End, Ending, Fault,
    Forgotten, Found, Halt, InFlight, ListedRun, NewCron, NewRun, Old, Origin, OwnerRow, Page, Parent, Place,
    Playing, Receipt, Redacted, Renamed, Room, RunChange, RunEnd, RunFilter, RunStatus, Schedule,
    ScheduleFilter, ScheduleKind, Settled, Siblings, Sign, Skipped, Spared, Store, Stored, Stretch, Table,
    TaskRecord, TaskStatus, TickChange, TriggerRow, TriggerState, Try, Unfinished, Unwanted, Wished,
    WorkflowRow,
};
use cloaca_core::seat::{Kind, ListedLimit, Pause, Terms};
use cloaca_core::spread::{Contested, owner_of};
use cloaca_core::time::Wall;
use uuid::Uuid;

use crate::seats::SeatTable;

/// Run keys of runs that no schedule fired share this row.
const NO_SCHEDULE: ScheduleKey = ScheduleKey(0);
/// The owner of what was given up; epochs begin at 1.
const NOBODY: Epoch = Epoch(0);

#[derive(Default)]
pub struct Owner {
    pub has_left: bool,
    /// The kernel's lock: free as soon as its process is dead.
    pub holds_lock: bool,
    is_woken: bool,
    seen_at: Option<Wall>,
    has_asked_to_leave: bool,
}

/// A run as committed.
pub struct Kept {
    pub new: NewRun,
    /// Under which it began, or is to begin.
    pub version: Arc<str>,
    /// An owner that declares another has had it.
    pub is_mixed: bool,
    pub owner: Epoch,
    /// It stands in line, in that place; one that was opened again in another one than it had.
    pub waits: bool,
    pub is_again: bool,
    pub place: u64,
    /// Until then nobody has it.
    pub not_before: Option<Wall>,
    pub interruptions: u32,
    pub is_cancelled: bool,
    pub tasks: Vec<TaskRecord>,
    /// How attempts ended, in the order in which that was kept.
    pub tries: Vec<(Arc<str>, Try)>,
    pub end: Option<RunEnd>,
    /// Of its end among those of runs that guard their hashes.
    pub number: Option<i64>,
}

#[derive(Default)]
pub struct State {
    pub owners: BTreeMap<Epoch, Owner>,
    /// Row 1 first.
    pub schedules: Vec<Schedule>,
    /// When each is due, in the same order, and since when its owner has it.
    grids: Vec<Option<grid::Kept>>,
    taken_at: Vec<Wall>,
    /// Of each version of a trigger, by its digest, the number.
    numbers: HashMap<(Arc<str>, i64), i64>,
    /// Of each owner the versions of the workflows that it declares.
    workflows: HashMap<(Epoch, Arc<str>), Arc<str>>,
    /// Of each workflow in each version its edges.
    graphs: HashMap<(Arc<str>, Arc<str>), Arc<str>>,
    /// Who declares which.
    declared: BTreeMap<(Arc<str>, Epoch), i64>,
    /// Who wants which, that another one polls.
    wanted: BTreeSet<(Arc<str>, Epoch)>,
    /// Row 1 first.
    pub runs: Vec<Kept>,
    pub row_of: HashMap<Uuid, RunRow>,
    pub unfinished: BTreeSet<RunRow>,
    /// The last place that was given in a line.
    places: u64,
    /// What fires of triggers did at last while a run was unfinished.
    overlaps: HashMap<ScheduleKey, Overlap>,
    /// How many ends of runs that guard their hashes there were.
    pub ends: i64,
    keys: HashMap<(ScheduleKey, String), (Uuid, Option<Wall>)>,
    /// New runs that were left to whoever has room, and runs that were given back.
    pub left_to_others: u64,
    pub given_back: u64,
    /// Bodies that were given up and still run.
    pub overdue: Vec<Body>,
    /// Of limits with names.
    pub seats: SeatTable,
    fails_next: bool,
    breaks_next: bool,
    /// So many commits are refused.
    refusals: u32,
}

#[derive(Default)]
pub struct MemoryStore(Mutex<State>);

impl MemoryStore {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("a simulation has one thread")
    }

    /// The next transaction meets a fault that passes.
    pub fn fail_next(&self) {
        self.state().fails_next = true;
    }

    /// So many commits from now on meet a fault that passes.
    #[allow(dead_code)]
    pub fn refuse(&self, many: u32) {
        self.state().refusals = many;
    }

    /// The next commit panics. No simulated process does that, only a modelled one.
    #[allow(dead_code)]
    pub fn break_next(&self) {
        self.state().breaks_next = true;
    }

    /// The process of that owner is dead, or taken for dead.
    pub fn free_lock(&self, epoch: Epoch) {
        self.state().owners.get_mut(&epoch).expect("it joined").holds_lock = false;
    }

    fn enter(&self) -> Stored<MutexGuard<'_, State>> {
        let mut state = self.state();
        match std::mem::take(&mut state.fails_next) {
            true => Err(Fault::Passing("database is locked".to_owned())),
            false => Ok(state),
        }
    }
}

impl State {
    #[allow(dead_code)]
    pub fn is_woken(&self, epoch: Epoch) -> bool {
        self.owners.get(&epoch).is_some_and(|owner| owner.is_woken)
    }

    pub fn is_living(&self, epoch: Epoch) -> bool {
        self.owners.get(&epoch).is_some_and(|owner| !owner.has_left)
    }

    pub fn run(&self, id: Uuid) -> Option<&Kept> {
        self.row_of.get(&id).map(|&row| &self.runs[row.0 as usize - 1])
    }

    pub fn schedule(&self, row: ScheduleKey) -> &Schedule {
        &self.schedules[row.0 as usize - 1]
    }

    pub fn trigger(&self, name: &str) -> Option<&Schedule> {
        self.schedules.iter().find(|schedule| schedule.name == name)
    }

    fn schedule_mut(&mut self, row: ScheduleKey) -> &mut Schedule {
        &mut self.schedules[row.0 as usize - 1]
    }

    /// Ends a run that nobody drives, because somebody asked for that.
    fn end_cancelled(&mut self, row: RunRow, at: Wall) {
        let run = self.run_mut(row);
        run.end = Some(RunEnd {
            status: RunStatus::Cancelled,
            context: Arc::clone(&run.new.context),
            error: Some("cancelled".to_owned()),
            error_type: None,
            completed_at: at,
        });
        self.unfinished.remove(&row);
    }

    fn run_mut(&mut self, row: RunRow) -> &mut Kept {
        &mut self.runs[row.0 as usize - 1]
    }

    fn apply(&mut self, change: &Change) -> Receipt {
        match change {
            Change::Tick(tick) => self.tick(tick),
            Change::Start { epoch, runs, .. } => self.start(*epoch, *epoch, runs),
            Change::Offer { epoch, runs } => self.start(*epoch, NOBODY, runs),
            Change::Release { epoch, runs } => {
                for &row in runs {
                    let run = self.run_mut(row);
                    if run.owner == *epoch && run.end.is_none() {
                        assert!(run.tasks.is_empty(), "run {} is left to others, and has begun", run.new.id);
                        run.owner = NOBODY;
                        self.given_back += 1;
                    }
                }
                Receipt::Released
            }
            Change::Run(change) => self.progress(change),
            Change::Overdue(body) => match self.runs[body.run.0 as usize - 1].owner == body.epoch {
                true => {
                    self.overdue.push(body.clone());
                    Receipt::Noted
                }
                false => Receipt::Fenced,
            },
            // Time is not kept here.
            Change::Timed { .. } => Receipt::Noted,
            Change::Returned(body) => {
                let is_it = |kept: &Body| Body { at: body.at, ..kept.clone() } == *body;
                self.overdue.retain(|kept| !is_it(kept));
                Receipt::Noted
            }
            Change::Ask(ask) => match self.runs[ask.seat.run.0 as usize - 1].owner == ask.epoch {
                true => Receipt::Seats(self.seats.ask(ask)),
                false => Receipt::Fenced,
            },
            Change::Unseat { seat, epoch, at } => Receipt::Seats(self.seats.unseat(seat, *epoch, *at)),
            Change::LookForSeats { epoch, limits, at } => {
                Receipt::Seats(self.seats.look(*epoch, limits, *at))
            }
            Change::DeclareLimits { epoch, limits } => match self.is_living(*epoch) {
                true => Receipt::Limits(self.seats.declare(limits)),
                false => Receipt::Fenced,
            },
            Change::Pause(pause) => {
                self.seats.pause_at_least(pause);
                Receipt::Noted
            }
            Change::Logged(_) => unreachable!("nothing is logged here"),
            Change::TakeMoment { .. } | Change::LeaveMoment { .. } => unreachable!("there are no crons here"),
            Change::Declare { epoch, trigger, at } => match self.is_living(*epoch) {
                true => Receipt::Declared(self.declare(*epoch, trigger, *at)),
                false => Receipt::Fenced,
            },
            Change::LetGo { epoch, trigger, digest, at } => {
                let number = self.numbers.get(&(Arc::clone(trigger), *digest)).copied();
                let key = (Arc::clone(trigger), *epoch);
                if self.declared.get(&key).copied() == number {
                    self.declared.remove(&key);
                }
                let place = self.schedules.iter().position(|schedule| *schedule.name == **trigger);
                if let Some(place) = place.filter(|&place| self.schedules[place].owner == Some(*epoch)) {
                    self.schedules[place].owner = None;
                    if let Some(kept) = &mut self.grids[place] {
                        kept.heeded_until = at.or(kept.heeded_until);
                    }
                }
                Receipt::LetGo
            }
            Change::History(stretches) => {
                for stretch in stretches {
                    let schedule = self.schedule_mut(stretch.schedule);
                    if schedule.last_at < Some(stretch.last_at) {
                        schedule.last_at = Some(stretch.last_at);
                        schedule.failures = 0;
                        if let Some(kept) = &mut self.grids[stretch.schedule.0 as usize - 1] {
                            kept.wait = None;
                        }
                    }
                }
                Receipt::History
            }
        }
    }

    /// That owner goes on with a run, in its version; whether one that has begun was in another one is known from then on.
    fn drive(&mut self, row: RunRow, epoch: Epoch) {
        let name = Arc::clone(&self.run_mut(row).new.workflow);
        let Some(declared) = self.workflows.get(&(epoch, name)).cloned() else { return };
        let run = self.run_mut(row);
        match run.tasks.is_empty() && run.interruptions == 0 && run.end.is_none() {
            true => run.version = declared,
            false => {
                run.is_mixed |= run.version != declared;
                run.version = declared;
            }
        }
    }

    /// Runs that `epoch` asks for, in the hands of `owner`: all or none.
    fn start(&mut self, epoch: Epoch, owner: Epoch, runs: &[NewRun]) -> Receipt {
        if !self.is_living(epoch) {
            return Receipt::Fenced;
        }
        if let Some(why) = runs.iter().find_map(|new| self.refusal(new)) {
            // As the writer has it in the end: it commits halves until what is refused stands alone.
            return Receipt::Refused(why);
        }
        Receipt::Start(runs.iter().map(|new| self.admit(owner, new, new.created_at)).collect())
    }

    /// Why a task must not start that run: its own run is over, or is to end.
    fn refusal(&self, new: &NewRun) -> Option<String> {
        let parent = new.parent.as_ref().filter(|parent| parent.task.is_some())?;
        let stands = self.run(parent.run).is_some_and(|run| run.end.is_none() && !run.is_cancelled);
        (!stands && self.called_before(new).is_none()).then(|| format!("run {} is over", parent.run))
    }

    /// The run that the same call of a task has started before.
    fn called_before(&self, new: &NewRun) -> Option<Uuid> {
        let is_call = |parent: &&Parent| parent.task.is_some() && parent.call.is_some();
        let parent = new.parent.as_deref().filter(is_call)?;
        let is_same =
            |kept: &&Kept| kept.new.parent.as_deref() == Some(parent) && kept.new.workflow == new.workflow;
        self.runs.iter().find(is_same).map(|kept| kept.new.id)
    }

    /// Unfinished runs that tasks of a run have started, and those of these.
    pub fn family(&self, id: Uuid) -> Vec<Uuid> {
        let mut found = vec![id];
        let mut seen = 0;
        while let Some(&of) = found.get(seen) {
            let is_child = |kept: &&Kept| {
                let parent = kept.new.parent.as_deref();
                parent.is_some_and(|parent| parent.run == of && parent.task.is_some())
            };
            let unfinished = self.unfinished.iter().map(|&row| &self.runs[row.0 as usize - 1]);
            let children: Vec<Uuid> = unfinished.filter(is_child).map(|kept| kept.new.id).collect();
            found.extend(children);
            seen += 1;
        }
        found.split_off(1)
    }

    /// Asks for the end of an unfinished run, which is over at once if nobody drives it.
    fn ask_for_end(&mut self, epoch: Epoch, id: Uuid, at: Wall) {
        let row = self.row_of[&id];
        let owner = self.run_mut(row).owner;
        let is_driven = owner == epoch || self.is_living(owner);
        self.run_mut(row).is_cancelled = true;
        if !is_driven {
            self.end_cancelled(row, at);
        }
    }

    fn tick(&mut self, tick: &TickChange) -> Receipt {
        if self.schedule(tick.schedule).owner != Some(tick.epoch) || !self.is_living(tick.epoch) {
            return Receipt::Fenced;
        }
        let known = self.schedule(tick.schedule);
        if known.cursor_set != tick.cursor_set {
            return Receipt::Overtaken { cursor: known.cursor.clone(), cursor_set: known.cursor_set };
        }
        self.overlaps.insert(tick.schedule, tick.overlap);
        let opened = self.opened(tick);
        let mut judge = Judge::new(self.room(tick, &opened));
        let mut fates = Vec::new();
        for fire in &tick.fires {
            let fate = match judge.next(fire.cursor.is_some()) {
                Next::Try => self.admit(tick.epoch, fire, tick.at),
                Next::HoldBack => Admitted::HeldBack,
                Next::Full(room) => match self.key_holder(fire, tick.at) {
                    Some(of) => Admitted::DuplicateKey { of: Some(of) },
                    None => match self.hash_holder(fire) {
                        Some(of) => Admitted::DuplicateHash { of },
                        None => Admitted::Overlaps { with: room.with.expect("something fills the room") },
                    },
                },
            };
            judge.note(fire, &fate);
            fates.push(fate);
        }
        let cursor = fate::cursor_of(tick, &fates).map(str::to_owned);
        let fired = fates.iter().any(|fate| matches!(fate, Admitted::Started { .. }));
        let schedule = self.schedule_mut(tick.schedule);
        if cursor.is_some() {
            schedule.cursor.clone_from(&cursor);
        }
        (schedule.last_at, schedule.failures) = (Some(tick.at), tick.failures);
        let wait = tick.wait_us.map(|span_us| grid::Wait { not_before: Wall(tick.at.0 + span_us), span_us });
        if let Some(kept) = &mut self.grids[tick.schedule.0 as usize - 1] {
            kept.wait = wait;
        }
        let schedule = self.schedule_mut(tick.schedule);
        if fired {
            schedule.last_fired_at = Some(tick.at);
        }
        if tick.disable.is_some() {
            schedule.enabled = false;
            schedule.disabled_cause.clone_from(&tick.disable);
        }
        Receipt::Tick { fates, cursor, opened }
    }

    /// Runs of the line of a tick that were opened again.
    fn opened(&self, tick: &TickChange) -> Vec<Uuid> {
        if tick.overlap == Overlap::Allow {
            return Vec::new();
        }
        let workflow = self.schedule(tick.schedule).workflow.clone();
        self.unfinished_in(tick.schedule, &workflow, |kept| kept.is_again)
    }

    /// How many runs may start of a tick, beside those.
    fn room(&self, tick: &TickChange, opened: &[Uuid]) -> Option<Room> {
        let Some(most) = tick.overlap.most().filter(|_| !opened.is_empty()) else { return tick.room };
        let workflow = &self.schedule(tick.schedule).workflow;
        let many = self.unfinished_in(tick.schedule, workflow, |_| true).len();
        let room = Room { runs: most.saturating_sub(many) as u64, with: opened.first().copied() };
        Some(tick.room.filter(|asked| asked.runs < room.runs).unwrap_or(room))
    }

    fn next_place(&mut self) -> u64 {
        self.places += 1;
        self.places
    }

    /// Whether a run key of that trigger is used.
    pub fn uses(&self, schedule: ScheduleKey, key: &str, at: Wall) -> bool {
        let used = self.keys.get(&(schedule, key.to_owned()));
        used.is_some_and(|(_, expires_at)| expires_at.is_none_or(|expires_at| expires_at > at))
    }

    /// The run that has used the key of a fire.
    fn key_holder(&self, new: &NewRun, at: Wall) -> Option<Uuid> {
        let (key, _) = new.run_key.as_ref()?;
        let (of, expires_at) = self.keys.get(&(new.schedule.unwrap_or(NO_SCHEDULE), key.clone()))?;
        expires_at.is_none_or(|expires_at| expires_at > at).then_some(*of)
    }

    fn admit(&mut self, epoch: Epoch, new: &NewRun, at: Wall) -> Admitted {
        let schedule = new.schedule.unwrap_or(NO_SCHEDULE);
        let key = new.run_key.as_ref().map(|(key, _)| (schedule, key.clone()));
        if let Some(of) = self.key_holder(new, at) {
            return Admitted::DuplicateKey { of: Some(of) };
        }
        if let Some(of) = self.called_before(new) {
            return Admitted::DuplicateKey { of: Some(of) };
        }
        if let Some(of) = self.hash_holder(new) {
            return Admitted::DuplicateHash { of };
        }
        if let Some(ended) = self.ended_since(new) {
            return ended;
        }
        assert!(!self.row_of.contains_key(&new.id), "run {} was sent twice", new.id);
        let kept = Kept {
            new: new.clone(),
            owner: new.owner(epoch).unwrap_or(NOBODY),
            not_before: new.due_at.filter(|_| new.is_delayed()),
            version: Arc::clone(&new.version),
            is_mixed: false,
            waits: new.waits,
            is_again: false,
            place: self.next_place(),
            interruptions: 0,
            is_cancelled: false,
            tasks: Vec::new(),
            tries: Vec::new(),
            end: None,
            number: None,
        };
        self.left_to_others += u64::from(new.is_anyones);
        self.runs.push(kept);
        let row = RunRow(self.runs.len() as i64);
        self.row_of.insert(new.id, row);
        self.unfinished.insert(row);
        if let Some(key) = key {
            let expires_at = new.run_key.as_ref().and_then(|(_, expires_at)| *expires_at);
            self.keys.insert(key, (new.id, expires_at));
        }
        Admitted::Started { row }
    }

    /// The last equal run that ended after the poll of a fire began.
    fn ended_since(&self, new: &NewRun) -> Option<Admitted> {
        let ends = new.ends?;
        let is_equal =
            |other: &&Kept| other.new.schedule == new.schedule && other.new.context_hash == new.context_hash;
        let later = self.runs.iter().filter(is_equal).filter_map(|kept| {
            kept.number.filter(|&number| number > ends).map(|number| (number, kept.new.id))
        });
        later.max().map(|(number, of)| Admitted::Ended { of, number })
    }

    /// The unfinished run that the unique index would name.
    fn hash_holder(&self, new: &NewRun) -> Option<Uuid> {
        let is_equal = |other: &NewRun| {
            other.context_hash.is_some()
                && other.schedule == new.schedule
                && other.context_hash == new.context_hash
        };
        if !new.unique_hash {
            return None;
        }
        let others = self.unfinished.iter().map(|&row| &self.runs[row.0 as usize - 1].new);
        others.into_iter().find(|other| is_equal(other)).map(|other| other.id)
    }

    fn progress(&mut self, change: &RunChange) -> Receipt {
        let number = self.ends + 1;
        let run = self.run_mut(change.run);
        if run.owner != change.epoch || run.end.is_some() {
            return Receipt::Fenced;
        }
        for record in &change.tasks {
            run.tries.extend(record.tries.iter().map(|known| (Arc::clone(&record.name), known.clone())));
            let record = TaskRecord { tries: Vec::new(), ..record.clone() };
            match run.tasks.iter_mut().find(|kept| kept.name == record.name) {
                Some(kept) => *kept = record,
                None => run.tasks.push(record),
            }
        }
        run.end.clone_from(&change.end);
        let guards = run.new.unique_hash;
        run.number = change.end.as_ref().filter(|_| guards).map(|_| number);
        if change.end.is_some() {
            self.unfinished.remove(&change.run);
        }
        let ended = (change.end.is_some() && guards).then_some(self.ends + 1);
        if let Some(number) = ended {
            self.ends = number;
        }
        let id = self.run_mut(change.run).new.id;
        match &change.end {
            Some(end) if end.status == RunStatus::Cancelled => {
                let mut children = self.family(id);
                children.retain(|&child| self.run(child).is_some_and(|child| !child.is_cancelled));
                children.iter().for_each(|&child| self.ask_for_end(change.epoch, child, end.completed_at));
                match children.is_empty() {
                    true => Receipt::Run(ended),
                    false => Receipt::Cancelled { number: ended, children },
                }
            }
            _ => Receipt::Run(ended),
        }
    }

    /// Where the grid of a trigger stands for its next owner.
    fn hand_over(&mut self, place: usize, trigger: &TriggerRow, at: Wall) -> Option<grid::Kept> {
        let schedule = &self.schedules[place];
        let seen_at = schedule.owner.and_then(|owner| self.owners.get(&owner)?.seen_at);
        let last_at = schedule.last_at;
        let Some(kept) = self.grids[place].as_mut() else {
            self.grids[place] = Some(new_grid(trigger, at));
            return None;
        };
        let taken_at = std::mem::replace(&mut self.taken_at[place], at);
        let heeded_until = kept.heeded_until.expect("it is kept");
        kept.heeded_until = Some(grid::Tenure { taken_at, heeded_until, seen_at }.heeded_until(at));
        kept.last_at = last_at;
        Some(*kept)
    }

    fn declare(&mut self, epoch: Epoch, trigger: &TriggerRow, at: Wall) -> TriggerState {
        let kind = ScheduleKind::Trigger {
            interval_us: trigger.interval_us,
            allow_concurrent: trigger.allow_concurrent,
        };
        let row = self.schedules.iter().position(|schedule| *schedule.name == *trigger.name);
        let number = self.number(trigger);
        let before = self.declared.insert((Arc::clone(&trigger.name), epoch), number);
        if let Some(place) = row {
            let owner = self.schedules[place].owner.filter(|&owner| self.is_living(owner));
            let is_outdated = self.newest(&trigger.name, &[Some(epoch), owner]) > number;
            let rightful = owner_of(&trigger.name, self.declaring(&trigger.name, number));
            let is_anothers = owner.is_none() && !is_outdated && rightful != Some(epoch);
            if owner != Some(epoch) && (owner.is_some() || is_outdated || is_anothers) {
                let last_at = self.schedules[place].last_at;
                let grid = self.grids[place].map(|kept| grid::Kept { heeded_until: None, last_at, ..kept });
                let is_first = owner.is_some() && !is_outdated && self.schedules[place].version < number;
                let is_awaited = is_first || before > Some(number);
                return TriggerState {
                    owner,
                    grid,
                    is_outdated,
                    is_awaited,
                    ..state_of(&self.schedules[place])
                };
            }
            if owner.is_none() {
                self.wanted.retain(|(name, _)| *name != trigger.name);
            }
            let kept = match owner {
                None => self.hand_over(place, trigger, at),
                Some(_) => {
                    let last_at = self.schedules[place].last_at;
                    self.grids[place].map(|kept| grid::Kept { heeded_until: None, last_at, ..kept })
                }
            };
            let schedule = &mut self.schedules[place];
            schedule.workflow = trigger.workflow.to_string();
            schedule.kind = kind;
            schedule.owner = Some(epoch);
            (schedule.digest, schedule.version) = (Some(trigger.digest), number);
            let mut state = TriggerState { grid: kept, is_outdated, ..state_of(schedule) };
            state.unfinished = self.unfinished_in(state.row, &trigger.workflow, |_| true);
            return state;
        }
        let schedule = Schedule {
            row: ScheduleKey(self.schedules.len() as i64 + 1),
            id: Uuid::nil(),
            name: trigger.name.to_string(),
            workflow: trigger.workflow.to_string(),
            kind,
            enabled: true,
            asked: None,
            disabled_cause: None,
            disabled_at: None,
            cursor: None,
            cursor_set: 0,
            failures: 0,
            last_at: None,
            last_fired_at: None,
            past: Default::default(),
            created_at: at,
            updated_at: at,
            owner: Some(epoch),
            origin: Origin::Declared,
            digest: Some(trigger.digest),
            version: number,
            newest: 0,
            in_body_since: None,
            on_run: None,
            grid: None,
        };
        let state = state_of(&schedule);
        self.schedules.push(schedule);
        self.grids.push(Some(new_grid(trigger, at)));
        self.taken_at.push(at);
        state
    }

    /// The number of a version, by when it was declared for the first time.
    fn number(&mut self, trigger: &TriggerRow) -> i64 {
        let of_name = self.numbers.keys().filter(|(name, _)| *name == trigger.name).count() as i64;
        *self.numbers.entry((Arc::clone(&trigger.name), trigger.digest)).or_insert(of_name + 1)
    }

    /// The newest version that living owners declare beside these.
    fn newest(&self, name: &str, beside: &[Option<Epoch>]) -> i64 {
        let of_name = self.declared.iter().filter(|((declared, owner), _)| {
            **declared == *name && self.is_living(*owner) && !beside.contains(&Some(*owner))
        });
        of_name.map(|(_, &number)| number).max().unwrap_or(0)
    }

    /// The living owners that declare that version.
    pub fn declaring(&self, name: &str, number: i64) -> Vec<Epoch> {
        let of_version = self.declared.iter().filter(|((declared, owner), version)| {
            **declared == *name && **version == number && self.is_living(*owner)
        });
        of_version.map(|((_, owner), _)| *owner).collect()
    }

    /// The number of the version of that digest, if it was ever declared.
    pub fn version_of(&self, name: &Arc<str>, digest: i64) -> Option<i64> {
        self.numbers.get(&(Arc::clone(name), digest)).copied()
    }

    fn listed(&self, schedule: &Schedule) -> Schedule {
        let newest = self.newest(&schedule.name, &[schedule.owner]);
        Schedule { newest, grid: self.grids[schedule.row.0 as usize - 1], ..schedule.clone() }
    }

    /// Unfinished runs of a schedule that `epoch` does not drive; of the dead only those that whoever declares `workflow` claims.
    fn unfinished_in(
        &self,
        schedule: ScheduleKey,
        workflow: &str,
        counts: impl Fn(&Kept) -> bool,
    ) -> Vec<Uuid> {
        let is_other = |kept: &&Kept| {
            let may_go_on = self.is_living(kept.owner) || *kept.new.workflow == *workflow;
            kept.new.schedule == Some(schedule) && may_go_on && counts(kept)
        };
        let unfinished = self.unfinished.iter().map(|&row| &self.runs[row.0 as usize - 1]);
        let mut line: Vec<(u64, Uuid)> =
            unfinished.filter(is_other).map(|kept| (kept.place, kept.new.id)).collect();
        line.sort_unstable();
        line.into_iter().map(|(_, id)| id).collect()
    }

    fn unfinished_of(&self, row: RunRow) -> Unfinished {
        let run = &self.runs[row.0 as usize - 1];
        let new = &run.new;
        let is_before = |kept: &Kept| (kept.waits || run.is_again) && kept.place < run.place;
        let behind = match new.schedule.filter(|_| run.waits || run.is_again) {
            Some(schedule) => self.unfinished_in(schedule, &new.workflow, is_before),
            None => Vec::new(),
        };
        Unfinished {
            trace: None,
            row,
            id: new.id,
            workflow: new.workflow.to_string(),
            version: run.version.to_string(),
            context: new.context.to_string(),
            schedule: new.schedule,
            context_hash: new.context_hash.filter(|_| new.unique_hash),
            waits: run.waits,
            is_again: run.is_again,
            priority: new.priority.unwrap_or_default(),
            due_at: new.due_at,
            created_at: new.created_at,
            interruptions: run.interruptions,
            owner_before: None,
            cancelled: run.is_cancelled,
            is_mixed: run.is_mixed,
            spent: None,
            is_child: new.parent.is_some(),
            is_limited: false,
            is_held: false,
            tasks: run.tasks.clone(),
            behind,
        }
    }
}

fn new_grid(trigger: &TriggerRow, at: Wall) -> grid::Kept {
    grid::Kept { origin_at: trigger.origin_at, heeded_until: Some(at), last_at: None, wait: None }
}

fn state_of(schedule: &Schedule) -> TriggerState {
    TriggerState {
        row: schedule.row,
        enabled: schedule.enabled,
        cursor: schedule.cursor.clone(),
        cursor_set: schedule.cursor_set,
        last_fired_at: schedule.last_fired_at,
        owner: schedule.owner,
        unfinished: Vec::new(),
        failures: schedule.failures,
        grid: None,
        asked: None,
        has_died: false,
        is_outdated: false,
        is_awaited: false,
    }
}

impl Store for MemoryStore {
    fn unwanted_callbacks(&self) -> Stored<Vec<Unwanted>> {
        Ok(Vec::new())
    }

    fn drop_callbacks(&self, _unwanted: &[Unwanted], _at: Wall) -> Stored<Vec<(String, u64)>> {
        Ok(Vec::new())
    }

    fn next_end(&self, _epoch: Epoch, _at: Wall, _full: &[String]) -> Stored<Option<Wall>> {
        Ok(None)
    }

    fn take_ends(&self, _epoch: Epoch, _at: Wall, _limit: u64, _full: &[String]) -> Stored<Vec<End>> {
        unreachable!("no workflow here has callbacks")
    }

    fn end_told(&self, _epoch: Epoch, _end: EndKey, _settled: &Settled, _at: Wall) -> Stored<()> {
        unreachable!("no workflow here has callbacks")
    }

    fn give_end_back(&self, _epoch: Epoch, _end: EndKey, _wait: Wait) -> Stored<()> {
        unreachable!("no workflow here has callbacks")
    }

    fn call_soon(&self, _run: Uuid, _at: Wall) -> Stored<bool> {
        unreachable!("no workflow here has callbacks")
    }

    fn skip_call(&self, _run: Uuid, _at: Wall) -> Stored<bool> {
        unreachable!("no workflow here has callbacks")
    }

    fn put_end_off(&self, _epoch: Epoch, _end: EndKey, _wait: Wait, _error: &str) -> Stored<()> {
        unreachable!("no workflow here has callbacks")
    }

    fn endings(&self, _epoch: Epoch) -> Stored<Vec<Ending>> {
        Ok(Vec::new())
    }

    fn ending(&self, _end: EndKey) -> Stored<Option<Ending>> {
        unreachable!("no trigger here is told of ends")
    }

    fn ending_of(&self, _listener: ScheduleKey) -> Stored<Option<Ending>> {
        unreachable!("no trigger here is told of ends")
    }

    fn skip_end(&self, _listener: ScheduleKey, _run: Option<Uuid>, _at: Wall) -> Stored<Option<Skipped>> {
        unreachable!("no trigger here is told of ends")
    }

    fn end_deserted(&self, _epoch: Epoch, _at: Wall) -> Stored<()> {
        Ok(())
    }

    fn stand_by(&self, _epoch: Epoch) -> Stored<()> {
        unreachable!("everybody works here")
    }

    fn join(&self, _at: Wall) -> Stored<Epoch> {
        let epoch = {
            let mut state = self.enter()?;
            let epoch = Epoch(state.owners.len() as i64 + 1);
            state.owners.insert(epoch, Owner { holds_lock: true, ..Owner::default() });
            epoch
        };
        self.wake_others(epoch);
        Ok(epoch)
    }

    fn seen(&self, epoch: Epoch, at: Wall, _sign: &Sign) -> Stored<()> {
        let mut state = self.enter()?;
        let owner = state.owners.get_mut(&epoch).expect("it joined");
        if !owner.has_left {
            owner.seen_at = Some(at);
        }
        Ok(())
    }

    fn leave(&self, epoch: Epoch, kept: &InFlight, at: Wall) -> Stored<Option<Epoch>> {
        let remnant = if kept.is_empty() { None } else { Some(self.join(at)?) };
        if let Some(remnant) = remnant {
            self.state().owners.get_mut(&remnant).expect("it joined").seen_at = Some(at);
        }
        {
            let mut state = self.enter()?;
            let rows: Vec<RunRow> = state.unfinished.iter().copied().collect();
            for row in rows {
                let run = state.run_mut(row);
                if run.owner == epoch {
                    run.owner = remnant.filter(|_| kept.runs.contains(&run.new.id)).unwrap_or(NOBODY);
                }
            }
            state.overdue.retain(|body| remnant.is_some() || body.epoch != epoch);
            state.seats.hand_on(epoch, remnant);
            let left = state.overdue.iter_mut().filter(|body| body.epoch == epoch);
            left.for_each(|body| body.epoch = remnant.unwrap_or(epoch));
            for &row in &kept.triggers {
                let schedule = state.schedule_mut(row);
                if schedule.owner == Some(epoch) {
                    schedule.owner = remnant;
                }
            }
            let is_asked = |row: &RunRow| {
                let run = &state.runs[row.0 as usize - 1];
                run.owner == NOBODY && run.is_cancelled
            };
            let asked: Vec<RunRow> = state.unfinished.iter().copied().filter(is_asked).collect();
            asked.into_iter().for_each(|row| state.end_cancelled(row, at));
            let owner = state.owners.get_mut(&epoch).expect("it joined");
            assert!(!std::mem::replace(&mut owner.has_asked_to_leave, true), "owner {epoch} left twice");
            (owner.has_left, owner.holds_lock) = (true, false);
        }
        self.wake_others(epoch);
        Ok(remnant)
    }

    fn close(&self) {}

    fn bury(&self, epoch: Epoch) -> Stored<Siblings> {
        let mut state = self.enter()?;
        let is_buried = !state.is_living(epoch);
        let mut siblings = Siblings { is_buried, ..Siblings::default() };
        let others = state.owners.iter_mut().filter(|(other, owner)| **other != epoch && !owner.has_left);
        for (&other, owner) in others {
            if owner.holds_lock {
                siblings.living.push(other);
            } else {
                owner.has_left = true;
                siblings.buried += 1;
            }
        }
        let owners = std::mem::take(&mut state.owners);
        let left = |(&other, owner): (&Epoch, &Owner)| (other != epoch && owner.has_left).then_some(other);
        siblings.departed = owners.iter().filter_map(left).max();
        state.overdue.retain(|body| !owners[&body.epoch].has_left);
        state.seats.retain(|epoch| !owners[&epoch].has_left);
        state.owners = owners;
        Ok(siblings)
    }

    fn wake_others(&self, epoch: Epoch) {
        let mut state = self.state();
        let others = state.owners.iter_mut().filter(|(other, owner)| **other != epoch && !owner.has_left);
        others.for_each(|(_, owner)| owner.is_woken = true);
    }

    fn wake(&self, epoch: Epoch) {
        self.state().owners.get_mut(&epoch).expect("it joined").is_woken = true;
    }

    fn woken(&self, epoch: Epoch) -> bool {
        std::mem::take(&mut self.state().owners.get_mut(&epoch).expect("it joined").is_woken)
    }

    fn commit(&self, batch: &[Change]) -> Stored<Vec<Receipt>> {
        let mut state = self.enter()?;
        if std::mem::take(&mut state.breaks_next) {
            drop(state);
            panic!("a fault of the engine, for once on purpose");
        }
        if state.refusals > 0 {
            state.refusals -= 1;
            return Err(Fault::Passing("database is locked".to_owned()));
        }
        Ok(batch.iter().map(|change| state.apply(change)).collect())
    }

    fn rehearse(&self, _work: &mut Playing<'_>) -> Stored<()> {
        unreachable!("nobody rehearses here")
    }

    fn deserted(&self, epoch: Epoch, limit: u64) -> Stored<Vec<(String, u64)>> {
        let state = self.enter()?;
        let mut found = std::collections::BTreeMap::new();
        for run in state.unfinished.iter().map(|&row| &state.runs[row.0 as usize - 1]) {
            if run.owner != epoch && !state.is_living(run.owner) {
                *found.entry(run.new.workflow.to_string()).or_default() += 1;
            }
        }
        Ok(found.into_iter().take(limit as usize).collect())
    }

    fn claim_runs(
        &self,
        epoch: Epoch,
        at: Wall,
        limit: u64,
        workflows: &[Arc<str>],
    ) -> Stored<Vec<Unfinished>> {
        let mut state = self.enter()?;
        if !state.is_living(epoch) {
            return Err(Fault::Final(BURIED.to_owned()));
        }
        for row in state.unfinished.clone() {
            let run = state.run_mut(row);
            let longest =
                run.new.delay_us.map_or(Wall(i64::MAX), |delay_us| Wall(at.0.saturating_add(delay_us)));
            run.not_before = run.not_before.map(|due| due.min(longest)).filter(|due| *due > at);
        }
        let is_free = |&row: &RunRow| {
            let run = &state.runs[row.0 as usize - 1];
            let is_anyones = run.owner != epoch && !state.is_living(run.owner) && run.not_before.is_none();
            is_anyones && workflows.contains(&run.new.workflow)
        };
        let mut rows: Vec<RunRow> = state.unfinished.iter().copied().filter(is_free).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(state.runs[row.0 as usize - 1].new.priority));
        let mut claimed = Vec::new();
        for &row in rows.iter().take(limit as usize) {
            let run = state.run_mut(row);
            let owner_before = Some(run.owner).filter(|&owner| owner != NOBODY);
            run.interruptions += u32::from(owner_before.is_some());
            run.owner = epoch;
            state.drive(row, epoch);
            claimed.push(Unfinished { owner_before, ..state.unfinished_of(row) });
        }
        Ok(claimed)
    }

    fn claim_fitting(
        &self,
        epoch: Epoch,
        at: Wall,
        limit: u64,
        workflows: &[Arc<str>],
    ) -> Stored<Vec<Unfinished>> {
        self.claim_runs(epoch, at, limit, workflows)
    }

    fn claim_due(
        &self,
        epoch: Epoch,
        at: Wall,
        limit: u64,
        workflows: &[Arc<str>],
    ) -> Stored<Vec<Unfinished>> {
        self.claim_runs(epoch, at, limit, workflows)
    }

    /// No workflow of these programs has limits.
    fn claim_limited(&self, _: Epoch, _: Wall, _: u64, _: &[Arc<str>]) -> Stored<Allowed> {
        self.enter().map(|_| Allowed::default())
    }

    fn next_due(&self) -> Stored<Option<Wall>> {
        let state = self.enter()?;
        let waits = |row: &RunRow| state.runs[row.0 as usize - 1].not_before;
        Ok(state.unfinished.iter().filter_map(waits).min())
    }

    fn declare_workflows(&self, epoch: Epoch, workflows: &[WorkflowRow], _at: Wall) -> Stored<()> {
        let mut state = self.enter()?;
        state.workflows.retain(|(owner, _), _| *owner != epoch);
        let declared = workflows.iter().map(|row| ((epoch, Arc::clone(&row.name)), Arc::clone(&row.version)));
        state.workflows.extend(declared);
        let graphs = workflows
            .iter()
            .map(|row| ((Arc::clone(&row.name), Arc::clone(&row.version)), Arc::clone(&row.graph)));
        state.graphs.extend(graphs);
        Ok(())
    }

    fn workflows_of_others(&self, epoch: Epoch) -> Stored<Vec<Arc<str>>> {
        let state = self.enter()?;
        let of_others =
            state.workflows.keys().filter(|(owner, _)| *owner != epoch && state.is_living(*owner));
        Ok(of_others.map(|(_, name)| Arc::clone(name)).collect())
    }

    fn request_cancel(&self, epoch: Epoch, id: Uuid, at: Wall) -> Stored<Vec<Uuid>> {
        let mut state = self.enter()?;
        let row = state.row_of.get(&id).copied().filter(|row| state.unfinished.contains(row));
        if row.is_none() {
            return Ok(Vec::new());
        }
        let asked: Vec<Uuid> = std::iter::once(id).chain(state.family(id)).collect();
        asked.iter().for_each(|&id| state.ask_for_end(epoch, id, at));
        Ok(asked)
    }

    fn cancel_requests(&self, epoch: Epoch) -> Stored<Vec<Uuid>> {
        let state = self.enter()?;
        let runs = state.unfinished.iter().map(|&row| &state.runs[row.0 as usize - 1]);
        Ok(runs.filter(|run| run.is_cancelled && run.owner == epoch).map(|run| run.new.id).collect())
    }

    fn reopen(&self, epoch: Epoch, id: Uuid) -> Stored<Option<Unfinished>> {
        let mut state = self.enter()?;
        if !state.is_living(epoch) {
            return Err(Fault::Final(BURIED.to_owned()));
        }
        let Some(&row) = state.row_of.get(&id) else { return Ok(None) };
        let run = &state.runs[row.0 as usize - 1];
        if run.end.as_ref().is_none_or(|end| end.status == RunStatus::Completed) {
            return Ok(None);
        }
        let runs =
            |body: &Body| body.run == row && (body.epoch == epoch || state.owners[&body.epoch].holds_lock);
        if state.overdue.iter().any(runs) {
            return Err(Fault::Final("a body of it still runs".to_owned()));
        }
        let is_guarded = run.new.schedule.is_some_and(|row| {
            let kind = &state.schedules[row.0 as usize - 1].kind;
            matches!(kind, ScheduleKind::Trigger { allow_concurrent: false, .. })
        });
        let mut new = run.new.clone();
        new.unique_hash |= is_guarded && new.context_hash.is_some();
        if state.hash_holder(&new).is_some() {
            return Err(Fault::Final("an equal run of its trigger is unfinished".to_owned()));
        }
        state.run_mut(row).new = new;
        state.run_mut(row).is_mixed = false;
        if let Some(schedule) = state.run_mut(row).new.schedule {
            let waits = state.overlaps.get(&schedule).is_some_and(|overlap| *overlap != Overlap::Allow);
            let place = state.next_place();
            let run = state.run_mut(row);
            (run.is_again, run.place) = (true, place);
            run.waits |= waits;
        }
        state.drive(row, epoch);
        let mut unfinished = state.unfinished_of(row);
        let version = Arc::from(&*unfinished.version);
        let graph = state.graphs.get(&(Arc::from(&*unfinished.workflow), version)).cloned();
        let run = state.run_mut(row);
        run.end = None;
        run.number = None;
        run.not_before = None;
        run.owner = epoch;
        run.is_cancelled = false;
        // What is undecided again begins at its first attempt.
        run.tries.clear();
        let of =
            |status| run.tasks.iter().filter(|task| task.status == status).map(|task| &*task.name).collect();
        let (completed, skipped) = (of(TaskStatus::Completed), of(TaskStatus::Skipped));
        let undone = graph.map_or_else(Vec::new, |text| graph::undone(&text, &completed, &skipped));
        run.tasks.retain(|task| task.status == TaskStatus::Completed);
        run.tasks.retain(|task| !undone.iter().any(|name| **name == *task.name));
        unfinished.tasks.clone_from(&run.tasks);
        unfinished.cancelled = false;
        state.unfinished.insert(row);
        Ok(Some(unfinished))
    }

    fn ends(&self) -> Stored<i64> {
        Ok(self.enter()?.ends)
    }

    fn ended(&self, runs: &[Uuid]) -> Stored<Vec<Uuid>> {
        let state = self.enter()?;
        let is_over = |id: &&Uuid| state.row_of.get(id).is_none_or(|row| !state.unfinished.contains(row));
        Ok(runs.iter().filter(is_over).copied().collect())
    }

    fn moved(&self, pairs: &[(Uuid, Uuid)]) -> Stored<Vec<(Uuid, Uuid)>> {
        let state = self.enter()?;
        let of = |id: &Uuid| {
            let row = state.row_of.get(id).filter(|row| state.unfinished.contains(row))?;
            Some(&state.runs[row.0 as usize - 1])
        };
        let is_behind = |(run, other): &&(Uuid, Uuid)| {
            of(run).zip(of(other)).is_some_and(|(run, other)| run.is_again && run.place > other.place)
        };
        Ok(pairs.iter().filter(is_behind).copied().collect())
    }

    fn set_enabled(&self, row: ScheduleKey, enabled: bool, cause: Option<&str>, at: Wall) -> Stored<bool> {
        let mut state = self.enter()?;
        let schedule = state.schedule_mut(row);
        schedule.enabled = enabled;
        schedule.disabled_cause = cause.map(str::to_owned);
        schedule.disabled_at = (!enabled).then_some(schedule.disabled_at.unwrap_or(at));
        if enabled {
            schedule.failures = 0;
        }
        if let Some(kept) = state.grids[row.0 as usize - 1].as_mut().filter(|_| enabled) {
            kept.wait = None;
        }
        Ok(true)
    }

    fn ask_poll(&self, _row: ScheduleKey, _besides: Option<Epoch>) -> Stored<Option<(Option<Epoch>, i64)>> {
        unreachable!("nobody here asks for polls")
    }

    fn begin_poll(&self, _epoch: Epoch, _beginning: Beginning) -> Stored<bool> {
        unreachable!("nobody here asks for polls, or is told of ends of runs")
    }

    fn set_cursor(&self, row: ScheduleKey, cursor: Option<&str>) -> Stored<Option<i64>> {
        let mut state = self.enter()?;
        let schedule = state.schedule_mut(row);
        schedule.cursor = cursor.map(str::to_owned);
        schedule.cursor_set += 1;
        Ok(Some(schedule.cursor_set))
    }

    fn schedules(&self, _filter: ScheduleFilter, _enabled_only: bool, page: Page) -> Stored<Vec<Schedule>> {
        let state = self.enter()?;
        let rows = state.schedules.iter().skip(page.offset as usize).take(page.limit as usize);
        Ok(rows.map(|schedule| state.listed(schedule)).collect())
    }

    fn schedules_after(
        &self,
        _filter: ScheduleFilter,
        after: ScheduleKey,
        limit: u64,
    ) -> Stored<Vec<Schedule>> {
        let state = self.enter()?;
        let rows = state.schedules.iter().filter(|schedule| schedule.row > after).take(limit as usize);
        Ok(rows.map(|schedule| state.listed(schedule)).collect())
    }

    fn name_owner(&self, _epoch: Epoch, _name: &str) -> Stored<()> {
        nobody_asks()
    }

    fn without_crons(&self, _epoch: Epoch) -> Stored<()> {
        Ok(())
    }

    fn waits(&self, _epoch: Epoch, _at: Option<Wall>) -> Stored<()> {
        Ok(())
    }

    fn drains(&self, _epoch: Epoch) -> Stored<()> {
        Ok(())
    }

    fn crons_of_many(&self) -> Stored<Vec<(ScheduleKey, Vec<Epoch>)>> {
        Ok(Vec::new())
    }

    fn contested(&self, epoch: Epoch, after: &str, limit: u64) -> Stored<Vec<Contested>> {
        let state = self.enter()?;
        let mut found = Vec::new();
        for ((trigger, _), number) in state.declared.iter().filter(|((_, owner), _)| *owner == epoch) {
            let polled = state.trigger(trigger).expect("what is declared has a row");
            let is_others = polled.owner.is_some_and(|owner| owner != epoch && state.is_living(owner));
            if **trigger > *after && is_others && polled.version == *number {
                let mut declared_by = state.declaring(trigger, *number);
                declared_by.extend(polled.owner);
                let is_wanted = state.wanted.contains(&(Arc::clone(trigger), epoch));
                found.push(Contested { trigger: Arc::clone(trigger), declared_by, is_wanted });
            }
        }
        found.sort_by(|one, other| one.trigger.cmp(&other.trigger));
        found.truncate(limit as usize);
        Ok(found)
    }

    fn want(&self, epoch: Epoch, wishes: &[(Arc<str>, bool)]) -> Stored<()> {
        let mut state = self.enter()?;
        for (trigger, is_wanted) in wishes {
            let wish = (Arc::clone(trigger), epoch);
            let is_there = state.declared.contains_key(&wish);
            match *is_wanted && is_there {
                true => state.wanted.insert(wish),
                false => state.wanted.remove(&wish),
            };
        }
        Ok(())
    }

    fn wished(&self, epoch: Epoch) -> Stored<Wished> {
        let state = self.enter()?;
        let mut wished = Wished::default();
        for (trigger, by) in state.wanted.iter().filter(|(_, by)| state.is_living(*by)) {
            let polled = state.trigger(trigger).expect("what is declared has a row");
            let number = state.declared.get(&(Arc::clone(trigger), *by)).copied();
            if *by == epoch && polled.owner.is_none_or(|owner| !state.is_living(owner)) {
                wished.granted.push(Arc::clone(trigger));
            } else if polled.owner.is_none() {
                wished.untaken += 1;
            } else if *by != epoch && polled.owner == Some(epoch) && number == Some(polled.version) {
                wished.of_us.push(Arc::clone(trigger));
            }
        }
        Ok(wished)
    }

    fn trigger(&self, name: &str) -> Stored<Option<Schedule>> {
        Ok(self.enter()?.trigger(name).cloned())
    }

    fn put_cron(&self, _epoch: Epoch, _cron: &NewCron<'_>) -> Stored<Schedule> {
        nobody_asks()
    }

    fn withdraw_cron(&self, _epoch: Epoch, _name: &str) -> Stored<()> {
        nobody_asks()
    }

    fn update_cron(&self, _: Uuid, _: &str, _: &str, _: Option<Wall>, _: Wall) -> Stored<bool> {
        nobody_asks()
    }

    fn delete_cron(&self, _id: Uuid) -> Stored<Forgotten> {
        nobody_asks()
    }

    fn rename(&self, _epoch: Epoch, _from: &str, _to: &str) -> Stored<Renamed> {
        nobody_asks()
    }

    fn forget(&self, _epoch: Epoch, _name: &str) -> Stored<Forgotten> {
        nobody_asks()
    }

    fn cron(&self, _id: Uuid) -> Stored<Option<Schedule>> {
        nobody_asks()
    }

    fn cron_named(&self, _name: &str) -> Stored<Option<Schedule>> {
        nobody_asks()
    }

    fn runs(&self, _filter: &RunFilter, _page: Page) -> Stored<Vec<ListedRun>> {
        nobody_asks()
    }

    fn run(&self, _id: Uuid) -> Stored<Option<(ListedRun, Vec<TaskRecord>)>> {
        nobody_asks()
    }

    fn run_with_tries(&self, _id: Uuid) -> Stored<Option<(ListedRun, Vec<TaskRecord>)>> {
        nobody_asks()
    }

    fn place(&self, _id: Uuid) -> Stored<Option<Place>> {
        nobody_asks()
    }

    fn cron_stats(&self, _since: Wall) -> Stored<CronStats> {
        nobody_asks()
    }

    fn history(&self, _schedule: ScheduleKey, _page: Page) -> Stored<Vec<Stretch>> {
        nobody_asks()
    }

    fn find_old(&self, _old: &Old, _limit: u64, _halt: &Halt) -> Stored<Found> {
        nobody_asks()
    }

    fn prune(&self, _old: &Old, _found: &Found) -> Stored<u64> {
        nobody_asks()
    }

    fn spared(&self, _epoch: Epoch) -> Stored<Spared> {
        nobody_asks()
    }

    fn spare(&self, _until: Wall) -> Stored<()> {
        nobody_asks()
    }

    fn owners(&self, _limit: u64, _since: Wall) -> Stored<Vec<OwnerRow>> {
        nobody_asks()
    }

    fn backlog(&self, _limit: u64, _at: Wall) -> Stored<Vec<Backlog>> {
        nobody_asks()
    }

    fn set_limit(&self, _name: &str, _terms: Option<Terms>) -> Stored<bool> {
        nobody_asks()
    }

    fn limits(&self, _at: Wall) -> Stored<Vec<ListedLimit>> {
        nobody_asks()
    }

    fn pause(&self, _pause: &Pause) -> Stored<bool> {
        nobody_asks()
    }

    fn resume(&self, _kind: Kind, _name: &str, _key: &str, _at: Wall) -> Stored<bool> {
        nobody_asks()
    }

    fn pauses(&self, _at: Wall) -> Stored<Vec<Pause>> {
        Ok(Vec::new())
    }

    fn redacted(&self) -> Stored<Redacted> {
        nobody_asks()
    }

    fn redact(&self, _more: &Redacted) -> Stored<()> {
        nobody_asks()
    }

    fn unredact(&self, _key: Option<&str>) -> Stored<usize> {
        nobody_asks()
    }

    fn contexts_of_run(&self, _id: Uuid) -> Stored<Vec<String>> {
        nobody_asks()
    }

    fn contexts_of_trigger(&self, _name: &str) -> Stored<Vec<String>> {
        nobody_asks()
    }

    fn query(&self, _sql: &str, _params: &[Cell], _halt: &Halt) -> Stored<Table> {
        nobody_asks()
    }

    fn export(&self, _path: &std::path::Path, _halt: &Halt) -> Stored<()> {
        nobody_asks()
    }
}

/// Listings belong to the conformance suite of the real stores.
fn nobody_asks<T>() -> Stored<T> {
    Err(Fault::Final("a simulation lists nothing".to_owned()))
}
