//! Limits against a model that keeps everything in lists and counts: who is dropped, who begins next, and what is given back.

#[path = "support/postgres.rs"]
mod server;
#[path = "support/records.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cloaca_core::key::{Epoch, RunRow};
use cloaca_core::limit::{Concurrency, Key, Limits, Overflow, Paced, Rate, Turn};
use cloaca_core::port::{
    Admitted, Allowed, Cell, Change, Halt, InFlight, NewRun, RunChange, RunStatus, Store, TaskStatus,
    WorkflowRow,
};
use cloaca_core::time::Wall;
use support::*;

const SECOND: i64 = 1_000_000;

/// Every claim, once over each kind of store.
macro_rules! claims {
    ($($claim:ident)*) => {
        mod in_memory {
            $(#[test] fn $claim() { super::$claim(&*super::memory()); })*
        }
        mod postgres {
            $(#[test] fn $claim() { super::on_a_server(super::$claim); })*
        }
    };
}

claims! {
    the_gate_asks_a_run_key_first_then_drop_new_then_the_rate_limit
    limits_are_those_of_the_runner_that_came_last_and_stay_when_nobody_is_there
    stamps_and_keys_that_say_nothing_any_more_are_forgotten
    a_clock_that_was_ahead_shuts_nothing_for_longer_than_a_start_takes
}

fn on_a_server(claim: impl Fn(&dyn Store)) {
    if let Some(database) = server::Database::new() {
        claim(&*cloaca_store::open(database.url(), None).unwrap().store);
    }
}

fn key(text: &str) -> Option<Key> {
    Some(Key::parse(text).unwrap())
}

fn concurrency(limit: u64, text: &str, overflow: Overflow) -> Limits {
    Limits { concurrency: Some(Concurrency { limit, key: key(text), overflow }), ..Limits::default() }
}

fn every(seconds: u64, burst: u64, text: Option<&str>) -> Option<Paced> {
    let rate = Rate { limit: 1, per: Duration::from_secs(seconds), burst };
    Some(Paced { rate, key: text.and_then(key) })
}

fn joined(store: &dyn Store, limits: &Limits) -> Epoch {
    let epoch = store.join(Wall(1)).unwrap();
    let row = WorkflowRow { limits: Some(Arc::new(limits.clone())), ..declares("mail", "v1") };
    store.declare_workflows(epoch, &[row], Wall(5)).unwrap();
    epoch
}

fn of(number: u128, tenant: &str) -> NewRun {
    NewRun { context: format!("{{\"tenant\":\"{tenant}\"}}").into(), ..new_run(number) }
}

fn submit(store: &dyn Store, epoch: Epoch, run: NewRun) -> Admitted {
    admitted(commit(store, start(epoch, run))).remove(0)
}

fn claim(store: &dyn Store, epoch: Epoch, at: i64, room: u64) -> Allowed {
    store.claim_limited(epoch, Wall(at), room, &["mail".into()]).unwrap()
}

fn numbers(allowed: &Allowed) -> Vec<u128> {
    allowed.runs.iter().map(|run| run.id.as_u128()).collect()
}

fn rows_of(store: &dyn Store, table: &str) -> i64 {
    match store.query(&format!("SELECT count(*) FROM {table}"), &[], &Halt::default()).unwrap().1[0][0] {
        Cell::Int(rows) => rows,
        ref other => panic!("{other:?} is no count"),
    }
}

/// Everything in lists.
struct Model {
    limits: Limits,
    /// By key: when its line became non-empty or it had its last start, whatever came later.
    since: BTreeMap<String, u64>,
    stamps: BTreeMap<String, Wall>,
    waiting: Vec<Waiting>,
    sitting: Vec<(u128, String)>,
    turns: u64,
}

#[derive(Clone)]
struct Waiting {
    number: u128,
    key: String,
    priority: i64,
}

impl Model {
    fn new(limits: Limits) -> Self {
        let (since, stamps) = (BTreeMap::new(), BTreeMap::new());
        Self { limits, since, stamps, waiting: Vec::new(), sitting: Vec::new(), turns: 0 }
    }

    fn turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    fn wait(&mut self, number: u128, key: &str, priority: i64) {
        if self.waiting.iter().all(|run| run.key != key) {
            let turn = self.turn();
            self.since.insert(key.to_owned(), turn);
        }
        self.waiting.push(Waiting { number, key: key.to_owned(), priority });
        // Of one key the older goes first, also one that was given back.
        self.waiting.sort_by_key(|run| run.number);
    }

    fn has_key(&self) -> bool {
        let Limits { concurrency, throttle, .. } = &self.limits;
        concurrency.as_ref().is_some_and(|terms| terms.key.is_some())
            || throttle.as_ref().is_some_and(|paced| paced.key.is_some())
    }

    fn pace_of(&self, key: &str) -> String {
        let keyed = self.limits.throttle.as_ref().is_some_and(|paced| paced.key.is_some());
        if keyed { key.to_owned() } else { String::new() }
    }

    fn may_begin(&self, key: &str, at: Wall) -> bool {
        let free = self.limits.concurrency.as_ref().is_none_or(|terms| {
            let counts = |(_, other): &&(u128, String)| terms.key.is_none() || other == key;
            (self.sitting.iter().filter(counts).count() as u64) < terms.limit
        });
        let stamp = self.stamps.get(&self.pace_of(key)).copied();
        let paced = self.limits.throttle.as_ref();
        free && paced.is_none_or(|paced| matches!(paced.rate.turn(stamp, at), Turn::Now(_)))
    }

    /// The next to begin: the most urgent, of one priority the key that has waited longest, of one key the oldest.
    fn next(&self, at: Wall) -> Option<Waiting> {
        let keys: BTreeSet<&String> = self.waiting.iter().map(|run| &run.key).collect();
        let head = |key: &String| {
            let of_key = self.waiting.iter().filter(|run| run.key == *key);
            of_key.min_by_key(|run| (-run.priority, run.number)).expect("a key of what waits").clone()
        };
        let open = keys.into_iter().filter(|key| self.may_begin(key, at)).map(head);
        open.min_by_key(|run| (-run.priority, self.since[&run.key]))
    }

    fn claim(&mut self, at: Wall, room: usize) -> Vec<u128> {
        let mut begun = Vec::new();
        while begun.len() < room
            && let Some(run) = self.next(at)
        {
            if let Some(paced) = &self.limits.throttle {
                let pace = self.pace_of(&run.key);
                match paced.rate.turn(self.stamps.get(&pace).copied(), at) {
                    Turn::Now(stamp) => self.stamps.insert(pace, stamp),
                    Turn::At(_) => panic!("it may begin"),
                };
            }
            self.waiting.retain(|other| other.number != run.number);
            let turn = self.turn();
            self.since.insert(run.key.clone(), turn);
            self.sitting.push((run.number, run.key));
            begun.push(run.number);
        }
        begun
    }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // An xorshift: the same story for the same seed.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn play(store: &dyn Store, limits: &Limits, seed: u64) {
    let mut epoch = joined(store, limits);
    let mut model = Model::new(limits.clone());
    let mut dice = Dice(seed * 7_919 + 1);
    let (mut at, mut number) = (SECOND, 0);
    let mut rows: BTreeMap<u128, RunRow> = BTreeMap::new();
    let mut begun: BTreeSet<u128> = BTreeSet::new();
    for step in 0..150 {
        at += dice.roll(SECOND as u64) as i64;
        let story = format!("seed {seed}, step {step} of {limits:?}");
        match dice.roll(10) {
            0..=4 => {
                number += 1;
                let tenant = ["a", "b", "c", "d", "e", "f", "g", "h", "i"][dice.roll(9) as usize];
                let urgent = if dice.roll(4) == 0 { dice.roll(10) as i64 } else { 5 };
                let run = NewRun { priority: priority(urgent), created_at: Wall(at), ..of(number, tenant) };
                let Admitted::Held { row } = submit(store, epoch, run) else {
                    panic!("{story}: it is not held")
                };
                rows.insert(number, row);
                // Where nothing has a key, all are one line.
                model.wait(number, if model.has_key() { tenant } else { "" }, urgent);
            }
            5 => {
                let room = dice.roll(5);
                let allowed = claim(store, epoch, at, room);
                assert_eq!(numbers(&allowed), model.claim(Wall(at), room as usize), "{story}");
                assert_eq!(allowed.is_more, model.next(Wall(at)).is_some(), "{story}: whether there is more");
                if let (Some(next_at), true) = (allowed.next_at, model.next(Wall(at)).is_none()) {
                    assert!(next_at > Wall(at), "{story}: it would be asked for again at once");
                }
            }
            6..=7 if !model.sitting.is_empty() => {
                let place = dice.roll(model.sitting.len() as u64) as usize;
                let (number, _) = model.sitting[place].clone();
                if dice.roll(2) == 0 && begun.insert(number) {
                    begins(store, epoch, rows[&number]);
                } else {
                    commit(store, ended(rows[&number], epoch, RunStatus::Completed));
                    model.sitting.remove(place);
                }
            }
            8 if !model.waiting.is_empty() => {
                let place = dice.roll(model.waiting.len() as u64) as usize;
                let number = model.waiting.remove(place).number;
                assert_eq!(
                    store.request_cancel(epoch, id(number), Wall(at)).unwrap(),
                    [id(number)],
                    "{story}"
                );
            }
            9 if dice.roll(4) == 0 => {
                // Whoever leaves gives back what has not begun; what has keeps its seat, and the next one goes on with it.
                store.leave(epoch, &InFlight::default(), Wall(at)).unwrap();
                epoch = joined(store, limits);
                let (kept, back): (Vec<_>, Vec<_>) = std::mem::take(&mut model.sitting)
                    .into_iter()
                    .partition(|(number, _)| begun.contains(number));
                model.sitting = kept;
                let mut back = back;
                back.sort();
                for (number, key) in back {
                    let urgent = store.run(id(number)).unwrap().unwrap().0.priority.number();
                    model.wait(number, &key, i64::from(urgent));
                }
                let resumed = store.claim_runs(epoch, Wall(at), 100, &["mail".into()]).unwrap();
                assert_eq!(resumed.len(), model.sitting.len(), "{story}: what has begun goes on");
            }
            _ => {}
        }
        let standing = "SELECT count(*) FROM seats WHERE stand = 1";
        let sitting = &store.query(standing, &[], &Halt::default()).unwrap().1[0][0];
        assert_eq!(*sitting, Cell::Int(model.sitting.len() as i64), "{story}: seats");
    }
    // Nothing is left behind once everything is over.
    while !(model.sitting.is_empty() && model.waiting.is_empty()) {
        at += 100 * SECOND;
        for (number, _) in std::mem::take(&mut model.sitting) {
            commit(store, ended(rows[&number], epoch, RunStatus::Completed));
        }
        assert_eq!(numbers(&claim(store, epoch, at, 3)), model.claim(Wall(at), 3), "seed {seed}, at its end");
    }
    assert_eq!((rows_of(store, "seats"), rows_of(store, "lanes")), (0, 0), "seed {seed}");
}

fn begins(store: &dyn Store, epoch: Epoch, run: RunRow) {
    let tasks = vec![task("a", TaskStatus::Running, 1)];
    commit(store, Change::Run(RunChange { run, epoch, tasks, end: None }));
}

/// One of each kind.
fn kinds() -> [Limits; 6] {
    let wait = Overflow::Wait;
    [
        concurrency(2, "tenant", wait),
        Limits {
            concurrency: Some(Concurrency { limit: 3, key: None, overflow: wait }),
            ..Limits::default()
        },
        Limits { throttle: every(2, 2, Some("tenant")), ..Limits::default() },
        Limits { throttle: every(1, 1, None), ..Limits::default() },
        Limits { throttle: every(1, 1, Some("tenant")), ..concurrency(1, "tenant", wait) },
        Limits { throttle: every(1, 3, None), ..concurrency(2, "tenant", wait) },
    ]
}

#[test]
fn what_begins_next_is_what_the_model_says() {
    for limits in &kinds() {
        for seed in 1..=12 {
            play(&*memory(), limits, seed);
        }
    }
}

#[test]
fn what_begins_next_on_a_server_is_what_the_model_says() {
    for (seed, limits) in (1..).zip(&kinds()) {
        on_a_server(|store| play(store, limits, seed));
    }
}

fn the_gate_asks_a_run_key_first_then_drop_new_then_the_rate_limit(store: &dyn Store) {
    let limits =
        Limits { rate_limit: every(60, 2, Some("tenant")), ..concurrency(1, "tenant", Overflow::DropNew) };
    let epoch = joined(store, &limits);
    let keyed = |number| NewRun { run_key: Some((String::from("k"), None)), ..of(number, "a") };
    let Admitted::Started { row } = submit(store, epoch, keyed(1)) else { panic!("the first is dropped") };
    assert_eq!(submit(store, epoch, keyed(2)), Admitted::DuplicateKey { of: Some(id(1)) });
    let rule = |fate: Admitted| match fate {
        Admitted::Limited(dropped) => (dropped.rule.name(), dropped.key),
        other => panic!("{other:?} is not dropped by a limit"),
    };
    for number in 3..6 {
        assert_eq!(rule(submit(store, epoch, of(number, "a"))), ("concurrency", Some(String::from("a"))));
    }
    commit(store, ended(row, epoch, RunStatus::Completed));
    // What was dropped has used up nothing: the second of the burst is there.
    let Admitted::Started { row } = submit(store, epoch, of(6, "a")) else { panic!("budget was used up") };
    commit(store, ended(row, epoch, RunStatus::Completed));
    assert_eq!(rule(submit(store, epoch, of(7, "a"))), ("rate_limit", Some(String::from("a"))));
    assert!(matches!(submit(store, epoch, of(8, "b")), Admitted::Started { .. }));
    assert!(matches!(submit(store, epoch, new_run(9)), Admitted::Unkeyed(_)));
    let later = NewRun { created_at: Wall(20 + 60 * SECOND), ..of(10, "a") };
    assert!(matches!(submit(store, epoch, later), Admitted::Started { .. }));
}

fn limits_are_those_of_the_runner_that_came_last_and_stay_when_nobody_is_there(store: &dyn Store) {
    let wait = Overflow::Wait;
    let old = joined(store, &concurrency(1, "tenant", wait));
    for number in 1..=4 {
        submit(store, old, of(number, "a"));
    }
    assert_eq!(numbers(&claim(store, old, 30, 9)), [1]);
    let new = joined(store, &concurrency(2, "tenant", wait));
    assert_eq!(numbers(&claim(store, old, 30, 9)), [2]);
    store.leave(new, &InFlight::default(), Wall(40)).unwrap();
    assert_eq!(numbers(&claim(store, old, 50, 9)), [] as [u128; 0], "what has begun goes on beyond it");
    store.leave(old, &InFlight::default(), Wall(60)).unwrap();
    let client = store.join(Wall(70)).unwrap();
    assert!(matches!(submit(store, client, of(5, "a")), Admitted::Held { .. }));
    // Declared without limits, everything that waits is anyone's.
    let plain = store.join(Wall(80)).unwrap();
    store.declare_workflows(plain, &[declares("mail", "v1")], Wall(5)).unwrap();
    assert_eq!(store.claim_runs(plain, Wall(90), 9, &["mail".into()]).unwrap().len(), 5);
    assert_eq!((rows_of(store, "seats"), rows_of(store, "lanes")), (0, 0));
}

fn stamps_and_keys_that_say_nothing_any_more_are_forgotten(store: &dyn Store) {
    let epoch = joined(store, &Limits { rate_limit: every(1, 1, Some("tenant")), ..Limits::default() });
    for number in 1..=500 {
        let at = Wall(number as i64 * SECOND);
        submit(store, epoch, NewRun { created_at: at, ..of(number, &format!("t{number}")) });
    }
    assert!(rows_of(store, "keys") < 5, "{} keys are kept", rows_of(store, "keys"));
}

fn a_clock_that_was_ahead_shuts_nothing_for_longer_than_a_start_takes(store: &dyn Store) {
    let limits = Limits { throttle: every(1, 1, Some("tenant")), ..Limits::default() };
    let epoch = joined(store, &limits);
    for number in 1..=4 {
        submit(store, epoch, of(number, "a"));
    }
    let day = 86_400 * SECOND;
    assert_eq!(numbers(&claim(store, epoch, day, 9)), [1]);
    assert_eq!(numbers(&claim(store, epoch, day, 9)), [] as [u128; 0], "the key is shut");
    let back = claim(store, epoch, SECOND, 9);
    assert_eq!(numbers(&back), [] as [u128; 0], "a start was used up");
    assert_eq!(back.next_at, Some(Wall(2 * SECOND)));
    assert_eq!(numbers(&claim(store, epoch, 2 * SECOND, 9)), [2]);
    assert_eq!(numbers(&claim(store, epoch, 3 * SECOND, 9)), [3]);
}

/// What limits count, and who waits where: by names, as rows have numbers of their own.
const COUNTED: &str = "
    SELECT runs.id, runs.limited, runs.owner IS NULL, runs.not_before, runs.status, stand, seats.priority, party = run,
        seats.schedule IS NULL, seat.key, pace.key, lanes.top, lanes.since, lanes.held
    FROM runs LEFT JOIN seats ON run = runs.row LEFT JOIN lanes ON lanes.row = lane
        LEFT JOIN keys AS seat ON seat.row = lanes.seat LEFT JOIN keys AS pace ON pace.row = lanes.pace
    ORDER BY runs.row";

#[test]
fn fires_of_one_poll_count_as_if_each_had_come_by_itself() {
    let tenants = ["a", "b", "a", "c", "b", "a", "d", "c"];
    for limits in kinds() {
        let played = |at_once: usize| {
            let database = server::Database::new()?;
            let store = cloaca_store::open(database.url(), None).unwrap().store;
            let epoch = joined(&*store, &limits);
            let trigger = declared(&*store, epoch, "inbox");
            let mut fates = Vec::new();
            for (poll, waits) in [(1_u128, false), (2, true), (3, true)] {
                let fires: Vec<NewRun> = (0_u8..)
                    .zip(tenants)
                    .map(|(place, tenant)| NewRun {
                        priority: priority(i64::from(place * 7 % 10)),
                        limits: Some(Arc::new(limits.clone())),
                        context: of(0, tenant).context,
                        waits: waits && place != 4,
                        due_at: (place == 4).then_some(Wall(900)),
                        delay_us: (place == 4).then_some(880),
                        ..unique(&trigger, poll * 100 + u128::from(place), place + 10 * poll as u8)
                    })
                    .collect();
                for fires in fires.chunks(at_once) {
                    fates.extend(fire(&*store, &trigger, epoch, fires.to_vec()).iter().map(|fate| {
                        let is_held = matches!(fate, Admitted::Held { .. });
                        (is_held, fate.is_kept(), (!fate.is_kept()).then(|| fate.clone()))
                    }));
                }
                claim(&*store, epoch, 30, 2);
            }
            let rows = query(&*store, COUNTED, &[]).unwrap().1;
            store.close();
            Some((fates, rows))
        };
        let (Some(apart), Some(together)) = (played(1), played(tenants.len())) else { return };
        assert!(
            apart.1.len() > 8 || limits.concurrency.is_none() || !limits.holds(),
            "{limits:?}: {:?}",
            apart.0
        );
        assert_eq!(apart, together, "{limits:?}");
    }
}
