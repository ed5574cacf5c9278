//! What holds of the file: who may open it, what survives, and what is refused by name.

#[path = "support/records.rs"]
mod support;

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use cloaca_core::context::hash_text;
use cloaca_core::key::{Epoch, RunRow};
use cloaca_core::port::{
    Admitted, Cell, Change, Company, Fault, Halt, InFlight, Receipt, RunChange, RunStatus, Siblings, Sign,
    Store, TaskRecord, TaskStatus, TriggerRow,
};
use cloaca_core::spread::owner_of;
use cloaca_core::time::Wall;
use cloaca_store::OpenError;
use rusqlite::Connection;
use support::*;

fn refusal(url: &str) -> String {
    match cloaca_store::open(url, None) {
        Err(OpenError::Store(message)) => message,
        other => panic!("{url} gives {other:?}"),
    }
}

fn pragma(store: &dyn Store, name: &str) -> Cell {
    query(store, &format!("PRAGMA {name}"), &[]).unwrap().1.remove(0).remove(0)
}

/// What is told while another one lives and nobody has left.
fn beside(other: Epoch) -> Siblings {
    Siblings { living: vec![other], ..Siblings::default() }
}

/// What is told when another one, the newest, was found dead.
fn after_burying(other: Epoch) -> Siblings {
    Siblings { buried: 1, departed: Some(other), ..Siblings::default() }
}

#[test]
fn a_trigger_is_not_left_for_ever_to_who_does_not_take_it() {
    let folder = Folder::new();
    let store = folder.open("runs.db");
    let living = [1, 2, 3].map(|at| store.join(Wall(at)).unwrap());
    let name = (0..).map(|number| format!("inbox {number}"));
    let name = name.into_iter().find(|name| owner_of(name, living) == Some(living[2])).unwrap();
    let ask = |epoch: Epoch| {
        let trigger = TriggerRow { name: name.as_str().into(), ..trigger_row("inbox") };
        match commit(&*store, Change::Declare { epoch, trigger, at: Wall(9) }) {
            Receipt::Declared(state) => state.owner,
            other => panic!("{other:?} declares nothing"),
        }
    };
    let since = |column: &str, seconds: i64, of: &str| {
        let sql = format!(
            "UPDATE {column} = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + {seconds} * 1000000 WHERE {of}"
        );
        let other = Connection::open(folder.path("runs.db")).unwrap();
        other.execute(&sql, []).unwrap();
    };
    assert_eq!(living.map(ask), [Some(living[0]); 3]);
    let other = (0..).map(|number| format!("other {number}"));
    let other = other.into_iter().find(|name| owner_of(name, living) == Some(living[2])).unwrap();
    for epoch in living {
        let trigger = TriggerRow { name: other.as_str().into(), ..trigger_row("inbox") };
        commit(&*store, Change::Declare { epoch, trigger, at: Wall(9) });
    }
    store.want(living[2], &[(name.as_str().into(), true), (other.as_str().into(), true)]).unwrap();
    assert_eq!(store.wished(living[0]).unwrap().of_us.len(), 2);
    let let_go = |epoch| {
        let change = Change::LetGo { epoch, trigger: name.as_str().into(), digest: 1, at: Some(Wall(30)) };
        commit(&*store, change);
    };
    let_go(living[0]);
    assert_eq!(ask(living[1]), None);
    since("schedules SET free_since", -6, "owner IS NULL");
    assert_eq!(ask(living[1]), Some(living[1]));
    assert!(store.wished(living[1]).unwrap().of_us.is_empty(), "until it asks again");
    assert!(store.wished(living[0]).unwrap().of_us.is_empty(), "no more is given to it either");
    let_go(living[1]);
    ask(living[1]);
    since("schedules SET free_since", 3600, "owner IS NULL");
    assert_eq!(ask(living[0]), Some(living[0]), "a clock that was ahead keeps it from nobody");
    store.leave(living[0], &InFlight::default(), Wall(50)).unwrap();
    assert_eq!(ask(living[1]), None);
    since("owners SET left_at", -6, "left_at IS NOT NULL");
    assert_eq!(ask(living[1]), Some(living[1]));
}

#[test]
fn the_time_of_a_run_went_on_for_as_long_as_its_dead_owner_was_seen() {
    let folder = Folder::new();
    let waits = TaskRecord { started_at: Some(Wall(100)), ..task("fetch", TaskStatus::Running, 1) };
    let mut left = vec![];
    for (seen_at, takes_at) in [(Some(160), 9000), (None, 9100), (Some(9300), 9250)] {
        let store = folder.open("runs.db");
        let dying = store.join(Wall(1)).unwrap();
        store.declare_workflows(dying, &[declares("mail", "v1")], Wall(5)).unwrap();
        if left.is_empty() {
            let run = started(&*store, dying, new_run(1));
            commit(
                &*store,
                Change::Run(RunChange { run, epoch: dying, tasks: vec![waits.clone()], end: None }),
            );
        } else {
            store.claim_runs(dying, Wall(9000), 9, &["mail".into()]).unwrap();
        }
        if let Some(at) = seen_at {
            store.seen(dying, Wall(at), &Sign::default()).unwrap();
        }
        // It ends without leaving.
        drop(store);
        let store = folder.open("runs.db");
        let next = store.join(Wall(2)).unwrap();
        assert_eq!(store.bury(next).unwrap().buried, 1);
        store.declare_workflows(next, &[declares("mail", "v1")], Wall(5)).unwrap();
        let claimed = store.claim_runs(next, Wall(takes_at), 9, &["mail".into()]).unwrap();
        left.push(claimed[0].spent.unwrap().until);
        store.leave(next, &InFlight::default(), Wall(takes_at)).unwrap();
    }
    assert_eq!(left, [Wall(160), Wall(100), Wall(9250)], "nobody is seen in times to come");
}

#[test]
fn everything_survives_a_reopening() {
    let folder = Folder::new();
    let store = folder.open("runs.db");
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(&*store, epoch, "inbox");
    let cron = store.put_cron(Epoch(1), &new_cron(50, "0 2 * * *")).unwrap();
    let row = match fire(&*store, &trigger, epoch, vec![unique(&trigger, 1, 5)])[..] {
        [Admitted::Started { row }] => row,
        ref other => panic!("{other:?}"),
    };
    let tasks = vec![task("fetch", TaskStatus::Completed, 1)];
    commit(&*store, Change::Run(RunChange { run: row, epoch, tasks, end: None }));
    let (trigger, run) = (store.trigger("inbox").unwrap(), store.run(id(1)).unwrap());
    drop(store);
    assert!(!folder.path("runs.db-wal").exists(), "a clean close folds the log into the file");

    let store = folder.open("runs.db");
    assert_eq!(store.trigger("inbox").unwrap(), trigger);
    assert_eq!(store.cron(id(50)).unwrap(), Some(cron));
    assert_eq!(store.run(id(1)).unwrap(), run);
    let next = store.join(Wall(2)).unwrap();
    assert!(next > epoch);
    assert_eq!(
        store.bury(next),
        Ok(Siblings { buried: 1, living: vec![], draining: vec![], departed: Some(epoch), is_buried: false }),
        "it went without leaving"
    );
    let claimed = store.claim_runs(next, LATE, 10, &["mail".into()]).unwrap();
    assert_eq!((claimed[0].row, claimed[0].tasks.len(), claimed[0].interruptions), (row, 1, 1));
    assert_eq!(claimed[0].owner_before, Some(epoch));
    let change = |epoch| Change::Run(RunChange { run: row, epoch, tasks: Vec::new(), end: None });
    assert_eq!(commit(&*store, change(epoch)), Receipt::Fenced, "it is no longer the dead one's");
    assert!(matches!(commit(&*store, change(next)), Receipt::Run(_)), "it is the claimer's");
    let again = declared(&*store, next, "inbox");
    let fates = fire(&*store, &again, next, vec![unique(&again, 2, 5)]);
    assert_eq!(fates, [Admitted::DuplicateHash { of: id(1) }]);
}

#[test]
#[cfg(target_os = "linux")]
fn news_is_heard_at_once_until_nobody_listens() {
    let folder = Folder::new();
    let (first, second) = (folder.open("runs.db"), folder.open("runs.db"));
    let [old, new] = [&first, &second].map(|store| store.join(Wall(1)).unwrap());
    let ear = first.ear(old).expect("this system can tell");
    second.wake_others(new);
    assert!(ear.hear());
    let listening = thread::spawn({
        let ear = Arc::clone(&ear);
        move || (ear.hear(), ear.hear())
    });
    second.wake_others(new);
    while !first.woken(old) {}
    ear.close();
    let (heard, then) = listening.join().unwrap();
    assert!(!then && !ear.hear(), "{heard}");
    // One that somebody removed is news, and made again.
    let hint = folder.path(&format!("runs.db-owner-{old}"));
    std::fs::remove_file(&hint).unwrap();
    assert!(first.woken(old) && !first.woken(old) && hint.exists());
    second.wake_others(new);
    assert!(first.woken(old));
    // A file that is gone tells nothing any more, and nobody waits for it.
    let ear = second.ear(new).unwrap();
    second.leave(new, &InFlight::default(), Wall(2)).unwrap();
    while ear.hear() {}
    assert!(first.ear(new).is_none() && !second.woken(new));
    assert!(!folder.path(&format!("runs.db-owner-{new}")).exists());
    // The kernel has few for a user: one program does not take all of them.
    let ears: Vec<_> = std::iter::from_fn(|| first.ear(old)).take(100).collect();
    assert!(ears.len() < 20, "{}", ears.len());
    drop(ears);
    assert!(first.ear(old).is_some());
}

#[test]
fn what_was_to_end_and_nobody_goes_on_with_ends() {
    let folder = Folder::new();
    let (first, second) = (folder.open("runs.db"), folder.open("runs.db"));
    let [old, new] = [&first, &second].map(|store| store.join(Wall(1)).unwrap());
    for number in 1..=2 {
        started(&*first, old, new_run(number));
    }
    assert_eq!(second.request_cancel(new, id(1), Wall(5)), Ok(vec![id(1)]));
    let status = |number| second.run(id(number)).unwrap().unwrap().0.status;
    second.end_deserted(new, Wall(6)).unwrap();
    assert_eq!(status(1), RunStatus::Pending, "its owner lives");
    drop(first);
    assert_eq!(second.bury(new).unwrap().buried, 1);
    second.declare_workflows(new, &[declares("mail", "v1")], Wall(5)).unwrap();
    second.end_deserted(new, Wall(7)).unwrap();
    assert_eq!(status(1), RunStatus::Pending, "somebody declares its workflow");
    second.declare_workflows(new, &[], Wall(5)).unwrap();
    second.end_deserted(new, Wall(8)).unwrap();
    assert_eq!([status(1), status(2)], [RunStatus::Cancelled, RunStatus::Pending]);
}

#[test]
fn a_run_that_a_dead_owner_may_have_begun_is_not_of_its_claimers_version() {
    let folder = Folder::new();
    let mut stores: Vec<_> = (0..4).map(|_| folder.open("runs.db")).collect();
    let owners: Vec<Epoch> = (1..).zip(&stores).map(|(at, store)| store.join(Wall(at)).unwrap()).collect();
    for (owner, version) in owners.iter().zip(["v1", "v2", "v1", "v1"]) {
        stores[3].declare_workflows(*owner, &[declares("mail", version)], Wall(5)).unwrap();
    }
    started(&*stores[0], owners[0], new_run(1));
    let mut seen = Vec::new();
    for owner in &owners[1..] {
        // Whoever has it dies, and has put nothing on record.
        drop(stores.remove(0));
        assert_eq!(stores[0].bury(*owner).unwrap().buried, 1);
        let claimed = stores[0].claim_runs(*owner, LATE, 10, &["mail".into()]).unwrap();
        let [run] = &claimed[..] else { panic!("{claimed:?}") };
        seen.push((run.interruptions, run.version.clone(), run.is_mixed));
    }
    let of = |version: &str, interruptions, is_mixed| (interruptions, version.to_owned(), is_mixed);
    // In which version it was before.
    assert_eq!(seen, [of("v1", 1, false), of("v2", 2, true), of("v1", 3, true)]);
    // Who opens it again begins anew, under one version.
    assert_eq!(commit(&*stores[0], ended(RunRow(1), owners[3], RunStatus::Failed)), Receipt::Run(None));
    assert!(stores[0].reopen(owners[3], id(1)).unwrap().is_some());
    let last = folder.open("runs.db");
    let owner = last.join(Wall(9)).unwrap();
    drop(stores);
    assert_eq!(last.bury(owner).unwrap().buried, 1);
    let claimed = last.claim_runs(owner, LATE, 10, &["mail".into()]).unwrap();
    assert_eq!(claimed.iter().map(|run| (run.interruptions, run.is_mixed)).collect::<Vec<_>>(), [(1, false)]);
}

#[test]
fn a_living_sibling_is_not_buried_and_hears_of_news() {
    let folder = Folder::new();
    let (first, second) = (folder.open("runs.db"), folder.open("runs.db"));
    let old = first.join(Wall(1)).unwrap();
    assert!(!first.woken(old));
    let new = second.join(Wall(2)).unwrap();
    assert!(first.woken(old), "somebody joined");
    assert!(!first.woken(old), "news is told once");
    assert_eq!(second.bury(new), Ok(beside(old)));
    second.wake_others(new);
    assert!(first.woken(old) && !second.woken(new));
    first.drains(old).unwrap();
    assert_eq!(second.bury(new), Ok(Siblings { draining: vec![old], ..beside(old) }));
    drop(first);
    assert_eq!(second.bury(new), Ok(after_burying(old)));
    assert_eq!(second.bury(new), Ok(Siblings { buried: 0, ..after_burying(old) }));
}

#[test]
fn an_owner_that_left_leaves_no_lock_behind() {
    let folder = Folder::new();
    let store = folder.open("runs.db");
    let epoch = store.join(Wall(1)).unwrap();
    assert!(folder.path(&format!("runs.db-owner-{epoch}")).exists());
    store.leave(epoch, &InFlight::default(), Wall(50)).unwrap();
    assert!(!folder.path(&format!("runs.db-owner-{epoch}")).exists());
}

#[test]
fn the_path_is_told_in_full() {
    let folder = Folder::new();
    let opened = cloaca_store::open(folder.url("runs.db"), None).unwrap();
    assert_eq!(opened.path, Some(folder.path("runs.db")));
    assert_eq!(cloaca_store::open(":memory:", None).unwrap().path, None);
}

#[test]
fn the_file_is_set_up_for_crashes_and_for_other_readers() {
    let folder = Folder::new();
    let store = folder.open("runs.db");
    assert!(folder.path("runs.db-wal").exists());
    assert_eq!(pragma(&*store, "user_version"), Cell::Int(2));
    assert_eq!(pragma(&*store, "application_id"), Cell::Int(0x636c_6f61));
    let tables = "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite_%' AND strict";
    assert_eq!(query(&*store, tables, &[]).unwrap().1, [vec![Cell::Int(27)]]);
}

#[test]
fn a_newer_file_is_refused_with_both_versions() {
    let folder = Folder::new();
    for name in ["ours.db", "bare.db"] {
        if name == "ours.db" {
            drop(folder.open(name));
        }
        let other = Connection::open(folder.path(name)).unwrap();
        other.pragma_update(None, "user_version", 7).unwrap();
        drop(other);
        let message = refusal(&folder.url(name));
        assert!(
            message.contains(name) && message.contains("version 7") && message.contains("up to 2"),
            "{message}"
        );
        assert!(message.contains("upgrade cloaca"), "{message}");
    }
}

#[test]
fn a_file_of_another_program_is_refused_and_left_alone() {
    let folder = Folder::new();
    let other = Connection::open(folder.path("other.db")).unwrap();
    other.execute_batch("PRAGMA application_id = 77; CREATE TABLE mine (a)").unwrap();
    drop(other);
    let before = fs::read(folder.path("other.db")).unwrap();
    assert!(refusal(&folder.url("other.db")).contains("another program"));
    assert_eq!(fs::read(folder.path("other.db")).unwrap(), before);
}

#[test]
fn tables_of_somebody_else_may_stand_beside_ours() {
    let folder = Folder::new();
    let other = Connection::open(folder.path("shared.db")).unwrap();
    other.execute_batch("CREATE TABLE mine (a); INSERT INTO mine VALUES (3)").unwrap();
    drop(other);
    let store = folder.open("shared.db");
    store.join(Wall(1)).unwrap();
    assert_eq!(query(&*store, "SELECT a FROM mine", &[]).unwrap().1, [vec![Cell::Int(3)]]);
}

#[test]
fn a_table_that_is_in_the_way_is_named() {
    let folder = Folder::new();
    let other = Connection::open(folder.path("shared.db")).unwrap();
    other.execute_batch("CREATE TABLE tasks (a)").unwrap();
    drop(other);
    let message = refusal(&folder.url("shared.db"));
    assert!(message.contains("tasks") && message.contains("use another file"), "{message}");
    let other = Connection::open(folder.path("shared.db")).unwrap();
    let tables: i64 = other.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 1, "what was made before is undone");
}

#[test]
fn a_missing_folder_is_named() {
    let folder = Folder::new();
    let path = folder.path("missing").join("runs.db");
    let message = refusal(path.to_str().unwrap());
    assert!(message.contains(folder.path("missing").to_str().unwrap()), "{message}");
    assert!(message.contains("create it"), "{message}");
}

#[test]
fn a_folder_is_no_file() {
    let folder = Folder::new();
    assert!(refusal(folder.path("").to_str().unwrap()).contains("is a folder"));
    assert!(refusal(std::env::temp_dir().to_str().unwrap()).contains("is a folder"));
    assert!(refusal(&format!("{}/", folder.path("new").display())).contains("is a folder"));
}

#[test]
fn what_is_no_database_is_refused_and_left_alone() {
    let folder = Folder::new();
    let text = "this is a letter, not a database. ".repeat(40);
    fs::write(folder.path("letter.txt"), &text).unwrap();
    let message = refusal(&folder.url("letter.txt"));
    assert!(message.contains("letter.txt") && message.contains("not a SQLite database"), "{message}");
    assert_eq!(fs::read_to_string(folder.path("letter.txt")).unwrap(), text);
}

#[test]
fn an_empty_file_is_a_new_store() {
    let folder = Folder::new();
    fs::write(folder.path("runs.db"), "").unwrap();
    folder.open("runs.db").join(Wall(1)).unwrap();
}

#[test]
fn several_first_openings_of_a_file_make_one_set_of_tables() {
    let folder = Folder::new();
    let url = folder.url("runs.db");
    let mut epochs: Vec<Epoch> = thread::scope(|scope| {
        let join = || cloaca_store::open(&url, None).unwrap().store.join(Wall(1)).unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(join)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    epochs.sort_unstable();
    assert_eq!(epochs, (1..=8).map(Epoch).collect::<Vec<_>>());
}

#[test]
fn two_stores_on_one_file_never_start_a_hash_twice() {
    const HASHES: u8 = 50;
    let folder = Folder::new();
    let stores: Vec<Arc<dyn Store>> = (0..2).map(|_| folder.open("runs.db")).collect();
    let epoch = stores[0].join(Wall(1)).unwrap();
    let trigger = declared(&*stores[0], epoch, "inbox");
    let started: usize = thread::scope(|scope| {
        let fire_all = |store: &dyn Store, first: u128| {
            let fire_one =
                |hash| fire(store, &trigger, epoch, vec![unique(&trigger, first + u128::from(hash), hash)]);
            let fates = (0..HASHES).flat_map(fire_one);
            fates.filter(|fate| matches!(fate, Admitted::Started { .. })).count()
        };
        let threads: Vec<_> = stores
            .iter()
            .zip([1_000, 2_000])
            .map(|(store, first)| scope.spawn(move || fire_all(&**store, first)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(started, usize::from(HASHES));
    for store in &stores {
        assert_eq!(ids(&**store, &any()).len(), usize::from(HASHES), "each sees what the other wrote");
    }
}

#[cfg(unix)]
#[test]
fn a_commit_into_an_unlinked_log_is_not_acknowledged_and_what_is_seen_is_saved() {
    let folder = Folder::new();
    let store = folder.open("runs.db");
    let epoch = store.join(Wall(1)).unwrap();
    started(&*store, epoch, new_run(1));
    assert_eq!(store.trouble(), None);
    fs::remove_file(folder.path("runs.db-wal")).unwrap();
    let Err(Fault::Final(text)) = store.commit(&[start(epoch, new_run(2))]) else { panic!("it was taken") };
    assert!(text.contains("runs.db-rescue") && text.contains("write-ahead log"), "{text}");
    assert_eq!(store.trouble(), Some(text.clone()));
    assert_eq!(
        store.commit(&[start(epoch, new_run(3))]),
        Err(Fault::Final(text)),
        "and so is every later one"
    );
    let rescued = folder.open("runs.db-rescue");
    assert!(ids(&*rescued, &any()).contains(&id(1)));
}

#[cfg(unix)]
#[test]
fn a_rescue_of_another_store_is_kept_beside_the_new_one_and_processes_of_one_store_share_theirs() {
    let folder = Folder::new();
    let (store, sibling) = (folder.open("runs.db"), folder.open("runs.db"));
    fs::write(folder.path("runs.db-rescue"), b"of another one").unwrap();
    let (epoch, other) = (store.join(Wall(1)).unwrap(), sibling.join(Wall(2)).unwrap());
    started(&*store, epoch, new_run(1));
    started(&*sibling, other, new_run(2));
    fs::remove_file(folder.path("runs.db")).unwrap();
    for (store, epoch, run) in [(&store, epoch, 3), (&sibling, other, 4)] {
        let Err(Fault::Final(text)) = store.commit(&[start(epoch, new_run(run))]) else {
            panic!("it was taken")
        };
        assert!(text.contains("still sees of it is in") && text.contains("runs.db-rescue-2'"), "{text}");
    }
    assert_eq!(fs::read(folder.path("runs.db-rescue")).unwrap(), b"of another one");
    let rescued = ids(&*folder.open("runs.db-rescue-2"), &any());
    assert!(rescued.contains(&id(1)) && rescued.contains(&id(2)));
    assert!(!folder.path("runs.db-rescue-3").exists());
}

/// What a store leaves that dies: the log and its memory, beside no file or another one.
fn left_without_their_file(folder: &Folder) {
    let store = folder.open("runs.db");
    let epoch = store.join(Wall(1)).unwrap();
    for run in 1..50 {
        started(&*store, epoch, new_run(run));
    }
    let beside = |name: &str| (folder.path(name), fs::read(folder.path(name)).unwrap());
    let left = [beside("runs.db-wal"), beside("runs.db-shm")];
    drop(store);
    fs::remove_file(folder.path("runs.db")).unwrap();
    for (path, bytes) in left {
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_new_file_begins_empty_beside_what_a_deleted_one_left() {
    let folder = Folder::new();
    left_without_their_file(&folder);
    let store = folder.open("runs.db");
    assert!(ids(&*store, &any()).is_empty());
    let epoch = store.join(Wall(1)).unwrap();
    started(&*store, epoch, new_run(7));
    assert_eq!(ids(&*store, &any()), [id(7)]);
}

#[cfg(unix)]
#[test]
fn a_copy_in_the_place_of_a_deleted_file_is_opened_without_that_ones_log_or_not_at_all() {
    let folder = Folder::new();
    let other = folder.open("other.db");
    let epoch = other.join(Wall(1)).unwrap();
    started(&*other, epoch, new_run(99));
    other.export(&folder.path("copy.db"), &Halt::default()).unwrap();
    left_without_their_file(&folder);
    fs::rename(folder.path("copy.db"), folder.path("runs.db")).unwrap();
    let before = fs::read(folder.path("runs.db")).unwrap();
    let text = refusal(folder.path("runs.db").to_str().unwrap());
    assert!(text.contains("the write-ahead log of another one"), "{text}");
    assert_eq!(fs::read(folder.path("runs.db")).unwrap(), before);
    fs::remove_file(folder.path("runs.db-wal")).unwrap();
    // Its memory of the log does no harm.
    let store = folder.open("runs.db");
    assert_eq!(ids(&*store, &any()), [id(99)]);
}

#[cfg(target_os = "linux")]
#[test]
fn stores_of_one_process_share_their_hold_and_the_last_one_folds_the_log() {
    let folder = Folder::new();
    for _ in 0..3 {
        let (first, second) = (folder.open("runs.db"), folder.open("runs.db"));
        first.join(Wall(1)).unwrap();
        drop(first);
        second.join(Wall(2)).unwrap();
        assert!(folder.path("runs.db-wal").exists());
        drop(second);
        assert!(!folder.path("runs.db-wal").exists() && !folder.path("runs.db-shm").exists());
    }
}

#[test]
fn a_file_of_the_first_release_opens_and_keeps_what_it_holds() {
    let folder = Folder::new();
    let old = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/0001.db");
    fs::copy(old, folder.path("runs.db")).unwrap();
    let store = folder.open("runs.db");
    assert_eq!(pragma(&*store, "user_version"), Cell::Int(2));
    assert_eq!(ids(&*store, &any()).len(), 6);
    assert!(store.trigger("inbox").unwrap().is_some());
    assert_eq!(store.join(Wall(1)), Ok(Epoch(2)));
}

#[test]
fn an_unfinished_run_of_the_first_release_guards_its_context_under_any_name() {
    let folder = Folder::new();
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/0001.db"), folder.path("runs.db")).unwrap();
    let context = r#"{"n": 1, "b": [2.5]}"#;
    let hash_by = |name| hash_text(name, context).unwrap();
    let db = Connection::open(folder.path("runs.db")).unwrap();
    let guards = "
        UPDATE runs SET context = ?1, context_hash = ?2, unique_hash = 1, completed_at = NULL, status = 'Pending',
            schedule = (SELECT row FROM schedules WHERE name = 'inbox' AND kind = 'trigger')
        WHERE row = (SELECT max(row) FROM runs)";
    assert_eq!(db.execute(guards, (context, &hash_by("inbox")[..])), Ok(1));
    drop(folder.open("runs.db"));
    let read = "SELECT context_hash FROM runs WHERE row = (SELECT max(row) FROM runs)";
    let kept: Vec<u8> = db.query_row(read, [], |row| row.get(0)).unwrap();
    assert_eq!(kept, hash_by(""));
}

#[cfg(unix)]
#[test]
fn a_living_runner_of_the_first_release_keeps_a_newer_one_out() {
    let folder = Folder::new();
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/0001.db"), folder.path("runs.db")).unwrap();
    Connection::open(folder.path("runs.db"))
        .unwrap()
        .execute("UPDATE owners SET left_at = NULL", [])
        .unwrap();
    let held = fs::File::create(folder.path("runs.db-owner-1")).unwrap();
    held.try_lock().unwrap();
    let message = refusal(&folder.url("runs.db"));
    let holder = format!("0.1.0, in process {}:", std::process::id());
    assert!(message.contains(&holder), "{message}");
    drop(held);
    let store = folder.open("runs.db");
    let epoch = store.join(Wall(1)).unwrap();
    assert_eq!(store.bury(epoch), Ok(after_burying(Epoch(1))));
}

#[cfg(target_os = "linux")]
#[test]
fn a_living_sibling_is_known_without_its_small_file_and_by_every_name_of_the_database() {
    let folder = Folder::new();
    let first = folder.open("runs.db");
    let old = first.join(Wall(1)).unwrap();
    std::os::unix::fs::symlink(folder.path("runs.db"), folder.path("link.db")).unwrap();
    let second = folder.open("link.db");
    let new = second.join(Wall(2)).unwrap();
    fs::remove_file(folder.path(&format!("runs.db-owner-{old}"))).unwrap();
    assert_eq!(second.bury(new), Ok(beside(old)));
    assert_eq!(first.bury(old), Ok(beside(new)));
    drop(first);
    assert_eq!(second.bury(new), Ok(after_burying(old)));
}

#[test]
fn who_came_and_went_between_two_looks_is_told_of() {
    let folder = Folder::new();
    let store = folder.open("runs.db");
    let first = store.join(Wall(1)).unwrap();
    let mut company = None;
    let mut has_shrunk = || Company::has_shrunk(&mut company, &store.bury(first).unwrap());
    assert!(has_shrunk(), "the first look");
    assert!(!has_shrunk());
    let second = store.join(Wall(2)).unwrap();
    assert!(!has_shrunk(), "somebody came");
    store.leave(second, &InFlight::default(), Wall(3)).unwrap();
    assert!(has_shrunk(), "and went");
    assert!(!has_shrunk());
    let third = store.join(Wall(4)).unwrap();
    store.leave(third, &InFlight::default(), Wall(5)).unwrap();
    assert!(has_shrunk(), "somebody came and went meanwhile");
    assert!(!has_shrunk());
}

#[test]
fn owners_that_left_do_not_pile_up() {
    let folder = Folder::new();
    let store = folder.open("runs.db");
    for _ in 0..250 {
        let epoch = store.join(Wall(1)).unwrap();
        store.leave(epoch, &InFlight::default(), Wall(50)).unwrap();
    }
    let kept = query(&*store, "SELECT count(*) FROM owners", &[]).unwrap().1.remove(0).remove(0);
    assert_eq!(kept, Cell::Int(100));
    assert_eq!(store.join(Wall(2)), Ok(Epoch(251)));
}

#[test]
fn who_keeps_runs_while_leaving_counts_as_living_until_the_end() {
    let folder = Folder::new();
    let store = folder.open("runs.db");
    let (first, second) = (store.join(Wall(1)).unwrap(), store.join(Wall(2)).unwrap());
    started(&*store, first, new_run(1));
    let remnant = store
        .leave(first, &InFlight { runs: vec![id(1)], triggers: vec![], ends: vec![] }, Wall(50))
        .unwrap()
        .expect("something is kept");
    let left = Siblings { departed: Some(first), draining: vec![remnant], ..beside(remnant) };
    assert_eq!(store.bury(second), Ok(left));
    assert_eq!(store.leave(remnant, &InFlight::default(), Wall(51)), Ok(None));
    assert_eq!(store.bury(second), Ok(Siblings { departed: Some(remnant), ..Siblings::default() }));
}

#[test]
fn who_waits_behind_others_for_a_locked_file_waits_no_longer_than_alone() {
    let folder = Folder::new();
    let store = folder.open("runs.db");
    let epoch = store.join(Wall(1)).unwrap();
    let outsider = Connection::open(folder.path("runs.db")).unwrap();
    outsider.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waited = || {
        let began = Instant::now();
        assert!(matches!(store.stand_by(epoch), Err(Fault::Passing(text)) if text.contains("is locked")));
        began.elapsed()
    };
    let alone = waited();
    let together = thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(waited)).collect();
        all.into_iter().map(|one| one.join().unwrap()).max().unwrap()
    });
    assert!(together < alone * 3 / 2, "{together:?} of four at once, {alone:?} of one");
    outsider.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.stand_by(epoch), Ok(()));
    outsider.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(waited() > alone / 2, "it waits again once the file was free");
}
