//! How many one-task runs a second are kept, in groups of 200 changes: `cargo run --release --example insert_speed [FILE]`.

use std::time::Instant;

use cloaca_core::key::{Epoch, RunRow};
use cloaca_core::port::{
    Admitted, Change, NewRun, Receipt, RunChange, RunEnd, RunStatus, Store, TaskRecord, TaskStatus,
};
use cloaca_core::time::Wall;
use uuid::Uuid;

const RUNS: u64 = 200_000;
const GROUP: u64 = 200;

fn main() {
    let url = std::env::args().nth(1).unwrap_or_else(|| ":memory:".to_owned());
    let store = cloaca_store::open(&url, None).expect("the URL names a usable store").store;
    let epoch = store.join(Wall(0)).expect("joins");
    let began = Instant::now();
    for group in 0..RUNS / GROUP {
        let rows = start(&*store, epoch, group);
        finish(&*store, epoch, &rows);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{url}: {:.0} runs a second, {GROUP} changes to a commit", RUNS as f64 / seconds);
}

fn start(store: &dyn Store, epoch: Epoch, group: u64) -> Vec<RunRow> {
    let changes: Vec<Change> = (group * GROUP..(group + 1) * GROUP)
        .map(|number| Change::Start { epoch, runs: vec![new_run(number)], cron: None })
        .collect();
    let receipts = store.commit(&changes).expect("commits");
    receipts.into_iter().map(row_of).collect()
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

fn finish(store: &dyn Store, epoch: Epoch, rows: &[RunRow]) {
    let changes: Vec<Change> = rows.iter().map(|&run| Change::Run(finished(run, epoch))).collect();
    store.commit(&changes).expect("commits");
}

fn new_run(number: u64) -> NewRun {
    // As of a version 7: time first, then noise.
    let id = (u128::from(number) << 80) | u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    NewRun {
        trace: None,
        id: Uuid::from_u128(id),
        workflow: "ingest".into(),
        version: "0123456789abcdef".into(),
        context: "{\"path\":\"in/file.csv\",\"size\":12345}".into(),
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
        created_at: Wall(1),
    }
}

fn finished(run: RunRow, epoch: Epoch) -> RunChange {
    let context = "{\"path\":\"in/file.csv\",\"size\":12345,\"rows\":99}";
    let task = TaskRecord {
        name: "load".into(),
        status: TaskStatus::Completed,
        attempt: 1,
        interrupted: 0,
        postponed: 0,
        wait: None,
        rests_since: None,
        checkpoint: None,
        context: Some(context.into()),
        error: None,
        error_type: None,
        tries: vec![],
        started_at: Some(Wall(2)),
        completed_at: Some(Wall(3)),
    };
    let end = RunEnd {
        status: RunStatus::Completed,
        context: context.into(),
        error: None,
        error_type: None,
        completed_at: Wall(3),
    };
    RunChange { run, epoch, tasks: vec![task], end: Some(end) }
}
