//! What becomes of a store on PostgreSQL when its connections are lost, or the answer to a commit. Invariant of all of it: what was asked once is
//! there once, and what was told is there.

#[path = "support/postgres.rs"]
mod server;
#[path = "support/records.rs"]
mod support;
#[path = "support/way.rs"]
mod way;

use std::env;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cloaca_core::port::{
    Admitted, Change, Fault, InFlight, Outcomes, Receipt, RunChange, RunEnd, RunFilter, RunStatus, Store,
    WorkflowRow,
};
use cloaca_core::time::Wall;
use server::Database;
use support::*;
use way::{Loss, Way};

/// How many commits lose their answers; `CLOACA_LOSSES` makes it more.
fn losses() -> u128 {
    env::var("CLOACA_LOSSES").ok().and_then(|number| number.parse().ok()).unwrap_or(20)
}

fn open(url: &str) -> Arc<dyn Store> {
    cloaca_store::open(url, None).unwrap().store
}

/// As the engine does it: what may pass is tried again as it was.
fn committed(store: &dyn Store, batch: &[Change]) -> Vec<Receipt> {
    for _ in 0..100 {
        match store.commit(batch) {
            Ok(receipts) => return receipts,
            Err(Fault::Passing(_)) => {}
            Err(Fault::Final(why)) => panic!("{why}"),
        }
    }
    panic!("it does not pass");
}

fn each_is_kept_once(loss: Loss) {
    let Some(database) = Database::new() else { return };
    let way = Way::to(database.socket());
    let store = open(&database.url_by(way.port()));
    let epoch = store.join(Wall(1)).unwrap();
    for number in 1..=losses() {
        way.lose(loss);
        let receipts = committed(&*store, &[start(epoch, new_run(number))]);
        let [Receipt::Start(fates)] = &receipts[..] else { panic!("{receipts:?}") };
        assert!(matches!(fates[..], [Admitted::Started { .. }]), "{fates:?}");
        assert!(way.has_lost(), "the commit went through without a loss");
    }
    assert_eq!(ids(&*store, &RunFilter::default()).len() as u128, losses());
    store.close();
}

#[test]
fn a_commit_whose_answer_is_lost_is_kept_once() {
    each_is_kept_once(Loss::Answer);
}

#[test]
fn a_commit_that_did_not_arrive_is_made_when_it_is_asked_for_again() {
    each_is_kept_once(Loss::Question);
}

#[test]
fn what_became_of_a_commit_is_told_later_whatever_was_written_since() {
    let Some(database) = Database::new() else { return };
    let way = Way::to(database.socket());
    let store = open(&database.url_by(way.port()));
    let epoch = store.join(Wall(1)).unwrap();
    let batch = [start(epoch, new_run(1))];
    way.lose(Loss::Answer);
    way.close();
    assert!(matches!(store.commit(&batch), Err(Fault::Passing(_))));
    way.open();
    store.name_owner(epoch, "nightly").unwrap();
    assert!(matches!(&store.commit(&batch).unwrap()[..], [Receipt::Start(fates)] if fates[0].is_kept()));
    assert_eq!(ids(&*store, &RunFilter::default()), [id(1)]);
    store.close();
}

#[test]
fn runs_of_a_claim_that_nobody_was_told_of_are_given_back() {
    let Some(database) = Database::new() else { return };
    let way = Way::to(database.socket());
    let store = open(&database.url_by(way.port()));
    let (first, second) = (store.join(Wall(1)).unwrap(), store.join(Wall(2)).unwrap());
    started(&*store, first, new_run(1));
    store.leave(first, &InFlight::default(), Wall(50)).unwrap();
    way.lose(Loss::Answer);
    way.close();
    let claim = || store.claim_runs(second, LATE, 10, &["mail".into()]);
    assert!(matches!(claim(), Err(Fault::Passing(_))));
    way.open();
    let claimed = claim().unwrap();
    assert_eq!((claimed.len(), claimed[0].id, claimed[0].interruptions), (1, id(1), 0));
    store.close();
}

#[test]
fn ends_that_nobody_was_told_of_as_they_were_handed_out_are_given_back() {
    let Some(database) = Database::new() else { return };
    let way = Way::to(database.socket());
    let store = open(&database.url_by(way.port()));
    let epoch = store.join(Wall(1)).unwrap();
    let tells = Outcomes::default().with(RunStatus::Cancelled);
    store.declare_workflows(epoch, &[WorkflowRow { tells, ..declares("mail", "v1") }], Wall(5)).unwrap();
    started(&*store, epoch, new_run(1));
    let row = store.run(id(1)).unwrap().unwrap().0.row;
    let end = RunEnd {
        status: RunStatus::Cancelled,
        completed_at: Wall(100),
        context: "{}".into(),
        error: None,
        error_type: None,
    };
    committed(&*store, &[Change::Run(RunChange { epoch, run: row, tasks: vec![], end: Some(end) })]);
    way.lose(Loss::Answer);
    way.close();
    let take = || store.take_ends(epoch, LATE, 10, &[]);
    assert!(matches!(take(), Err(Fault::Passing(_))));
    way.open();
    let ends = take().unwrap();
    assert_eq!(ends.iter().map(|end| (end.run, end.tries)).collect::<Vec<_>>(), [(id(1), 1)]);
    store.close();
}

#[test]
fn connections_that_were_cut_are_made_anew_and_nobody_notices() {
    let Some(database) = Database::new() else { return };
    let store = open(database.url());
    let epoch = store.join(Wall(1)).unwrap();
    started(&*store, epoch, new_run(1));
    database.cut();
    assert_eq!(ids(&*store, &RunFilter::default()), [id(1)]);
    database.cut();
    started(&*store, epoch, new_run(2));
    database.cut();
    assert!(store.declare_workflows(epoch, &[declares("mail", "v1")], Wall(5)).is_ok());
    assert_eq!(ids(&*store, &RunFilter::default()).len(), 2);
    store.close();
}

#[test]
fn nobody_is_dead_whose_connections_were_cut() {
    let Some(database) = Database::new() else { return };
    let (store, other) = (open(database.url()), open(database.url()));
    let (first, second) = (store.join(Wall(1)).unwrap(), other.join(Wall(2)).unwrap());
    started(&*store, first, new_run(1));
    database.cut();
    let siblings = other.bury(second).unwrap();
    assert_eq!((siblings.buried, siblings.living, siblings.is_buried), (0, vec![first], false));
    assert_eq!(store.bury(first).unwrap().buried, 0);
    store.leave(first, &InFlight::default(), Wall(3)).unwrap();
    assert_eq!(other.claim_runs(second, LATE, 10, &["mail".into()]).unwrap().len(), 1);
    store.close();
    other.close();
}

#[test]
fn who_cannot_say_that_it_lives_knows_so_before_others_do() {
    let Some(database) = Database::new() else { return };
    let way = Way::to(database.socket());
    let store = open(&database.url_by(way.port()));
    let epoch = store.join(Wall(1)).unwrap();
    assert!(!store.is_silent(epoch));
    way.close();
    while !store.is_silent(epoch) {
        // Again and again: a connection may have been on its way as the others were cut.
        database.cut();
        thread::sleep(Duration::from_millis(20));
    }
    way.open();
    while store.is_silent(epoch) {
        thread::sleep(Duration::from_millis(5));
    }
    store.close();
}
