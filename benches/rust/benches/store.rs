//! Commits of so many changes at once to a file, `full`: what group commit saves. A run is two changes, its start and its end.

use std::time::Duration;

use cloaca_core::port::{
    Admitted, Change, NewRun, Receipt, RunChange, RunEnd, RunStatus, Store, TaskRecord, TaskStatus,
};
use cloaca_core::time::Wall;
use divan::Bencher;
use divan::counter::ItemsCount;
use uuid::Uuid;

const LEFT: &str = r#"{"path":"in/file.csv","size":12345,"rows":99}"#;

fn main() {
    divan::Divan::from_args().min_time(Duration::from_millis(300)).main();
}

/// The runs of one sample: started by one commit, ended by another.
#[divan::bench(args = [1, 100, 1_000], sample_count = 30, sample_size = 1)]
fn start_and_end(bencher: Bencher<'_, '_>, runs: usize) {
    let folder = tempfile::tempdir_in(if cfg!(unix) { "/var/tmp" } else { "." }).expect("a folder");
    let url = folder.path().join("runs.db").display().to_string();
    let store = cloaca_store::open(&url, Some("full")).expect("the folder is there").store;
    let epoch = store.join(Wall(0)).expect("joins");
    bencher.counter(ItemsCount::new(runs)).bench_local(|| {
        let rows = start(&*store, epoch, runs);
        let changes: Vec<Change> = rows.into_iter().map(|run| Change::Run(ended(run, epoch))).collect();
        store.commit(&changes).expect("commits")
    });
}

fn start(store: &dyn Store, epoch: i64, runs: usize) -> Vec<i64> {
    let change = |_| Change::Start { epoch, runs: vec![new_run()], cron: None };
    let changes: Vec<Change> = (0..runs).map(change).collect();
    store.commit(&changes).expect("commits").into_iter().map(row_of).collect()
}

fn row_of(receipt: Receipt) -> i64 {
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
        created_at: Wall(1),
    }
}

fn ended(run: i64, epoch: i64) -> RunChange {
    let task = TaskRecord {
        name: "load".into(),
        status: TaskStatus::Completed,
        attempt: 1,
        context: Some(LEFT.into()),
        error: None,
        started_at: Some(Wall(2)),
        completed_at: Some(Wall(3)),
    };
    let end =
        RunEnd { status: RunStatus::Completed, context: LEFT.into(), error: None, completed_at: Wall(3) };
    RunChange { run, epoch, tasks: vec![task], end: Some(end) }
}
