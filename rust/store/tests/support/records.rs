//! Short words for the records that the tests write, and folders that clean up after themselves.
#![allow(dead_code, reason = "each test binary uses its own part of this file")]

use std::fs;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cloaca_core::admit::Overlap;
use cloaca_core::key::{Epoch, RunRow, ScheduleKey};
use cloaca_core::port::{
    Admitted, Catchup, Cell, Change, Halt, NewCron, NewRun, Origin, Outcome, Page, Receipt, RunChange,
    RunEnd, RunFilter, RunStatus, Schedule, ScheduleKind, Store, Stored, Stretch, Table, TaskRecord,
    TaskStatus, TickChange, TriggerRow, WorkflowRow,
};
use cloaca_core::time::Wall;
use cloaca_core::urgency::Priority;
use uuid::Uuid;

pub fn query(store: &dyn Store, sql: &str, params: &[Cell]) -> Stored<Table> {
    store.query(sql, params, &Halt::default())
}

pub const NONE: [Uuid; 0] = [];
pub const ALL: Page = Page { limit: u64::MAX, offset: 0 };

/// A folder of this test's own.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("cloaca-store-{}-{number}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn url(&self, name: &str) -> String {
        format!("sqlite://{}", self.path(name).display())
    }

    pub fn open(&self, name: &str) -> Arc<dyn Store> {
        cloaca_store::open(self.url(name), None).unwrap().store
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn memory() -> Arc<dyn Store> {
    cloaca_store::open(":memory:", None).unwrap().store
}

pub fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

pub fn any() -> RunFilter {
    RunFilter::default()
}

pub fn ids(store: &dyn Store, filter: &RunFilter) -> Vec<Uuid> {
    store.runs(filter, ALL).unwrap().into_iter().map(|run| run.id).collect()
}

pub fn commit(store: &dyn Store, change: Change) -> Receipt {
    store.commit(&[change]).unwrap().remove(0)
}

pub fn admitted(receipt: Receipt) -> Vec<Admitted> {
    match receipt {
        Receipt::Tick { fates, .. } | Receipt::Start(fates) => fates,
        other => panic!("{other:?} admits nothing"),
    }
}

pub fn new_run(number: u128) -> NewRun {
    NewRun {
        trace: None,
        id: id(number),
        workflow: "mail".into(),
        version: "v1".into(),
        context: "{\"a\":1}".into(),
        schedule: None,
        context_hash: None,
        unique_hash: false,
        run_key: None,
        scheduled_at: None,
        waits: false,
        cursor: None,
        ends: None,
        parent: None,
        priority: None,
        due_at: None,
        delay_us: None,
        limits: None,
        is_anyones: false,
        created_at: Wall(20),
    }
}

pub fn priority(number: i64) -> Option<Priority> {
    Priority::new(number)
}

pub fn declares(name: &str, version: &str) -> WorkflowRow {
    WorkflowRow {
        name: name.into(),
        version: version.into(),
        priority: Priority::default(),
        limits: None,
        tells: cloaca_core::port::Outcomes::default(),
        graph: "".into(),
    }
}

/// When nothing waits for its time any more that these tests start.
pub const LATE: Wall = Wall(1_000_000);

pub fn unique(trigger: &Schedule, number: u128, hash: u8) -> NewRun {
    NewRun {
        schedule: Some(trigger.row),
        context_hash: Some([hash; 16]),
        unique_hash: true,
        ..new_run(number)
    }
}

pub fn keyed(trigger: &Schedule, number: u128, key: &str, expires_at: Option<Wall>) -> NewRun {
    NewRun { schedule: Some(trigger.row), run_key: Some((key.to_owned(), expires_at)), ..new_run(number) }
}

pub fn moment(cron: &Schedule, number: u128, at: i64) -> NewRun {
    NewRun { schedule: Some(cron.row), scheduled_at: Some(Wall(at)), ..new_run(number) }
}

pub fn start(epoch: Epoch, run: NewRun) -> Change {
    Change::Start { epoch, runs: vec![run], cron: None }
}

pub fn started(store: &dyn Store, epoch: Epoch, run: NewRun) -> RunRow {
    match admitted(commit(store, start(epoch, run)))[..] {
        [Admitted::Started { row }] => row,
        ref other => panic!("{other:?} is no start"),
    }
}

pub fn trigger_row(name: &str) -> TriggerRow {
    TriggerRow {
        name: name.into(),
        workflow: "mail".into(),
        interval_us: 1_000,
        allow_concurrent: false,
        on_run: None,
        digest: 1,
        origin_at: Wall(1_000),
    }
}

pub fn declare(store: &dyn Store, epoch: Epoch, trigger: TriggerRow, at: Wall) -> Schedule {
    let name = Arc::clone(&trigger.name);
    let state = match commit(store, Change::Declare { epoch, trigger, at }) {
        Receipt::Declared(state) => state,
        other => panic!("{other:?} declares nothing"),
    };
    let kept = store.trigger(&name).unwrap().expect("a declared trigger is there");
    assert_eq!((state.row, state.enabled, &state.cursor), (kept.row, kept.enabled, &kept.cursor));
    assert_eq!((state.last_fired_at, state.owner), (kept.last_fired_at, kept.owner));
    kept
}

pub fn declared(store: &dyn Store, epoch: Epoch, name: &str) -> Schedule {
    declare(store, epoch, trigger_row(name), Wall(10))
}

pub fn tick(trigger: &Schedule, epoch: Epoch, fires: Vec<NewRun>) -> TickChange {
    TickChange {
        schedule: trigger.row,
        epoch,
        cursor: None,
        cursor_set: trigger.cursor_set,
        at: Wall(50),
        fires,
        overlap: Overlap::Allow,
        room: None,
        dropped: 0,
        held_back: 0,
        history: vec![],
        disable: None,
        wait_us: None,
        failures: 0,
        told: None,
        cron: None,
    }
}

pub fn fire(store: &dyn Store, trigger: &Schedule, epoch: Epoch, fires: Vec<NewRun>) -> Vec<Admitted> {
    admitted(commit(store, Change::Tick(tick(trigger, epoch, fires))))
}

pub fn task(name: &str, status: TaskStatus, attempt: u32) -> TaskRecord {
    TaskRecord {
        name: name.into(),
        status,
        attempt,
        interrupted: 0,
        postponed: 0,
        wait: None,
        rests_since: None,
        checkpoint: None,
        context: None,
        error: None,
        error_type: None,
        tries: vec![],
        started_at: Some(Wall(30)),
        completed_at: None,
    }
}

pub fn ended(run: RunRow, epoch: Epoch, status: RunStatus) -> Change {
    let end = RunEnd { status, context: "{}".into(), error: None, error_type: None, completed_at: Wall(60) };
    Change::Run(RunChange { run, epoch, tasks: vec![], end: Some(end) })
}

pub fn started_at(store: &dyn Store, number: u128) -> Cell {
    let params = [Cell::Text(id(number).to_string())];
    query(store, "SELECT started_at FROM runs WHERE id = ?", &params).unwrap().1.remove(0).remove(0)
}

pub fn stretch(row: ScheduleKey, outcome: Outcome, reason: &str, at: i64) -> Stretch {
    Stretch {
        schedule: row,
        outcome,
        reason: reason.into(),
        count: 1,
        first_at: Wall(at),
        last_at: Wall(at),
        min_us: 3,
        max_us: 3,
        sum_us: 3,
    }
}

pub fn new_cron(number: u128, expression: &str) -> NewCron<'_> {
    NewCron {
        id: id(number),
        name: "",
        origin: Origin::Registered,
        digest: 0,
        workflow: "mail",
        expression,
        timezone: "UTC",
        next_at: Some(Wall(100)),
        context: None,
        overlap: Overlap::Allow,
        catchup: Catchup::All,
        at: Wall(10),
    }
}

pub fn declared_cron<'a>(number: u128, name: &'a str, expression: &'a str) -> NewCron<'a> {
    NewCron { name, origin: Origin::Declared, ..new_cron(number, expression) }
}

pub fn next_at(cron: &Schedule) -> Option<Wall> {
    match cron.kind {
        ScheduleKind::Cron { next_at, .. } => next_at,
        ScheduleKind::Trigger { .. } => panic!("{} is a trigger", cron.name),
    }
}
