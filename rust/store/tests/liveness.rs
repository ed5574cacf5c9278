//! Who lives on a server, and who hears of what: over two stores of one schema, as two processes have them.

#[path = "support/postgres.rs"]
mod server;
#[path = "support/records.rs"]
mod support;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use cloaca_core::port::{Change, Halt, RunChange, Siblings, Sign, Store, TaskRecord, TaskStatus};
use cloaca_core::time::Wall;
use server::Database;

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn open(database: &Database) -> Arc<dyn Store> {
    cloaca_store::open(database.url(), None).unwrap().store
}

/// What `look` finds once it finds something.
fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it never came");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Two stores of one schema.
type Two = (Database, Arc<dyn Store>, Arc<dyn Store>);

/// None where there is no server.
fn two() -> Option<Two> {
    let database = Database::new()?;
    let (one, other) = (open(&database), open(&database));
    Some((database, one, other))
}

#[test]
fn two_programs_that_start_at_once_make_one_schema() {
    let Some(database) = Database::new() else { return };
    let url = database.url().to_owned();
    let opening: Vec<_> = (0..4)
        .map(|_| {
            let url = url.clone();
            thread::spawn(move || cloaca_store::open(&url, None).unwrap().store.join(Wall(1)).unwrap())
        })
        .collect();
    let mut epochs: Vec<i64> = opening.into_iter().map(|opened| opened.join().unwrap().0).collect();
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs.len(), 4, "each has an epoch of its own");
}

#[test]
fn who_holds_its_lock_is_alive_and_who_has_let_go_of_it_is_dead() {
    let Some((_database, one, other)) = two() else { return };
    let (first, second) = (one.join(Wall(1)).unwrap(), other.join(Wall(2)).unwrap());
    assert_eq!(one.bury(first).unwrap(), Siblings { living: vec![second], ..Siblings::default() });
    other.drains(second).unwrap();
    // The others are looked at no oftener, unless there is news.
    other.wake_others(second);
    eventually(|| one.woken(first).then_some(()));
    let drains = Siblings { living: vec![second], draining: vec![second], ..Siblings::default() };
    assert_eq!(one.bury(first), Ok(drains));
    // It ends without leaving, and with it its lock.
    other.close();
    let buried = eventually(|| one.bury(first).ok().filter(|found| found.buried > 0));
    assert_eq!(buried, Siblings { buried: 1, departed: Some(second), ..Siblings::default() });
}

#[test]
fn the_time_of_a_run_went_on_for_as_long_as_its_dead_owner_was_seen() {
    let Some((_database, one, other)) = two() else { return };
    let (next, dying) = (one.join(Wall(1)).unwrap(), other.join(Wall(2)).unwrap());
    let run = support::started(&*other, dying, support::new_run(1));
    let waits = TaskRecord { started_at: Some(Wall(100)), ..support::task("fetch", TaskStatus::Running, 1) };
    support::commit(&*other, Change::Run(RunChange { run, epoch: dying, tasks: vec![waits], end: None }));
    other.seen(dying, Wall(160), &Sign::default()).unwrap();
    other.close();
    eventually(|| one.bury(next).ok().filter(|found| found.buried > 0));
    one.declare_workflows(next, &[support::declares("mail", "v1")], Wall(5)).unwrap();
    let claimed = one.claim_runs(next, Wall(9000), 9, &["mail".into()]).unwrap();
    assert_eq!(claimed[0].spent.unwrap().until, Wall(160));
}

#[test]
fn who_is_buried_is_told_so() {
    let Some((_database, one, other)) = two() else { return };
    let (first, second) = (one.join(Wall(1)).unwrap(), other.join(Wall(2)).unwrap());
    other.leave(second, &Default::default(), Wall(3)).unwrap();
    assert!(other.bury(second).unwrap().is_buried);
    assert!(!one.bury(first).unwrap().is_buried);
}

#[test]
fn a_runner_beats_each_second_by_the_servers_clock() {
    let Some((_database, one, _other)) = two() else { return };
    one.join(Wall(1)).unwrap();
    let beat = || {
        let (_, rows) = one.query("SELECT at FROM beats", &[], &Halt::default()).ok()?;
        Some(rows[0][0].clone())
    };
    let first = beat().unwrap();
    eventually(|| beat().filter(|at| *at != first));
}

#[test]
fn news_reach_another_store_by_a_notice() {
    let Some((_database, one, other)) = two() else { return };
    let (first, second) = (one.join(Wall(1)).unwrap(), other.join(Wall(2)).unwrap());
    // That it joined is news itself.
    eventually(|| one.woken(first).then_some(()));
    let ear = other.ear(second).unwrap();
    let (tell, told) = mpsc::channel();
    let listening = {
        let ear = Arc::clone(&ear);
        thread::spawn(move || while ear.hear() && tell.send(()).is_ok() {})
    };
    one.wake(second);
    told.recv_timeout(LONG).expect("it heard of nothing");
    assert!(eventually(|| other.woken(second).then_some(true)));
    assert!(!other.woken(second), "it is told once");
    ear.close();
    listening.join().unwrap();
}

#[test]
fn an_ear_ends_with_its_store() {
    let Some((_database, one, _other)) = two() else { return };
    let first = one.join(Wall(1)).unwrap();
    let ear = one.ear(first).unwrap();
    let listening = thread::spawn(move || while ear.hear() {});
    one.close();
    listening.join().unwrap();
}
