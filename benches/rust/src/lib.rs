//! The hot paths, each as a closure that goes through it once: what the benches here time and `count` counts instructions of.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use cloaca_core::admit::{Admission, Gate, Overlap};
use cloaca_core::context::{Bounds, hash_json, parse};
use cloaca_core::engine::{Effects, Engine, Event, Ready, Request, Settings};
use cloaca_core::graph::Graph;
use cloaca_core::key::{Epoch, RunRow, ScheduleKey};
use cloaca_core::past::Past;
use cloaca_core::policy::{self, Condition, RetryPolicy};
use cloaca_core::poll::{self, Finish, Plan, Poller, Turn};
use cloaca_core::port::{
    Admitted, Change, ContextHash, Halt, NewRun, Old, Origin, Receipt, RunChange, RunEnd, RunStatus,
    Schedule, ScheduleKind, Store, TaskRecord, TaskStatus, Terms, TriggerState,
};
use cloaca_core::run::Ended;
use cloaca_core::time::{Mono, Now, Wall};
use cloaca_core::urgency::Priority;
use cloaca_core::wheel::Wheel;
use cloaca_core::workflow::{Executor, OnInterrupt, Task, Workflow};
use serde_json::{Map, Value, json};
use uuid::Uuid;

const START: Now = Now { mono: Mono(1), wall: Wall(1) };
const TICK_NS: u64 = 50_000;
const INTERVAL_NS: u64 = 100_000_000;
const TRIGGER: &str = "inbox";
const LEFT: &str = r#"{"path":"in/file.csv","size":12345,"rows":99}"#;

/// One timer that comes due and is armed again, with so many beside it: what polling pays for its order.
pub fn pop_and_arm(timers: u64) -> impl FnMut() -> u32 {
    let mut wheel = Wheel::new(TICK_NS);
    for id in 0..timers {
        wheel.arm(id as u32, Mono(INTERVAL_NS + id * INTERVAL_NS / timers));
    }
    let mut now = Mono(INTERVAL_NS);
    move || {
        loop {
            if let Some((id, due)) = wheel.pop(now) {
                wheel.arm(id, Mono(due.0 + INTERVAL_NS));
                return id;
            }
            now = wheel.next_due().expect("timers are armed").max(now);
        }
    }
}

/// A timer that is moved before it is due, as a time-out mostly is.
pub fn arm_anew(timers: u64) -> impl FnMut() {
    let mut wheel = Wheel::new(TICK_NS);
    for id in 0..timers {
        wheel.arm(id as u32, Mono(INTERVAL_NS + id));
    }
    let mut id = 0;
    move || {
        id = (id + 7919) % timers;
        wheel.arm(id as u32, Mono(INTERVAL_NS + id * 13));
    }
}

/// A quiet poll without its body: the turn and the answer that there is nothing to do.
pub fn quiet_poll(triggers: i64) -> impl FnMut() {
    let mut poller = Poller::default();
    let plan = Arc::new(plan());
    for row in 1..=triggers {
        let place = poller.declare(TRIGGER.into(), Arc::clone(&plan), Mono(0));
        let state = TriggerState {
            row: ScheduleKey(row),
            enabled: true,
            cursor: None,
            cursor_set: 0,
            last_fired_at: None,
            owner: Some(Epoch(1)),
            unfinished: Vec::new(),
            failures: 0,
            grid: None,
            asked: None,
            has_died: false,
            is_outdated: false,
            is_awaited: false,
        };
        poller.enable(place, &state, false, START);
    }
    let mut now = Mono(0);
    move || {
        loop {
            if let Turn::Poll(ticket) = poller.next(now) {
                let finish = Finish { began: Wall((now.0 / 1000) as i64), took_us: 1, pause: None };
                poller.skipped(ticket, "", finish, now);
                return;
            }
            now = poller.next_due().expect("triggers are armed").max(now);
        }
    }
}

fn plan() -> Plan {
    let second = Duration::from_secs(1);
    Plan {
        interval: Duration::from_nanos(INTERVAL_NS),
        jitter: Duration::ZERO,
        timeout: None,
        backoff: poll::Backoff { base: second, factor: 2.0, longest: second },
        failures_max: None,
        polls_at_start: false,
        by_calendar: false,
        by_ends: false,
    }
}

/// One fire admitted, held and released, with so many unfinished runs beside it.
pub fn admit_hold_release(unfinished: u64) -> impl FnMut() -> Option<Uuid> {
    let mut gate = gate(unfinished);
    let mut number = unfinished;
    move || {
        number += 1;
        let admission = gate.admit(SCHEDULE, Some(hash(number)), Overlap::Allow);
        assert_eq!(admission, Admission::Run, "its context is new");
        gate.hold(SCHEDULE, Some(hash(number)), run(number));
        gate.release(run(number))
    }
}

/// A fire whose context is that of an unfinished run, of which there are so many.
pub fn refuse_a_duplicate(unfinished: u64) -> impl FnMut() -> Admission {
    let gate = gate(unfinished);
    let mut number = 0;
    move || {
        number = (number + 7919) % unfinished;
        gate.admit(SCHEDULE, Some(hash(number)), Overlap::Allow)
    }
}

const SCHEDULE: ScheduleKey = ScheduleKey(1);

fn hash(number: u64) -> ContextHash {
    // As of a digest: every byte differs from one to the next.
    (u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_le_bytes()
}

fn run(number: u64) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

fn gate(unfinished: u64) -> Gate {
    let mut gate = Gate::default();
    for number in 0..unfinished {
        gate.hold(SCHEDULE, Some(hash(number)), run(number));
    }
    gate
}

/// A context of so many keys with values of every kind, as in benches/python/hashes.py.
pub fn mixed(count: usize) -> Map<String, Value> {
    let values = [json!("in/file.csv"), json!(12345), json!(true), json!(0.25), json!(null)];
    (0..count).map(|number| (format!("key{number:05}"), values[number % values.len()].clone())).collect()
}

/// The digest of a context that dedup compares: the walk over a parsed context.
pub fn digest(context: Map<String, Value>) -> impl FnMut() -> ContextHash {
    move || hash_json(TRIGGER, black_box(&context))
}

/// What a fire pays for its digest: its context arrives as text.
pub fn parse_and_digest(context: Map<String, Value>) -> impl FnMut() -> ContextHash {
    let text = Value::Object(context).to_string();
    move || {
        let context = parse(black_box(&text)).expect("it is a JSON object");
        hash_json(TRIGGER, &context)
    }
}

/// A run of one task through the engine, with a store that says yes to everything.
pub fn engine_run() -> impl FnMut() {
    let mut engine = engine();
    let workflow = one_task();
    let mut number = 0;
    move || {
        number += 1;
        let now = Now { mono: Mono(number), wall: Wall(number as i64) };
        let request = Request::of(run(number), LEFT.into());
        let mut out = Effects::default();
        engine.step(Event::Start { workflow: Arc::clone(&workflow), requests: vec![request] }, now, &mut out);
        loop {
            let done = std::mem::take(&mut out);
            assert!(!done.commits.is_empty() || !done.jobs.is_empty(), "the run makes no progress");
            for (change, then) in done.commits {
                engine.step(Event::Committed(then, yes(&change, RunRow(number as i64))), now, &mut out);
            }
            for Ready { job, .. } in done.jobs {
                engine.step(Event::Taken(job), now, &mut out);
                engine.attempt_ended(job, Ended::Success(LEFT.into()), false, now, &mut out);
            }
            if !out.ended.is_empty() {
                return;
            }
        }
    }
}

fn engine() -> Engine {
    let hour = Duration::from_secs(3600);
    let settings = Settings {
        task_timeout: hour,
        timeout_grace: hour,
        workflow_timeout: hour,
        interruptions_max: 20,
        crons_enabled: true,
        catchup_max: 1,
        contexts: Bounds::default(),
        permits: vec![4],
        runs_in_hand: None,
        shares: true,
    };
    Engine::new(Epoch(1), settings, 1)
}

/// So many crons as a store has them, none of them due.
pub fn crons(count: usize) -> Vec<Schedule> {
    let cron = |number: usize| Schedule {
        row: ScheduleKey(number as i64 + 1),
        id: Uuid::from_u128(number as u128),
        name: String::new(),
        workflow: "ingest".to_owned(),
        kind: ScheduleKind::Cron {
            expression: format!("{} {} * * *", number % 59 + 1, number % 24),
            timezone: "UTC".to_owned(),
            next_at: Some(Wall((number as i64 % 24 * 60 + number as i64 % 59 + 1) * 60_000_000)),
            terms: Terms::default(),
        },
        enabled: true,
        asked: None,
        disabled_cause: None,
        disabled_at: None,
        cursor: None,
        cursor_set: 0,
        failures: 0,
        last_at: None,
        last_fired_at: None,
        past: Past::default(),
        created_at: Wall(1),
        updated_at: Wall(1),
        owner: None,
        origin: Origin::Registered,
        digest: None,
        version: 0,
        newest: 0,
        in_body_since: None,
        on_run: None,
        grid: None,
    };
    (0..count).map(cron).collect()
}

/// Replaces all crons by those that were read.
pub fn load_crons() -> impl FnMut(Vec<Schedule>) {
    let mut engine = engine();
    move |crons| engine.step(Event::Crons(crons), START, &mut Effects::default())
}

/// A look at the clock when no cron is due.
pub fn clock_beside_crons(count: usize) -> impl FnMut() {
    let mut engine = engine();
    engine.step(Event::Crons(crons(count)), START, &mut Effects::default());
    move || engine.step(Event::Clock, START, &mut Effects::default())
}

/// A look for what is too old beside so many final runs, of which none is.
pub fn prune_nothing(store: Arc<dyn Store>, runs: usize) -> impl FnMut() -> u64 {
    let mut fill = start_and_end(Arc::clone(&store), 1_000);
    (0..runs / 1_000).for_each(|_| fill());
    let old = Old { now: Wall(0), runs_before: Some(Wall(0)), ticks_before: Wall(0), ticks_max: 10_000 };
    move || store.find_old(&old, 500, &Halt::default()).expect("finds").len() as u64
}

fn yes(change: &Change, row: RunRow) -> Receipt {
    match change {
        Change::Start { .. } => Receipt::Start(vec![Admitted::Started { row }]),
        Change::Run(_) => Receipt::Run(None),
        other => panic!("{other:?}"),
    }
}

fn one_task() -> Arc<Workflow> {
    let id: Arc<str> = "load".into();
    let retry = RetryPolicy {
        attempts_max: 3,
        time_max: None,
        first_delay: Duration::from_secs(1),
        delay_max: Duration::from_secs(60),
        backoff: policy::Backoff::Exponential { base: 2.0, multiplier: 1.0 },
        conditions: vec![Condition::All],
        jitter: true,
    };
    let task = Task {
        id: Arc::clone(&id),
        dependencies: Vec::new(),
        retry,
        on_interrupt: OnInterrupt::Retry,
        timeout: None,
        limits: Vec::new(),
        rule: None,
        body: 0,
        executor: Executor::THREADS,
        has_failure_callback: false,
    };
    let graph = Graph::check("ingest", &[id], &[Vec::new()]).expect("one task has no cycle");
    Arc::new(Workflow {
        name: "ingest".into(),
        version: "v1".into(),
        tasks: vec![task],
        graph,
        priority: Priority::default(),
        timeout: None,
        limits: None,
        tells: cloaca_core::port::Outcomes::default(),
        graph_text: "".into(),
        tie: None,
    })
}

/// Starts so many runs by one commit and ends them by another.
pub fn start_and_end(store: Arc<dyn Store>, runs: usize) -> impl FnMut() {
    let epoch = store.join(Wall(0)).expect("joins");
    move || {
        let change = |_| Change::Start { epoch, runs: vec![new_run()], cron: None };
        let changes: Vec<Change> = (0..runs).map(change).collect();
        let rows = store.commit(&changes).expect("commits").into_iter().map(row_of);
        let changes: Vec<Change> = rows.map(|run| Change::Run(ended(run, epoch))).collect();
        store.commit(&changes).expect("commits");
    }
}

/// The same of one fire whose context is that of all before it: the store looks whether its equal ended after its poll began.
pub fn fire_and_end(store: Arc<dyn Store>) -> impl FnMut() {
    let epoch = store.join(Wall(0)).expect("joins");
    move || {
        let ends = store.ends().expect("counts");
        let hash = Some(hash(1));
        let run = NewRun {
            schedule: Some(SCHEDULE),
            context_hash: hash,
            unique_hash: true,
            ends: Some(ends),
            ..new_run()
        };
        let receipts =
            store.commit(&[Change::Start { epoch, runs: vec![run], cron: None }]).expect("commits");
        let row = receipts.into_iter().map(row_of).next().expect("one run");
        store.commit(&[Change::Run(ended(row, epoch))]).expect("commits");
    }
}

fn row_of(receipt: Receipt) -> RunRow {
    match receipt {
        Receipt::Start(admitted) => match admitted[..] {
            [Admitted::Started { row }] => row,
            ref other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn new_run() -> NewRun {
    NewRun {
        trace: None,
        id: Uuid::now_v7(),
        workflow: "ingest".into(),
        version: "0123456789abcdef".into(),
        context: r#"{"path":"in/file.csv","size":12345}"#.into(),
        schedule: None,
        context_hash: None,
        unique_hash: false,
        run_key: None,
        scheduled_at: None,
        waits: false,
        cursor: None,
        ends: None,
        parent: None,
        priority: Some(Priority::default()),
        due_at: None,
        delay_us: None,
        limits: None,
        is_anyones: false,
        created_at: Wall(1),
    }
}

fn ended(run: RunRow, epoch: Epoch) -> RunChange {
    let task = TaskRecord {
        name: "load".into(),
        status: TaskStatus::Completed,
        attempt: 1,
        interrupted: 0,
        postponed: 0,
        wait: None,
        rests_since: None,
        checkpoint: None,
        context: Some(LEFT.into()),
        error: None,
        error_type: None,
        tries: vec![],
        started_at: Some(Wall(2)),
        completed_at: Some(Wall(3)),
    };
    let end = RunEnd {
        status: RunStatus::Completed,
        context: LEFT.into(),
        error: None,
        error_type: None,
        completed_at: Wall(3),
    };
    RunChange { run, epoch, tasks: vec![task], end: Some(end) }
}
