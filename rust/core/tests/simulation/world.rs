//! A world of processes over one store, on a clock that stands still unless it is moved. First anything may happen in any order;
//! then nothing goes wrong any more, and everything has to come to its end.

use std::collections::{HashMap, HashSet};

use cloaca_core::key::{Epoch, ScheduleKey};
use cloaca_core::port::Store as _;
use cloaca_core::spread::owner_of;
use cloaca_core::time::{Mono, Now, Wall};
use uuid::Uuid;

use crate::process::{Place, Process, Stage};
use crate::random::Random;
use crate::scenario::{Act, Scenario};
use crate::store::MemoryStore;
use crate::witness::Witness;

/// 2026-01-01T00:00:00Z.
const START_US: i64 = 1_767_225_600_000_000;
const MS_NS: u64 = 1_000_000;
/// A world that takes so many rounds to come to rest never does.
const ROUNDS_MAX: usize = 80_000;
/// Rest is only rest if it lasts.
const QUIET_ROUNDS: usize = 3;

pub struct World {
    pub random: Random,
    pub scenario: Scenario,
    pub store: MemoryStore,
    pub witness: Witness,
    /// So many declarations got the place of an older one.
    pub places_reused: u64,
    pub withdrawals: u64,
    pub processes: Vec<Process>,
    /// The cursors that were committed, by the trigger's row.
    pub cursors: HashMap<ScheduleKey, u64>,
    /// Of each workflow the version that programs declare now.
    pub versions: Vec<usize>,
    /// Owners that have not read yet that a trigger was switched.
    pub has_news: HashSet<Epoch>,
    pub time_ns: u64,
    pub is_calm: bool,
    wall_shift_us: i64,
    /// How often the wall clock was set.
    pub wall_shifts: u64,
    tells: bool,
}

impl World {
    pub fn new(seed: u64, tells: bool) -> Self {
        let mut random = Random::new(seed);
        let scenario = Scenario::new(&mut random);
        Self {
            random,
            versions: vec![0; scenario.workflows.len()],
            scenario,
            store: MemoryStore::default(),
            witness: Witness::default(),
            places_reused: 0,
            withdrawals: 0,
            processes: Vec::new(),
            cursors: HashMap::new(),
            has_news: HashSet::new(),
            time_ns: 0,
            is_calm: false,
            wall_shift_us: 0,
            wall_shifts: 0,
            tells,
        }
    }

    /// Plays the whole seed.
    pub fn play(&mut self) {
        self.join(true);
        let mut left = self.random.pick(&[200, 800, 3000]);
        while left > 0 {
            left -= u32::from(self.act());
        }
        self.calm_down();
        self.come_to_rest();
        self.nothing_is_left_over();
        self.probe_all();
        self.offer_at_rest();
        self.come_to_rest();
        self.nothing_is_left_over();
    }

    /// Prints what happens, if somebody replays it.
    pub fn note(&self, text: impl FnOnce() -> String) {
        if self.tells {
            println!("{:>12} {}", self.time_ns, text());
        }
    }

    pub fn wall(&self) -> Wall {
        Wall(START_US + (self.time_ns / 1000) as i64 + self.wall_shift_us)
    }

    pub fn now(&self, p: usize) -> Now {
        Now { mono: Mono(self.time_ns - self.processes[p].born_ns), wall: self.wall() }
    }

    /// The next transaction may meet a fault that passes.
    pub fn stumble(&mut self) {
        if !self.is_calm && self.random.percent(self.scenario.fault_percent) {
            self.store.fail_next();
        }
    }

    /// True if anything came of it.
    fn act(&mut self) -> bool {
        let act = self.draw_act();
        if act == Act::Pass {
            self.pass();
            return true;
        }
        if self.processes.is_empty() || act == Act::Join {
            let has_room = self.processes.len() < self.scenario.processes_max;
            if has_room && !self.processes.is_empty() && self.random.percent(self.scenario.client_percent) {
                self.join_as_client();
            } else if has_room {
                let declares_all = self.random.percent(70);
                self.join(declares_all);
            }
            return has_room;
        }
        let p = self.random.index(self.processes.len());
        self.act_on(p, act)
    }

    fn draw_act(&mut self) -> Act {
        let all: u64 = self.scenario.acts.iter().map(|(_, weight)| weight).sum();
        let mut left = self.random.below(all);
        for &(act, weight) in &self.scenario.acts {
            if left < weight {
                return act;
            }
            left -= weight;
        }
        unreachable!("the draw is below the sum")
    }

    fn act_on(&mut self, p: usize, act: Act) -> bool {
        match act {
            Act::Crash => self.crash(p),
            Act::LoseLock => self.lose_lock(p),
            Act::Leave => return self.leave(p),
            Act::Declare => return self.declare(p),
            Act::Look => return self.look(p),
            Act::Write => return self.write(p),
            Act::Deliver => return self.deliver(p),
            Act::Take => return self.take(p),
            Act::EndBody => return self.end_body(p),
            Act::StopBody => return self.stop_body(p),
            Act::Context => return self.look_at_context(p),
            Act::Defer => return self.defer(p),
            Act::Checkpoint => return self.leave_checkpoint(p),
            Act::Settle => return self.settle(p),
            Act::Poll => return self.poll(p),
            Act::Answer => return self.answer(p),
            Act::PollNow => return self.poll_out_of_turn(p),
            Act::Clock => return self.clock(p),
            Act::Start => return self.start(p),
            Act::Cancel => return self.cancel(p),
            Act::Reopen => return self.reopen(p),
            Act::Redeclare => return self.redeclare(p),
            Act::Call => return self.call(p),
            Act::Offer => return self.offer(p),
            Act::Switch => return self.switch(p),
            Act::News => return self.read_news(p),
            Act::Vacate => return self.vacate(p),
            Act::Gather => return self.gather(p),
            Act::Noise => return self.noise(p),
            Act::Join | Act::Pass => unreachable!("they are done to the world"),
        }
        true
    }

    fn poll_out_of_turn(&mut self, p: usize) -> bool {
        let places = self.processes[p].places.len();
        if places == 0 || self.processes[p].is_leaving {
            return false;
        }
        let place = self.random.index(places) as u32;
        self.poll_now(p, place)
    }

    /// Time passes: to the next thing that is due, a little, or far beyond it.
    fn pass(&mut self) {
        let next = self.next_due().unwrap_or(self.time_ns);
        self.time_ns = match self.random.below(10) {
            0..6 => next.max(self.time_ns),
            6..9 => self.time_ns + self.random.below(30 * MS_NS),
            _ => self.time_ns + self.random.below(2500 * MS_NS),
        };
        if self.random.percent(1) {
            self.wall_shifts += 1;
            self.wall_shift_us = self.random.below(4_000_000) as i64 - 2_000_000;
        }
        self.remind();
        self.show_signs_of_life();
    }

    /// Runners note now and then that they live.
    fn show_signs_of_life(&mut self) {
        let living = |process: &&Process| !process.is_zombie && !process.is_leaving;
        let epochs: Vec<(Epoch, u64)> =
            self.processes.iter().filter(living).map(|process| (process.epoch, process.born_ns)).collect();
        for (epoch, born_ns) in epochs {
            if self.time_ns - born_ns >= 10_000 * MS_NS && self.random.percent(20) {
                let _ = self.store.seen(epoch, self.wall(), &cloaca_core::port::Sign::default());
            }
        }
    }

    /// Whoever has siblings looks after them again.
    fn remind(&mut self) {
        for process in &mut self.processes {
            let has_siblings = process.recovery.company.as_ref().is_some_and(|company| !company.is_empty());
            process.recovery.is_due |= has_siblings;
        }
    }

    fn next_due(&self) -> Option<u64> {
        let polls =
            self.processes.iter().filter_map(|process| Some(process.born_ns + process.poller.next_due()?.0));
        polls.chain(self.timers()).min()
    }

    fn timers(&self) -> impl Iterator<Item = u64> {
        (0..self.processes.len()).filter_map(|p| {
            let left = self.processes[p].engine.next_wake(self.now(p))?;
            Some(self.time_ns + left.as_nanos() as u64)
        })
    }

    /// Faults stop. Who was taken for dead dies, and somebody serves the store who knows all workflows and triggers.
    fn calm_down(&mut self) {
        self.note(|| "calm".to_owned());
        self.is_calm = true;
        let is_doomed = |process: &Process| process.is_zombie || process.is_leaving;
        while let Some(p) = self.processes.iter().position(is_doomed) {
            self.crash(p);
        }
        self.join(true);
    }

    pub fn come_to_rest(&mut self) {
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            let moved: Vec<bool> = (0..self.processes.len()).map(|p| self.act_calmly(p)).collect();
            if moved.contains(&true) {
                continue;
            }
            let is_done = self.store.state().unfinished.is_empty();
            let is_quiet = is_done && self.processes.iter().all(Process::is_at_rest);
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if quiet == QUIET_ROUNDS {
                return;
            }
            self.time_ns = self.timers().min().or(self.next_due()).unwrap_or(0).max(self.time_ns + MS_NS);
            self.remind();
        }
        let store = self.store.state();
        let left: Vec<String> = store
            .unfinished
            .iter()
            .map(|&row| &store.runs[row.0 as usize - 1])
            .map(|kept| format!("run {} of owner {}, tasks {:?}", kept.new.id, kept.owner, kept.tasks))
            .collect();
        panic!("the world does not come to rest; unfinished: {left:?}");
    }

    fn act_calmly(&mut self, p: usize) -> bool {
        let acts = [
            Act::Declare,
            Act::Vacate,
            Act::News,
            Act::Look,
            Act::Write,
            Act::Deliver,
            Act::Settle,
            Act::Take,
            Act::EndBody,
            Act::Context,
            Act::Clock,
            Act::Poll,
            Act::Answer,
            Act::Call,
        ];
        let mut has_moved = false;
        for act in acts {
            has_moved |= self.act_on(p, act);
        }
        has_moved |= self.spread(p);
        let waits = self.processes[p].workers.iter().any(|worker| worker.stage == Stage::Deferred);
        has_moved | (waits && self.defer(p))
    }

    fn nothing_is_left_over(&mut self) {
        for p in 0..self.processes.len() {
            self.gather(p);
        }
        self.come_to_rest_of_writing();
        for process in &self.processes {
            assert_eq!(
                process.engine.runs_unfinished(),
                0,
                "owner {} drives runs that are over",
                process.epoch
            );
            let others = process.engine.others_after(Uuid::nil(), 1);
            assert!(
                others.is_empty(),
                "owner {} waits for runs of others that are over: {others:?}",
                process.epoch
            );
            assert!(process.held.is_empty(), "owner {} holds {:?}", process.epoch, process.held);
            let polls = process.poller.counts().polls;
            let is_exact = process.has_lost_polls || process.polls_kept == polls;
            assert!(
                is_exact,
                "the history of owner {} counts {} of {polls} polls",
                process.epoch, process.polls_kept
            );
        }
        let store = self.store.state();
        let is_living = |epoch: Epoch| self.processes.iter().any(|process| process.epoch == epoch);
        let left: Vec<_> = store.overdue.iter().filter(|body| is_living(body.epoch)).collect();
        assert!(left.is_empty(), "bodies that have ended are on record: {left:?}");
        assert!(store.seats.is_empty(), "seats are taken, or waited for, and nothing runs");
        drop(store);
        self.every_trigger_is_polled_by_its_owner();
    }

    fn come_to_rest_of_writing(&mut self) {
        for p in 0..self.processes.len() {
            while self.write(p) || self.deliver(p) {}
        }
    }

    fn every_trigger_is_polled_by_its_owner(&self) {
        let store = self.store.state();
        for process in &self.processes {
            for (place, state) in process.places.iter().enumerate().filter(|(_, state)| !state.is_retired) {
                let name = &state.trigger.source.name;
                let schedule = store.trigger(name).unwrap_or_else(|| panic!("{name} was never kept"));
                let owner =
                    schedule.owner.and_then(|owner| self.processes.iter().find(|other| other.epoch == owner));
                let owner =
                    owner.unwrap_or_else(|| panic!("{name} belongs to the dead owner {:?}", schedule.owner));
                let is_here = owner.epoch == process.epoch;
                let is_declared = |place: &Place| !place.is_retired && place.trigger.source.name == *name;
                assert!(
                    owner.places.iter().any(is_declared),
                    "{name} belongs to owner {}, which declares it no more",
                    owner.epoch
                );
                let newest = |process: &Process| {
                    let mut of_name = process.places.iter().filter(|place| is_declared(place));
                    let declared = of_name.next().expect("it is declared there");
                    store.version_of(name, declared.trigger.declared.row.digest)
                };
                assert!(
                    newest(owner) >= newest(process),
                    "{name} belongs to owner {}, though owner {} declares a newer version",
                    owner.epoch,
                    process.epoch
                );
                let rightful = owner_of(name, store.declaring(name, schedule.version));
                assert_eq!(rightful, schedule.owner, "{name} is not with whose it is by right");
                let standing = process.poller.standing(schedule.row).expect("it was declared here");
                assert_eq!(process.poller.place_of(schedule.row), Some(place as u32), "the place of {name}");
                assert_eq!(standing.elsewhere, !is_here, "owner {} thinks of {name}", process.epoch);
                let is_armed = standing.due.is_some() || standing.in_body;
                let should = is_here && schedule.enabled;
                assert!(
                    is_armed == should,
                    "{name}: armed {is_armed} by owner {}, {schedule:?}",
                    process.epoch
                );
            }
        }
    }

    fn probe_all(&mut self) {
        for p in 0..self.processes.len() {
            for place in 0..self.processes[p].places.len() {
                self.probe(p, place as u32);
            }
        }
    }
}
